"""The process of one side of a benchmark: it loads a model, then answers each line of stdin with a line of stdout.

A request is a JSON object with ``do``, the name of a method of `Worker`, and its arguments; so is the reply, or it has
an ``error``. Each side has a process of its own, so that it can have its own virtual environment, and so that CPU time
and memory are its own. Until told what to load, this imports nothing but the standard library and numpy.
"""

import ctypes
import gc
import importlib.metadata
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

PACKAGES = (
    "sbert-ray",
    "sentence-transformers",
    "transformers",
    "tokenizers",
    "torch",
    "numpy",
    "optimum-onnx",
    "optimum-intel",
    "onnxruntime",
    "openvino",
    "nncf",
    "fastembed",
)
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Job:
    """What all sides of a benchmark do."""

    task: str
    """``encode``, ``predict`` or ``encode_sparse``."""
    model: str
    """The folder of a checkpoint."""
    threads: int = 1
    cache: str = ""
    """A folder for what is made of the model, once for all runs."""
    calibration: list[str] = field(default_factory=list)
    """Texts for sides that quantize activations."""


class Shapes(NamedTuple):
    """How texts were cut into batches."""

    lengths: list[int]
    """Tokens of each text, in any order."""
    num_positions: int
    """Token positions computed, padding included."""


Groups = list[list[Any]]
"""Inputs; each list is given to the model in one call."""


class Loaded(Protocol):
    """A model of some library."""

    def run(self, groups: Groups, batch_size: int | None) -> list[Any]:
        """Return what the model makes of each group; a batch size of None is the library's own choice."""

    def shapes(self) -> Shapes:
        """Return how the last run cut the inputs into batches."""

    def array(self, outputs: list[Any]) -> NDArray[np.float32]:
        """Return what `run` returned as one dense array, in the order of the inputs."""


Loader = Callable[..., Loaded]
"""Loads the model of a job, with further options."""


class Worker:
    """Does what is asked for; each method returns what JSON can hold."""

    def __init__(self, loaders: Mapping[str, Loader]) -> None:
        self._loaders = loaders
        self._loaded: Loaded
        self._groups: Groups = []
        self._resting = 0

    def load(self, loader: str, options: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
        """Load the model."""
        self._loaded = self._loaders[loader](Job(**job), **options)
        self._resting = _resting_memory()
        return {"versions": _versions()}

    def give(self, groups: Groups) -> dict[str, Any]:
        """Take inputs."""
        self._groups = groups
        return {}

    def run(self, batch_size: int | None = None) -> dict[str, Any]:
        """Run once: the CPU seconds of all threads."""
        start = time.process_time()
        self._loaded.run(self._groups, batch_size)
        return {"seconds": time.process_time() - start}

    def inspect(self, path: str, batch_size: int | None = None) -> dict[str, Any]:
        """Run once, and write the outputs as a .npy file.

        Returns:
            How inputs were cut into batches, and the peak of memory above that of the loaded model, None where the
            system does not tell.
        """
        peak_bytes = None
        _resting_memory()
        if CLEAR.exists():
            CLEAR.write_text("5")  # resets VmHWM
        outputs = self._loaded.run(self._groups, batch_size)
        if CLEAR.exists():
            peak_bytes = max(_memory("VmHWM") - self._resting, 0)
        np.save(path, self._loaded.array(outputs))
        return {"peak_bytes": peak_bytes, **self._loaded.shapes()._asdict()}

    def profile(self, batch_size: int | None = None) -> dict[str, Any]:
        """Run once under torch's profiler: the wall-clock seconds in each operator, and of the whole run."""
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            start = time.perf_counter()  # as the profiler does
            self._loaded.run(self._groups, batch_size)
            seconds = time.perf_counter() - start
        events = [event for event in profiler.key_averages() if event.self_cpu_time_total]
        return {"seconds": seconds, "operators": {event.key: event.self_cpu_time_total / 1e6 for event in events}}


def serve(loaders: Mapping[str, Loader]) -> None:
    """Answer requests until stdin ends."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not get between the replies
    worker = Worker(loaders)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = getattr(worker, request.pop("do"))(**request)
        except Exception as error:  # noqa: BLE001 (the parent decides what a side that fails means)
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")


def _resting_memory() -> int:
    """Return the memory in use, after the allocator has given back what it keeps for later; 0 if not on Linux."""
    gc.collect()
    if not CLEAR.exists():
        return 0
    ctypes.CDLL(None).malloc_trim(0)
    return _memory("VmRSS")


def _memory(field_name: str) -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{field_name}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{STATUS} lacks {field_name}")


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    from benchmarks.loaders import LOADERS

    serve(LOADERS)
