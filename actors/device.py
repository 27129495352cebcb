"""How a device fails, as opposed to what is computed on it."""

from collections.abc import Iterator
from contextlib import contextmanager

FULL_DEVICE = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""How libraries of CUDA say that memory runs out, where it is not torch that allocates."""


class BrokenDeviceError(RuntimeError):
    """The device fails every call of this process from now on, as after an assertion in a CUDA kernel."""


class DeviceMemoryError(OSError):
    """The device has no memory left, be it for a while, since others may share it; that is for the pool to find out."""


@contextmanager
def device_errors() -> Iterator[None]:
    """Tell failures of the device in the block from those of what it computes.

    Raises:
        DeviceMemoryError: instead of an error that says that its memory runs out.
        BrokenDeviceError: instead of one after which it is of no more use.
    """
    try:
        yield
    except Exception as error:
        if _is_out_of_memory(error):
            hint = "lower --max-batch-tokens, or give the worker a device of its own"
            raise DeviceMemoryError(f"the device is out of memory; {hint}: {error}") from error
        if "CUDA error" in str(error):
            raise BrokenDeviceError(str(error)) from error
        raise


def _is_out_of_memory(error: Exception) -> bool:
    kinds = {kind.__name__ for kind in type(error).__mro__}  # by name, since drivers know no torch
    return "OutOfMemoryError" in kinds or any(sign in str(error) for sign in FULL_DEVICE)
