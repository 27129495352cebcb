"""Embeddings that are looked up."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sbert_ray.data.errors import InputError
from sbert_ray.evaluation import EmbeddingSimilarityEvaluator, InformationRetrievalEvaluator, PrecomputedEmbeddings
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
    with pytest.raises(ValueError, match="column 'id' must hold embeddings of floats without nulls, got int64"):
        PrecomputedEmbeddings.from_dataset(str(tmp_path), text_column="body", embedding_column="id")


def test_embeddings_of_several_lengths_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b"], "embedding": [[1.0], [2.0, 3.0]]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="column 'embedding' must hold embeddings of one length"):
        PrecomputedEmbeddings.from_dataset(str(tmp_path))


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
