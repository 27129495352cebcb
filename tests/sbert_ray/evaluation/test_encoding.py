"""What evaluators ask of models, and what they make of the answers."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sbert_ray.embeddings import to_scipy_coo
from sbert_ray.evaluation.encoding import DOCUMENT, QUERY, embed, predict


class Fixed:
    """Returns the same whatever it is asked."""

    def __init__(self, embeddings: Any) -> None:
        self.embeddings = embeddings
        self.asked: list[dict[str, Any]] = []

    def encode(self, texts: Any, **options: Any) -> Any:
        self.asked.append(options)
        return self.embeddings


MATRIX = torch.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize(
    "embeddings",
    [
        MATRIX,
        MATRIX.numpy(),
        MATRIX.double().numpy(),
        MATRIX.half(),
        list(MATRIX),
        list(MATRIX.numpy()),
        MATRIX.tolist(),
    ],
)
def test_embeddings_of_any_kind_are_a_tensor(embeddings: Any) -> None:
    assert torch.equal(embed(Fixed(embeddings), ["a", "b"]).float(), MATRIX)


def test_sparse_embeddings_of_any_kind_are_coo() -> None:
    coo = MATRIX.to_sparse()
    for embeddings in (coo, [row.to_sparse() for row in MATRIX]):
        got = embed(Fixed(embeddings), ["a", "b"])
        assert got.layout == torch.sparse_coo
        assert got.is_coalesced()
        assert torch.equal(got.to_dense(), MATRIX)


def test_options_are_passed_on_if_they_are_given() -> None:
    model = Fixed(MATRIX)
    embed(model, ["a", "b"], batch_size=3, prompt=None, truncate_dim=2, show_progress_bar=False)
    assert model.asked == [{"batch_size": 3, "truncate_dim": 2, "show_progress_bar": False, "convert_to_tensor": True}]


def test_queries_and_documents_have_ways_of_their_own() -> None:
    class Model(Fixed):
        def encode_query(self, texts: Any) -> Any:
            return self.embeddings + 1

    assert torch.equal(embed(Model(MATRIX), ["a", "b"], QUERY), MATRIX + 1)
    assert torch.equal(embed(Model(MATRIX), ["a", "b"], DOCUMENT), MATRIX)


def test_a_function_without_a_signature_gets_the_batch_size() -> None:
    class Opaque:
        __signature__ = "none"

        def __call__(self, texts: Any, batch_size: int) -> Any:
            return np.zeros((len(texts), batch_size))

    model = SimpleNamespace(encode=Opaque())
    assert embed(model, ["a", "b"], batch_size=3, show_progress_bar=True).shape == (2, 3)


@pytest.mark.parametrize("embeddings", [MATRIX[:1], MATRIX[0], torch.zeros(0, 3)])
def test_another_number_of_embeddings_is_refused(embeddings: Any) -> None:
    with pytest.raises(ValueError, match="encode must return an embedding for each of 2 texts, got"):
        embed(Fixed(embeddings), ["a", "b"])


def test_scores_of_any_kind_are_an_array() -> None:
    class Model:
        def __init__(self, scores: Any) -> None:
            self.scores = scores

        def predict(self, pairs: Any, batch_size: int = 1) -> Any:
            return self.scores

    of_tensors = [torch.tensor(1.0), torch.tensor(2.0)]
    for scores in (np.array([1.0, 2.0]), torch.tensor([1.0, 2.0]), of_tensors, [1.0, 2.0], (1, 2)):
        assert predict(Model(scores), [("a", "b")] * 2, batch_size=2, show_progress_bar=True).tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="a score for each of 1 pairs, got 2"):
        predict(Model(scores), [("a", "b")])
    with pytest.raises(ValueError, match=r"prompt_name must be an argument of .*predict to be used, got prompt"):
        predict(Model(scores), [("a", "b")] * 2, prompt_name="q")


@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_sparse_embeddings_are_truncated_too(size: int) -> None:
    got = embed(SimpleNamespace(encode=lambda texts: MATRIX.to_sparse()), ["a", "b"], truncate_dim=size)
    assert got.layout == torch.sparse_coo
    assert torch.equal(got.to_dense(), MATRIX[:, :size])


def test_matrices_of_scipy_are_sparse_embeddings() -> None:
    matrix = to_scipy_coo(MATRIX.to_sparse())
    for embeddings in (matrix, matrix.tocsr()):
        got = embed(Fixed(embeddings), ["a", "b"])
        assert got.layout == torch.sparse_coo
        assert torch.equal(got.to_dense(), MATRIX)


@pytest.mark.parametrize("embeddings", [{"a": 1}, None, "text"])
def test_what_is_no_embeddings_is_refused(embeddings: Any) -> None:
    with pytest.raises(
        TypeError,
        match=f"must be an array, a tensor or a list of them, dense or sparse, got {type(embeddings).__name__}",
    ):
        embed(Fixed(embeddings), ["a", "b"])


def test_arguments_that_have_no_name_are_not_given() -> None:
    class Model:
        def encode(self, texts: Any, batch_size: int = 32, /) -> Any:
            return MATRIX

        def predict(self, pairs: Any, batch_size: int = 32, /) -> Any:
            return [1.0, 2.0]

    assert torch.equal(embed(Model(), ["a", "b"], batch_size=3), MATRIX)
    assert predict(Model(), [("a", "b")] * 2, batch_size=3).tolist() == [1.0, 2.0]


def test_no_dimensions_are_refused_before_the_texts_are_embedded() -> None:
    model = Fixed(MATRIX)
    with pytest.raises(ValueError, match="truncate_dim must be positive, got 0"):
        embed(model, ["a", "b"], truncate_dim=0)
    assert not model.asked


def test_a_model_without_predict_is_refused() -> None:
    with pytest.raises(TypeError, match="the model must have a method predict, got Fixed"):
        predict(Fixed(MATRIX), [("a", "b")])
