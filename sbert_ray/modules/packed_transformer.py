"""Models of transformers run on packed texts: which ones can be, found out by trying, and how.

A model's layers are run by `run_packed` where they are of the BERT family and neither gradients nor dropout are asked
for; else the model runs itself, with an attention that keeps texts apart. Either way is taken only if it gives what the
model gives for the same texts with padding, which is tried once for each model, device and dtype.

Shapes: L tokens of all texts, B texts, T tokens of the longest, H dimensions, K labels, V entries of the vocabulary.
"""

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sbert_ray.inference.packing import Packing
from sbert_ray.modules.bert_family import before_vocabulary, classify, read_bert_like
from sbert_ray.modules.configs import TASKS
from sbert_ray.modules.int8_layers import has_int8_layers
from sbert_ray.modules.packed_attention import attend_packed, can_attend_packed, packed, varlen_kernel
from sbert_ray.modules.packed_encoder import run_packed
from sbert_ray.modules.token_logits import TokenLogits, known_head, token_logits

logger = logging.getLogger(__name__)

TRIAL_TOKENS = 9
"""Of the longest text that is tried, unless a window asks for more."""
Task = Literal["feature-extraction", "fill-mask", "sequence-classification"]
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}
COARSE_TOLERANCE = 0.1
"""Difference to the padded model, relative to what it gives, that rounding explains: by dtype, and for all coarser."""


@dataclass(frozen=True)
class _Way:
    """How a model is run on packed texts."""

    by_layers: bool
    """By its layers; else by itself."""
    first_position: int = 0
    """What the model calls the position of a text's first token."""
    ignored_id: int | None = None
    """The id of tokens that do not count as positions, and have this number as their position."""


_found: WeakKeyDictionary[PreTrainedModel, "dict[_Key, _Way | None]"] = WeakKeyDictionary()


def can_pack(model: PreTrainedModel, task: str) -> bool:
    """Return whether a model gives the same for packed texts as for padded ones."""
    return _way(model, task) is not None


def packed_output(
    model: PreTrainedModel,
    task: str,
    ids: Tensor,
    packing: Packing,
    type_ids: Tensor | None = None,
    *,
    firsts_only: bool = False,
) -> Any:
    """Run a model on packed texts.

    Args:
        model: The model.
        task: What of it is wanted.
        ids: Of the tokens (L,).
        packing: Where the texts are among them.
        type_ids: Of the tokens (L,); zeros if None.
        firsts_only: Whether embeddings of each text's first token are all that is wanted.

    Returns:
        For ``feature-extraction`` token embeddings (L, H), with ``firsts_only`` (B, H); for ``fill-mask`` logits
        (1, L, V), to be computed where they are read; for ``sequence-classification`` scores (B, K).
    """
    way, output = _way(model, task), None
    if way is not None and way.by_layers:
        output = _by_layers(model, task, ids, packing, type_ids, firsts_only)
        if output is None:
            _found.pop(model, None)
    elif way is not None:
        output = _by_itself(model, task, way, ids, packing, type_ids, firsts_only)
    if output is None:  # the model has changed since the texts were packed
        output = _by_length(model, task, ids, packing, type_ids, firsts_only)
    return output


def _by_layers(
    model: PreTrainedModel, task: str, ids: Tensor, packing: Packing, type_ids: Tensor | None, firsts_only: bool
) -> Any:
    encoder = read_bert_like(model)
    if encoder is None or not encoder.layers:
        return None
    if task == "sequence-classification":
        first = run_packed(encoder, ids, packing, type_ids, firsts_only=True)  # which is what the heads read
        return classify(model, first)
    hidden = run_packed(encoder, ids, packing, type_ids, firsts_only=firsts_only)
    if task == "feature-extraction":
        return hidden
    transformed, layer = before_vocabulary(model, hidden), model.get_output_embeddings()
    return None if transformed is None or layer is None else TokenLogits.projected(transformed.unsqueeze(0), layer)


