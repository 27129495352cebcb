"""How evaluators get embeddings and scores from a model that may take few of the options that they have.

Shapes: N texts, embeddings of dimension D.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from sbert_ray.embeddings import csr_rows, is_sparse, to_coo, to_csr, truncate_embeddings
from sbert_ray.evaluation.evaluator import Evaluator
from sbert_ray.similarity import to_tensor

ANY = "any"
QUERY, DOCUMENT = "query", "document"
_HINTS = ("show_progress_bar", "convert_to_tensor", "convert_to_numpy", "convert_to_sparse_tensor", "save_to_cpu")


class EmbeddingEvaluator(Evaluator):
    """An evaluator that embeds texts."""

    card_options: tuple[str, ...] = ("truncate_dim",)
    batch_size: int
    show_progress_bar: bool | None
    truncate_dim: int | None

    def embed_inputs(
        self,
        model: Any,
        sentences: Sequence[Any],
        role: str = ANY,
        column: str = "",  # noqa: ARG002 (for those of sparse models)
        **options: Any,
    ) -> Tensor:
        """Embed texts, as (N, D).

        Args:
            model: Has ``encode``.
            sentences: N texts.
            role: What they are to the model: any, queries or documents.
            column: What they are to the evaluator, which tells how sparse each column is.
            options: Passed on to the model.
        """
        return embed(
            model,
            sentences,
            role,
            batch_size=self.batch_size,
            show_progress_bar=self.show_progress_bar,
            truncate_dim=self.truncate_dim,
            **options,
        )

    def count(self, embeddings: Tensor, column: str) -> None:
        """Take notice of embeddings (N, D) of a column that the evaluator was given."""


def embed(
    model: Any, texts: Sequence[Any], role: str = ANY, *, truncate_dim: int | None = None, **options: Any
) -> Tensor:
    """Embed texts, as (N, D) in float32 or float64: strided, or coalesced COO where the model's are sparse.

    Args:
        model: Has ``encode``.
        texts: N of them.
        role: ``query`` and ``document`` take ``encode_query`` and ``encode_document`` of a model that has them.
        truncate_dim: Keep so many leading dimensions; done here where the model does not do it.
        options: Passed on to the model if it takes them. None is left out.

    Raises:
        ValueError: The model takes no such option, and it changes embeddings; or it returns something else than N
            embeddings; or ``truncate_dim`` is not positive.
        TypeError: The model has no ``encode``, or it returns something else than embeddings.
    """
    if truncate_dim is not None and truncate_dim < 1:
        raise ValueError(f"truncate_dim must be positive, got {truncate_dim}")  # before hours of work
    encode = _encoder(model, role)
    takes = _taken(encode)
    if takes("truncate_dim"):
        options["truncate_dim"] = truncate_dim
    embeddings = encode(texts, **_given(encode, takes, options | {"convert_to_tensor": True}))
    matrix = as_matrix(embeddings)
    if matrix.ndim != 2 or len(matrix) != len(texts):
        raise ValueError(f"encode must return an embedding for each of {len(texts)} texts, got {tuple(matrix.shape)}")
    return _truncated(matrix, truncate_dim)


def predict(model: Any, pairs: Sequence[Any], **options: Any) -> Any:
    """Return a cross-encoder's scores of pairs, as an array.

    Raises:
        ValueError: The model takes no such option, and it changes scores.
        TypeError: The model has no ``predict``.
    """
    if not callable(getattr(model, "predict", None)):
        raise TypeError(f"the model must have a method predict, got {type(model).__name__}")
    takes = _taken(model.predict)
    scores = model.predict(pairs, **_given(model.predict, takes, options | {"convert_to_numpy": True}))
    if isinstance(scores, Sequence) and scores and isinstance(scores[0], Tensor):
        scores = torch.stack(list(scores))
    if isinstance(scores, Tensor):
        scores = scores.detach().cpu().float().numpy()
    scores = np.asarray(scores)
    if len(scores) != len(pairs):
        raise ValueError(f"predict must return a score for each of {len(pairs)} pairs, got {len(scores)}")
    return scores


def _encoder(model: Any, role: str) -> Callable[..., Any]:
    names = ["encode"] if role == ANY else [f"encode_{role}", "encode"]
    for encode in (getattr(model, name, None) for name in names):
        if callable(encode):
            return cast(Callable[..., Any], encode)
    raise TypeError(f"the model must have a method encode, got {type(model).__name__}")


def _taken(function: Callable[..., Any]) -> Callable[[str], bool]:
    """Return what tells whether a function takes a keyword argument."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # it is not written in Python
        return lambda name: name == "batch_size"
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    by_name = {name for name, parameter in parameters.items() if parameter.kind is not parameter.POSITIONAL_ONLY}
    return lambda name: takes_all or name in by_name


