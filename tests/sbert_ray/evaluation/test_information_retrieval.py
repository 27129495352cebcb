"""Retrieval against the peer, ties included, and in bounded memory."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sbert_ray.embeddings import to_csr, to_scipy_coo
from sbert_ray.evaluation import InformationRetrievalEvaluator, SparseInformationRetrievalEvaluator
from sbert_ray.similarity import cos_sim, dot_score, euclidean_sim
from tests.sbert_ray.evaluation.oracle import SparseTexts, Texts, assert_same, words

peer = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation")

RNG = np.random.default_rng(0)
QUERIES = {f"q{number}": text for number, text in enumerate(words("query ", 12))}
CORPUS = {f"d{number}": text for number, text in enumerate(words("document ", 60))}
RELEVANT = {
    query: {f"d{row}" for row in RNG.choice(60, 1 + number % 7, replace=False)} for number, query in enumerate(QUERIES)
} | {"q3": set()}
DATA = (QUERIES, CORPUS, RELEVANT)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"name": "dev", "truncate_dim": 3, "corpus_chunk_size": 7, "write_predictions": True},
        {
            "score_functions": {"b": dot_score, "a": cos_sim},
            "mrr_at_k": [1, 5],
            "ndcg_at_k": [3, 10],
            "map_at_k": [200],
        },
        {
            "score_functions": {"cosine": cos_sim, "dot": dot_score},
            "main_score_function": "cosine",
            "accuracy_at_k": [2],
            "precision_recall_at_k": [70],
            "write_predictions": True,
            "write_csv": False,
        },
        {"query_prompt": "find ", "corpus_prompt_name": "text", "batch_size": 3, "show_progress_bar": False},
    ],
)
@pytest.mark.parametrize("similarity", ["cosine", "dot", "manhattan"])
def test_equals_the_peer(options: dict[str, Any], similarity: str, tmp_path: Path) -> None:
    model = Texts(levels=1, similarity_fn_name=similarity)
    theirs = peer.InformationRetrievalEvaluator(*DATA, **options)
    assert_same(InformationRetrievalEvaluator(*DATA, **options), theirs, model, tmp_path)


def test_chunks_change_nothing() -> None:
    for kind in (Texts, SparseTexts):
        model = kind(levels=1, similarity_fn_name="dot")  # whose sums are exact, whatever their order
        found = [
            InformationRetrievalEvaluator(*DATA, corpus_chunk_size=size).search(model) for size in (1, 4, 13, 60, 1000)
        ]
        for other in found[1:]:
            for function, (scores, ids) in other.items():
                assert torch.equal(scores, found[0][function].scores)
                assert torch.equal(ids, found[0][function].ids)


def test_documents_that_are_not_there_are_not_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    relevant = RELEVANT | {"q3": {"d1", "x9"}, "absent": {"d2"}}
    theirs = peer.InformationRetrievalEvaluator(QUERIES, CORPUS, relevant)
    assert_same(InformationRetrievalEvaluator(QUERIES, CORPUS, relevant), theirs, Texts(levels=1), tmp_path)
    assert next(message for message in caplog.messages if "cannot be found" in message).endswith("such as 'x9'")


def test_ties_go_by_id_as_strings() -> None:
    corpus = {str(number): "same" for number in range(25)}
    evaluator = InformationRetrievalEvaluator({"q": "same"}, corpus, {"q": {"3"}}, corpus_chunk_size=4, map_at_k=[12])
    ids = evaluator.search(Texts())["cosine"].ids[0].tolist()
    assert [evaluator.corpus_ids[row] for row in ids] == sorted(corpus)[:12]


class Rows(Mapping[str, str]):
    """A corpus that is never in memory as a whole."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[str]:
        return (str(number) for number in range(self.size))

    def __getitem__(self, name: str) -> str:
        return f"document {name}"


def test_a_corpus_is_embedded_chunk_by_chunk() -> None:
    model = Texts()
    evaluator = InformationRetrievalEvaluator({"q": "x"}, Rows(5000), {"q": {"7"}}, corpus_chunk_size=300)
    evaluator(model)
    assert model.counts == [1, *[300] * 16, 200]


