"""Parquet: any range of rows across row groups, and damage that is named."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sbert_ray.data import parquet
from sbert_ray.data.errors import InputError
from sbert_ray.data.parquet import ParquetReader, read_footer
from sbert_ray.data.storage import Storage
from sbert_ray.data.units import Unit

ROWS = 23
SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string())])


def write(folder: Path, num_rows: int = ROWS, name: str = "a.parquet", **options: Any) -> Storage:
    table = pa.table({"id": range(num_rows), "text": [f"text {row}" for row in range(num_rows)], "z": [0] * num_rows})
    pq.write_table(table, folder / name, **options)
    return Storage(str(folder))


def read(reader: ParquetReader, start: int, stop: int, columns: tuple[str, ...] = ("id", "text")) -> pa.Table:
    (rows,) = reader.read(Unit(0, "a.parquet", start, stop), columns)
    assert rows.positions.tolist() == list(range(start, stop))
    return rows.table


@pytest.fixture(params=["cached", "streamed"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read row groups as a whole, or as those that are too large for that."""
    if request.param == "streamed":
        monkeypatch.setattr(parquet, "CACHED_BYTES", 0)
        monkeypatch.setattr(parquet, "PIECE_ROWS", 3)


@pytest.mark.parametrize("row_group_size", [1, 4, 7, 100])
def test_any_range_of_rows_is_read_across_row_groups(row_group_size: int, way: None, tmp_path: Path) -> None:
    reader = ParquetReader(write(tmp_path, row_group_size=row_group_size), SCHEMA)
    for start in range(ROWS):
        for stop in range(start + 1, ROWS + 1):
            table = read(reader, start, stop)
            assert table["id"].to_pylist() == list(range(start, stop))
            assert table["text"].to_pylist() == [f"text {row}" for row in range(start, stop)]


@pytest.mark.parametrize("columns", [("text",), ("id", "text"), ("text", "id")])
def test_columns_come_in_the_order_asked_for(columns: tuple[str, ...], way: None, tmp_path: Path) -> None:
    assert read(ParquetReader(write(tmp_path), SCHEMA), 2, 5, columns).column_names == list(columns)


def test_a_row_group_is_read_once_for_the_units_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = ParquetReader(write(tmp_path, row_group_size=12), SCHEMA)
    groups: list[int] = []
    original = pq.ParquetFile.read_row_group

    def read_row_group(self: pq.ParquetFile, group: int, **options: Any) -> pa.Table:
        groups.append(group)
        return original(self, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", read_row_group)
    for start, stop in [(0, 4), (4, 8), (8, 12), (12, 17), (17, 23)]:
        read(reader, start, stop)
    assert groups == [0, 1]


def test_a_giant_row_group_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "CACHED_BYTES", 1000)
    monkeypatch.setattr(parquet, "PIECE_ROWS", 100)
    reader = ParquetReader(write(tmp_path, 10_000), SCHEMA)
    table = read(reader, 5_050, 5_060)
    assert table["id"].to_pylist() == list(range(5_050, 5_060))
    assert reader._cached is None


def test_a_column_of_nulls_gets_the_type_it_has_elsewhere(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b"], "id": pa.nulls(2)}), tmp_path / "a.parquet")
    table = read(ParquetReader(Storage(str(tmp_path)), SCHEMA), 0, 2)
    assert table.schema.equals(SCHEMA)
    assert table["id"].to_pylist() == [None, None]


@pytest.mark.parametrize("kind", ["string", "binary"])
def test_views_are_read_as_large_types_that_can_be_filtered(kind: str, way: None, tmp_path: Path) -> None:
    view, large = getattr(pa, f"{kind}_view")(), getattr(pa, f"large_{kind}")()
    values = [b"text \xff", None, b"", *(b"text %d" % row for row in range(20))]
    column = pa.array(values, pa.binary_view()).view(view)
    pq.write_table(
        pa.table({"text": column, "deep": pa.StructArray.from_arrays([column], ["a"])}), tmp_path / "a.parquet"
    )
    table = read(ParquetReader(Storage(str(tmp_path)), SCHEMA), 0, ROWS, ("text", "deep"))
    assert table.schema.types == [large, pa.struct([("a", large)])]
    odd = table.filter(pa.array([row % 2 == 1 for row in range(ROWS)]))
    assert odd["text"].cast(pa.binary()).to_pylist() == values[1::2]


@pytest.mark.parametrize("column", ["id", "other"])
def test_a_struct_of_uuids_is_read_and_does_no_harm(column: str, way: None, tmp_path: Path) -> None:
    uuids = pa.ExtensionArray.from_storage(
        pa.uuid(), pa.array([bytes([row] * 16) for row in range(ROWS)], pa.binary(16))
    )
    table = pa.table({column: pa.StructArray.from_arrays([uuids], ["uuid"]), "text": ["x"] * ROWS})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=4)
    columns = ("id", "text") if column == "id" else ("text",)
    assert read(ParquetReader(Storage(str(tmp_path)), SCHEMA), 2, 7, columns).equals(table.select(columns).slice(2, 5))


def test_the_footer_tells_schema_and_row_groups(tmp_path: Path) -> None:
    footer = read_footer(write(tmp_path, row_group_size=10), "a.parquet")
    assert footer.row_groups == (10, 10, 3)
    assert footer.schema.names == ["id", "text", "z"]


def test_the_identity_changes_with_the_contents_and_with_nothing_else(tmp_path: Path) -> None:
    def identity(name: str, texts: list[str]) -> str:
        pq.write_table(pa.table({"text": texts}), tmp_path / name)
        return read_footer(Storage(str(tmp_path)), name).identity

    first = identity("a.parquet", ["one", "two"])
    assert identity("b.parquet", ["one", "two"]) == first
    others = [["one", "twx"], ["one"], ["one", "two", "three"], ["onetwo", ""]]
    assert len({first, *(identity("a.parquet", texts) for texts in others)}) == 5


