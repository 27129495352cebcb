"""The loss of a decoder that restores damaged texts from their embeddings.

Shapes: B rows, T tokens, V tokens of the vocabulary, D dimensions.
"""

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from sbert_ray.inference.prepared import Features
from sbert_ray.losses.columns import run_columns
from sbert_ray.losses.model_loss import ModelLoss

logger = logging.getLogger(__name__)

IGNORED = -100
"""Stands for padding among tokens to be predicted."""


class DenoisingAutoEncoderLoss(ModelLoss):
    """Restore a text from the embedding of its damaged copy (TSDAE); it needs no labeled data.

    With e_i the embedding of text i's damaged copy and w_it the text's tokens, T of them over all texts::

        loss = 1/T sum_i sum_t -log p( w_it | w_i1 ... w_i(t-1), e_i )

    A decoder, which is thrown away at the end, sees e_i alone by cross-attention, so all that is in the text has to be
    in its embedding. It shares its weights with the encoder as far as both have them; cross-attention, and a head that
    the checkpoint lacks, start at random. The paper deletes 60 % of the tokens, and pools by the first token.

    Columns: (damaged_text, text). Labels: none.

    Args:
        model: The encoder; embeds the damaged texts.
        decoder_name_or_path: The decoder's checkpoint, if it does not share the encoder's weights. If it has another
            vocabulary, texts are tokenized again.
        tie_encoder_decoder: Whether it shares them. The head comes from the checkpoint that the encoder came from; if
            that is gone, or never was, the head starts at random.

    Raises:
        ValueError: There is no such decoder, or a decoder that shares no weights is not named.

    References:
        Wang et al. 2021, TSDAE, arXiv:2104.06979.
    """

    num_columns = (2, 2)
    label_use = "none"
    runs_model = True

    def __init__(
        self, model: nn.Module, decoder_name_or_path: str | None = None, tie_encoder_decoder: bool = True
    ) -> None:
        super().__init__(model)
        encoder = getattr(model, "transformers_model", None)
        if encoder is None:
            raise ValueError(f"the encoder must be a transformer, got {type(model).__name__} without one")
        self.tie_encoder_decoder = tie_encoder_decoder
        if tie_encoder_decoder:
            name = str(encoder.config._name_or_path)  # noqa: SLF001 (transformers has no other name for it)
            if decoder_name_or_path not in (None, name):
                logger.warning("%s is not used, as the decoder shares the encoder's weights", decoder_name_or_path)
            decoder_name_or_path = name
            self.decoder = _tied_decoder(encoder, name)
        elif decoder_name_or_path is None:
            raise ValueError("decoder_name_or_path must name a checkpoint if tie_encoder_decoder=False, got None")
        else:
            config = _decoder_config(AutoConfig.from_pretrained(decoder_name_or_path))
            self.decoder = _load(decoder_name_or_path, config, encoder)
        self.decoder_name_or_path = decoder_name_or_path
        self._retokenizer = None if tie_encoder_decoder else _other_tokenizer(model, decoder_name_or_path)
        self.need_retokenization = self._retokenizer is not None

    def embed(self, features: Sequence[Features]) -> list[Tensor]:
        """Return the embeddings of the damaged texts."""
        assert self.model is not None
        [embeddings] = run_columns(self.model, features[:1])
        return embeddings

    def targets(self, features: Sequence[Features], labels: Tensor | None) -> Tensor:  # noqa: ARG002
        """Return the tokens (B, T) of the texts, padding as `IGNORED`."""
        texts = features[1]
        if "input_ids" not in texts or "attention_mask" not in texts:
            raise ValueError(f"DenoisingAutoEncoderLoss needs tokens to be restored, got {sorted(texts)}")
        if self._retokenizer is not None:
            texts = self._retokenized(texts["input_ids"])
        tokens: Tensor = texts["input_ids"].masked_fill(texts["attention_mask"] == 0, IGNORED)
        return tokens

    def compute(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Return the mean over all tokens but the first ones, given the embeddings of the damaged texts.

        Args:
            embeddings: One column, (B, D).
            labels: The texts' tokens (B, T), padding as `IGNORED`.
        """
        [damaged] = embeddings
        if labels is None or labels.shape[:1] != damaged.shape[:1] or labels.ndim != 2:
            shape = None if labels is None else tuple(labels.shape)
            raise ValueError(f"DenoisingAutoEncoderLoss needs the tokens of {len(damaged)} texts, got {shape}")
        if labels.shape[1] < 2:  # nothing follows a lone token
            return damaged.sum() * 0
        logits = self._logits(damaged, labels[:, :-1])  # (B, T - 1, V)
        following = labels[:, 1:].masked_fill(labels[:, :-1] == IGNORED, IGNORED)
        losses = F.cross_entropy(logits.flatten(0, 1), following.flatten(), ignore_index=IGNORED, reduction="sum")
        return losses / (following != IGNORED).sum().clamp(min=1)

    def _logits(self, damaged: Tensor, tokens: Tensor) -> Tensor:
        """Return the decoder's logits of what follows each token."""
        config = self.decoder.config
        if damaged.shape[1] != config.hidden_size:
            raise ValueError(
                f"the decoder needs embeddings of {config.hidden_size} dimensions, got {damaged.shape[1]}; modules that"
                " change the dimension can be added after training"
            )
        is_token = tokens != IGNORED
        decoded = self.decoder(
            input_ids=tokens.masked_fill(~is_token, config.pad_token_id or 0),
            attention_mask=is_token.long(),
            encoder_hidden_states=damaged[:, None].to(self.decoder.dtype),  # (B, 1, D)
            encoder_attention_mask=is_token.new_ones(len(damaged), 1).long(),
            use_cache=False,
        )
        logits: Tensor = decoded.logits
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _retokenized(self, tokens: Tensor) -> Features:
        """Return the texts of tokens of the encoder as tokens of the decoder."""
        encoder: Any = self.model
        texts = encoder.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        assert self._retokenizer is not None
        found = self._retokenizer(
            texts, padding=True, truncation=True, max_length=encoder.max_seq_length, return_tensors="pt"
        )
        return {name: found[name].to(tokens.device) for name in ("input_ids", "attention_mask")}

    def get_config_dict(self) -> dict[str, Any]:
        """Return where the decoder came from, and whether it has another vocabulary."""
        return {
            "decoder_name_or_path": self.decoder_name_or_path,
            "need_retokenization": self.need_retokenization,
        }


def _decoder_config(config: PreTrainedConfig) -> PreTrainedConfig:
    config = copy.deepcopy(config)
    config.is_decoder = True
    config.add_cross_attention = True
    if type(config) not in AutoModelForCausalLM._model_mapping:  # noqa: SLF001 (there is no public way to ask)
        raise ValueError(f"there must be a decoder with cross-attention of model type {config.model_type!r}, got none")
    return config


def _load(name: str, config: PreTrainedConfig, encoder: PreTrainedModel) -> PreTrainedModel:
    with _quiet_transformers():  # it would warn of cross-attention, which no checkpoint of an encoder has
        decoder = AutoModelForCausalLM.from_pretrained(
            name, config=config, dtype=encoder.dtype, use_safetensors=True, ignore_mismatched_sizes=True
        )
    return _checked(decoder, encoder)


def _tied_decoder(encoder: PreTrainedModel, name: str) -> PreTrainedModel:
    """Return a decoder with all weights of the encoder that it has a place for, and those of the head in ``name``."""
    config = _decoder_config(encoder.config)
    try:
        if not name:
            raise OSError("the encoder comes from no checkpoint")
        decoder = _load(name, config, encoder)
    except OSError as error:
        logger.warning("the decoder's head starts at random: %s", error)
        with _quiet_transformers():
            decoder = _checked(AutoModelForCausalLM.from_config(config, dtype=encoder.dtype), encoder)
    shared = _share_weights(encoder.base_model, decoder.base_model)
    own = [name for name, _ in decoder.base_model.named_parameters() if name not in shared]
    if wrong := [name for name in own if "cross" not in name]:
        raise ValueError(f"the encoder must have all weights of its decoder but cross-attention, it lacks {wrong[:3]}")
    decoder.tie_weights()  # the head's, to the token embeddings that are the encoder's now
    return decoder


def _checked(decoder: Any, encoder: PreTrainedModel) -> PreTrainedModel:
    if not any("cross" in name for name, _ in decoder.named_modules()):
        raise ValueError(f"the decoder must have cross-attention, got {type(decoder).__name__} without it")
    placed: PreTrainedModel = decoder.to(encoder.device)
    return placed


def _share_weights(source: nn.Module, target: nn.Module) -> set[str]:
    """Let a module use the parameters of another one of the same names and shapes, and return their names."""
    shared = set()
    modules = dict(target.named_modules())
    for name, parameter in source.named_parameters():
        place, _, own_name = name.rpartition(".")
        present = getattr(modules.get(place), own_name, None)
        if isinstance(present, nn.Parameter) and present.shape == parameter.shape:
            setattr(modules[place], own_name, parameter)
            shared.add(name)
    return shared


def _other_tokenizer(model: nn.Module, name: str) -> Any:
    """Return the tokenizer of a decoder; None if it gives texts the same tokens as the encoder's."""
    tokenizer, own = AutoTokenizer.from_pretrained(name), getattr(model, "tokenizer", None)
    if own is not None and type(tokenizer) is type(own) and tokenizer.get_vocab() == own.get_vocab():
        return None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    verbosity, has_bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if has_bar:
            transformers_logging.enable_progress_bar()
