"""The proof that an output is whole: each input row is there exactly once, and no byte has changed."""

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sbert_ray.data.dataset import Dataset
from sbert_ray.data.errors import InputError
from sbert_ray.data.jsonl import parse
from sbert_ray.data.kinds import comparable, hashes
from sbert_ray.data.manifest import Manifest, Plan, Record
from sbert_ray.data.ranked import candidates_of, compare_ranked
from sbert_ray.data.rows import Rows
from sbert_ray.data.sparse import sparse_fault
from sbert_ray.data.storage import Storage, is_redacted, redacted
from sbert_ray.data.units import Unit, quarantine_file

THREADS = 4
WINDOW = 64
EMBEDDING = "embedding"
"""The column whose values must be finite; others are the input's, with whatever is in them."""
SPARSE = {"indices", "values"}
"""The columns of sparse embeddings."""
RERANK = "rerank"
"""The job whose output has the candidates of its input rows, not the rows themselves."""
HASHES_PER_PASS = 32_000_000
"""Ids that are compared at a time in the search for duplicates: bounds its memory to some 500 MB."""
SHOWN = 5


@dataclass
class Verdict:
    """What was found so far.

    Args:
        problems: what does not hold, a line each; none if the output is whole.
        notes: what a person may want to know all the same.
        units: units that were looked at.
        num_units: units in all.
        rows: rows in those.
        bad_rows: rows of those in quarantine.
    """

    num_units: int
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    units: int = 0
    rows: int = 0
    bad_rows: int = 0


def verify(output: str, input_url: str | None = None) -> Iterator[Verdict]:
    """Check an output against its manifest and its input, yielding the verdict as it grows.

    For each planned unit there must be one record and one file, of the recorded size and checksum, with the schema of
    all others and finite embeddings, and the ids in it must be those of its input rows in their order, less the rows
    in quarantine. The input must not have changed, and nothing else may lie in the data folder.

    Args:
        output: folder of a job's output.
        input_url: where the input is now; None: where it was.

    Raises:
        InputError: if ``output`` is no output, or the input cannot be read, or its credentials must be told again.
    """
    storage = Storage(output)
    plan = Manifest.read_plan(storage)
    if plan is None:
        raise InputError(f"{redacted(output)} has no {Manifest.PLAN}: it is not the output of a job")
    if input_url is None and is_redacted(plan.input):
        raise InputError(f"the manifest has the input without its credentials, {plan.input}; give --input")
    verdict = Verdict(plan.num_units)
    kind = _RankChecker if plan.job == RERANK else _Checker
    dataset = Dataset.open(input_url or plan.input, *kind.opened(plan))
    now = plan.with_files([file.described() for file in dataset.files])
    verdict.problems += [f"the input has changed since: {change}" for change in plan.differences(now)]
    if not storage.exists(Manifest.SUCCESS):
        verdict.problems.append("there is no _SUCCESS: the job has not finished; run it again")
    records = _records(storage, plan, verdict)
    yield verdict
    if now.fingerprint == plan.fingerprint:
        checker = kind(storage, plan, dataset)
        yield from _check_units(checker, records, verdict)
        if not verdict.problems:
            verdict.problems += checker.missed()
    id_column: str | None = plan.settings.get("id_column")
    if id_column and not verdict.problems:
        _find_duplicates(storage, records.values(), id_column, verdict)
    yield verdict


def _records(storage: Storage, plan: Plan, verdict: Verdict) -> dict[int, Record]:
    records: dict[int, Record] = {}
    for record in Manifest.records(storage):
        if record.unit in records or record.unit >= plan.num_units:
            verdict.problems.append(f"the manifest has a record too many of unit {record.unit}")
        records[record.unit] = record
    if missing := sorted(set(range(plan.num_units)) - records.keys()):
        what = f"{len(missing)} of {plan.num_units} units are not done, the first is {missing[0]}"
        verdict.problems.append(f"{what}; run the job again")
    found = {name for name in storage.sizes("data") if not name.startswith(".")}  # hidden: a scratch file, never read
    stray = found - {record.file.removeprefix("data/") for record in records.values()}
    verdict.problems += [
        f"data/{name} is not in the manifest; run the job again, or remove it" for name in sorted(stray)
    ]
    return records


def _check_units(checker: "_Checker", records: dict[int, Record], verdict: Verdict) -> Iterator[Verdict]:
    settings = checker.plan.settings
    units = checker.dataset.units(settings["rows_per_unit"], settings["limit"])
    todo = (unit for unit in units if unit.index in records)
    first: pa.Schema | None = None
    with ThreadPoolExecutor(THREADS) as threads:
        while window := list(islice(todo, WINDOW)):
            results = threads.map(lambda unit: checker.check(unit, records[unit.index]), window)
            for unit, (problems, schema) in zip(window, results, strict=True):
                record = records[unit.index]
                verdict.problems += [f"{record.file}: {problem}" for problem in problems]
                first = first or schema
                if schema is not None and first is not None and not schema.equals(first):
                    verdict.problems.append(f"{record.file}: another schema than in the files before it: {schema}")
                verdict.units += 1
                verdict.rows += record.rows
                verdict.bad_rows += record.bad_rows
            yield verdict


