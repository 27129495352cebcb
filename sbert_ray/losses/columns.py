"""The columns of a batch, run together: as one packed batch where the model takes it, or as batches of any size.

Shapes: C columns, B rows of each, N rows of all of them, D dimensions.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sbert_ray.inference.batching import plan_batches, plan_packs
from sbert_ray.inference.engine import to_device
from sbert_ray.inference.prepared import Features
from sbert_ray.inference.tokenized import Padding, TokenizedTexts

_TEXT = {"input_ids", "attention_mask", "token_type_ids", "prompt_length"}
MERGED_POSITIONS = 1.1
"""Columns that must be padded share a pass if that computes no more positions than so many times their own."""
BATCH_COST = 64
"""What one more padded batch costs besides its positions, in positions."""


@dataclass(frozen=True)
class MiniBatches:
    """How many rows are in memory at a time."""

    rows: int = 32
    tokens: int | None = None
    """Tokens, padding included, instead of rows."""
    show_progress_bar: bool = False

    def __post_init__(self) -> None:
        for name, value in (("mini_batch_size", self.rows), ("mini_batch_num_tokens", self.tokens)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be positive, got {value}")


@dataclass(frozen=True)
class Part:
    """Rows that go through the model together."""

    rows: NDArray[np.int64]
    """Which of the N rows they are, where column c's row b is c * B + b."""
    features: Features
    kind: int = 0
    """Parts of one kind pass through the same weights: they have the same features, route and prompt."""


@dataclass(frozen=True)
class Columns:
    """The features of C columns of B rows each, as the trainer or ``model.preprocess`` makes them."""

    features: Sequence[Features]
    sizes: Sequence[int]
    """B of each column, which is the same for all losses but those that say otherwise."""

    @classmethod
    def of(cls, features: Sequence[Features]) -> "Columns":
        """Return the columns with these features."""
        return cls(features, [num_rows(column) for column in features])

    def parts(self, model: nn.Module, mini_batches: MiniBatches | None = None) -> Iterator[Part]:
        """Yield all rows in parts: as few as possible, or of the size of mini-batches.

        Texts of a model that takes them packed are put together from all columns, and so are mini-batches, those of
        like length with each other. What must be padded goes column by column, unless all are about as long.

        Args:
            model: Runs the parts.
            mini_batches: How large parts may be; None lets each be as large as it gets.
        """
        starts = np.concatenate([[0], np.cumsum(self.sizes)])
        for kind, columns in enumerate(_alike(self.features)):
            rows = [np.arange(starts[column], starts[column + 1]) for column in columns]
            together = [self.features[column] for column in columns]
            packed = _packed_features(model, together)
            found: Iterable[tuple[NDArray[np.int64], Features]]
            if mini_batches is None and packed is None and not _may_merge(together):
                found = zip(rows, together, strict=True)
            elif _is_text(together[0]):
                texts = replace(_texts_of(together), padding=_padding(model))
                found = _text_parts(np.concatenate(rows), texts, together[0], packed, mini_batches)
            else:
                found = _slices(rows, together, mini_batches)
            for some, features in found:
                yield Part(some, features, kind)

    def split(self, values: Tensor, parts: Sequence[Part]) -> list[Tensor]:
        """Return what was computed of all parts (N, ...), in their order, by column."""
        order = np.concatenate([part.rows for part in parts])
        places = torch.from_numpy(np.argsort(order, kind="stable")).to(values.device)
        return list(values[places].split(list(self.sizes)))


def run_columns(
    model: nn.Module,
    features: Sequence[Features],
    names: Sequence[str] = ("sentence_embedding",),
    mini_batches: MiniBatches | None = None,
) -> list[list[Tensor]]:
    """Run all columns in as few forward passes as possible.

    Args:
        model: Takes features and returns them with more in them.
        features: Of each of C columns.
        names: Of what is wanted.
        mini_batches: How many rows go through the model at a time, where not as many as possible.

    Returns:
        For each name what the model gives for each column, float32 at least.
    """
    columns = Columns.of(features)
    parts = list(columns.parts(model, mini_batches))
    outputs = [model(part.features) for part in parts]
    return [columns.split(torch.cat([read(output, name) for output in outputs]), parts) for name in names]


def inner_model(model: nn.Module) -> Any:
    """Return the model itself where DistributedDataParallel wraps it."""
    return getattr(model, "module", model)


def read(features: Features, name: str = "sentence_embedding") -> Tensor:
    """Return one of a model's outputs, float32 at least, as losses lose much in half precision.

    Raises:
        ValueError: It is not there.
    """
    if name not in features:
        raise ValueError(f"the model must write {name!r}, got {sorted(features)}")
    values: Tensor = features[name]
    return values.to(torch.promote_types(values.dtype, torch.float32))


def num_rows(features: Features) -> int:
    """Return B of a column's features."""
    for name in ("attention_mask", "offsets", "sentence_embedding"):
        if name in features:
            return len(features[name])
    tensors = [value for name, value in features.items() if isinstance(value, Tensor) and name != "prompt_length"]
    if not tensors:
        raise ValueError(f"features must hold tensors, got {sorted(features)}")
    return len(tensors[0])


