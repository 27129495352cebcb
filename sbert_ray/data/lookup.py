"""Texts by id, from a dataset that need not fit into memory: read once on each machine, kept on its disk.

lookup/hashes.npy    hash of each id, ascending
lookup/rows.npy      where in `offsets` the id with that hash is
lookup/offsets.npy   where each id and each text begins in `bytes`: id 0, text 0, id 1, ...
lookup/bytes         ids and texts, one after the other
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sbert_ray.data.dataset import Dataset, RowReader
from sbert_ray.data.errors import InputError
from sbert_ray.data.kinds import comparable, hashes
from sbert_ray.data.rows import strings
from sbert_ray.data.storage import redacted
from sbert_ray.data.units import Unit

logger = logging.getLogger(__name__)

ROWS_PER_READ = 8192
POLL_SECONDS = 0.5

Beat = Callable[[int], None]


@dataclass(frozen=True)
class LookupSource:
    """A dataset of texts with ids; small enough to travel to the workers.

    Args:
        reader: reads its units.
        units: all of them.
        id_column: each id once.
        text_column: the texts.
        digest: changes when the files do.
    """

    reader: RowReader
    units: tuple[Unit, ...]
    id_column: str
    text_column: str
    digest: str

    @classmethod
    def of(cls, url: str, id_column: str, text_column: str) -> "LookupSource":
        """Open a dataset and check its columns.

        Raises:
            InputError: if it cannot be read, or lacks them.
        """
        dataset = Dataset.open(url, [text_column], [id_column])
        files = json.dumps([file.described() for file in dataset.files], sort_keys=True)
        digest = hashlib.sha256(f"{id_column}\0{text_column}\0{files}".encode()).hexdigest()
        units = tuple(dataset.units(ROWS_PER_READ))
        return cls(dataset.reader(ROWS_PER_READ), units, id_column, text_column, digest)

    @property
    def where(self) -> str:
        """What to call it in messages."""
        return redacted(self.reader.url)

    @property
    def id_type(self) -> pa.DataType:
        """The type of the ids."""
        return self.reader.schema.field(self.id_column).type


class TextLookup:
    """Finds texts by their ids.

    The first process of a machine that needs it reads the dataset, others wait for it; the last one to end removes
    what was kept. If all of them are killed it stays, and the next run with the same dataset uses it.

    Args:
        source: the dataset.
        folder: where it is kept, on a local disk with room for all texts; None: the system's folder for such files.
    """

    def __init__(self, source: LookupSource, folder: str | None = None) -> None:
        self.source = source
        base = Path(folder or tempfile.gettempdir()) / f"sbert-ray-lookups-{os.getuid()}"
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = base / source.digest[:32]
        self._lock: IO[bytes] | None = None

    def texts(self, ids: pa.ChunkedArray, beat: Beat) -> tuple[list[str | None], dict[int, str]]:
        """Return the text of each id, None where it is null or there is none, and why, by index.

        Args:
            ids: N ids, of the type that the dataset has them in.
            beat: called now and then, as a sign of life.

        Raises:
            InputError: if an id occurs twice in the dataset, or a text is no valid UTF-8.
        """
        self.open(beat)
        found: dict[bytes, str | None] = {}
        faults: dict[int, str] = {}
        texts: list[str | None] = []
        keys = [_key(value) for value in comparable(ids).to_pylist()]
        for index, (key, number) in enumerate(zip(keys, hashes(ids), strict=True)):
            if key not in found:
                found[key] = self._find(key, number)
            texts.append(found[key])
            if found[key] is None:
                faults[index] = f"{ids[index].as_py()!r} is not in {self._name}, or its text is null"
        return texts, faults

    @property
    def _name(self) -> str:
        return f"column {self.source.id_column!r} of {self.source.where}"

    def _find(self, key: bytes, number: np.uint64) -> str | None:
        first = int(np.searchsorted(self._hashes, number))
        for row in self._rows[first:]:
            if self._hashes[first] != number:
                return None
            first += 1
            id_at, text_at, end = (int(offset) for offset in self._offsets[2 * row : 2 * row + 3])
            if self._bytes[id_at:text_at].tobytes() == key:
                return self._bytes[text_at:end].tobytes().decode()
        return None

    @cached_property
    def _hashes(self) -> NDArray[np.uint64]:
        array: NDArray[np.uint64] = np.load(self.folder / "hashes.npy", mmap_mode="r")
        return array

    @cached_property
    def _rows(self) -> NDArray[np.int64]:
        array: NDArray[np.int64] = np.load(self.folder / "rows.npy", mmap_mode="r")
        return array

    @cached_property
    def _offsets(self) -> NDArray[np.int64]:
        array: NDArray[np.int64] = np.load(self.folder / "offsets.npy", mmap_mode="r")
        return array

    @cached_property
    def _bytes(self) -> NDArray[np.uint8]:
        return np.memmap(self.folder / "bytes", np.uint8, "r")

    def open(self, beat: Beat) -> None:
        """Make sure that the texts are on this machine.

        Raises:
            InputError: if an id occurs twice in the dataset, or a text is no valid UTF-8.
        """
        if self._lock is not None:
            return
        with ExitStack() as stack:
            lock = stack.enter_context(self.folder.with_suffix(".lock").open("ab"))
            # Who uses the texts shares the lock, who makes or removes them has it alone.
            while not (_locked(lock, fcntl.LOCK_SH) and self.folder.exists()):
                if not _locked(lock, fcntl.LOCK_EX):
                    beat(0)
                    time.sleep(POLL_SECONDS)
                elif not self.folder.exists():
                    with _made_whole(self.folder) as folder:
                        _build(self.source, folder, beat, self._name)
            self._lock = lock
            stack.pop_all()  # it stays open

    def close(self) -> None:
        """Remove the texts from this machine, unless another process uses them."""
        if self._lock is None:
            return
        if _locked(self._lock, fcntl.LOCK_EX):
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()
        self._lock = None


def _key(value: object) -> bytes:
    return value if isinstance(value, bytes) else repr(value).encode()


def _locked(file: IO[bytes], kind: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(file, kind | fcntl.LOCK_NB)
        return True
    return False


@contextmanager
def _made_whole(folder: Path) -> Iterator[Path]:
    """Give an empty folder that becomes ``folder`` if the block ends well, and vanishes if not."""
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as name:
        made = Path(name) / "made"
        made.mkdir()
        yield made
        made.rename(folder)


def _build(source: LookupSource, folder: Path, beat: Beat, name: str) -> None:
    logger.info("reading the texts of %s to this machine", source.where)
    numbers: list[NDArray[np.uint64]] = []
    lengths: list[NDArray[np.int64]] = []
    with (folder / "bytes").open("wb") as file:
        for unit in source.units:
            for rows in source.reader.read(unit, [source.id_column, source.text_column]):
                texts, invalid = strings(rows.table[source.text_column])
                if invalid or rows.bad:
                    reason = next(iter(invalid.values()), None) or rows.bad[0].reason
                    raise InputError(f"{source.where}: {unit} holds a text that cannot be read: {reason}")
                present = np.array([text is not None for text in texts], dtype=bool)
                ids = rows.table[source.id_column].filter(pa.array(present))
                keys = [_key(value) for value in comparable(ids).to_pylist()]
                items = _alternating(keys, [text.encode() for text in texts if text is not None])
                file.write(b"".join(items))
                lengths.append(np.fromiter(map(len, items), np.int64, len(items)))
                numbers.append(hashes(ids))
                beat(0)
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    found = np.concatenate(numbers)
    order = np.argsort(found, kind="stable")
    found = found[order]
    _check_unique(found, order, offsets, folder / "bytes", name)
    for stem, array in {"hashes": found, "rows": order.astype(np.int64), "offsets": offsets}.items():
        np.save(folder / f"{stem}.npy", array)


def _alternating(keys: Sequence[bytes], texts: Sequence[bytes]) -> list[bytes]:
    return [item for pair in zip(keys, texts, strict=True) for item in pair]


def _check_unique(
    found: NDArray[np.uint64], order: NDArray[np.int64], offsets: NDArray[np.int64], file: Path, name: str
) -> None:
    content = np.memmap(file, np.uint8, "r") if offsets[-1] else np.empty(0, np.uint8)
    for index in np.flatnonzero(found[1:] == found[:-1]):
        keys = [content[offsets[2 * row] : offsets[2 * row + 1]].tobytes() for row in order[index : index + 2]]
        if keys[0] == keys[1]:
            shown = keys[0].decode(errors="replace")
            raise InputError(f"{name} must hold each id once, and has {shown!r} twice; take one of them out")
