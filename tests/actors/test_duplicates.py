"""Equal texts of a unit are computed once, and the output has all of its rows all the same."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from actors.embedder import Embedder, EmbedderConfig, SparseEmbedder
from actors.reranker import Reranker, RerankerConfig
from sbert_ray import CrossEncoder, SentenceTransformer, SparseEncoder
from sbert_ray.data.candidates import Candidates
from sbert_ray.data.dataset import Dataset
from sbert_ray.data.units import Unit
from sbert_ray.models.checkpoint import resolve_checkpoint

DISTINCT = ["the cat sat on the mat", "a dog", "", "blue", "the slow red cat ran"]
TEXTS = [DISTINCT[place] for place in (0, 1, 0, 2, 1, 1, 3, 2, 4)]
TOKENS = {text: len(text.split()) + 2 for text in DISTINCT}


def silent(num_rows: int) -> None:
    """Take a sign of life."""


def make_worker(kind: str, folder: Path, checkpoint: Path, texts: list[str | None] = TEXTS, **options: Any) -> Any:
    """Write texts, or pairs of a query and each, as a dataset, and return a worker for it."""
    (folder / "in").mkdir(exist_ok=True)
    columns = {"id": range(len(texts)), "query": ["a cat"] * len(texts), "text": texts}
    pq.write_table(pa.table(columns), folder / "in/a.parquet")
    reader = Dataset.open(f"{folder}/in", ["text", "query"], ["id"]).reader(100)
    common = {
        "model": str(checkpoint),
        "revision": resolve_checkpoint(checkpoint).revision,
        "is_local": True,
        **options,
    }
    if kind == "reranker":
        candidates = Candidates("pairs", "query", "text", None, "id")
        return Reranker(
            reader, f"{folder}/out", RerankerConfig(model_type="CrossEncoder", candidates=candidates, **common)
        )
    if kind == "sparse":
        common["model_type"] = "SparseEncoder"
    config = EmbedderConfig(text_columns=("text",), id_column="id", **common)
    return (SparseEmbedder if kind == "sparse" else Embedder)(reader, f"{folder}/out", config)


def process(worker: Any, num_rows: int = len(TEXTS)) -> tuple[dict[str, Any], pa.Table]:
    report = worker.process(Unit(0, "a.parquet", 0, num_rows), silent)
    return report.stats, pq.read_table(Path(worker.storage.url) / report.committed.file)


def vectors(table: pa.Table) -> np.ndarray:
    column = table["embedding"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), -1)


def seen_by(worker: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what the model will be given to prepare."""
    seen: list[Any] = []
    prepare: Callable[..., Any] = worker.model.prepare

    def watched(inputs: list[Any], *arguments: Any, **options: Any) -> Any:
        seen.extend(inputs)
        return prepare(inputs, *arguments, **options)

    monkeypatch.setattr(worker.model, "prepare", watched)
    return seen


