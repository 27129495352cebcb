"""Embeddings that are looked up."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sbert_ray.data.errors import InputError
from sbert_ray.evaluation import (
    EmbeddingSimilarityEvaluator,
    InformationRetrievalEvaluator,
    PrecomputedEmbeddings,
    SparseTripletEvaluator,
)
from sbert_ray.quantization import calibration_ranges, dequantize_embeddings, quantize_embeddings
from tests.sbert_ray.evaluation.oracle import SparseTexts, Texts, words

TEXTS = words("text ", 40)


def test_scores_are_the_models() -> None:
    model = Texts()
    encoder = PrecomputedEmbeddings(TEXTS, model.encode(TEXTS))
    evaluator = EmbeddingSimilarityEvaluator(TEXTS[:20], TEXTS[20:], list(range(20)), truncate_dim=3)
    assert evaluator(encoder) == evaluator(model)


def test_sparse_embeddings_are_looked_up_in_any_order() -> None:
    matrix = SparseTexts(dim=9).encode(TEXTS)
    encoder = PrecomputedEmbeddings(TEXTS, matrix, similarity_fn_name="dot")
    order = [5, 0, 39, 5]
    found = encoder.encode([TEXTS[row] for row in order])
    assert found.layout == torch.sparse_coo
    assert torch.equal(found.to_dense(), matrix.to_dense()[order])


def test_tensors_and_queries_are_looked_up() -> None:
    encoder = PrecomputedEmbeddings(TEXTS, torch.arange(80.0).reshape(40, 2), similarity_fn_name="dot")
    assert encoder.encode_query([TEXTS[3]]).tolist() == encoder.encode_document([TEXTS[3]]).tolist() == [[6.0, 7.0]]
    corpus = dict(zip(TEXTS, TEXTS, strict=True))
    metrics = InformationRetrievalEvaluator({"q": TEXTS[1]}, corpus, {"q": {TEXTS[39]}})(encoder)
    assert metrics["dot_mrr@10"] == 1.0


def test_a_memory_map_is_read_where_it_is_asked_for(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", Texts().encode(TEXTS))
    encoder = PrecomputedEmbeddings(TEXTS, np.load(tmp_path / "x.npy", mmap_mode="r"))
    assert np.array_equal(encoder.encode(TEXTS[7:9]), Texts().encode(TEXTS[7:9]))
    assert encoder.encode([]).shape == (0, 4)


@pytest.mark.parametrize("fixed", [True, False])
def test_a_dataset_is_read(tmp_path: Path, fixed: bool) -> None:
    matrix = Texts().encode(TEXTS)
    for number, part in enumerate((slice(0, 25), slice(25, 40))):
        values = pa.array(matrix[part].ravel())
        lists = pa.FixedSizeListArray.from_arrays(values, 4) if fixed else pa.array(matrix[part].tolist())
        table = pa.table({"body": TEXTS[part], "embedding": lists, "id": range(part.start, part.stop)})
        pq.write_table(table, tmp_path / f"{number}.parquet", row_group_size=10)
    encoder = PrecomputedEmbeddings.from_dataset(str(tmp_path), text_column="body")
    assert np.array_equal(encoder.encode(TEXTS[::-1]), matrix[::-1])
    with pytest.raises(InputError, match=r"lacks column\(s\) \['text'\]"):
        PrecomputedEmbeddings.from_dataset(str(tmp_path))
    with pytest.raises(InputError, match=r"0.parquet: column 'id' must hold lists of numbers, got int64"):
        PrecomputedEmbeddings.from_dataset(str(tmp_path), text_column="body", embedding_column="id")


def test_embeddings_of_several_lengths_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b"], "embedding": [[1.0], [2.0, 3.0]]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"x.parquet, row 0: the embedding has 1 numbers, and others have 2"):
        PrecomputedEmbeddings.from_dataset(str(tmp_path))
    pq.write_table(pa.table({"text": ["a", "b"], "embedding": [[1.0], [2.0]]}), tmp_path / "x.parquet")
    pq.write_table(pa.table({"text": ["a", "b"], "embedding": [[1.0, 2.0]] * 2}), tmp_path / "y.parquet")
    with pytest.raises(InputError, match="embeddings must be of one length, got 1 and 2"):
        PrecomputedEmbeddings.from_dataset(str(tmp_path))


def write(path: Path, facts: dict[str, Any], columns: dict[str, Any], texts: list[str] = TEXTS) -> None:
    table = pa.table({"text": texts, **columns})
    pq.write_table(table.replace_schema_metadata({"sbert_ray": json.dumps(facts)}), path)


def test_embeddings_are_compared_as_the_job_says(tmp_path: Path) -> None:
    matrix = Texts().encode(TEXTS).tolist()
    for number, facts in enumerate(({"similarity": "dot"}, {"similarity": "dot"}, {})):
        write(tmp_path / f"{number}.parquet", facts, {"embedding": matrix})
    assert PrecomputedEmbeddings.from_dataset(str(tmp_path)).similarity_fn_name == "dot"
    assert PrecomputedEmbeddings.from_dataset(str(tmp_path), similarity_fn_name="cosine").similarity_fn_name == "cosine"
    assert PrecomputedEmbeddings.from_dataset(str(tmp_path / "2.parquet")).similarity_fn_name == "cosine"
    write(tmp_path / "3.parquet", {"similarity": "euclidean"}, {"embedding": matrix})
    with pytest.raises(
        InputError, match=r"embedded alike, got similarity 'euclidean' in 3.parquet and 'dot' in others"
    ):
        PrecomputedEmbeddings.from_dataset(str(tmp_path))


def test_a_sparse_dataset_is_read(tmp_path: Path) -> None:
    matrix = SparseTexts(dim=9).encode(TEXTS).to_dense()
    columns = {
        "indices": pa.array([row.nonzero()[:, 0].tolist() for row in matrix], pa.list_(pa.int32())),
        "values": [row[row != 0].tolist() for row in matrix],
    }
    write(tmp_path / "x.parquet", {"similarity": "dot", "dimension": 9}, columns)
    encoder = PrecomputedEmbeddings.from_dataset(str(tmp_path))
    assert torch.equal(encoder.encode(TEXTS[::-1]).to_dense(), matrix.flip(0))
    model = SparseTexts(dim=9, similarity_fn_name="dot")
    evaluator = SparseTripletEvaluator(TEXTS[:9], TEXTS[9:18], TEXTS[18:27])
    model.encode_query = model.encode  # type: ignore[method-assign]
    assert evaluator(encoder) == evaluator(model)
    write(tmp_path / "x.parquet", {"dimension": 5}, columns)
    with pytest.raises(InputError, match="indices must be less than 5, got 8"):
        PrecomputedEmbeddings.from_dataset(str(tmp_path))
    write(tmp_path / "x.parquet", {}, columns)
    with pytest.raises(InputError, match="does not tell the dimension of its embeddings"):
        PrecomputedEmbeddings.from_dataset(str(tmp_path))
    write(tmp_path / "x.parquet", {"dimension": 9}, columns | {"values": [[1.0]] * 40})
    with pytest.raises(InputError, match="not as many values as indices"):
        PrecomputedEmbeddings.from_dataset(str(tmp_path))


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_codes_are_the_numbers_that_they_stand_for(tmp_path: Path, precision: str) -> None:
    matrix = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
    ranges = calibration_ranges(matrix)
    codes = quantize_embeddings(matrix, precision, ranges)
    write(tmp_path / "x.parquet", {"precision": precision, "dimension": 16}, {"embedding": pa.array(list(codes))})
    if precision.endswith("int8"):
        with pytest.raises(InputError, match=f"the ranges of {precision} are in its _manifest/calibration.json"):
            PrecomputedEmbeddings.from_dataset(str(tmp_path))
    (tmp_path / "_manifest").mkdir()
    found = {"min": ranges[0].tolist(), "max": ranges[1].tolist()}
    (tmp_path / "_manifest" / "calibration.json").write_text(json.dumps(found))
    got = PrecomputedEmbeddings.from_dataset(str(tmp_path)).encode(TEXTS)
    assert got.dtype == np.float32
    assert np.array_equal(got, dequantize_embeddings(codes, precision, ranges, 16).astype(np.float32))
    write(tmp_path / "x.parquet", {}, {"embedding": pa.array(list(codes))})
    with pytest.raises(InputError, match="must hold floats, or tell the precision of its codes"):
        PrecomputedEmbeddings.from_dataset(str(tmp_path))


@pytest.mark.parametrize("kind", [pa.large_list(pa.float32()), pa.list_(pa.float64()), pa.list_(pa.float16(), 4)])
def test_lists_of_any_kind_are_read(tmp_path: Path, kind: pa.DataType) -> None:
    matrix = Texts().encode(TEXTS)
    write(tmp_path / "x.parquet", {}, {"embedding": pa.array(matrix.astype(np.float16).tolist(), kind)})
    got = PrecomputedEmbeddings.from_dataset(str(tmp_path)).encode(TEXTS)
    assert np.array_equal(got, matrix)
    assert got.dtype == kind.value_type.to_pandas_dtype()


@pytest.mark.parametrize(
    ("texts", "embeddings", "message"),
    [
        (["a", None], [[1.0], [2.0]], "x.parquet, row 1: the text must not be null"),
        (["a", "b"], [[1.0], None], "x.parquet, row 1: the embedding is null"),
        (["a", "b"], [[1.0], [None]], "x.parquet, row 1: the embedding has a null in it"),
    ],
)
def test_nulls_are_refused(tmp_path: Path, texts: list[Any], embeddings: Any, message: str) -> None:
    write(tmp_path / "x.parquet", {}, {"embedding": embeddings}, texts)
    with pytest.raises(InputError, match=message):
        PrecomputedEmbeddings.from_dataset(str(tmp_path))


def test_json_lines_are_read(tmp_path: Path) -> None:
    matrix = Texts().encode(TEXTS)
    rows = [{"text": text, "embedding": row} for text, row in zip(TEXTS, matrix.tolist(), strict=True)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert np.array_equal(PrecomputedEmbeddings.from_dataset(str(tmp_path)).encode(TEXTS), matrix)


def test_embeddings_may_come_in_lists() -> None:
    matrix = Texts().encode(TEXTS)
    for given in (matrix.tolist(), list(matrix), list(torch.from_numpy(matrix))):
        assert np.array_equal(PrecomputedEmbeddings(TEXTS, given).encode(TEXTS[3:5]), matrix[3:5])


def test_wrong_input_is_refused() -> None:
    encoder = PrecomputedEmbeddings(TEXTS, np.zeros((40, 2)))
    with pytest.raises(KeyError, match="2 of 3 texts have no embedding, the first is 'no'"):
        encoder.encode([TEXTS[0], "no", "neither"])
    with pytest.raises(KeyError, match="1 of 1 texts"):
        PrecomputedEmbeddings([], np.zeros((0, 2))).encode(["a"])
    with pytest.raises(ValueError, match=r"embeddings must be \(40, D\), as the texts, got \(3, 2\)"):
        PrecomputedEmbeddings(TEXTS, np.zeros((3, 2)))
    with pytest.raises(ValueError, match="unknown similarity function 'angle'"):
        PrecomputedEmbeddings(TEXTS, np.zeros((40, 2)), similarity_fn_name="angle")
