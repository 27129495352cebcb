"""The dense text encoder.

Shapes: N texts, D dimensions of an embedding.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbert_ray.inference.distinct import distinct_texts
from sbert_ray.inference.engine import EmbedRun, embed, truncate_and_normalize
from sbert_ray.inference.inputs import as_inputs
from sbert_ray.inference.outputs import (
    OutputValue,
    Precision,
    as_tensors,
    check_choices,
    converted,
    features_by_row,
    joined_rows,
)
from sbert_ray.inference.prepared import Prepared
from sbert_ray.inference.processes import Pool
from sbert_ray.inference.progress import progress_bar
from sbert_ray.models.cards import sentence_transformer_card
from sbert_ray.models.embedding_model import EmbeddingModel
from sbert_ray.models.loading import Source
from sbert_ray.models.settings import Settings
from sbert_ray.modules import Features, Module, Pooling, Router
from sbert_ray.quantization import quantize_embeddings
from sbert_ray.renamed import renamed
from sbert_ray.similarity import SimilarityFunction

logger = logging.getLogger(__name__)

INSTRUCTORS = ("hkunlp/instructor-base", "hkunlp/instructor-large", "hkunlp/instructor-xl")


class SentenceTransformer(EmbeddingModel):
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
            dtype, weights are float32 on a CPU and as stored elsewhere; ``"fastest"`` and, on a CPU, ``"int8"`` trade
            digits for speed.
        processor_kwargs: Passed on to the tokenizer's ``from_pretrained``.
        config_kwargs: Passed on to the transformer config's ``from_pretrained``.
        backend: Must be ``torch``.
    """

    model_type = "SentenceTransformer"

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
        source = Source(
            model_name_or_path,
            modules,
            device,
            cache_folder,
            trust_remote_code,
            revision,
            local_files_only,
            token,
            model_kwargs,
            processor_kwargs,
            config_kwargs,
            backend,
        )
        given = Settings(
            self.model_type,
            dict(prompts or {}),
            default_prompt_name,
            similarity_fn_name and SimilarityFunction.name_of(similarity_fn_name),
            truncate_dim,
        )
        super().__init__(source, given)
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
        task: str | None = None,
        max_batch_tokens: int | None = None,
        deduplicate: bool = False,
    ) -> Any:
        """Embed texts or images, as (N, D) float32 in the order of ``inputs``, or (D,) for a single one.

        Args:
            inputs: A text or texts, among them pairs of texts that are read together, as tuples or lists; for a model
                that takes them, images too: of Pillow, arrays (H, W, C) or (C, H, W), bytes of a file, paths, URLs or
                ``data:`` URIs, also among texts. A string that ends like an image's name is its path if there is such a
                file; ``{"image": path}`` is one in any case.
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
            task: What the inputs are, for a model with a Router: ``query``, ``document`` or another of its routes.
            max_batch_tokens: The most token positions of a batch, instead of ``batch_size``.
            deduplicate: Whether to compute equal texts once, which may change the last bits of others;
                for sentence embeddings.

        Raises:
            RuntimeError: A process failed.
            TypeError: A row is of no kind that the model takes.
            ValueError: An image cannot be read, ``task`` has no route, or an argument is not among its choices.
        """
        precision = precision or "float32"
        check_choices(output_value, precision, batch_size)
        rows, is_single = as_inputs(inputs, self.modalities, isinstance(self[0], Router))
        repeated = distinct_texts(rows) if deduplicate and output_value == "sentence_embedding" else None
        rows = rows if repeated is None else list(repeated.values)
        options: dict[str, Any] = {
            "prompt": self.settings.prompt(prompt, prompt_name),
            "batch_size": batch_size,
            "output_value": output_value,
            "normalize_embeddings": normalize_embeddings,
            "truncate_dim": self._dimensions_to_keep(truncate_dim),
            "max_batch_tokens": max_batch_tokens,
            "task": task,
        }
        with progress_bar(len(rows), show_progress_bar) as on_batch:
            if pool is None and not isinstance(device, (list, tuple)):
                results = self._encode_here(rows, device, on_batch, **options)
            else:
                results = self._encode_elsewhere(rows, device, pool, chunk_size, on_batch, options)
        if repeated is not None:
            results = results[repeated.rows]
        if output_value == "sentence_embedding":
            results = converted(results, precision, convert_to_numpy, convert_to_tensor, self.device)
        elif precision != "float32":
            results = quantize_embeddings(results, precision)
        return results[0] if is_single else results

    def _encode_here(
        self,
        inputs: list[Any],
        device: Any,
        on_batch: Callable[[int], None],
        *,
        prompt: str | None,
        batch_size: int,
        output_value: OutputValue,
        max_batch_tokens: int | None,
        task: str | None,
        **options: Any,
    ) -> Any:
        if device is not None:
            self.to(device)
        max_tokens = self._max_tokens(max_batch_tokens, batch_size)
        if output_value != "sentence_embedding":
            prepared = self.prepare(inputs, prompt, task=task)
            return self._features(prepared, max_tokens, output_value, options["truncate_dim"], on_batch, task)

        def embed(ready: Prepared) -> NDArray[np.float32]:
            run = self.embed_prepared(ready, max_batch_tokens=max_tokens, on_batch=on_batch, task=task, **options)
            return run.embeddings

        return joined_rows(len(inputs), self._runs(inputs, prompt, task, embed))

    def _encode_elsewhere(
        self,
        inputs: list[Any],
        device: Any,
        pool: Pool | None,
        chunk_size: int | None,
        on_batch: Callable[[int], None],
        options: dict[str, Any],
    ) -> Any:
        options["prompt"] = options["prompt"] or ""  # else the model's default prompt would take its place
        parts = self._elsewhere("encode", inputs, device, pool, chunk_size, on_batch, options)
        if options["output_value"] != "sentence_embedding":
            return [as_tensors(row, self.device) for part in parts for row in part]
        return np.concatenate(parts) if parts else self._no_embeddings(options["truncate_dim"])

    @torch.inference_mode()
    def embed_prepared(
        self,
        prepared: Prepared,
        *,
        max_batch_tokens: int | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        on_batch: Callable[[int], None] | None = None,
        task: str | None = None,
    ) -> EmbedRun:
        """Embed what `prepare` returns.

        Args:
            prepared: N inputs.
            max_batch_tokens: The most token positions of a batch; what suits the device if None.
            normalize_embeddings: Whether to scale embeddings to length 1.
            truncate_dim: Dimensions to keep, before normalization; the model's setting if None.
            on_batch: Called with the number of rows after each batch.
            task: What `prepare` was given.

        Raises:
            ValueError: ``max_batch_tokens`` or ``truncate_dim`` is not positive.
        """
        self.eval()
        truncate_dim = self._dimensions_to_keep(truncate_dim)
        if not len(prepared):
            return EmbedRun(self._no_embeddings(truncate_dim), 0, 0)

        def read(features: Features) -> Tensor:
            if "sentence_embedding" not in features:
                raise ValueError(
                    f"a SentenceTransformer's modules must write 'sentence_embedding', got {sorted(features)}"
                )
            return truncate_and_normalize(features["sentence_embedding"].float(), truncate_dim, normalize_embeddings)

        return embed(self._encoder(task=task), prepared, self._max_tokens(max_batch_tokens), read, on_batch)

    def _no_embeddings(self, truncate_dim: int | None) -> NDArray[np.float32]:
        width = self.get_embedding_dimension() or 0
        return np.empty((0, min(width, truncate_dim or width)), np.float32)

    @torch.inference_mode()
    def _features(
        self,
        prepared: Prepared,
        max_tokens: int,
        output_value: Any,
        truncate_dim: int | None,
        on_batch: Callable[[int], None],
        task: str | None,
    ) -> list[Any]:
        self.eval()
        finish = partial(truncate_and_normalize, truncate_dim=self._dimensions_to_keep(truncate_dim), normalize=False)
        return features_by_row(self._encoder(task=task), prepared, max_tokens, output_value, finish, on_batch)

    def _dimensions_to_keep(self, truncate_dim: int | None) -> int | None:
        truncate_dim = self.truncate_dim if truncate_dim is None else truncate_dim
        if truncate_dim is not None and truncate_dim < 1:
            raise ValueError(f"truncate_dim must be positive, got {truncate_dim}")
        return truncate_dim

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

    def _card(self, title: str, train_datasets: Sequence[str]) -> str:
        return sentence_transformer_card(
            title,
            self.get_embedding_dimension(),
            self.settings.similarity,
            [type(module).__name__ for module in self],
            self.max_seq_length,
            train_datasets,
        )
