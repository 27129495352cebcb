"""The sparse text encoder.

Shapes: N texts, D dimensions of an embedding, which for SPLADE are the vocabulary's tokens.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sbert_ray.embeddings import is_sparse, to_coo
from sbert_ray.inference.distinct import distinct_texts
from sbert_ray.inference.inputs import as_inputs
from sbert_ray.inference.prepared import Prepared, rows_of_width
from sbert_ray.inference.processes import Pool
from sbert_ray.inference.progress import progress_bar
from sbert_ray.inference.sparse import SparseRows, SparseRun, embed_sparse
from sbert_ray.models.cards import sparse_encoder_card
from sbert_ray.models.embedding_model import EmbeddingModel
from sbert_ray.models.loading import Source
from sbert_ray.models.settings import Settings
from sbert_ray.modules import Module, Router, SparseAutoEncoder, SpladePooling, Transformer
from sbert_ray.renamed import renamed
from sbert_ray.similarity import SimilarityFunction

logger = logging.getLogger(__name__)


class SparseEncoder(EmbeddingModel):
    """A chain of modules from texts to sparse embeddings, in the public sentence-transformers checkpoint format.

    A plain masked language model gets a SpladePooling; any other transformer, as a SentenceTransformer does, gets a
    new SparseAutoEncoder, which is to be trained.

    Args:
        model_name_or_path: A checkpoint folder, or the id of a model on the Hugging Face hub.
        modules: The modules themselves, in a list or by name, instead of a checkpoint.
        device: A torch device; if None, an accelerator where there is one.
        prompts: Texts to put before inputs, by name; they win over the checkpoint's.
        default_prompt_name: The prompt that `encode` uses when it is given none.
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
        similarity_fn_name: ``cosine``, ``dot``, ``euclidean`` or ``manhattan``; the checkpoint's, else dot, if None.
        max_active_dims: The most values other than zero of an embedding, those of largest magnitude; if None, the
            checkpoint's, else k of a SparseAutoEncoder, else there is no limit.

    Raises:
        ValueError: ``max_active_dims`` is not positive.
    """

    model_type = "SparseEncoder"

    @renamed(tokenizer_kwargs="processor_kwargs")
    def __init__(  # noqa: PLR0913 (the public signature)
        self,
        model_name_or_path: str | os.PathLike[str] | None = None,
        *,
        modules: Sequence[Module] | Mapping[str, Module] | None = None,
        device: str | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        cache_folder: str | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
        token: bool | str | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        processor_kwargs: Mapping[str, Any] | None = None,
        config_kwargs: Mapping[str, Any] | None = None,
        backend: str = "torch",
        similarity_fn_name: str | SimilarityFunction | None = None,
        max_active_dims: int | None = None,
    ) -> None:
        _check_max_active_dims(max_active_dims)
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
            max_active_dims=max_active_dims,
        )
        super().__init__(source, given)
        for before, module in pairwise(self):
            if isinstance(module, SpladePooling) and isinstance(before, Transformer):
                module.embedding_dimension = before.get_embedding_dimension()  # a config's may be out of date
        if self.max_active_dims is None:
            self.max_active_dims = next((module.k for module in self if isinstance(module, SparseAutoEncoder)), None)
        _check_max_active_dims(self.max_active_dims)

    @renamed(sentences="inputs")
    def encode(  # noqa: PLR0913, PLR0917 (the public signature)
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        convert_to_tensor: bool = True,
        convert_to_sparse_tensor: bool = True,
        save_to_cpu: bool = False,
        device: str | Sequence[str] | None = None,
        max_active_dims: int | None = None,
        pool: Pool | None = None,
        chunk_size: int | None = None,
        *,
        task: str | None = None,
        max_batch_tokens: int | None = None,
        deduplicate: bool = False,
    ) -> Any:
        """Embed texts, as a float32 COO tensor (N, D) in the order of ``inputs``, or (D,) for a single text.

        Args:
            inputs: A text or texts.
            prompt_name: The name of the prompt to put before each text.
            prompt: The prompt itself.
            batch_size: Rows of the longest possible texts that must fit into memory; shorter ones share larger
                batches, up to what suits the device.
            show_progress_bar: Whether to show progress; None means where INFO is logged.
            convert_to_tensor: Whether to return one tensor; a list of N tensors (D,) if False.
            convert_to_sparse_tensor: Whether tensors are sparse.
            save_to_cpu: Whether to return them on the CPU, else they are on the model's device.
            device: Where to move the model first; several start a process each, for this call.
            max_active_dims: The most values other than zero of an embedding; the model's setting if None.
            pool: Processes of `start_multi_process_pool` to share the work among; it returns tensors on the CPU.
            chunk_size: Texts that a process gets at a time; ten chunks each if None.
            task: What the inputs are, for a model with a Router: ``query``, ``document`` or another of its routes.
            max_batch_tokens: The most token positions of a batch, instead of ``batch_size``.
            deduplicate: Whether to compute equal texts once, which may change the last bits of others.

        Raises:
            RuntimeError: A process failed.
            TypeError: A row is no text.
            ValueError: An argument is not among its choices.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be positive, got {batch_size}")
        _check_max_active_dims(max_active_dims)
        texts, is_single = as_inputs(inputs, self.modalities, isinstance(self[0], Router))
        repeated = distinct_texts(texts) if deduplicate else None
        texts = texts if repeated is None else list(repeated.values)
        options: dict[str, Any] = {
            "prompt": self.settings.prompt(prompt, prompt_name),
            "max_batch_tokens": self._max_tokens(max_batch_tokens, batch_size),
            # Other processes have the limit of their start.
            "max_active_dims": self.max_active_dims if max_active_dims is None else max_active_dims,
            "task": task,
        }
        is_here = pool is None and not isinstance(device, (list, tuple))
        with progress_bar(len(texts), show_progress_bar) as on_batch:
            if is_here:
                rows = self._encode_rows(texts, device, on_batch, **options)
            else:
                parts = self._elsewhere("_encode_rows", texts, device, pool, chunk_size, on_batch, options)
                rows = SparseRows.joined(parts, self.get_embedding_dimension())
        rows = rows if repeated is None else rows.take(repeated.rows)
        target = self.device if is_here and not save_to_cpu else torch.device("cpu")
        results = _converted(rows, convert_to_tensor and not is_single, convert_to_sparse_tensor, target)
        return results[0] if is_single else results

    def _encode_rows(
        self,
        texts: Sequence[Any],
        device: Any = None,
        on_batch: Callable[[int], None] | None = None,
        *,
        prompt: str | None,
        task: str | None,
        **options: Any,
    ) -> SparseRows:
        if device is not None:
            self.to(device)

        def embed(ready: Prepared) -> SparseRows:
            return self.embed_prepared(ready, on_batch=on_batch, task=task, **options).rows

        parts = [rows for _, rows in self._runs(texts, prompt, task, embed)]
        return parts[0] if len(parts) == 1 else SparseRows.joined(parts)

    @torch.inference_mode()
    def embed_prepared(
        self,
        prepared: Prepared,
        *,
        max_batch_tokens: int | None = None,
        max_active_dims: int | None = None,
        on_batch: Callable[[int], None] | None = None,
        task: str | None = None,
    ) -> SparseRun:
        """Embed what `prepare` returns.

        Args:
            prepared: N inputs.
            max_batch_tokens: The most token positions of a batch; what suits the device if None.
            max_active_dims: The most values other than zero of an embedding; the model's setting if None.
            on_batch: Called with the number of rows after each batch.
            task: What `prepare` was given.

        Raises:
            ValueError: ``max_batch_tokens`` or ``max_active_dims`` is not positive.
        """
        self.eval()
        _check_max_active_dims(max_active_dims)
        limit = self.max_active_dims if max_active_dims is None else max_active_dims
        max_tokens = self._max_tokens(max_batch_tokens)
        dimension = self.get_embedding_dimension()
        if not len(prepared):
            return SparseRun(SparseRows.joined([], dimension), 0, 0)
        encoder = self._encoder(task=task, **({} if limit is None else {"max_active_dims": limit}))
        max_rows = rows_of_width(dimension) if dimension else None  # embeddings are dense until they are read
        return embed_sparse(encoder, prepared, max_tokens, limit, on_batch, max_rows)

    @property
    def max_active_dims(self) -> int | None:
        """The most values other than zero of an embedding; None is no limit."""
        return self.settings.max_active_dims

    @max_active_dims.setter
    def max_active_dims(self, value: int | None) -> None:
        _check_max_active_dims(value)
        self.settings.max_active_dims = value

    @property
    def splade_pooling_chunk_size(self) -> int | None:
        """The most tokens of each text whose logits SpladePooling reads at a time; None leaves it to memory."""
        poolings = self._splade_poolings()
        return poolings[0].chunk_size if poolings else None

    @splade_pooling_chunk_size.setter
    def splade_pooling_chunk_size(self, value: int | None) -> None:
        for pooling in self._splade_poolings():
            pooling.chunk_size = value

    def _splade_poolings(self) -> list[SpladePooling]:
        found = [module for module in self.modules() if isinstance(module, SpladePooling)]
        if not found:
            logger.warning("the model has no SpladePooling, so that splade_pooling_chunk_size means nothing")
        return found

    @staticmethod
    def sparsity(embeddings: Tensor) -> dict[str, float]:
        """Return how sparse embeddings (N, D) or (D,) are, in any layout.

        That is ``active_dims``, the mean number of values other than zero, and ``sparsity_ratio``, the share of zeros.

        Raises:
            TypeError: They are no tensor.
            ValueError: They have other dimensions.
        """
        _check_embeddings(embeddings, (1, 2))
        if not embeddings.numel():
            return {"active_dims": 0.0, "sparsity_ratio": 1.0}
        num_rows = len(embeddings) if embeddings.ndim == 2 else 1
        values = to_coo(embeddings).values() if is_sparse(embeddings) else embeddings
        active = int(torch.count_nonzero(values)) / num_rows
        return {"active_dims": active, "sparsity_ratio": 1.0 - active / embeddings.shape[-1]}

    @staticmethod
    def intersection(embeddings_1: Tensor, embeddings_2: Tensor) -> Tensor:
        """Return the positive ones of the products of an embedding with others, dimension by dimension.

        Args:
            embeddings_1: One embedding (D,), in any layout.
            embeddings_2: One or several, (D,) or (N, D).

        Returns:
            A COO tensor of the shape of ``embeddings_2``.

        Raises:
            TypeError: They are no tensors.
            ValueError: Their shapes do not fit.
        """
        _check_embeddings(embeddings_1, (1,), "embeddings_1")
        _check_embeddings(embeddings_2, (1, 2), "embeddings_2")
        if embeddings_1.shape[-1] != embeddings_2.shape[-1]:
            sizes = f"{embeddings_1.shape[-1]} and {embeddings_2.shape[-1]}"
            raise ValueError(f"embeddings must have as many dimensions as each other, got {sizes}")
        others = to_coo(embeddings_2)
        products = others.values() * embeddings_1.to_dense()[others.indices()[-1]]
        kept = products > 0
        return torch.sparse_coo_tensor(
            others.indices()[:, kept], products[kept], others.shape, is_coalesced=True, check_invariants=False
        )

    def decode(self, embeddings: Tensor, top_k: int | None = None) -> Any:
        """Return the tokens that embeddings stand for, with their weights, the largest first.

        Args:
            embeddings: (N, D) or (D,), in any layout.
            top_k: The most tokens of each.

        Returns:
            For each embedding a list of tokens and weights; one such list for (D,).

        Raises:
            TypeError: They are no tensor.
            ValueError: They are not of this model, its dimensions are no tokens, or ``top_k`` is not positive.
        """
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be positive, got {top_k}")
        _check_embeddings(embeddings, (1, 2))
        if any(isinstance(module, SparseAutoEncoder) for module in self.modules()):
            raise ValueError("decode needs dimensions that are tokens, which those of a SparseAutoEncoder are not")
        size, dimension = embeddings.shape[-1], self.get_embedding_dimension()
        if dimension is not None and size != dimension:
            raise ValueError(f"embeddings must have the model's {dimension} dimensions, got {size}")
        rows = SparseRows.from_tensor(embeddings)
        decoded = []
        for start, end in zip(rows.offsets[:-1], rows.offsets[1:], strict=True):
            order = (-rows.values[start:end]).argsort(kind="stable")[:top_k]
            tokens = self.tokenizer.convert_ids_to_tokens(rows.indices[start:end][order].tolist())
            decoded.append(list(zip(tokens, rows.values[start:end][order].tolist(), strict=True)))
        return decoded[0] if embeddings.ndim == 1 else decoded

    def _card(self, title: str, train_datasets: Sequence[str]) -> str:
        return sparse_encoder_card(
            title,
            self.get_embedding_dimension(),
            self.max_active_dims,
            self.settings.similarity,
            [type(module).__name__ for module in self],
            self.max_seq_length,
            train_datasets,
        )


def _converted(rows: SparseRows, to_tensor: bool, to_sparse: bool, device: torch.device) -> Any:
    if to_sparse:
        return rows.to_coo(device) if to_tensor else rows.to_list(device)
    return rows.to_dense(device) if to_tensor else list(rows.to_dense(device))


def _check_max_active_dims(value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"max_active_dims must be a positive integer, got {value!r}")


def _check_embeddings(embeddings: Any, dimensions: tuple[int, ...], name: str = "embeddings") -> None:
    if not isinstance(embeddings, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(embeddings).__name__}")
    if embeddings.ndim not in dimensions:
        allowed = " or ".join(str(number) for number in dimensions)
        raise ValueError(f"{name} must have {allowed} dimension(s), got shape {tuple(embeddings.shape)}")