class _Checker:
    """Compares units with their input; safe to use from several threads."""

    def __init__(self, storage: Storage, plan: Plan, dataset: Dataset) -> None:
        self.storage = storage
        self.plan = plan
        self.dataset = dataset
        self.id_column: str | None = plan.settings.get("id_column")
        self.reader: Any = dataset.reader(plan.settings["rows_per_unit"])

    @staticmethod
    def columns(plan: Plan) -> list[str]:
        """Return the columns of the input that tell its rows apart."""
        settings = plan.settings
        return [settings["id_column"] or next(iter(settings["text_column"]), None) or settings["image_column"]]

    @staticmethod
    def opened(plan: Plan) -> tuple[list[str], list[str]]:
        """Return the columns of texts and those that are copied, as the job opened its input."""
        settings = plan.settings
        copied = [settings["id_column"], settings.get("image_column")]
        return settings["text_column"], [name for name in copied if name]

    def missed(self) -> list[str]:
        """Return what was found missing over all units."""
        return []

    def check(self, unit: Unit, record: Record) -> tuple[list[str], pa.Schema | None]:
        """Return what is wrong with the output of ``unit`` and what to do, and its schema."""
        try:
            data = self.storage.read(record.file)
        except FileNotFoundError:
            return ["the file is missing; run the job again"], None
        redo = f"remove {record.file} and run the job again"
        if len(data) != record.num_bytes or hashlib.sha256(data).hexdigest() != record.sha256:
            return [f"the file is not what was written (other size or checksum); {redo}"], None
        try:
            table = pq.read_table(io.BytesIO(data), use_threads=False)
        except (pa.ArrowException, OSError) as error:
            return [f"the file cannot be read: {error}; {redo}"], None
        problems = []
        if table.num_rows != record.rows:
            problems.append(f"{table.num_rows} rows, and {record.rows} in the manifest")
        names = set(table.column_names)
        if EMBEDDING in names and not _is_finite(table[EMBEDDING]):
            problems.append("some embedding is null, or has a value that is no finite number")
        if names >= SPARSE and EMBEDDING not in names and (fault := sparse_fault(table["indices"], table["values"])):
            problems.append(fault)
        bad, damage = self._quarantined(record)
        if not damage:
            problems += self._compare_rows(unit, bad, table)
        return [*(f"{problem}; {redo}" for problem in problems), *damage], table.schema.remove_metadata()

    def _quarantined(self, record: Record) -> tuple[set[int], list[str]]:
        """Return the positions of the bad rows of a unit, or what is wrong with their file and what to do."""
        where = record.quarantine
        if where is None:
            return set(), []
        try:
            lines = self.storage.read(where).splitlines()
        except FileNotFoundError:
            return set(), [f"{where} is missing, with {record.bad_rows} bad row(s); run the job again"]
        bad: set[int] = set()
        for number, line in enumerate(lines, start=1):
            try:
                bad.add(_position(line))
            except ValueError as error:
                return set(), [f"{where}, line {number} is damaged: {error}; remove {where} and run the job again"]
        if len(bad) == record.bad_rows:
            return bad, []
        what = f"{len(bad)} rows in {where}, and {record.bad_rows} in the manifest"
        return set(), [f"{what}; remove {where} and run the job again"]

    def _compare_rows(self, unit: Unit, bad: set[int], table: pa.Table) -> list[str]:
        name = self.id_column or "source_position"
        if name not in table.column_names:
            return [f"there is no column {name!r}; it has {table.column_names}"]
        pieces, problems = self._good_rows(unit, bad, self.columns(self.plan))
        ids = [piece.table[0] if self.id_column else pa.chunked_array([piece.positions]) for piece in pieces]
        return problems or _difference(unit, name, ids, table[name])

    def _good_rows(self, unit: Unit, bad: set[int], columns: Sequence[str]) -> tuple[list[Rows], list[str]]:
        """Return the rows of a unit less those in quarantine, or what is wrong with these."""
        where = quarantine_file(unit.name)
        pieces: list[Rows] = []
        read: set[int] = set()
        for piece in self.reader.read(unit, columns):
            rows = piece.without({}, self.id_column, {})
            unreadable = {row.position for row in rows.bad}
            if lost := unreadable - bad:
                return [], [f"the input has bad rows that are not in {where}: {sorted(lost)[:SHOWN]}"]
            is_bad = np.isin(rows.positions, np.fromiter(bad, np.int64))
            read |= unreadable | set(rows.positions[is_bad].tolist())
            kept = pa.array(~is_bad)
            pieces.append(replace(rows, table=rows.table.filter(kept), positions=rows.positions[~is_bad]))
        if unknown := bad - read:
            return [], [f"{where} has rows that the input lacks: {sorted(unknown)[:SHOWN]}"]
        return pieces, []


