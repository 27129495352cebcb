"""The manifest of an output: what was planned, and what is done. What is not in it does not exist for readers.

_manifest/plan.json              input files, settings that change results, and a digest of both
_manifest/records-000000.jsonl   one line per committed unit
_manifest/NAME.json              facts found before the first unit, such as calibration ranges
_SUCCESS                         everything that was planned is there
data/part-00000000.parquet       what the units became
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, ClassVar, Self

from sbert_ray.data.errors import InputError, PlanChangedError
from sbert_ray.data.storage import Storage, redacted
from sbert_ray.data.units import quarantine_file

FORMAT = 1
SEGMENT = 256
"""Records per file: each commit writes the last file anew, so files stay small and few."""
SHOWN = 5


@dataclass(frozen=True)
class Plan:
    """What makes two runs the same run: equal input files and equal settings.

    Args:
        job: name of the job.
        settings: every setting that changes results, as JSON can hold it.
        files: name, size, identity and rows of each input file, in order; where they lie does not matter.
        num_units: units of work in all.
        input: where the files were, kept without credentials; not part of the fingerprint, since a dataset may move.
    """

    job: str
    settings: Mapping[str, Any]
    files: list[dict[str, Any]]
    num_units: int
    input: str

    @property
    def fingerprint(self) -> str:
        """Digest that is equal for equal plans."""
        same = asdict(replace(self, input=""))
        return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()

    def with_files(self, files: list[dict[str, Any]]) -> Self:
        """Return the same plan for other input files."""
        return replace(self, files=files)

    def differences(self, other: Self) -> list[str]:
        """Describe how ``other`` differs, a line each."""
        changes = [] if self.job == other.job else [f"job: {self.job} -> {other.job}"]
        if self.num_units != other.num_units:
            changes.append(f"units of work: {self.num_units} -> {other.num_units}")
        for name in sorted(self.settings.keys() | other.settings.keys()):
            old, new = (json.dumps(plan.settings.get(name)) for plan in (self, other))
            if old != new:
                changes.append(f"{name}: {old} -> {new}")
        olds, news = ({file["name"]: file for file in plan.files} for plan in (self, other))
        for word, names in {
            "removed": olds.keys() - news.keys(),
            "added": news.keys() - olds.keys(),
            "changed": {name for name in olds.keys() & news.keys() if olds[name] != news[name]},
        }.items():
            if names:
                shown = ", ".join(sorted(names)[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
                changes.append(f"{len(names)} input file(s) {word}: {shown}")
        return changes


@dataclass(frozen=True)
class Record:
    """One committed unit.

    Args:
        unit: its number.
        file: name of its output, relative to the output folder.
        rows: rows in that file.
        bad_rows: rows in its quarantine file.
        num_bytes: size of the output.
        sha256: digest of the output.
        run: which run of the job committed it, from 0.
        attempts: how often it was begun.
        stats: what the job's worker tells of it.
    """

    unit: int
    file: str
    rows: int
    bad_rows: int
    num_bytes: int
    sha256: str
    run: int = 0
    attempts: int = 1
    stats: dict[str, Any] = field(default_factory=dict)

    @property
    def quarantine(self) -> str | None:
        """Name of its quarantine file, if it has bad rows."""
        return quarantine_file(PurePosixPath(self.file).stem) if self.bad_rows else None


class Manifest:
    """The manifest of one output, in the hands of the one run that holds the output's lease.

    Args:
        storage: the output folder.
        plan: what was planned.
    """

    PLAN: ClassVar[str] = "_manifest/plan.json"
    SUCCESS: ClassVar[str] = "_SUCCESS"

    def __init__(self, storage: Storage, plan: Plan) -> None:
        self.storage = storage
        self.plan = plan
        self.run = 0
        self.done = bytearray(plan.num_units)
        """1 for each unit that is committed."""
        self._segment: list[Record] = []
        self._num_segments = 0

    @classmethod
    def read_plan(cls, storage: Storage) -> Plan | None:
        """Return the plan of an output, or None if there is none.

        Raises:
            InputError: if it was written by a version that this one does not know.
        """
        if not storage.exists(cls.PLAN):
            return None
        where = redacted(storage.locate(cls.PLAN))
        try:
            document = json.loads(storage.read(cls.PLAN))
            known = document["format"]
            plan = document["plan"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{where} is damaged: {error!r}; give a new output") from error
        if known != FORMAT:
            raise InputError(f"{where} has format {known}; this version knows {FORMAT}")
        return Plan(**plan)

    @classmethod
    def check_place(cls, storage: Storage) -> None:
        """Make sure that a folder is an output or may become one; look before anything is written to it.

        Raises:
            InputError: if it holds the data of something else.
        """
        if storage.sizes("data") and not storage.exists(cls.PLAN):
            raise InputError(f"{redacted(storage.url)} has a data folder but no manifest; give a new or empty output")

    @classmethod
    def open(cls, storage: Storage, plan: Plan) -> Self:
        """Begin the output, or go on with it.

        Units whose file is missing or of another size, or whose bad rows are missing, are no longer done. Call
        ``clean`` afterwards.

        Raises:
            PlanChangedError: if it was begun with another plan.
        """
        manifest = cls(storage, plan)
        old = cls.read_plan(storage)
        if old is None:
            cls.check_place(storage)
            shown = replace(plan, input=redacted(plan.input))
            document = {"format": FORMAT, "fingerprint": plan.fingerprint, "plan": asdict(shown)}
            storage.write(cls.PLAN, json.dumps(document, indent=1).encode())
            return manifest
        if old.fingerprint != plan.fingerprint:
            changes = "\n  ".join(old.differences(plan))
            raise PlanChangedError(
                f"{redacted(storage.url)} was begun with another input or other settings:\n  {changes}\n"
                "Give a new output, or run again as before."
            )
        manifest._load()
        return manifest

    def _load(self) -> None:
        sizes = {f"data/{name}": size for name, size in self.storage.sizes("data").items()}
        quarantines = {None, *(f"_quarantine/{name}" for name in self.storage.sizes("_quarantine"))}
        for name in self.segments(self.storage):
            records = list(_read(self.storage, name))
            whole = [r for r in records if sizes.get(r.file) == r.num_bytes and r.quarantine in quarantines]
            if len(whole) < len(records):
                self.storage.remove(self.SUCCESS)  # first, so that a run that ends here leaves no false one
                self.storage.write(f"_manifest/{name}", _dump(whole))
            self._segment, self._num_segments = whole, _number(name) + 1
            for record in whole:
                self.done[record.unit] = 1
                self.run = max(self.run, record.run + 1)
        if self.num_done < self.plan.num_units:
            self.storage.remove(self.SUCCESS)

    def clean(self) -> None:
        """Remove what earlier runs left without committing it."""
        keep: set[str | None] = set()
        for record in self.records(self.storage):
            keep |= {record.file, record.quarantine}
        for folder in ("data", "_quarantine"):
            for name in self.storage.sizes(folder):
                if f"{folder}/{name}" not in keep:
                    self.storage.remove(f"{folder}/{name}")

    @property
    def num_done(self) -> int:
        """Units that are committed."""
        return sum(self.done)

    def append(self, records: Iterable[Record]) -> None:
        """Commit units: from here on they exist."""
        for record in records:
            if self._num_segments == 0 or len(self._segment) >= SEGMENT:
                self._flush()
                self._segment, self._num_segments = [], self._num_segments + 1
            self._segment.append(record)
            self.done[record.unit] = 1
        self._flush()

    def _flush(self) -> None:
        if self._segment:
            self.storage.write(f"_manifest/records-{self._num_segments - 1:06d}.jsonl", _dump(self._segment))

    def succeed(self) -> None:
        """Mark the output as finished."""
        self.storage.write(self.SUCCESS, json.dumps({"fingerprint": self.plan.fingerprint}).encode())

    def remember(self, name: str, find: Callable[[], Any]) -> Any:
        """Return the fact called ``name``, as an earlier run found it or as ``find`` does now."""
        path = f"_manifest/{name}.json"
        if not self.storage.exists(path):
            self.storage.write(path, json.dumps(find()).encode())
        return json.loads(self.storage.read(path))

    @staticmethod
    def segments(storage: Storage) -> list[str]:
        """Return the names of the files with records, in order."""
        names = storage.sizes("_manifest")
        return sorted(name for name in names if name.startswith("records-") and name.endswith(".jsonl"))

    @classmethod
    def records(cls, storage: Storage) -> Iterator[Record]:
        """Yield the record of each committed unit, in the order in which they were committed."""
        for name in cls.segments(storage):
            yield from _read(storage, name)

    @classmethod
    def finished_files(cls, storage: Storage) -> dict[str, int]:
        """Return the bytes of each data file of a finished output that has rows, by its name, in order.

        Raises:
            InputError: if the output is not finished.
        """
        if not storage.exists(cls.SUCCESS):
            raise InputError(
                f"{redacted(storage.url)} is the output of a job that has not finished; run that job again first"
            )
        return dict(sorted((record.file, record.num_bytes) for record in cls.records(storage) if record.rows))


def _dump(records: Iterable[Record]) -> bytes:
    return b"".join(json.dumps(asdict(record)).encode() + b"\n" for record in records)


def _read(storage: Storage, segment: str) -> Iterator[Record]:
    name = f"_manifest/{segment}"
    for number, line in enumerate(storage.read(name).splitlines(), start=1):
        try:
            yield Record(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise InputError(
                f"{redacted(storage.locate(name))}, line {number} is damaged: {error}; give a new output"
            ) from error


def _number(segment: str) -> int:
    return int(segment.removeprefix("records-").removesuffix(".jsonl"))
