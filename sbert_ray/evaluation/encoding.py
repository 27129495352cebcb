"""How evaluators get embeddings and scores from a model that may take few of the options that they have.

Shapes: N texts, embeddings of dimension D.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from sbert_ray.embeddings import to_coo, truncate_embeddings
from sbert_ray.evaluation.evaluator import Evaluator
from sbert_ray.similarity import to_tensor

ANY = "any"
QUERY, DOCUMENT = "query", "document"
_HINTS = ("show_progress_bar", "convert_to_tensor", "convert_to_numpy", "convert_to_sparse_tensor", "save_to_cpu")


class EmbeddingEvaluator(Evaluator):
    """An evaluator that embeds texts."""

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
            embeddings.
    """
    encode = _encoder(model, role)
    takes = _taken(encode)
    if takes("truncate_dim"):
        options["truncate_dim"] = truncate_dim
    embeddings = encode(texts, **_given(encode, takes, options | {"convert_to_tensor": True}))
    return _matrix(embeddings, len(texts), truncate_dim)


def predict(model: Any, pairs: Sequence[Any], **options: Any) -> Any:
    """Return a cross-encoder's scores of pairs, as an array.

    Raises:
        ValueError: The model takes no such option, and it changes scores.
    """
    takes = _taken(model.predict)
    scores = model.predict(pairs, **_given(model.predict, takes, options | {"convert_to_numpy": True}))
    if isinstance(scores, Sequence) and scores and isinstance(scores[0], Tensor):
        scores = torch.stack(list(scores))
    if isinstance(scores, Tensor):
        scores = scores.detach().cpu().float().numpy()
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
    return lambda name: takes_all or name in parameters


def _given(function: Callable[..., Any], takes: Callable[[str], bool], options: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in options.items() if value is not None}
    for name in [name for name in given if not takes(name)]:
        if name not in (*_HINTS, "batch_size"):
            where = getattr(function, "__qualname__", "encode")
            raise ValueError(f"{name} must be an argument of {where} to be used, got {name}={given[name]!r}")
        del given[name]
    return given


def _matrix(embeddings: Any, num_texts: int, truncate_dim: int | None) -> Tensor:
    if isinstance(embeddings, (list, tuple)) and embeddings and isinstance(embeddings[0], Tensor):
        embeddings = torch.stack(list(embeddings))
    matrix = to_tensor(embeddings).detach()
    if matrix.ndim != 2 or len(matrix) != num_texts:
        raise ValueError(f"encode must return an embedding for each of {num_texts} texts, got {tuple(matrix.shape)}")
    if matrix.layout == torch.strided:
        return truncate_embeddings(matrix, truncate_dim)
    return to_coo(matrix)