class _RankChecker(_Checker):
    """Compares units of ranked candidates with their input."""

    def __init__(self, storage: Storage, plan: Plan, dataset: Dataset) -> None:
        super().__init__(storage, plan, dataset)
        self.candidates = candidates_of(plan.settings)
        self._plain = self.reader
        self._counts: list[int] = []
        self.reader = self.candidates.grouped(self.reader)

    @staticmethod
    def columns(plan: Plan) -> list[str]:
        """Return the columns of the input that candidates are in."""
        return candidates_of(plan.settings).columns

    @staticmethod
    def opened(plan: Plan) -> tuple[list[str], list[str]]:
        """Return the columns of texts and those that are copied, as the job opened its input."""
        candidates = candidates_of(plan.settings)
        texts = [] if candidates.layout == "ids" else [candidates.query_column]
        return texts, [name for name in candidates.columns if name not in texts]

    def missed(self) -> list[str]:
        """Return whether groups leave out rows of the input, counted without them."""
        lost = sum(self._counts)
        is_whole = self.plan.settings["limit"] is None  # else the last group goes on after the limit
        return [f"{lost} row(s) of the input belong to no unit"] if lost and is_whole else []

    def _compare_rows(self, unit: Unit, bad: set[int], table: pa.Table) -> list[str]:
        plain = sum(len(rows) + len(rows.bad) for rows in self._plain.read(unit, self.columns(self.plan)))
        pieces, problems = self._good_rows(unit, bad, self.columns(self.plan))
        self._counts.append(plain - len(bad) - sum(map(len, pieces)))
        return problems or compare_ranked(self.candidates, pieces, table, self.plan.settings["top_k"])


def _position(line: bytes) -> int:
    position = parse(line).get("position")
    if not isinstance(position, int):
        raise ValueError(f"position must be a number, got {position!r}")
    return position


def _difference(unit: Unit, name: str, expected: Sequence[pa.ChunkedArray], found: pa.ChunkedArray) -> list[str]:
    """Say where ids are not those that are expected."""
    wanted = pa.chunked_array([chunk for part in expected for chunk in part.chunks], type=expected[0].type)
    ids, others = comparable(wanted), comparable(found)
    if ids.equals(others):
        return []
    if len(ids) != len(others):
        return [f"{len(others)} rows, and {unit} has {len(ids)} less those in quarantine"]
    if ids.type != others.type:
        return [f"{name} is {found.type}, and {wanted.type} in the input"]
    index = next(index for index in range(len(ids)) if not ids.slice(index, 1).equals(others.slice(index, 1)))
    return [f"{name} is not that of the input rows of {unit} in their order, first in row {index}"]


def _is_finite(column: pa.ChunkedArray) -> bool:
    if not pa.types.is_fixed_size_list(column.type):
        return True
    values = column.combine_chunks().flatten() if column.null_count == 0 else None
    if values is None or values.null_count:
        return False
    return not pa.types.is_floating(values.type) or bool(np.isfinite(values.to_numpy(zero_copy_only=False)).all())


def _find_duplicates(storage: Storage, records: Iterable[Record], id_column: str, verdict: Verdict) -> None:
    """Note ids that occur more than once. Ids are compared by hashes, so many at a time that memory stays bounded."""
    files = [record.file for record in records if record.rows]
    passes = -(-verdict.rows // HASHES_PER_PASS)
    repeated = more = 0
    for turn in range(passes):
        with ThreadPoolExecutor(THREADS) as threads:
            found = threads.map(partial(_hashes, storage, id_column, passes, turn), files)
            _, counts = np.unique(np.concatenate(list(found)), return_counts=True)
        repeated += int((counts > 1).sum())
        more += int((counts[counts > 1] - 1).sum())
    if repeated:
        verdict.notes.append(f"{repeated} ids occur more than once, {more} rows too many (a note, not a fault)")


def _hashes(storage: Storage, id_column: str, passes: int, turn: int, file: str) -> NDArray[np.uint64]:
    with storage.open(file) as source:
        ids = pq.read_table(source, columns=[id_column], use_threads=False)[id_column]
    found = hashes(ids)
    return np.extract(found % np.uint64(passes) == turn, found)