def _given(function: Callable[..., Any], takes: Callable[[str], bool], options: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in options.items() if value is not None}
    for name in [name for name in given if not takes(name)]:
        if name not in (*_HINTS, "batch_size"):
            where = getattr(function, "__qualname__", "encode")
            raise ValueError(f"{name} must be an argument of {where} to be used, got {name}={given[name]!r}")
        del given[name]
    return given


def as_matrix(embeddings: Any) -> Tensor:
    """Return embeddings of any kind as a tensor in float32 or float64, strided or coalesced COO.

    Args:
        embeddings: An array, a tensor, dense or sparse, a list of either by rows, or a matrix of SciPy.

    Raises:
        TypeError: They are something else.
    """
    if hasattr(embeddings, "tocoo"):  # SciPy's, told without importing it
        matrix = embeddings.tocoo()
        indices = torch.from_numpy(np.stack([matrix.row, matrix.col]).astype(np.int64))
        values = torch.from_numpy(matrix.data)
        embeddings = torch.sparse_coo_tensor(indices, values, matrix.shape, check_invariants=False)
    if not isinstance(embeddings, (list, tuple, np.ndarray, Tensor)):
        kind = type(embeddings).__name__
        raise TypeError(f"embeddings must be an array, a tensor or a list of them, dense or sparse, got {kind}")
    tensor = to_tensor(embeddings).detach()
    return tensor if tensor.layout == torch.strided else to_coo(tensor)


class GivenEmbeddings:
    """Embeddings that a user has, read by rows.

    Args:
        embeddings: (N, D), of the kinds that `as_matrix` takes.
        num_rows: How many there must be.

    Raises:
        ValueError: There are not so many.
        TypeError: They are something else.
    """

    def __init__(self, embeddings: Any, num_rows: int) -> None:
        # An array may be a memory map, and a list may be long: they become tensors by rows.
        is_sliced = isinstance(embeddings, (np.ndarray, list, tuple)) or (
            isinstance(embeddings, Tensor) and not is_sparse(embeddings)
        )
        self._embeddings = embeddings if is_sliced else to_csr(as_matrix(embeddings))
        if len(self._embeddings) != num_rows:
            raise ValueError(f"corpus_embeddings must be {num_rows}, one of each document, got {len(self._embeddings)}")

    def rows(self, start: int, stop: int) -> Tensor:
        """Return rows ``start`` to ``stop`` as `as_matrix` does."""
        if isinstance(self._embeddings, Tensor) and is_sparse(self._embeddings):
            return to_coo(csr_rows(self._embeddings, start, stop))
        return as_matrix(self._embeddings[start:stop])


def _truncated(matrix: Tensor, truncate_dim: int | None) -> Tensor:
    if matrix.layout == torch.strided:
        return truncate_embeddings(matrix, truncate_dim)
    if truncate_dim is None or truncate_dim >= matrix.shape[1]:
        return matrix
    is_kept = matrix.indices()[1] < truncate_dim
    indices, values = matrix.indices()[:, is_kept], matrix.values()[is_kept]
    shape = (len(matrix), truncate_dim)
    return torch.sparse_coo_tensor(indices, values, shape, is_coalesced=True, check_invariants=False)
