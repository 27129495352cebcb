"""What `encode` returns, made of what the engine returns.

Shapes: N texts, T tokens of one text, D dimensions.
"""

from collections.abc import Callable
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbert_ray.inference.engine import Encoder, run_batches
from sbert_ray.inference.prepared import Features, Prepared
from sbert_ray.quantization import quantize_embeddings

OutputValue = Literal["sentence_embedding", "token_embeddings"] | None
Precision = Literal["float32", "int8", "uint8", "binary", "ubinary"]


def check_choices(output_value: str | None, precision: str, batch_size: int) -> None:
    """Check arguments of `encode` before any work is done.

    Raises:
        ValueError: One is not among its choices.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"unknown precision {precision!r}; known precisions are {list(get_args(Precision))}")
    if output_value not in ("sentence_embedding", "token_embeddings", None):
        raise ValueError(f"output_value must be 'sentence_embedding', 'token_embeddings' or None, got {output_value!r}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, got {batch_size}")


def converted(
    embeddings: NDArray[np.float32], precision: Precision, to_numpy: bool, to_tensor: bool, device: torch.device
) -> Any:
    """Return embeddings (N, D) in a precision, as an array or a tensor (N, D), or as a list of N tensors (D,)."""
    if precision != "float32":
        embeddings = quantize_embeddings(embeddings, precision)
    if to_tensor:
        return torch.from_numpy(embeddings).to(device)
    return embeddings if to_numpy else list(torch.from_numpy(embeddings).to(device))


def as_tensors(row: Any, device: torch.device) -> Any:
    """Return what `features_by_row` gives for a text, made of arrays, as tensors on a device."""
    if isinstance(row, dict):
        return {name: torch.as_tensor(value, device=device) for name, value in row.items()}
    return torch.as_tensor(row, device=device)


def features_by_row(
    encoder: Encoder,
    inputs: Prepared,
    max_tokens: int,
    output_value: Literal["token_embeddings"] | None,
    finish: Callable[[Tensor], Tensor],
    on_batch: Callable[[int], None],
) -> list[Any]:
    """Return for each text its token embeddings (T, D) without padding, or if None every feature in a dict.

    Args:
        encoder: The model.
        inputs: N inputs.
        max_tokens: The most positions of a batch.
        output_value: Which of the two.
        finish: Applied to the sentence embeddings (B, D) among all features.
        on_batch: Called with the number of rows after each batch.
    """
    results: list[Any] = [None] * len(inputs)
    for rows, features in run_batches(encoder, inputs, max_tokens):
        if "sentence_embedding" in features:
            features = features | {"sentence_embedding": finish(features["sentence_embedding"])}  # noqa: PLW2901
        for index, row in enumerate(rows):
            results[row] = _token_embeddings(features, index) if output_value else _row(features, index)
        on_batch(len(rows))
    return results


def _token_embeddings(features: Features, index: int) -> Tensor:
    return cast(Tensor, features["token_embeddings"][index][features["attention_mask"][index].bool()])


def _row(features: Features, index: int) -> Features:
    # The prompt's length holds for the whole batch.
    return {name: value if name == "prompt_length" else value[index] for name, value in features.items()}