def _by_itself(
    model: PreTrainedModel,
    task: str,
    way: _Way,
    ids: Tensor,
    packing: Packing,
    type_ids: Tensor | None,
    firsts_only: bool,
) -> Any:
    attend_packed(model)
    positions = packing.counted(ids, way.first_position, way.ignored_id)
    inputs: dict[str, Any] = {"input_ids": ids[None], "position_ids": positions[None]}
    if type_ids is not None:
        inputs["token_type_ids"] = type_ids[None]
    if getattr(model.config, "use_cache", None) is not None:
        inputs["use_cache"] = False  # keys and values are for generation
    if task == "fill-mask" and not known_head(model, {"input_ids": ids[None, :4]}).is_last:
        raise ValueError("its logits are computed later, when it is not known any more where its texts are")
    with packed(packing):
        if task == "fill-mask":
            return token_logits(model, inputs)
        hidden: Tensor = model(**inputs).last_hidden_state[0]
    return hidden[packing.starts(hidden.device)] if firsts_only else hidden


def _by_length(
    model: PreTrainedModel, task: str, ids: Tensor, packing: Packing, type_ids: Tensor | None, firsts_only: bool
) -> Any:
    """Run the model on the texts of one length after the other, which need no padding."""
    parts: list[Any] = []
    for views in packing.by_length(*[part for part in (ids, type_ids) if part is not None]):
        inputs = dict(zip(("input_ids", "token_type_ids"), views, strict=False))
        inputs["attention_mask"] = torch.ones_like(views[0])
        output = getattr(model(**inputs), TASKS[task].output)
        parts.append(output[:, 0] if firsts_only else output if output.ndim == 2 else output.flatten(0, 1))
    joined = torch.cat(parts)
    return TokenLogits.of(joined.unsqueeze(0)) if task == "fill-mask" else joined


class _Key(NamedTuple):
    """What the way depends on."""

    task: str
    device: torch.device
    dtype: torch.dtype
    attention: str
    is_inference: bool
    has_kernel: bool

    @classmethod
    def of(cls, model: PreTrainedModel, task: str) -> "_Key":
        attention = model.config._attn_implementation  # noqa: SLF001
        return cls(task, model.device, model.dtype, attention, _is_inference(model), _has_kernel(model))


def _way(model: PreTrainedModel, task: str) -> _Way | None:
    if _has_hooked_words(model):
        return None
    known, key = _found.setdefault(model, {}), _Key.of(model, task)
    if key not in known:
        # Dropout, and the rounding of autocast, would make every trial fail.
        with evaluating(model), torch.autocast(model.device.type, enabled=False):
            way = _find_way(model, task, by_layers=key.is_inference, has_kernel=key.has_kernel)
        known[key] = known[_Key.of(model, task)] = way  # the model's attention may be another one now
    return known[key]


def _is_inference(model: PreTrainedModel) -> bool:
    is_training = torch.is_grad_enabled() or model.training
    return not is_training and not torch.is_autocast_enabled(model.device.type)


def _has_kernel(model: PreTrainedModel) -> bool:
    """Return whether attention in texts of several lengths is one kernel: on CUDA, in half precision, undisturbed."""
    if model.device.type != "cuda":
        return False
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else model.dtype
    drops = any(getattr(model.config, name, 0.0) for name in ("attention_probs_dropout_prob", "attention_dropout"))
    is_half = dtype in (torch.float16, torch.bfloat16)
    return is_half and not (model.training and drops) and varlen_kernel() is not None


def _has_hooked_words(model: PreTrainedModel) -> bool:
    """Return whether something is done to the embeddings of words, such as noise by the length of a row (NEFTune)."""
    try:
        words = model.get_input_embeddings()
    except NotImplementedError:
        return False
    return bool(getattr(words, "_forward_hooks", None))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Turn dropout off within a ``with`` block, and what was on before on again."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@torch.no_grad()
def _find_way(model: PreTrainedModel, task: str, *, by_layers: bool, has_kernel: bool) -> _Way | None:
    if task not in ("feature-extraction", "fill-mask", "sequence-classification") or model.device.type == "meta":
        return None
    try:
        ids, type_ids, packing = _trial(model)
        expected = _padded(model, task, ids, type_ids, packing)
    except Exception as error:  # noqa: BLE001 - a model that cannot be tried so is run with padding, as it was made for
        _raise_if_device_failed(error)
        logger.debug("%s is run with padding: %s", type(model).__name__, error)
        return None
    tolerance = COARSE_TOLERANCE if has_int8_layers(model) else TOLERANCE.get(model.dtype, COARSE_TOLERANCE)
    attention = model.config._attn_implementation  # noqa: SLF001
    best, least = None, tolerance
    for way in _ways(model, task, by_layers=by_layers, has_kernel=has_kernel):
        try:
            found = _run(model, task, way, ids, type_ids, packing)
        except Exception as error:  # noqa: BLE001 - likewise
            _raise_if_device_failed(error)
            logger.debug("%s cannot be run packed as %s: %s", type(model).__name__, way, error)
            continue
        difference = _difference(found, expected)
        logger.debug("%s gives %.1e of something else as %s", type(model).__name__, difference, way)
        if difference <= least:
            best, least = way, difference
        if best is not None and best.by_layers:
            break
    if best is not None:
        return best
    if model.config._attn_implementation != attention:  # noqa: SLF001
        model.set_attn_implementation(attention)
    return None


