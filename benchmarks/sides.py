"""What is compared: the libraries, each in a process of its own, driven one request at a time."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.child import Job

# Here and in all children, unless the user knows better: on some machines oneDNN's AMX kernels kill the process.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")

ROOT = Path(__file__).parents[1]
PEERS = Path(os.environ.get("SBERT_RAY_PEERS", ROOT / ".peers"))
"""Virtual environments of peers that ours cannot hold, as peers.sh makes them."""
STDERR_LINES = 3


class SideFailedError(RuntimeError):
    """A side cannot be measured: it is not installed, or fails."""


@dataclass(frozen=True)
class Side:
    """One of the libraries that are compared, and how it is set up."""

    name: str
    """What tables call it."""
    loader: str
    """Of `benchmarks.loaders`."""
    environment: str | None = None
    """Which of the virtual environments of `PEERS` it runs in; the one of this process if None."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of the loader."""
    is_tuned: bool = False
    """Whether it gets the batch size that is fastest on the texts, instead of the library's own choice."""
    is_ours: bool = False
    command: tuple[str, ...] = ("-m", "benchmarks.child")
    """What Python runs."""

    @property
    def python(self) -> Path:
        """The interpreter."""
        return PEERS / self.environment / "bin" / "python" if self.environment else Path(sys.executable)


class Child:
    """A running side.

    Args:
        side: The side.
        job: What it is to do.

    Raises:
        SideFailedError: It is not installed, or cannot load the model.
    """

    def __init__(self, side: Side, job: Job) -> None:
        if not side.python.exists():
            raise SideFailedError(f"{side.name} is not installed: run benchmarks/peers.sh ({side.python} is absent)")
        self.side = side
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 (`close` does)
        self._process = subprocess.Popen(
            [str(side.python), *side.command],
            cwd=ROOT,
            env=_environment(job.threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )
        try:
            loaded = self.ask("load", loader=side.loader, options=side.options, job=asdict(job))
        except SideFailedError:
            self.close()
            raise
        self.versions: dict[str, str] = loaded["versions"]

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Return the reply to a request; nothing else runs meanwhile.

        Raises:
            SideFailedError: The request failed, or the process died.
        """
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise SideFailedError(f"{self.side.name} died at {do!r}: {self._last_words()}") from None
        line = self._process.stdout.readline()
        if not line:
            raise SideFailedError(f"{self.side.name} died at {do!r}: {self._last_words()}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise SideFailedError(f"{self.side.name} failed at {do!r}: {reply['error']}")
        return reply

    def run(self, batch_size: int | None) -> float:
        """Return the CPU seconds of a run."""
        return float(self.ask("run", batch_size=batch_size)["seconds"])

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        assert self._process.stdout
        with suppress(BrokenPipeError):  # a dead process takes no more
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _last_words(self) -> str:
        code = self._process.wait()
        self._stderr.seek(0)
        lines = [line.strip() for line in self._stderr.read().splitlines() if line.strip()]
        if code == -signal.SIGILL:
            return "SIGILL, as on machines that claim AMX and do not have it: set ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16"
        return f"exit code {code}; {' | '.join(lines[-STDERR_LINES:])}"


def _environment(threads: int) -> dict[str, str]:
    """Return the environment of a child: ours, a limit on threads, and no network."""
    number = str(threads)
    limits = {f"{name}_NUM_THREADS": number for name in ("OMP", "MKL", "OPENBLAS", "RAYON")}
    return {
        **os.environ,
        **limits,
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONPATH": str(ROOT),
    }


def with_options(side: Side, options: dict[str, Any], suffix: str = "") -> Side:
    """Return a side with further options of its loader, and something after its name."""
    return replace(side, name=f"{side.name}{suffix}", options={**side.options, **options})


OURS = {
    "float32": Side("sbert_ray", "sbert_ray", is_ours=True),
    "int8": Side("sbert_ray int8", "sbert_ray", options={"dtype": "int8"}, is_ours=True),
    "bfloat16": Side("sbert_ray bfloat16", "sbert_ray", options={"dtype": "bfloat16"}, is_ours=True),
}
"""Ours by precision."""

REFERENCE = Side("sentence-transformers", "torch")
"""What everything is compared with: the peer as it is by default."""

TUNED = Side("sentence-transformers, best batch size", "torch", is_tuned=True)

ENCODE_PEERS = {
    "torch": [TUNED],
    "bfloat16": [Side("sentence-transformers bfloat16", "torch", options={"dtype": "bfloat16"}, is_tuned=True)],
    "onnx": [
        Side("sentence-transformers, ONNX", "onnx", "onnx", is_tuned=True),
        Side("sentence-transformers, ONNX int8", "onnx", "onnx", {"precision": "int8"}, is_tuned=True),
    ],
    "openvino": [
        Side("sentence-transformers, OpenVINO", "openvino", "openvino", is_tuned=True),
        Side("sentence-transformers, OpenVINO int8", "openvino", "openvino", {"precision": "int8"}, is_tuned=True),
    ],
    "fastembed": [Side("fastembed", "fastembed", "fastembed", is_tuned=True)],
}
"""Peers of `encode`, besides the reference."""
