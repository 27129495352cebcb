"""Copies of a model in processes of their own, one for each of several devices.

Processes are spawned, so a script that starts them needs ``if __name__ == "__main__":`` around what it does.
"""

import itertools
import os
import pickle
import queue
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypedDict

import torch
from torch import nn

from sbert_ray.inference.threads import limit_threads

NUM_CPU_PROCESSES = 4
LARGEST_CHUNK = 5000
POLL_SECONDS = 1.0
END_SECONDS = 10.0

_calls = itertools.count()


class Pool(TypedDict):
    """Processes that each hold a model, and the queues to and from them; it serves one call at a time."""

    input: Any
    output: Any
    processes: list[Any]


def start_pool(model: nn.Module, devices: Sequence[str] | None) -> Pool:
    """Start a process for each device; the model moves to the CPU, from where they share its weights.

    Args:
        model: Has an ``encode``.
        devices: Torch devices, one may come several times; every GPU if None, or else four times the CPU.

    Raises:
        ValueError: There are none.
    """
    if devices is None:
        devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cpu"] * NUM_CPU_PROCESSES
    if not devices:
        raise ValueError("target_devices must name at least one device, got none")
    num_threads = max((os.cpu_count() or 1) // len(devices), 1)
    context: Any = torch.multiprocessing.get_context("spawn")
    pool = Pool(input=context.Queue(), output=context.Queue(), processes=[])
    model.to("cpu").share_memory()
    for device in map(str, devices):
        arguments = (device, num_threads if device == "cpu" else None, model, pool["input"], pool["output"])
        pool["processes"].append(context.Process(target=_serve, args=arguments, daemon=True))
    for process in pool["processes"]:
        process.start()
    return pool


def stop_pool(pool: Pool) -> None:
    """End the processes of a pool."""
    for process in pool["processes"]:
        process.terminate()
    for process in pool["processes"]:
        process.join(END_SECONDS)
        process.close()
    for name in ("input", "output"):
        pool[name].cancel_join_thread()  # nobody reads what may still lie in it
        pool[name].close()


def encode_in_pool(
    pool: Pool,
    inputs: Sequence[Any],
    chunk_size: int | None,
    options: Mapping[str, Any],
    on_chunk: Callable[[int], None],
    method: str = "encode",
) -> list[Any]:
    """Return what the model does for each chunk of inputs, in order.

    Args:
        pool: One that runs.
        inputs: N texts, or what else the model takes.
        chunk_size: Inputs that a process gets at a time; None makes ten chunks per process.
        options: Arguments of the method.
        on_chunk: Called with the number of inputs after each chunk.
        method: Name of the model's method.

    Raises:
        RuntimeError: A process failed or died.
        ValueError: ``chunk_size`` is not positive, or an option cannot be sent to another process.
    """
    if chunk_size is None:
        chunk_size = min(max(-(-len(inputs) // (10 * len(pool["processes"]))), 1), LARGEST_CHUNK)
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be positive, got {chunk_size}")
    try:
        pickle.dumps(dict(options))  # what cannot be pickled would get lost on its way, and be waited for
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(f"{method} in other processes needs arguments that they can import: {error}") from error
    call = next(_calls)
    starts = range(0, len(inputs), chunk_size)
    for number, start in enumerate(starts):
        pool["input"].put((call, number, start, method, list(inputs[start : start + chunk_size]), dict(options)))
    results: list[Any] = [None] * len(starts)
    for number, result in itertools.islice(_answers(pool, call), len(starts)):
        results[number] = result
        on_chunk(len(result))
    return results


def _answers(pool: Pool, wanted: int) -> Iterator[tuple[int, Any]]:
    while True:
        try:
            call, number, result, failure = pool["output"].get(timeout=POLL_SECONDS)
        except queue.Empty:
            if dead := [process for process in pool["processes"] if not process.is_alive()]:
                codes = [process.exitcode for process in dead]
                message = f"{len(dead)} process(es) of the pool died, with exit code(s) {codes}; start another pool"
                raise RuntimeError(message) from None
            continue
        if call != wanted:
            continue  # an earlier call failed and did not wait for it
        if failure:
            _forget_chunks(pool)
            raise RuntimeError(f"a process of the pool failed:\n{failure}")
        yield number, result


def _forget_chunks(pool: Pool) -> None:
    while True:
        try:
            pool["input"].get(timeout=0.1)
        except queue.Empty:
            return


def _serve(device: str, num_threads: int | None, model: Any, inputs: Any, outputs: Any) -> None:
    if num_threads is not None:
        limit_threads(num_threads)
    model.to(device)
    while True:
        call, number, start, method, chunk, options = inputs.get()
        try:
            outputs.put((call, number, _on_cpu(getattr(model, method)(chunk, **options)), None))
        except Exception:  # noqa: BLE001 - whatever it is, the caller is told
            outputs.put((call, number, None, f"on {device}, with inputs from row {start} on: {traceback.format_exc()}"))


def _on_cpu(result: Any) -> Any:
    """Return a result as another process can take it: arrays instead of tensors, which know no bfloat16."""
    if isinstance(result, (list, tuple)):
        return type(result)(_on_cpu(item) for item in result)
    if isinstance(result, dict):
        return {name: _on_cpu(item) for name, item in result.items()}
    if isinstance(result, torch.Tensor):
        return (result.float() if result.dtype == torch.bfloat16 else result).cpu().numpy()
    return result
