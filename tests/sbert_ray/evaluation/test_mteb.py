"""The adapters for mteb, against its protocols as written down here, and with mteb itself where it is installed."""

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sbert_ray import CrossEncoder, SentenceTransformer, SparseEncoder
from sbert_ray.evaluation.mteb import MTEBCrossEncoder, MTEBEncoder

# The arguments of the methods in `mteb.models.models_protocols` of mteb 2.26.
PROTOCOLS = {
    (MTEBEncoder, "encode"): ["inputs", "task_metadata", "hf_split", "hf_subset", "prompt_type", "kwargs"],
    (MTEBEncoder, "similarity"): ["embeddings1", "embeddings2"],
    (MTEBEncoder, "similarity_pairwise"): ["embeddings1", "embeddings2"],
    (MTEBCrossEncoder, "predict"): [
        *("inputs1", "inputs2", "task_metadata", "hf_split", "hf_subset", "prompt_type", "kwargs"),
    ],
}
STS = SimpleNamespace(name="STS12", type="STS")
SEARCH = SimpleNamespace(name="NFCorpus", type="Retrieval")
BATCHES = [{"text": ["the cat", "a dog ran"]}, {"text": ["red"]}]
TEXTS = ["the cat", "a dog ran", "red"]
SPLIT = {"hf_split": "test", "hf_subset": "default"}


@pytest.fixture(scope="module")
def dense(tiny_checkpoint: Path) -> SentenceTransformer:
    prompts = {"query": "red ", "document": "blue ", "STS12": "fast ", "NFCorpus-query": "slow ", "STS": "cat "}
    return SentenceTransformer(str(tiny_checkpoint), device="cpu", prompts=prompts)


def wrapped(model: Any) -> MTEBEncoder:
    return MTEBEncoder(model, "me/tiny", "1")


@pytest.mark.parametrize(("adapter", "method"), PROTOCOLS, ids=lambda value: getattr(value, "__name__", value))
def test_methods_take_what_the_protocols_say(adapter: type, method: str) -> None:
    signature = inspect.signature(getattr(adapter, method))
    assert list(signature.parameters)[1:] == PROTOCOLS[adapter, method]


@pytest.mark.parametrize(
    ("task", "role", "prefix"),
    [
        (STS, None, "fast "),
        (SEARCH, "query", "slow "),
        (SEARCH, "document", "blue "),
        (SimpleNamespace(name="STS13", type="STS"), None, "cat "),
        (SimpleNamespace(name="Other", type="Clustering"), None, ""),
    ],
)
def test_the_most_special_prompt_wins(dense: SentenceTransformer, task: Any, role: str | None, prefix: str) -> None:
    kind = role and SimpleNamespace(value=role)
    found = wrapped(dense).encode(BATCHES, task_metadata=task, prompt_type=kind, batch_size=2, **SPLIT)
    np.testing.assert_allclose(found, dense.encode([prefix + text for text in TEXTS]), atol=1e-6)


