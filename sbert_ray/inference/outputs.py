"""What `encode` returns, made of what the engine returns.

Shapes: N texts, T tokens of one text, D dimensions.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbert_ray.inference.engine import Encoder, run_batches
from sbert_ray.inference.prepared import Features, Prepared
from sbert_ray.modules.token_logits import TokenLogits
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
    if output_value is None and precision != "float32":
        raise ValueError(f"precision must be 'float32' for output_value=None, got {precision!r}")
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


def joined_rows(num_rows: int, parts: Iterable[tuple[slice, NDArray[np.float32]]]) -> NDArray[np.float32]:
    """Return one array (N, D) of the parts that come with the rows that they are."""
    joined: NDArray[np.float32] | None = None
    for rows, part in parts:
        if len(part) == num_rows:
            return part
        joined = np.empty((num_rows, part.shape[1]), np.float32) if joined is None else joined
        joined[rows] = part
    if joined is None:
        raise ValueError("there must be at least one part")
    return joined


def as_tensors(row: Any, device: torch.device) -> Any:
    """Return what `features_by_row` gives for a text, made of arrays, as tensors on a device."""
    if isinstance(row, dict):
        return {name: as_tensors(value, device) for name, value in row.items()}
    if isinstance(row, tuple):
        return tuple(as_tensors(value, device) for value in row)
    is_array = isinstance(row, (np.ndarray, np.generic, Tensor))
    return torch.as_tensor(row, device=device) if is_array else row


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

    Raises:
        ValueError: Token embeddings are asked for, and the model makes none.
    """
    results: list[Any] = [None] * len(inputs)
    # With padding, as users expect each feature to be.
    for batch in run_batches(replace(encoder, packed_features=lambda _: None), inputs, max_tokens):
        rows, features = batch.rows, batch.features
        if output_value and output_value not in features:
            raise ValueError(f"output_value must not be {output_value!r} for a model that makes none")
        if "sentence_embedding" in features:
            features = features | {"sentence_embedding": finish(features["sentence_embedding"])}
        found = _token_embeddings(features) if output_value else _rows(features, len(rows))
        for row, result in zip(rows, found, strict=True):
            results[row] = result
        on_batch(len(rows))
    return results


def _token_embeddings(features: Features) -> list[Tensor]:
    pairs = zip(features["token_embeddings"], features["attention_mask"], strict=True)
    return [tokens[mask.bool()] for tokens, mask in pairs]


def _rows(features: Features, num_rows: int) -> list[Features]:
    """Return the features of each row of a batch."""
    if "offsets" in features:  # the rows' tokens come one after the other, without padding
        inside = features["offsets"][1:].tolist()
        split = {"input_ids": list(features["input_ids"].tensor_split(inside))}
        features = {name: value for name, value in features.items() if name != "offsets"} | split
    return [{name: _item(name, features[name], index) for name in features} for index in range(num_rows)]


def _item(name: str, value: Any, index: int) -> Any:
    if name == "all_layer_embeddings":
        return tuple(layer[index] for layer in value)
    # The prompt's length, the task and the kind of input hold for the whole batch.
    is_by_row = isinstance(value, (Tensor, list, TokenLogits)) and name != "prompt_length"
    return value[index] if is_by_row else value