def _ways(model: PreTrainedModel, task: str, *, by_layers: bool, has_kernel: bool) -> Iterator[_Way]:
    is_cpu = model.device.type == "cpu"
    if by_layers and is_cpu and read_bert_like(model) is not None:
        yield _Way(by_layers=True)
    is_possible = task != "sequence-classification" and can_attend_packed(model) and _takes(model, "position_ids")
    if is_possible and (is_cpu or has_kernel):  # else attention length by length would be many small kernels
        yield _Way(by_layers=False)
        padding, most = (getattr(model.config, name, None) for name in ("pad_token_id", "max_position_embeddings"))
        if padding is not None and most is not None and padding + 1 + TRIAL_TOKENS <= most:
            yield _Way(by_layers=False, first_position=padding + 1, ignored_id=padding)


def _raise_if_device_failed(error: Exception) -> None:
    """Pass on what tells nothing of the model."""
    if isinstance(error, torch.OutOfMemoryError) or "CUDA error" in str(error):
        raise error


def _run(
    model: PreTrainedModel, task: str, way: _Way, ids: Tensor, type_ids: Tensor | None, packing: Packing
) -> Tensor | None:
    if way.by_layers:
        output = _by_layers(model, task, ids, packing, type_ids, False)
    else:
        output = _by_itself(model, task, way, ids, packing, type_ids, False)
    return output.whole()[0] if isinstance(output, TokenLogits) else output


def _trial(model: PreTrainedModel) -> tuple[Tensor, Tensor | None, Packing]:
    """Return ids (L,) and types (L,) of a few texts, and where they are."""
    config = model.config
    windows = [getattr(config, name, None) for name in ("sliding_window", "local_attention")]
    window = max((size for size in windows if isinstance(size, int)), default=0)
    most = getattr(config, "max_position_embeddings", None) or 512
    longest = max(min(2 * window + 3 if 0 < window <= 256 else TRIAL_TOKENS, most - 4), 3)
    lengths = np.array([longest, max(longest // 2, 2), max(longest // 2, 2), 1])
    size = config.get_text_config().vocab_size
    special = {value for name in ("pad", "bos", "eos", "cls", "sep") for value in _ids(config, f"{name}_token_id")}
    plain = [token for token in range(min(size, 512)) if token not in special]
    ids = torch.tensor([plain[17 * place % len(plain)] for place in range(int(lengths.sum()))], device=model.device)
    type_ids = torch.arange(len(ids), device=ids.device) % 2
    has_types = (getattr(config, "type_vocab_size", None) or 0) > 1
    return ids, type_ids if has_types and _takes(model, "token_type_ids") else None, Packing.of(lengths)


def _takes(model: PreTrainedModel, name: str) -> bool:
    return name in inspect.signature(model.forward).parameters


def _ids(config: Any, name: str) -> list[int]:
    value = getattr(config, name, None)
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def _padded(model: PreTrainedModel, task: str, ids: Tensor, type_ids: Tensor | None, packing: Packing) -> Tensor:
    def padded(tokens: Tensor) -> Tensor:
        rows = [row for (view,) in packing.by_length(tokens) for row in view]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True)

    mask = padded(torch.ones_like(ids))
    inputs = {"input_ids": padded(ids), "attention_mask": mask}
    if type_ids is not None:
        inputs["token_type_ids"] = padded(type_ids)
    output, mask = getattr(model(**inputs), TASKS[task].output), mask.bool()
    found: Tensor = output if task == "sequence-classification" else output[mask]
    return found


def _difference(found: Tensor | None, expected: Tensor) -> float:
    """Return how far off numbers are, relative to what they should be."""
    if found is None or found.shape != expected.shape:
        return float("inf")
    difference, size = (part.double().norm() for part in (found - expected, expected))
    return float(difference) / max(float(size), 1e-6)