def test_embeddings_are_those_of_each_text(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make_worker("dense", tmp_path, tiny_checkpoint)
    seen = seen_by(worker, monkeypatch)
    stats, table = process(worker)
    assert seen == DISTINCT
    assert table["id"].to_pylist() == list(range(9))
    assert_allclose(vectors(table), SentenceTransformer(str(tiny_checkpoint)).encode(TEXTS), atol=1e-6)
    assert_array_equal(vectors(table)[0], vectors(table)[2])
    assert stats["duplicate_texts"] == 4
    assert stats["tokens"] == sum(TOKENS[text] for text in TEXTS)
    assert stats["computed_tokens"] == sum(TOKENS.values()) <= stats["padded_tokens"]
    assert sum(stats["token_lengths"]) == 9
    assert stats["empty_texts"] == 2


def test_progress_counts_the_rows_of_all_texts(tmp_path: Path, tiny_checkpoint: Path) -> None:
    worker, beats = make_worker("dense", tmp_path, tiny_checkpoint), []
    worker.process(Unit(0, "a.parquet", 0, 9), beats.append)
    assert sum(beats) == 9


def test_sparse_embeddings_are_those_of_each_text(tmp_path: Path, tiny_splade: Path) -> None:
    stats, table = process(make_worker("sparse", tmp_path, tiny_splade))
    assert (stats["duplicate_texts"], stats["tokens"]) == (4, sum(TOKENS[text] for text in TEXTS))
    expected = SparseEncoder(str(tiny_splade)).encode(TEXTS).to_dense().numpy()
    found = np.zeros_like(expected)
    for row, (indices, values) in enumerate(
        zip(table["indices"].to_pylist(), table["values"].to_pylist(), strict=True)
    ):
        found[row, indices] = values
    assert_allclose(found, expected, atol=1e-5)


def test_scores_are_those_of_each_pair(
    tmp_path: Path, tiny_cross_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make_worker("reranker", tmp_path, tiny_cross_encoder)
    seen = seen_by(worker, monkeypatch)
    stats, table = process(worker)
    assert seen == [("a cat", text) for text in DISTINCT]
    scores = CrossEncoder(str(tiny_cross_encoder)).predict([("a cat", text) for text in TEXTS])
    found = dict(zip(table["doc_id"].to_pylist(), table["score"].to_pylist(), strict=True))
    assert [found[row] for row in range(9)] == pytest.approx(list(scores), abs=1e-6)
    assert (stats["pairs"], stats["duplicate_texts"]) == (9, 4)


@pytest.mark.parametrize("kind", ["dense", "sparse", "reranker"])
def test_each_text_is_computed_if_that_is_asked_for(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture = {"dense": "tiny_checkpoint", "sparse": "tiny_splade", "reranker": "tiny_cross_encoder"}[kind]
    worker = make_worker(kind, tmp_path, request.getfixturevalue(fixture), deduplicate=False)
    seen = seen_by(worker, monkeypatch)
    stats, _ = process(worker)
    assert len(seen) == len(TEXTS)
    assert (stats["duplicate_texts"], stats["tokens"]) == (0, stats["computed_tokens"])


@pytest.mark.parametrize("kind", ["dense", "sparse", "reranker"])
def test_without_duplicates_the_bytes_are_the_same(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    fixture = {"dense": "tiny_checkpoint", "sparse": "tiny_splade", "reranker": "tiny_cross_encoder"}[kind]
    digests = set()
    for deduplicate in (True, False):
        folder = tmp_path / str(deduplicate)
        folder.mkdir()
        options = {"texts": DISTINCT, "deduplicate": deduplicate}
        worker = make_worker(kind, folder, request.getfixturevalue(fixture), **options)
        digests.add(worker.process(Unit(0, "a.parquet", 0, 5), silent).committed.sha256)
    assert len(digests) == 1


def test_a_text_that_the_model_refuses_takes_all_its_rows_and_no_others(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make_worker("dense", tmp_path, tiny_checkpoint, texts=["blue", "a dog", None, "blue", "a dog", "red"])
    prepare = worker.model.prepare

    def picky(texts: list[str], prompt: str | None, **options: Any) -> Any:
        if "blue" in texts:
            raise RuntimeError("no blue, please")
        return prepare(texts, prompt, **options)

    monkeypatch.setattr(worker.model, "prepare", picky)
    report = worker.process(Unit(0, "a.parquet", 0, 6), silent)
    assert sorted((row.id, row.text) for row in report.bad) == [(0, "blue"), (2, None), (3, "blue")]
    table = pq.read_table(Path(worker.storage.url) / report.committed.file)
    assert table["id"].to_pylist() == [1, 4, 5]
    expected = SentenceTransformer(str(tiny_checkpoint)).encode(["a dog", "a dog", "red"])
    assert_allclose(vectors(table), expected, atol=1e-6)


def test_an_embedding_that_is_not_finite_takes_all_its_rows(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make_worker("dense", tmp_path, tiny_checkpoint)
    embed = worker.model.embed_prepared

    def spoiled(prepared: Any, **options: Any) -> Any:
        run = embed(prepared, **options)
        run.embeddings[prepared.lengths == TOKENS["a dog"]] = np.nan
        return run

    monkeypatch.setattr(worker.model, "embed_prepared", spoiled)
    report = worker.process(Unit(0, "a.parquet", 0, 9), silent)
    assert [row.id for row in report.bad] == [1, 4, 5]
    assert report.committed.rows == 6


def test_halved_batches_are_counted(tmp_path: Path, tiny_checkpoint: Path) -> None:
    worker = make_worker("dense", tmp_path, tiny_checkpoint)
    inputs = worker.prepare_distinct(TEXTS, worker.model.prepare)
    run = SimpleNamespace(num_tokens=20, num_padded_tokens=30, num_halvings=2)
    assert worker.count_tokens(inputs, run)["halvings"] == 2


def test_texts_for_a_model_of_images_are_computed_once_too(
    tmp_path: Path, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make_worker("dense", tmp_path, tiny_clip, texts=["a cat", "a dog", "a cat"])
    seen = seen_by(worker, monkeypatch)
    stats, table = process(worker, 3)
    assert seen == [{"text": "a cat"}, {"text": "a dog"}]
    assert_array_equal(vectors(table)[0], vectors(table)[2])
    assert stats["duplicate_texts"] == 1