def test_the_corpus_may_have_a_model_or_embeddings_of_its_own() -> None:
    model, other = Texts(levels=1), Texts(levels=2)
    ours, theirs = InformationRetrievalEvaluator(*DATA), peer.InformationRetrievalEvaluator(*DATA)
    assert ours(model, corpus_model=other) == pytest.approx(theirs(model, corpus_model=other))
    embeddings = other.encode(CORPUS.values(), convert_to_tensor=True)
    assert ours(model, corpus_embeddings=embeddings) == pytest.approx(theirs(model, corpus_embeddings=embeddings))
    assert ours(model, corpus_embeddings=embeddings) == ours(model, corpus_model=other)


def test_minilm_finds_what_the_peer_finds(minilm: Path) -> None:
    from sentence_transformers import SentenceTransformer as Theirs

    from sbert_ray import SentenceTransformer

    corpus = {"a": "Cats sleep most of the day.", "b": "The train to Rome leaves at nine.", "c": "Bread needs yeast."}
    data = ({"1": "pets at rest", "2": "baking"}, corpus, {"1": {"a"}, "2": {"c", "b"}})
    got = InformationRetrievalEvaluator(*data)(SentenceTransformer(str(minilm), device="cpu"))
    assert got == pytest.approx(peer.InformationRetrievalEvaluator(*data)(Theirs(str(minilm), device="cpu")))