@pytest.mark.parametrize("whole_bytes", [parquet.WHOLE_BYTES, 1000], ids=["small", "large"])
def test_the_identity_changes_with_values_that_no_size_or_statistic_tells(
    whole_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "WHOLE_BYTES", whole_bytes)
    monkeypatch.setattr(parquet, "BLOCK_BYTES", 100)

    def write_rows(name: str, rows: list[int]) -> bytes:
        table = pa.table({"id": pa.array(rows, pa.int64())})
        pq.write_table(table, tmp_path / name, compression="none", use_dictionary=False)
        return (tmp_path / name).read_bytes()

    def identity(name: str) -> str:
        return read_footer(Storage(str(tmp_path)), name).identity

    rows = list(range(1000))
    first = write_rows("a.parquet", rows)
    other = write_rows("b.parquet", [0, *rows[-2:0:-1], rows[-1]])
    assert pq.read_metadata(tmp_path / "a.parquet") == pq.read_metadata(tmp_path / "b.parquet")
    assert len(first) == len(other)
    assert identity("a.parquet") != identity("b.parquet")
    assert write_rows("c.parquet", rows) == first
    assert identity("a.parquet") == identity("c.parquet")


def test_of_a_large_file_little_is_read_for_its_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "WHOLE_BYTES", 10_000)
    monkeypatch.setattr(parquet, "BLOCK_BYTES", 10)
    storage = write(tmp_path, 100_000, compression="none", use_dictionary=False)
    opened: list[str] = []
    num_bytes: list[int] = []
    original = Storage.open

    @contextmanager
    def open_(self: Storage, name: str, block_size: int | None = None) -> Iterator[Any]:
        opened.append(name)
        with original(self, name, block_size) as file:
            read = file.read
            monkeypatch.setattr(file, "read", lambda size=-1: num_bytes.append(size) or read(size))
            yield file

    monkeypatch.setattr(Storage, "open", open_)
    read_footer(storage, "a.parquet")
    assert opened == ["a.parquet"]
    assert num_bytes.count(10) == parquet.SAMPLE_BLOCKS
    assert sum(num_bytes) < 100_000 < (tmp_path / "a.parquet").stat().st_size


@pytest.mark.parametrize("damage", ["empty", "truncated", "other", "footer", "missing", "folder"])
def test_a_file_that_is_no_parquet_is_named(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    storage = write(tmp_path)
    data = path.read_bytes()
    path.unlink()
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(data[: len(data) // 2])
        case "other":
            path.write_text("id,text\n" * 100)
        case "footer":
            path.write_bytes(data[:-60] + b"\xff" * 40 + data[-20:])
        case "folder":
            path.mkdir()
    with pytest.raises(InputError, match=r"/a\.parquet is no readable Parquet file: .*; repair it or take it out"):
        read_footer(storage, "a.parquet")


def test_a_file_is_named_without_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = ParquetReader(write(tmp_path), SCHEMA)
    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setattr(Storage, "locate", lambda _, name: f"https://me:secret@host/{name}?sig=secret")
    with pytest.raises(InputError, match=r"^https://\*\*\*@host/a\.parquet\?\*\*\* is no readable"):
        read_footer(reader.storage, "a.parquet")
    with pytest.raises(InputError, match=r"^https://\*\*\*@host/a\.parquet\?\*\*\*, rows 0 to 2 cannot"):
        read(reader, 0, 3)


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip"])
@pytest.mark.parametrize("checksum", [False, True])
def test_a_corrupt_page_is_named_with_its_rows(compression: str, checksum: bool, tmp_path: Path) -> None:
    options = {"compression": compression, "use_dictionary": False, "write_page_checksum": checksum}
    storage = write(tmp_path, 2000, row_group_size=1000, **options)
    column = pq.read_metadata(tmp_path / "a.parquet").row_group(1).column(1)
    start = column.data_page_offset + (column.total_compressed_size // 2 if checksum else 5)
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[start : start + 40] = b"\xff" * 40
    (tmp_path / "a.parquet").write_bytes(data)
    reader = ParquetReader(storage, SCHEMA)
    assert len(read(reader, 0, 1000)) == 1000
    with pytest.raises(InputError, match=r"/a\.parquet, rows 1000 to 1499 cannot be read: .*; repair the file"):
        read(reader, 1000, 1500)


def test_a_page_checksum_finds_what_nothing_else_would(tmp_path: Path) -> None:
    storage = write(tmp_path, compression="none", use_dictionary=False, write_page_checksum=True)
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data.replace(b"text 17", b"text 71", 1))
    with pytest.raises(InputError, match=r"rows 0 to 9 cannot be read: .*CRC checksum"):
        read(ParquetReader(storage, SCHEMA), 0, 10)


def test_a_file_that_was_changed_after_planning_is_refused(tmp_path: Path) -> None:
    reader = ParquetReader(write(tmp_path, 5), SCHEMA)
    with pytest.raises(InputError, match=r"rows 3 to 7: the file now holds other rows than when the run was planned"):
        read(reader, 3, 8)
    pq.write_table(pa.table({"id": [1]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"rows 0 to 0 cannot be read: .*text"):
        read(reader, 0, 1)


def test_a_failure_of_the_file_system_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = ParquetReader(write(tmp_path), SCHEMA)

    def read_row_group(self: pq.ParquetFile, group: int, **options: Any) -> pa.Table:
        raise TimeoutError("the network is down")

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", read_row_group)
    with pytest.raises(TimeoutError, match="the network is down"):
        read(reader, 0, 3)
