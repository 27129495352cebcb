"""Embeddings that a job has written, read by row number."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sbert_ray.data.embedded import Embedded, SparseRange, check_same
from sbert_ray.data.errors import InputError
from sbert_ray.data.sink import with_metadata

FLOAT = pa.float32()
MATRIX = np.arange(28, dtype=np.float32).reshape(7, 4)


def dense(folder: Path, kind: pa.DataType = FLOAT, ids: Any = None, **facts: Any) -> Path:
    """Write seven embeddings to two files of several row groups."""
    ids = pa.array(ids or [f"d{i}" for i in range(7)])
    column = pa.array(MATRIX.tolist(), pa.list_(kind, 4))
    table = with_metadata(pa.table({"_id": ids, "embedding": column}), {"dimension": 4, **facts})
    folder.mkdir(exist_ok=True)
    pq.write_table(table[:4], folder / "part-0.parquet", row_group_size=3)
    pq.write_table(table[4:], folder / "part-1.parquet", row_group_size=2)
    return folder


def sparse(folder: Path, **facts: Any) -> Path:
    folder.mkdir(exist_ok=True)
    rows = {"indices": [[0, 2], [], [1]], "values": [[1.0, 2.0], [], [3.0]]}
    schema = pa.schema([("_id", pa.string()), ("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.float32()))])
    table = pa.table({"_id": ["a", "b", "c"], **rows}, schema=schema)
    pq.write_table(with_metadata(table, {"dimension": 5, **facts}), folder / "part-0.parquet", row_group_size=2)
    return folder


@pytest.mark.parametrize("kind", [pa.float32(), pa.float16(), pa.float64()], ids=str)
def test_ranges_go_over_files_and_row_groups(tmp_path: Path, kind: pa.DataType) -> None:
    found = Embedded.open(str(dense(tmp_path, kind)), "_id")
    assert (len(found), found.dimension, found.is_sparse) == (7, 4, False)
    for start in range(7):
        for stop in range(start + 1, 8):
            part = found.read(start, stop)
            assert isinstance(part, np.ndarray)
            assert part.dtype == np.float32
            np.testing.assert_array_equal(part, MATRIX[start:stop])


def test_sparse_rows_come_as_a_csr_matrix(tmp_path: Path) -> None:
    found = Embedded.open(str(sparse(tmp_path)), "_id")
    part = found.read(0, 3)
    assert isinstance(part, SparseRange)
    assert (found.is_sparse, found.dimension) == (True, 5)
    assert [part.offsets.tolist(), part.indices.tolist(), part.values.tolist()] == [[0, 2, 2, 3], [0, 2, 1], [1, 2, 3]]


def test_ids_come_as_text(tmp_path: Path) -> None:
    beats: list[int] = []
    assert Embedded.open(str(dense(tmp_path, ids=list(range(7)))), "_id").ids(beats.append) == list("0123456")
    assert len(beats) == 2


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", "b", "c", "d", "e", "f", "b"], "each id must be there once, got 'b' again"),
        (["a", "b", "c", None, "e", "f", "g"], "part-0.parquet: an id must not be null"),
    ],
)
def test_each_id_must_be_there_once(tmp_path: Path, ids: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Embedded.open(str(dense(tmp_path, ids=ids)), "_id").ids()


def test_codes_are_refused(tmp_path: Path) -> None:
    table = pa.table({"_id": ["a"], "embedding": pa.array([[1, 2]], pa.list_(pa.int8(), 2))})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(InputError, match="it must hold lists of floats, as those of precision float32 and float16 are"):
        Embedded.open(str(tmp_path), "_id")


def test_what_is_no_embed_output_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"_id": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"lacks column\(s\) \['indices', 'values'\]"):
        Embedded.open(str(tmp_path), "_id")
    (tmp_path / "t.parquet").unlink()
    (tmp_path / "t.jsonl").write_text('{"_id": "a"}\n')
    with pytest.raises(InputError, match=r"must hold Parquet with embeddings, got t\.jsonl"):
        Embedded.open(str(tmp_path), "_id")


def test_lists_must_be_of_one_length_and_it_must_be_known(tmp_path: Path) -> None:
    table = pa.table({"_id": ["a", "b"], "embedding": [[1.0, 2.0], [3.0]]})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(InputError, match="does not tell the dimension"):
        Embedded.open(str(tmp_path), "_id").read(0, 2)
    pq.write_table(with_metadata(table, {"dimension": 2}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="each row must have 2 numbers as its embedding"):
        Embedded.open(str(tmp_path), "_id").read(0, 2)


def test_only_embeddings_of_one_model_are_compared(tmp_path: Path) -> None:
    first = Embedded.open(str(dense(tmp_path / "a", model="m", revision="1")), "_id")
    check_same(first, Embedded.open(str(dense(tmp_path / "b", model="n", revision="1")), "_id"))
    check_same(first, Embedded.open(str(dense(tmp_path / "c")), "_id"))
    with pytest.raises(InputError, match=r"d was embedded with revision 2, and .*a with 1"):
        check_same(first, Embedded.open(str(dense(tmp_path / "d", revision="2")), "_id"))
    with pytest.raises(InputError, match=r"e has sparse embeddings of 5 dimensions, and .*a dense embeddings of 4"):
        check_same(first, Embedded.open(str(sparse(tmp_path / "e", revision="1")), "_id"))
