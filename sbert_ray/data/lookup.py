"""Texts by id, from a dataset that need not fit into memory: read once on each machine, kept on its disk.

DIGEST/hashes.npy    hash of each id, ascending
DIGEST/rows.npy      where in `offsets` the id with that hash is
DIGEST/offsets.npy   where each id and each text begins in `bytes`: id 0, text 0, id 1, ...
DIGEST/bytes         ids and texts, one after the other
DIGEST.lock          shared by those who use the folder, held alone by who makes or removes it
DIGEST.making        the folder before it is whole
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
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

logger = logging.getLogger(__name__)

ROWS_PER_READ = 8192
POLL_SECONDS = 0.5
SIZES = "sizes.json"
"""The file that is written last, with the sizes of the others."""

Beat = Callable[[int], None]


@dataclass(frozen=True)
class LookupSource:
    """A dataset of texts with ids; small enough to travel to the workers.

    Args:
        reader: reads its units.
        files: all of them.
        id_column: each id once.
        text_column: the texts.
        digest: changes when the files do.
    """

    reader: RowReader
    files: tuple[str, ...]
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
        names = tuple(file.name for file in dataset.files)
        return cls(dataset.reader(ROWS_PER_READ), names, id_column, text_column, digest)

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        return [self.id_column, self.text_column]

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
        _check_own(base)
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
        return _mapped(self.folder / "bytes")

    def open(self, beat: Beat) -> None:
        """Make sure that the texts are on this machine.

        Raises:
            InputError: if an id occurs twice in the dataset, or a text is no valid UTF-8.
        """
        if self._lock is not None:
            return
        path = self.folder.with_suffix(".lock")
        with ExitStack() as stack:
            lock = stack.enter_context(path.open("ab"))
            # Who uses the texts shares the lock, who makes or removes them has it alone.
            while not (_locked(lock, fcntl.LOCK_SH) and _is_at(path, lock) and _is_whole(self.folder)):
                if not _is_at(path, lock):  # the last one that used the texts has removed it
                    stack.close()
                    lock = stack.enter_context(path.open("ab"))
                elif not _locked(lock, fcntl.LOCK_EX):
                    beat(0)
                    time.sleep(POLL_SECONDS)
                elif _is_at(path, lock) and not _is_whole(self.folder):
                    shutil.rmtree(self.folder, ignore_errors=True)  # of which something has removed a part
                    self._make(beat)
            self._lock = lock
            stack.pop_all()  # it stays open

    def _make(self, beat: Beat) -> None:
        making = self.folder.with_suffix(".making")
        shutil.rmtree(making, ignore_errors=True)  # whoever began it was killed, since we have the lock alone
        making.mkdir()
        try:
            _build(self.source, making, beat, self._name)
            making.rename(self.folder)
        finally:
            shutil.rmtree(making, ignore_errors=True)

    def close(self) -> None:
        """Remove the texts from this machine, unless another process uses them."""
        if self._lock is None:
            return
        path = self.folder.with_suffix(".lock")
        fcntl.flock(self._lock, fcntl.LOCK_UN)  # first, or else of two that end at once each would wait for the other
        if _locked(self._lock, fcntl.LOCK_EX) and _is_at(path, self._lock):
            # The file that says that all is there goes first: whoever is killed half-way leaves nothing to trust.
            (self.folder / SIZES).unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)
            path.unlink(missing_ok=True)
        self._lock.close()
        self._lock = None


def _key(value: object) -> bytes:
    return value if isinstance(value, bytes) else repr(value).encode()


def _locked(file: IO[bytes], kind: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(file, kind | fcntl.LOCK_NB)
        return True
    return False


def _is_at(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _check_own(folder: Path) -> None:
    """Make sure that nobody else can put texts into a folder, which may lie where everybody writes."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise InputError(f"{folder} must be a folder of this user's alone, mode 700; remove it, or give another TMPDIR")


def _is_whole(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / SIZES).read_text())
        return bool(sizes == {name: (folder / name).stat().st_size for name in sizes})
    except (FileNotFoundError, ValueError):
        return False


def _mapped(file: Path) -> NDArray[np.uint8]:
    return np.memmap(file, np.uint8, "r") if file.stat().st_size else np.empty(0, np.uint8)


def _build(source: LookupSource, folder: Path, beat: Beat, name: str) -> None:
    logger.info("reading the texts of %s to this machine", source.where)
    numbers: list[NDArray[np.uint64]] = []
    lengths: list[NDArray[np.int64]] = []
    with (folder / "bytes").open("wb") as file:
        for rows in (rows for name in source.files for rows in source.reader.stream(name, source.columns)):
            texts, invalid = strings(rows.table[source.text_column])
            if invalid or rows.bad:
                reason = next(iter(invalid.values()), None) or rows.bad[0].reason
                raise InputError(f"{source.where}: {rows.file} holds a text that cannot be read: {reason}")
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
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    (folder / SIZES).write_text(json.dumps(sizes))
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _alternating(keys: Sequence[bytes], texts: Sequence[bytes]) -> list[bytes]:
    return [item for pair in zip(keys, texts, strict=True) for item in pair]


def _check_unique(
    found: NDArray[np.uint64], order: NDArray[np.int64], offsets: NDArray[np.int64], file: Path, name: str
) -> None:
    content = _mapped(file)
    for index in np.flatnonzero(found[1:] == found[:-1]):
        keys = [content[offsets[2 * row] : offsets[2 * row + 1]].tobytes() for row in order[index : index + 2]]
        if keys[0] == keys[1]:
            shown = keys[0].decode(errors="replace")
            raise InputError(f"{name} must hold each id once, and has {shown!r} twice; take one of them out")