def test_queries_go_to_encode_query(dense: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(SentenceTransformer, "encode_query", lambda _, rows, **kwargs: seen.append((rows, kwargs)))
    wrapped(dense).encode(BATCHES, task_metadata=STS, prompt_type="query", show_progress_bar=False, **SPLIT)
    assert seen == [(TEXTS, {"prompt": "fast ", "show_progress_bar": False})]


def test_similarities_are_the_models(dense: SentenceTransformer) -> None:
    matrix = dense.encode(TEXTS)
    assert torch.equal(wrapped(dense).similarity(matrix, matrix), dense.similarity(matrix, matrix))
    assert torch.equal(wrapped(dense).similarity_pairwise(matrix, matrix), dense.similarity_pairwise(matrix, matrix))


def test_sparse_embeddings_stay_sparse_for_retrieval_alone(tiny_splade: Path) -> None:
    model = SparseEncoder(str(tiny_splade), device="cpu")
    sparse = wrapped(model).encode(BATCHES, task_metadata=SEARCH, **SPLIT)
    full = wrapped(model).encode(BATCHES, task_metadata=STS, **SPLIT)
    assert sparse.is_sparse
    assert full.layout == torch.strided
    assert torch.equal(sparse.to_dense(), full)


def test_pairs_are_scored(tiny_cross_encoder: Path) -> None:
    model = CrossEncoder(str(tiny_cross_encoder), device="cpu")
    documents = [{"text": ["on", "mat", "blue"]}]
    found = MTEBCrossEncoder(model, "me/tiny", "1").predict(BATCHES, documents, task_metadata=SEARCH, **SPLIT)
    np.testing.assert_allclose(found, model.predict(list(zip(TEXTS, ["on", "mat", "blue"], strict=True))), atol=1e-6)


def test_images_come_with_their_texts(tiny_clip: Path) -> None:
    image = pytest.importorskip("PIL.Image").new("RGB", (32, 32), "red")
    model = SentenceTransformer(str(tiny_clip), device="cpu")
    found = wrapped(model).encode([{"image": [image], "id": ["7"]}], task_metadata=STS, **SPLIT)
    np.testing.assert_allclose(found, model.encode([{"image": image}]), atol=1e-6)


def test_a_modality_that_the_model_does_not_take_is_an_error(dense: SentenceTransformer) -> None:
    with pytest.raises(ValueError, match=r"me/tiny takes \['text'\], and the task has \['audio'\]"):
        wrapped(dense).encode([{"audio": [0]}], task_metadata=STS, **SPLIT)


def test_a_name_has_an_owner(dense: SentenceTransformer) -> None:
    with pytest.raises(ValueError, match="name must be OWNER/NAME, got 'tiny'"):
        MTEBEncoder(dense, "tiny", "1")


# With mteb itself

ABOUT = {
    "description": "A test.",
    "reference": None,
    "dataset": {"path": "NA", "revision": "NA"},
    "eval_splits": ["test"],
    "eval_langs": ["eng-Latn"],
}
QUERIES = {"q1": "the fast cat", "q2": "a dog ran", "q3": "blue mat"}
CORPUS = {"d1": "a dog sat", "d2": "the cat ran fast", "d3": "red mat", "d4": "slow dog", "d5": "blue blue mat"}
RELEVANT = {"q1": {"d2": 1}, "q2": {"d1": 1, "d4": 1}, "q3": {"d5": 1}}


def retrieval_task(kind: str) -> Any:
    """A task of mteb over texts in memory, with no dataset to fetch."""
    from datasets import Dataset
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    class Tiny(AbsTaskRetrieval):
        metadata = TaskMetadata(name=f"Tiny{kind}", type=kind, main_score="ndcg_at_10", **ABOUT)

        def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
            queries, corpus = (
                Dataset.from_list([{"id": name, "text": text} for name, text in table.items()])
                for table in (QUERIES, CORPUS)
            )
            ranked = {name: list(CORPUS) for name in QUERIES} if kind == "Reranking" else None
            split = {"queries": queries, "corpus": corpus, "relevant_docs": RELEVANT, "top_ranked": ranked}
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return Tiny()


def sts_task() -> Any:
    from datasets import Dataset, DatasetDict
    from mteb.abstasks import AbsTaskSTS
    from mteb.abstasks.task_metadata import TaskMetadata

    class Tiny(AbsTaskSTS):
        metadata = TaskMetadata(name="TinySTS", type="STS", main_score="cosine_spearman", **ABOUT)
        min_score, max_score = 0, 5

        def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
            pairs = {"sentence1": list(CORPUS.values())[:3], "sentence2": list(QUERIES.values()), "score": [4, 1, 3]}
            self.dataset = DatasetDict({"test": Dataset.from_dict(pairs)})
            self.data_loaded = True

    return Tiny()


def scores(model: Any, task: Any) -> dict[str, float]:
    import mteb

    result = mteb.evaluate(model, task, cache=None, show_progress_bar=False)
    [found] = result.task_results[0].scores["test"]
    return {name: value for name, value in found.items() if isinstance(value, float)}


@pytest.mark.filterwarnings("ignore")  # of mteb and what it imports
@pytest.mark.parametrize("task", ["Retrieval", "Reranking", "STS"])
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_mteb_finds_what_it_finds_of_the_peer(
    task: str, kind: str, minilm: Path, tiny_splade: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("mteb")
    peer = pytest.importorskip("sentence_transformers")
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path))
    ours, theirs = (
        (SentenceTransformer(str(minilm), device="cpu"), peer.SentenceTransformer(str(minilm), device="cpu"))
        if kind == "dense"
        else (SparseEncoder(str(tiny_splade), device="cpu"), peer.SparseEncoder(str(tiny_splade), device="cpu"))
    )

    def made() -> Any:
        return sts_task() if task == "STS" else retrieval_task(task)

    expected = scores(theirs, made())
    found = scores(wrapped(ours), made())
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, rel=1e-5, abs=2e-5, nan_ok=True)


@pytest.mark.filterwarnings("ignore")
def test_mteb_reranks_with_a_cross_encoder(
    tiny_cross_encoder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("mteb")
    peer = pytest.importorskip("sentence_transformers")
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path))
    expected = scores(peer.CrossEncoder(str(tiny_cross_encoder), device="cpu"), retrieval_task("Reranking"))
    model = MTEBCrossEncoder(CrossEncoder(str(tiny_cross_encoder), device="cpu"), "me/tiny", "1")
    assert scores(model, retrieval_task("Reranking")) == pytest.approx(expected, rel=1e-5, abs=2e-5, nan_ok=True)