class Plain:
    """Takes nothing but texts."""

    def encode(self, texts: Any, batch_size: int = 32) -> Any:
        return Texts().encode(texts)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ((QUERIES, CORPUS, {}), {}, "queries must have at least one with relevant documents"),
        ((QUERIES, CORPUS, {"q1": {1, 9}}), {}, "must name documents of the corpus, got 2 of 2, such as 1, that are"),
        (DATA, {"corpus_chunk_size": 0}, "corpus_chunk_size and every k must be positive"),
        (DATA, {"mrr_at_k": [0]}, "every k must be positive"),
        (DATA, {"ndcg_at_k": []}, "ndcg_at_k have one"),
        (DATA, {"main_score_function": "cosin"}, r"main_score_function must be one of \['cosine', .*, got 'cosin'"),
        (DATA, {"mrr_at_k": 10}, r"every at_k must be ranks, such as \[1, 10\], got \(10, "),
        ((QUERIES, CORPUS, {"q1": "d10"}), {}, "relevant_docs must have sets of ids, got 'd10'"),
        (
            DATA,
            {"score_functions": {"a": euclidean_sim}, "main_score_function": "b"},
            r"main_score_function must be one of \['a'\], got 'b'",
        ),
    ],
)
def test_wrong_input_is_refused(data: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InformationRetrievalEvaluator(*data, **options)


def test_what_a_model_cannot_do_is_refused() -> None:
    assert InformationRetrievalEvaluator(*DATA)(Plain())
    with pytest.raises(ValueError, match=r"prompt must be an argument of Plain.encode to be used, got prompt='find '"):
        InformationRetrievalEvaluator(*DATA, query_prompt="find ")(Plain())
    with pytest.raises(ValueError, match=r"main_score_function must be 'cosine', the model's similarity, got 'dot'"):
        InformationRetrievalEvaluator(*DATA, main_score_function="dot")(Plain())
    with pytest.raises(TypeError, match="must have a method encode, got dict"):
        InformationRetrievalEvaluator(*DATA)({})


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", [int, str, lambda number: (number % 3, number)])
def test_ties_of_ids_of_any_kind_are_as_with_the_peer(seed: int, kind: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(200)[:60].tolist()
    corpus = {kind(number): f"document {number % 7}" for number in numbers}
    data = (QUERIES, corpus, {query: {kind(number) for number in rng.choice(numbers, 3)} for query in QUERIES})
    options = {"corpus_chunk_size": int(rng.integers(5, 70))}
    theirs = peer.InformationRetrievalEvaluator(*data, **options)
    assert_same(InformationRetrievalEvaluator(*data, **options), theirs, Texts(levels=1, dim=2), tmp_path)


def test_ids_of_several_kinds_go_as_strings() -> None:
    evaluator = InformationRetrievalEvaluator({"q": "x"}, {2: "x", "1": "x", 10: "x"}, {"q": {2}})
    ids = evaluator.search(Texts())["cosine"].ids[0].tolist()
    assert [evaluator.corpus_ids[row] for row in ids] == ["1", 10, 2]


class Turned(Texts):
    """Turns its queries round."""

    def __init__(self, sign: int) -> None:
        super().__init__()
        self.sign = sign

    def encode_query(self, texts: Any, **options: Any) -> Any:
        return self.sign * self.encode(texts, **options)


@pytest.mark.parametrize("name", ["", "dev"])
@pytest.mark.parametrize("seed", range(5))
def test_the_best_function_is_chosen_once_as_by_the_peer(seed: int, name: str) -> None:
    relevant = {
        query: {f"d{row}"} for query, row in zip(QUERIES, np.random.default_rng(seed).integers(0, 60, 12), strict=False)
    }
    functions = {"b": lambda a, b: -dot_score(a, b), "a": dot_score, "c": dot_score}  # a and c are always equal
    ours, theirs = (
        kind(QUERIES, CORPUS, relevant, score_functions=functions, name=name)
        for kind in (InformationRetrievalEvaluator, peer.InformationRetrievalEvaluator)
    )
    for sign in (1, -1, 1):
        assert ours(Turned(sign)) == pytest.approx(theirs(Turned(sign)))
        assert ours.primary_metric == theirs.primary_metric


def test_a_similarity_of_the_models_own_is_used(tmp_path: Path) -> None:
    class Own(Texts):
        def similarity(self, a: Any, b: Any) -> Any:
            return -dot_score(a, b)

    for name in ("cosine", "odd"):
        model = Own(levels=1)
        model.similarity_fn_name = name
        (tmp_path / name).mkdir()
        theirs = peer.InformationRetrievalEvaluator(*DATA)
        assert_same(InformationRetrievalEvaluator(*DATA), theirs, model, tmp_path / name)


@pytest.mark.parametrize("chunk_size", [7, 1000])
def test_given_embeddings_may_be_of_any_kind(chunk_size: int) -> None:
    model = Texts(levels=1, similarity_fn_name="dot")  # whose sums are exact, whatever their precision
    evaluator = InformationRetrievalEvaluator(*DATA, corpus_chunk_size=chunk_size)
    expected = evaluator(model)
    matrix = model.encode(CORPUS.values(), convert_to_tensor=True)
    sparse = matrix.to_sparse()
    rows = [matrix.numpy(), matrix.double(), list(matrix), list(matrix.numpy()), matrix.tolist()]
    for given in (*rows, sparse, to_csr(matrix), to_scipy_coo(sparse), to_scipy_coo(sparse).tocsr()):
        assert evaluator(model, corpus_embeddings=given) == pytest.approx(expected)


def test_given_embeddings_of_another_number_are_refused() -> None:
    evaluator = InformationRetrievalEvaluator(*DATA)
    for size in (59, 61):
        with pytest.raises(ValueError, match=f"corpus_embeddings must be 60, one of each document, got {size}"):
            evaluator(Texts(), corpus_embeddings=torch.zeros(size, 4))


@pytest.mark.parametrize("is_sparse", [True, False])
def test_given_embeddings_are_counted(is_sparse: bool) -> None:
    model = SparseTexts(dim=16, similarity_fn_name="dot")
    evaluator = SparseInformationRetrievalEvaluator(*DATA, corpus_chunk_size=11)
    matrix = model.encode(CORPUS.values(), convert_to_sparse_tensor=is_sparse)
    assert evaluator(model, corpus_embeddings=matrix) == evaluator(model)


def test_nan_is_refused() -> None:
    class Nan(Texts):
        def row(self, text: str) -> np.ndarray:
            return super().row(text) * np.float32("nan" if text == "document 3" else 1)

    with pytest.raises(ValueError, match="scores must be numbers, got nan in row 0"):
        InformationRetrievalEvaluator(*DATA)(Nan())
