"""Finished outputs, made by hand with the real sink and manifest."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sbert_ray.data.dataset import Dataset
from sbert_ray.data.manifest import Manifest, Plan, Record
from sbert_ray.data.rows import Rows
from sbert_ray.data.sink import Committed, unit_output
from sbert_ray.data.storage import Storage
from sbert_ray.data.units import Unit
from sbert_ray.data.verify import Verdict, verify

SECOND = "part-00000001.parquet"
SEGMENT = "_manifest/records-000000.jsonl"
Edit = Callable[[pa.Table], pa.Table]


class Paths:
    """Where an input and its output lie."""

    def __init__(self, folder: Path) -> None:
        self.input = folder / "in"
        self.output = folder / "out"
        self.second = self.output / "data" / SECOND

    def check(self, **options: Any) -> Verdict:
        """Return the last verdict."""
        return list(verify(str(self.output), **options))[-1]

    def problem(self) -> str:
        """Return the only problem."""
        (problem,) = self.check().problems
        return problem

    @property
    def records(self) -> list[Record]:
        return list(Manifest.records(Storage(str(self.output))))

    @records.setter
    def records(self, records: list[Record]) -> None:
        lines = (json.dumps(dataclasses.asdict(record)) + "\n" for record in records)
        (self.output / SEGMENT).write_text("".join(lines))

    def edit(self, change: Edit) -> None:
        """Change the table of the second unit, and its record as if it had been written so."""
        table = change(pq.read_table(self.second))
        pq.write_table(table, self.second)
        data = self.second.read_bytes()
        new = {"num_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "rows": len(table)}
        self.records = [dataclasses.replace(r, **new) if r.unit == 1 else r for r in self.records]


def write_input(folder: Path, ids: list[Any], kind: str = "parquet") -> None:
    folder.mkdir(exist_ok=True)
    half = len(ids) // 2
    for name, part in {"a": ids[:half], "b": ids[half:]}.items():
        table = pa.table({"id": part, "text": [f"text {value}" for value in part]})
        if kind == "parquet":
            pq.write_table(table, folder / f"{name}.parquet", row_group_size=4)
        else:
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))


def embed(rows: Rows, unit: Unit, id_column: str | None) -> pa.Table:
    """Return ids, or places in the input, and embeddings that tell the positions of rows."""
    values = np.stack([rows.positions, -rows.positions], axis=1).astype(np.float32)
    if id_column:
        ids = {id_column: rows.table[id_column]}
    else:
        files = pa.array([unit.file] * len(rows), pa.string()).dictionary_encode()
        ids = {"source_file": files, "source_position": pa.array(rows.positions)}
    return pa.table(ids | {"embedding": pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 2)})


def make(
    source: str | Path,
    output: str | Path,
    *,
    id_column: str | None = "id",
    rows_per_unit: int = 4,
    limit: int | None = None,
    bad: Mapping[int, str] | None = None,
    edit: Callable[[Unit, pa.Table], pa.Table] = lambda unit, table: table,
    finish: bool = True,
) -> Manifest:
    """Make the output of a job.

    Args:
        source: the input.
        output: folder to write to.
        id_column: copied to the output.
        rows_per_unit: rows per unit.
        limit: rows of the input.
        bad: reason by position, for rows that go to quarantine.
        edit: changes what is written for a unit.
        finish: mark the output as finished.
    """
    settings: dict[str, Any] = {"text_column": ["text"], "id_column": id_column}
    settings |= {"rows_per_unit": rows_per_unit, "limit": limit}
    dataset = Dataset.open(str(source), ["text"], [id_column] if id_column else [])
    units = list(dataset.units(rows_per_unit, limit))
    plan = Plan("embed", settings, [file.described() for file in dataset.files], len(units), str(source))
    storage = Storage(str(output))
    manifest = Manifest.open(storage, plan)
    for unit, committed in _commit(dataset, storage, units, id_column, bad or {}, edit):
        manifest.append([record(unit.index, committed)])
    if finish:
        manifest.succeed()
    return manifest


def _commit(
    dataset: Dataset,
    storage: Storage,
    units: list[Unit],
    id_column: str | None,
    bad: Mapping[int, str],
    edit: Callable[[Unit, pa.Table], pa.Table],
) -> Iterator[tuple[Unit, Committed]]:
    reader = dataset.reader(3)
    columns = ["text", *([id_column] if id_column else [])]
    for unit in units:
        with unit_output(storage, unit) as target:
            for rows in reader.read(unit, columns):
                reasons = {index: bad[position] for index, position in enumerate(rows.positions) if position in bad}
                good = rows.without(reasons, id_column, {})
                target.write(edit(unit, embed(good, unit, id_column)))
                target.bad.extend(good.bad)
            yield unit, target.commit()


def record(unit: int, committed: Committed, **more: Any) -> Record:
    """Return the record of a committed unit."""
    c = committed
    return Record(unit, c.file, c.rows, c.bad_rows, c.num_bytes, c.sha256, **more)
