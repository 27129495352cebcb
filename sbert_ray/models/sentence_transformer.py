"""The dense text encoder.

Shapes: N texts, D dimensions of an embedding.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from sbert_ray.inference.engine import EmbedRun, embed, truncate_and_normalize
from sbert_ray.inference.inputs import as_texts
from sbert_ray.inference.outputs import (
    OutputValue,
    Precision,
    as_tensors,
    check_choices,
    converted,
    features_by_row,
)
from sbert_ray.inference.processes import Pool, encode_in_pool
from sbert_ray.inference.progress import progress_bar
from sbert_ray.inference.tokenized import TokenizedTexts
from sbert_ray.models.checkpoint import read_settings, resolve_checkpoint
from sbert_ray.models.loading import default_device, load_modules
from sbert_ray.models.model import Model
from sbert_ray.models.renamed import renamed
from sbert_ray.models.settings import Settings
from sbert_ray.modules import LoadOptions, Module, Pooling
from sbert_ray.similarity import Embeddings, SimilarityFunction

logger = logging.getLogger(__name__)

INSTRUCTORS = ("hkunlp/instructor-base", "hkunlp/instructor-large", "hkunlp/instructor-xl")


class SentenceTransformer(Model):
    """A chain of modules from texts to embeddings, in the public sentence-transformers checkpoint format.

    Args:
        model_name_or_path: A checkpoint folder, or the id of a model on the Hugging Face hub.
        modules: The modules themselves, in a list or by name, instead of a checkpoint.
        device: A torch device; if None, an accelerator where there is one.
        prompts: Texts to put before inputs, by name; they win over the checkpoint's.
        default_prompt_name: The prompt that `encode` uses when it is given none.
        similarity_fn_name: ``cosine``, ``dot``, ``euclidean`` or ``manhattan``; the checkpoint's, else cosine, if None.
        truncate_dim: Dimensions to keep of each embedding; the checkpoint's if None.
        cache_folder: Where downloads are kept.
        trust_remote_code: Whether a transformer may run Python code that comes with its checkpoint.
        revision: Branch, tag or commit on the hub.
        local_files_only: Whether to look among earlier downloads only.
        token: Token of the hub, or whether to use the stored one.
        model_kwargs: Passed on to the transformer's ``from_pretrained``, such as ``{"dtype": "bfloat16"}``. Without a
            dtype, weights are float32 on a CPU and as stored elsewhere.
        processor_kwargs: Passed on to the tokenizer's ``from_pretrained``.
        config_kwargs: Passed on to the transformer config's ``from_pretrained``.
        backend: Must be ``torch``.
    """

    @renamed(tokenizer_kwargs="processor_kwargs", use_auth_token="token")
    def __init__(  # noqa: PLR0913 (the public signature)
        self,
        model_name_or_path: str | os.PathLike[str] | None = None,
        *,
        modules: Sequence[Module] | Mapping[str, Module] | None = None,
        device: str | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity_fn_name: str | SimilarityFunction | None = None,
        truncate_dim: int | None = None,
        cache_folder: str | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
        token: bool | str | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        processor_kwargs: Mapping[str, Any] | None = None,
        config_kwargs: Mapping[str, Any] | None = None,
        backend: str = "torch",
    ) -> None:
        if backend != "torch":
            raise ValueError(f"backend must be 'torch', got {backend!r}")
        if (model_name_or_path is None) == (modules is None):
            raise ValueError("give either model_name_or_path or modules")
        device = device or default_device()
        stored: dict[str, Any] = {}
        if model_name_or_path is not None:
            options = LoadOptions(
                device, trust_remote_code, model_kwargs or {}, processor_kwargs or {}, config_kwargs or {}
            )
            checkpoint = resolve_checkpoint(
                model_name_or_path,
                revision=revision,
                token=token,
                cache_folder=cache_folder,
                local_files_only=local_files_only,
                allow_pickle=options.allow_pickle,
            )
            modules = load_modules(checkpoint.folder, options)
            stored = read_settings(checkpoint.folder)
        assert modules is not None
        modules = list(modules.values()) if isinstance(modules, Mapping) else modules
        given = Settings(dict(prompts or {}), default_prompt_name, None, truncate_dim)
        if similarity_fn_name is not None:
            given.similarity_fn_name = SimilarityFunction.name_of(similarity_fn_name)
        super().__init__(modules, Settings.merged(stored, given), device)
        self._leave_out_instructions(os.fspath(model_name_or_path or ""))

    def _leave_out_instructions(self, name: str) -> None:
        """Follow INSTRUCTOR (arXiv:2212.09741), whose checkpoints do not say that prompts are not pooled."""
        if name in INSTRUCTORS:
            self.set_pooling_include_prompt(False)
        elif "instructor" in "".join(name.split("/")[1:2]).lower() and any(
            module.include_prompt for module in self if isinstance(module, Pooling)
        ):
            logger.warning(
                "%s pools the tokens of prompts, which INSTRUCTOR models should not; if it is one, call"
                " model.set_pooling_include_prompt(False)",
                name,
            )

    @renamed(sentences="inputs")
    def encode(  # noqa: PLR0913, PLR0917 (the public signature)
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: OutputValue = "sentence_embedding",
        precision: Precision | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | Sequence[str] | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: Pool | None = None,
        chunk_size: int | None = None,
        *,
        max_batch_tokens: int | None = None,
    ) -> Any:
        """Embed texts, as (N, D) float32 in the order of ``inputs``, or (D,) for a single text.

        Args:
            inputs: A text or texts.
            prompt_name: The name of the prompt to put before each text.
            prompt: The prompt itself.
            batch_size: Rows of the longest possible texts that must fit into memory; shorter ones share larger
                batches, up to what suits the device.
            show_progress_bar: Whether to show progress; None means where INFO is logged.
            output_value: ``token_embeddings`` gives a list of tensors (T, D), None a list of dicts of all features.
            precision: What to quantize to, with ranges from these very embeddings; None means ``float32``.
            convert_to_numpy: Whether to return an array; a list of tensors if False.
            convert_to_tensor: Whether to return a tensor.
            device: Where to move the model first; several start a process each, for this call.
            normalize_embeddings: Whether to scale embeddings to length 1.
            truncate_dim: Dimensions to keep, before normalization; the model's setting if None.
            pool: Processes of `start_multi_process_pool` to share the work among.
            chunk_size: Texts that a process gets at a time; ten chunks each if None.
            max_batch_tokens: The most token positions of a batch, instead of ``batch_size``.

        Raises:
            RuntimeError: A process failed.
            TypeError: A row is no text.
            ValueError: An argument is not among its choices.
        """
        precision = precision or "float32"
        check_choices(output_value, precision, batch_size)
        texts, is_single = as_texts(inputs)
        options: dict[str, Any] = {
            "prompt": self.settings.prompt(prompt, prompt_name),
            "batch_size": batch_size,
            "output_value": output_value,
            "normalize_embeddings": normalize_embeddings,
            "truncate_dim": self._dimensions_to_keep(truncate_dim),
            "max_batch_tokens": max_batch_tokens,
        }
        with progress_bar(len(texts), show_progress_bar) as on_batch:
            if pool is None and not isinstance(device, (list, tuple)):
                results = self._encode_here(texts, device, on_batch, **options)
            else:
                results = self._encode_elsewhere(texts, device, pool, chunk_size, on_batch, options)
        if output_value == "sentence_embedding":
            results = converted(results, precision, convert_to_numpy, convert_to_tensor, self.device)
        return results[0] if is_single else results

    def _encode_here(
        self,
        texts: list[str],
        device: Any,
        on_batch: Callable[[int], None],
        *,
        prompt: str | None,
        batch_size: int,
        output_value: OutputValue,
        max_batch_tokens: int | None,
        **options: Any,
    ) -> Any:
        if device is not None:
            self.to(device)
        tokens = self.tokenize_texts(texts, prompt)
        if max_batch_tokens is None and self.max_seq_length is not None:
            max_batch_tokens = min(batch_size * self.max_seq_length, self._encoder.profile.max_tokens)
        if output_value != "sentence_embedding":
            return self._features(tokens, max_batch_tokens, output_value, options["truncate_dim"], on_batch)
        return self.embed_tokens(tokens, max_batch_tokens=max_batch_tokens, on_batch=on_batch, **options).embeddings

    def _encode_elsewhere(
        self,
        texts: list[str],
        device: Any,
        pool: Pool | None,
        chunk_size: int | None,
        on_batch: Callable[[int], None],
        options: dict[str, Any],
    ) -> Any:
        options["prompt"] = options["prompt"] or ""  # else the model's default prompt would take its place
        own = self.start_multi_process_pool(device) if pool is None else None
        try:
            parts = encode_in_pool(own or cast(Pool, pool), texts, chunk_size, options, on_batch)
        finally:
            if own is not None:
                self.stop_multi_process_pool(own)
        if options["output_value"] != "sentence_embedding":
            return [as_tensors(row, self.device) for part in parts for row in part]
        if not parts:
            return self.embed_tokens(self.tokenize_texts([]), truncate_dim=options["truncate_dim"]).embeddings
        return np.concatenate(parts)

    @renamed(sentences="inputs")
    def encode_query(
        self, inputs: Any, prompt_name: str | None = None, prompt: str | None = None, *args: Any, **options: Any
    ) -> Any:
        """Embed queries: `encode` with the prompt ``query``, unless another is given."""
        if prompt_name is None and prompt is None and "query" in self.prompts:
            prompt_name = "query"
        return self.encode(inputs, prompt_name, prompt, *args, **options)

    @renamed(sentences="inputs")
    def encode_document(
        self, inputs: Any, prompt_name: str | None = None, prompt: str | None = None, *args: Any, **options: Any
    ) -> Any:
        """Embed documents: `encode` with the first prompt of ``document``, ``passage``, ``corpus``, unless given."""
        if prompt_name is None and prompt is None:
            prompt_name = next((name for name in ("document", "passage", "corpus") if name in self.prompts), None)
        return self.encode(inputs, prompt_name, prompt, *args, **options)

    @torch.inference_mode()
    def embed_tokens(
        self,
        tokens: TokenizedTexts,
        *,
        max_batch_tokens: int | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> EmbedRun:
        """Embed tokenized texts.

        Args:
            tokens: N texts.
            max_batch_tokens: The most token positions of a batch; what suits the device if None.
            normalize_embeddings: Whether to scale embeddings to length 1.
            truncate_dim: Dimensions to keep, before normalization; the model's setting if None.
            on_batch: Called with the number of rows after each batch.

        Raises:
            ValueError: ``max_batch_tokens`` or ``truncate_dim`` is not positive.
        """
        self.eval()
        truncate_dim = self._dimensions_to_keep(truncate_dim)
        if not len(tokens):
            width = self.get_embedding_dimension() or 0
            return EmbedRun(np.empty((0, min(width, truncate_dim or width)), np.float32), 0, 0)
        finish = partial(truncate_and_normalize, truncate_dim=truncate_dim, normalize=normalize_embeddings)
        return embed(self._encoder, tokens, self._max_tokens(max_batch_tokens), finish, on_batch)

    @torch.inference_mode()
    def _features(
        self,
        tokens: TokenizedTexts,
        max_batch_tokens: int | None,
        output_value: Any,
        truncate_dim: int | None,
        on_batch: Callable[[int], None],
    ) -> list[Any]:
        self.eval()
        finish = partial(truncate_and_normalize, truncate_dim=self._dimensions_to_keep(truncate_dim), normalize=False)
        max_tokens = self._max_tokens(max_batch_tokens)
        return features_by_row(self._encoder, tokens, max_tokens, output_value, finish, on_batch)

    def _dimensions_to_keep(self, truncate_dim: int | None) -> int | None:
        truncate_dim = self.truncate_dim if truncate_dim is None else truncate_dim
        if truncate_dim is not None and truncate_dim < 1:
            raise ValueError(f"truncate_dim must be positive, got {truncate_dim}")
        return truncate_dim

    def _max_tokens(self, max_batch_tokens: int | None) -> int:
        if max_batch_tokens is None:
            return self._encoder.profile.max_tokens
        if max_batch_tokens < 1:
            raise ValueError(f"max_batch_tokens must be positive, got {max_batch_tokens}")
        return max_batch_tokens

    def similarity(self, embeddings1: Embeddings, embeddings2: Embeddings) -> Tensor:
        """Return the similarity of every row of ``embeddings1`` (N, D) with every row of ``embeddings2`` (M, D)."""
        return SimilarityFunction.to_similarity_fn(self.similarity_fn_name)(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Embeddings, embeddings2: Embeddings) -> Tensor:
        """Return the similarity of row i of ``embeddings1`` (N, D) with row i of ``embeddings2`` (N, D)."""
        return SimilarityFunction.to_similarity_pairwise_fn(self.similarity_fn_name)(embeddings1, embeddings2)

    @property
    def similarity_fn_name(self) -> str:
        """How embeddings of this model are compared."""
        return self.settings.similarity_fn_name or SimilarityFunction.COSINE.value

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: str | SimilarityFunction | None) -> None:
        self.settings.similarity_fn_name = None if value is None else SimilarityFunction.name_of(value)

    @property
    def truncate_dim(self) -> int | None:
        """Dimensions that `encode` keeps of each embedding; None keeps all."""
        return self.settings.truncate_dim

    @truncate_dim.setter
    def truncate_dim(self, value: int | None) -> None:
        self.settings.truncate_dim = value

    @contextmanager
    def truncate_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """Set `truncate_dim` within a ``with`` block."""
        before, self.truncate_dim = self.truncate_dim, truncate_dim
        try:
            yield
        finally:
            self.truncate_dim = before

    def get_embedding_dimension(self) -> int | None:
        """Return D of what `encode` returns, where a module tells it."""
        dimension = super().get_embedding_dimension()
        known = [size for size in (dimension, self.truncate_dim) if size is not None]
        return min(known, default=None)

    def get_sentence_embedding_dimension(self) -> int | None:
        """Return D of what `encode` returns: the old name of `get_embedding_dimension`."""
        return self.get_embedding_dimension()

    def set_pooling_include_prompt(self, include_prompt: bool) -> None:
        """Set whether the prompt's tokens are pooled."""
        for module in self:
            if isinstance(module, Pooling):
                module.include_prompt = include_prompt
