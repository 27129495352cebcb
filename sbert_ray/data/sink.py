"""Where units are committed: one Parquet file each, and the rows that could not be processed beside it."""

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sbert_ray.data.rows import BadRow
from sbert_ray.data.storage import Storage
from sbert_ray.data.units import Unit, quarantine_file

METADATA_KEY = b"sbert_ray"


@dataclass(frozen=True)
class Committed:
    """What was put in place for a unit."""

    file: str
    rows: int
    bad_rows: int
    num_bytes: int
    sha256: str


@dataclass
class UnitOutput:
    """The output of one unit while it is written. Nothing is visible before ``commit``."""

    storage: Storage
    unit: Unit
    path: Path
    rows: int = 0
    bad: list[BadRow] = field(default_factory=list)
    _writer: pq.ParquetWriter | None = None

    @property
    def file(self) -> str:
        """Name of the output, relative to the folder."""
        return f"data/{self.unit.name}.parquet"

    def write(self, table: pa.Table) -> None:
        """Add rows; each table becomes a row group, and an empty first one still gives the file its schema."""
        if self._writer is None:
            embeddings = {
                name for name in table.column_names if pa.types.is_fixed_size_list(table.schema.field(name).type)
            }
            others = [name for name in table.column_names if name not in embeddings]
            self._writer = pq.ParquetWriter(
                self.path, table.schema, use_dictionary=others, write_statistics=others, compression="snappy"
            )
        if table.num_rows:
            self._writer.write_table(table, row_group_size=table.num_rows)
            self.rows += table.num_rows

    def commit(self) -> Committed:
        """Put the output in place.

        Where another attempt at the same unit came first, its output stays, and is what gets recorded.
        """
        assert self._writer is not None, "a unit has at least one table"
        self._writer.close()
        lines = (json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in self.bad)
        quarantine = "".join(lines).encode(errors="backslashreplace")
        if self.storage.publish(self.path, self.file):
            if self.bad:
                self.storage.write(quarantine_file(self.unit.name), quarantine)
            return Committed(self.file, self.rows, len(self.bad), self.path.stat().st_size, digest(self.path))
        data = self.storage.read(self.file)
        rows = pq.read_metadata(io.BytesIO(data)).num_rows
        bad_rows = self.rows + len(self.bad) - rows  # of as many rows in all, it wrote so many
        if bad_rows == len(self.bad) > 0:
            self.storage.create(quarantine_file(self.unit.name), quarantine)  # that attempt may have died just before
        return Committed(self.file, rows, bad_rows, len(data), hashlib.sha256(data).hexdigest())

    def close(self) -> None:
        """Let go of the scratch file."""
        if self._writer is not None and self._writer.is_open:
            self._writer.close()


@contextmanager
def unit_output(storage: Storage, unit: Unit) -> Iterator[UnitOutput]:
    """Open the output of ``unit``; what is not committed within the block leaves no trace."""
    with storage.temporary(f"data/{unit.name}.parquet") as path:
        output = UnitOutput(storage, unit, path)
        try:
            yield output
        finally:
            output.close()


def digest(path: Path) -> str:
    """Return the SHA-256 of a local file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def with_metadata(table: pa.Table, metadata: dict[str, object]) -> pa.Table:
    """Return ``table`` with ``metadata`` as JSON among its Parquet key-value metadata."""
    document = json.dumps(metadata, sort_keys=True).encode()
    return table.replace_schema_metadata((table.schema.metadata or {}) | {METADATA_KEY: document})