def _alike(features: Sequence[Features]) -> list[list[int]]:
    """Return which columns may share a forward pass: those with the same names, labels and length of the prompt."""
    groups: dict[str, list[int]] = {}
    for column, found in enumerate(features):
        groups.setdefault(repr((sorted(found), _labels(found), _prompt_length(found))), []).append(column)
    return list(groups.values())


def _labels(features: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in features.items() if not isinstance(value, Tensor)}


def _prompt_length(features: Features) -> int | None:
    return int(features["prompt_length"][0]) if "prompt_length" in features else None


def _is_text(features: Features) -> bool:
    tensors = {name for name, value in features.items() if isinstance(value, Tensor)}
    return {"input_ids", "attention_mask"} <= tensors <= _TEXT


def _packed_features(model: nn.Module, columns: Sequence[Features]) -> Features | None:
    """Return what features of columns' packed texts hold besides; None if the model takes them padded."""
    inner = inner_model(model)
    is_compiled = hasattr(inner, "_orig_mod") or getattr(inner, "_compiled_call_impl", None) is not None
    if is_compiled or not hasattr(inner, "packed_features"):
        return None  # every packing would be compiled anew
    if not all(_is_text(column) and _is_one_run(column["attention_mask"]) for column in columns):
        return None  # without padding, positions would be others, and a text without a token would not be there
    found: Features | None = inner.packed_features(_labels(columns[0]))
    return found


def _is_one_run(mask: Tensor) -> bool:
    """Return whether each row's tokens come one after the other, and there is one at least."""
    tokens = mask.bool()
    begins = tokens[:, 0].long() + (tokens[:, 1:] & ~tokens[:, :-1]).sum(1)
    return bool((begins == 1).all())


def _may_merge(features: Sequence[Features]) -> bool:
    """Return whether padding all columns' texts to one length costs less than a pass for each column."""
    if len(features) < 2 or not all(_is_text(column) and _is_one_run(column["attention_mask"]) for column in features):
        return False
    shapes = [column["input_ids"].shape for column in features]
    merged: int = sum(rows for rows, _ in shapes) * max(width for _, width in shapes)
    return bool(merged <= MERGED_POSITIONS * sum(rows * width for rows, width in shapes))


def _text_parts(
    rows: NDArray[np.int64],
    texts: TokenizedTexts,
    like: Features,
    packed: Features | None,
    mini_batches: MiniBatches | None,
) -> Iterator[tuple[NDArray[np.int64], Features]]:
    device = like["input_ids"].device
    for chosen in _plan(texts.lengths, mini_batches, is_packed=packed is not None):
        found = texts.batch(chosen) if packed is None else texts.packed(chosen) | packed
        yield rows[chosen], to_device(found, device) | _labels(like)


def _plan(lengths: NDArray[np.int64], mini_batches: MiniBatches | None, *, is_packed: bool) -> list[NDArray[np.int64]]:
    """Cut rows into parts, the longest ones first."""
    if mini_batches is None:
        return [np.argsort(-lengths, kind="stable")]
    if mini_batches.tokens is None:
        order = np.argsort(-lengths, kind="stable")
        return [order[start : start + mini_batches.rows] for start in range(0, len(order), mini_batches.rows)]
    if is_packed:
        return plan_packs(lengths, lengths, mini_batches.tokens)
    return plan_batches(lengths, mini_batches.tokens, BATCH_COST)


def _texts_of(features: Sequence[Features]) -> TokenizedTexts:
    """Return the tokens of several columns' padded texts, without the padding."""
    masks = [column["attention_mask"].bool() for column in features]
    lengths = torch.cat([mask.sum(1) for mask in masks]).cpu().numpy()

    def flat(name: str) -> NDArray[np.int32]:
        tokens = torch.cat([column[name][mask] for column, mask in zip(features, masks, strict=True)])
        return tokens.to(torch.int32).cpu().numpy()

    return TokenizedTexts(
        flat("input_ids"),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        flat("token_type_ids") if "token_type_ids" in features[0] else None,
        _prompt_length(features[0]),
    )


def _padding(model: nn.Module) -> Padding:
    """Return how the model's tokenizer pads, since some models tell padding by its ids."""
    tokenizer = getattr(inner_model(model), "tokenizer", None)
    token_id, side = (getattr(tokenizer, name, None) for name in ("pad_token_id", "padding_side"))
    return Padding(token_id or 0, side=side or "right")


def _slices(
    rows: Sequence[NDArray[np.int64]], columns: Sequence[Features], mini_batches: MiniBatches | None
) -> Iterator[tuple[NDArray[np.int64], Features]]:
    """Yield rows of what is no text, and their features; a column at once where they cannot be told apart."""
    for column, features in zip(rows, columns, strict=True):
        size = len(column)
        by_row = [name for name, value in features.items() if isinstance(value, Tensor) and name != "prompt_length"]
        if mini_batches is None or any(len(features[name]) != size for name in by_row) or "offsets" in features:
            yield column, features
            continue
        for start in range(0, size, mini_batches.rows):
            end = min(start + mini_batches.rows, size)
            yield column[start:end], features | {name: features[name][start:end] for name in by_row}
