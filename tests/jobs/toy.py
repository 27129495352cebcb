"""A job without a model, for what is about the machinery: `python -m tests.jobs.toy` is a driver that can be killed.

Faults lie in a folder as empty files, each of which happens once: ``kill-3`` takes the process down in unit 3,
``hang-3`` makes it sleep. While ``hold-3`` is there unit 3 shows life and waits. The text ``poison`` raises, the text
``deadly`` kills, each time.
"""

import hashlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

from actors.embedder import embedding_column
from actors.pool import PoolOptions
from actors.stages import Beat, Stopwatch
from actors.worker import UnitWorker
from jobs.unit_job import Location, UnitJob
from sbert_ray.data.dataset import Dataset, RowReader
from sbert_ray.data.manifest import Manifest, Record
from sbert_ray.data.rows import Rows
from sbert_ray.data.units import Unit


class ToyWorker(UnitWorker):
    """Turns each text into four numbers."""

    columns: Sequence[str] = ("id", "text")  # type: ignore[assignment]

    def __init__(self, reader: RowReader, output: str, notes: Path, seconds: float, scale: float) -> None:
        super().__init__(reader, output)
        self.notes = notes
        self.seconds = seconds
        self.scale = scale

    def process(self, unit: Unit, beat: Beat, excluded: Mapping[int, str] | None = None) -> Any:
        (self.notes / f"begun-{unit.index}-{os.getpid()}-{time.time_ns()}").touch()
        for fault, action in {"kill": self.die, "hang": partial(time.sleep, 600)}.items():
            if (marker := self.notes / f"{fault}-{unit.index}").exists():
                marker.unlink()
                action()
        while (self.notes / f"hold-{unit.index}").exists():
            beat(0)
            time.sleep(0.05)
        return super().process(unit, beat, excluded)

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def check(self, rows: Rows, excluded: Mapping[int, str], beat: Beat) -> Rows:
        reasons = {i: excluded[int(p)] for i, p in enumerate(rows.positions) if int(p) in excluded}
        nulls = {i: "the text is null" for i, text in enumerate(rows.table["text"].to_pylist()) if text is None}
        return rows.without(nulls | reasons, "id", {})

    def prepare(self, rows: Rows, beat: Beat, watch: Stopwatch) -> list[str]:
        return list(rows.table["text"].to_pylist())

    def compute(self, prepared: list[str], beat: Beat) -> NDArray[np.float32]:
        time.sleep(self.seconds)
        if "deadly" in prepared:
            self.die()
        if "poison" in prepared:
            raise ArithmeticError("a text is poison")
        beat(len(prepared))
        digests = b"".join(hashlib.blake2b(text.encode(), digest_size=4).digest() for text in prepared)
        return np.frombuffer(digests, np.uint8).reshape(-1, 4).astype(np.float32) * self.scale

    def table(self, unit: Unit, rows: Rows, result: NDArray[np.float32]) -> pa.Table:
        return pa.table({"id": rows.table["id"], "embedding": embedding_column(result)})

    def stats(self, rows: Rows, prepared: list[str], result: NDArray[np.float32]) -> dict[str, Any]:
        counts = {"tokens": 2 * len(rows), "computed_tokens": 2 * len(rows), "padded_tokens": 3 * len(rows)}
        return counts | {"token_lengths": [len(rows)]}

    def quarantine(self, rows: Rows, reasons: Mapping[int, str]) -> Rows:
        texts = rows.table["text"].to_pylist()
        return rows.without(reasons, "id", {index: texts[index] for index in reasons})


class ToyJob(UnitJob):
    """Embed texts without a model."""

    command: ClassVar[str] = "toy"

    notes: Location = Field(description="folder of faults, and of a file per begun unit")
    seconds: float = Field(default=0.0, description="time that a unit takes")
    scale: float = Field(default=1.0, description="a setting that changes results")

    def open_dataset(self) -> Dataset:
        return Dataset.open(self.input, ["text"], ["id"])

    def settings(self) -> dict[str, Any]:
        return {"text_column": ["text"], "id_column": "id", "scale": self.scale}

    def worker(self, reader: RowReader, options: PoolOptions, facts: dict[str, Any]) -> Callable[[], UnitWorker]:
        return partial(ToyWorker, reader, self.output, Path(self.notes), self.seconds, self.scale)

    def describe_model(self) -> dict[str, Any]:
        names = ("name", "revision", "dimension", "pooling", "normalize", "precision", "prompt", "max_seq_length")
        return dict.fromkeys(names)

    def begun(self) -> list[int]:
        """Units that were begun, as often as they were."""
        return sorted(int(path.name.split("-")[1]) for path in Path(self.notes).glob("begun-*"))

    def outputs(self) -> dict[str, str]:
        """Checksums of the data files."""
        return digests(self.output)


def digests(output: str) -> dict[str, str]:
    """Return the checksum of each data file, and see that nothing half-written lies there."""
    folder = Path(output) / "data"
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def write_corpus(folder: Path, num_rows: int = 100, odd: Mapping[int, str | None] | None = None) -> Path:
    """Write two Parquet files of texts; those at the indices in ``odd`` are replaced."""
    folder.mkdir(parents=True)
    texts = [(odd or {}).get(index, f"text number {index}") for index in range(num_rows)]
    half = num_rows // 2
    for name, part in {"a": range(half), "b": range(half, num_rows)}.items():
        table = pa.table({"id": [f"id-{i}" for i in part], "text": pa.array([texts[i] for i in part], pa.string())})
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=20)
    return folder


def die_as_told(when: str) -> None:
    """Make the driver kill itself: ``before-append 3`` as it is about to commit its third unit, ``after-append 3``."""
    point, _, number = when.partition(" ")
    count = 0

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def append(manifest: Manifest, records: list[Record]) -> None:
        nonlocal count
        count += 1
        if point == "before-append" and count == int(number):
            kill()
        original(manifest, records)
        if point == "after-append" and count == int(number):
            kill()

    original = Manifest.append
    Manifest.append = append  # type: ignore[assignment, method-assign]
    if point == "before-success":
        Manifest.succeed = lambda _: kill()  # type: ignore[method-assign]
    if point == "after-success":
        succeed = Manifest.succeed
        Manifest.succeed = lambda manifest: (succeed(manifest), kill())  # type: ignore[method-assign]
    if point == "before-work":
        Manifest.clean = lambda _: kill()  # type: ignore[method-assign]


if __name__ == "__main__":
    if "DIE" in os.environ:
        die_as_told(os.environ["DIE"])
    ToyJob.main()
