"""The cross-encoder, which reads two texts together and scores them.

Shapes: N pairs, K labels.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sbert_ray.inference.distinct import distinct_texts
from sbert_ray.inference.engine import EmbedRun, embed
from sbert_ray.inference.inputs import as_texts
from sbert_ray.inference.outputs import converted, joined_rows
from sbert_ray.inference.pairs import as_pairs
from sbert_ray.inference.prepared import Prepared
from sbert_ray.inference.processes import Pool
from sbert_ray.inference.progress import progress_bar
from sbert_ray.models.cards import cross_encoder_card
from sbert_ray.models.loading import Source
from sbert_ray.models.model import Model
from sbert_ray.models.settings import Settings
from sbert_ray.modules import Dense, Features, LogitScore, Module, Transformer
from sbert_ray.modules.activations import Activation, saved_path, stored_activation
from sbert_ray.modules.full_precision import keep_in_float32
from sbert_ray.renamed import renamed


class CrossEncoder(Model):
    """A chain of modules from pairs of texts to scores, in the public sentence-transformers checkpoint format.

    It loads any checkpoint for sequence classification; a causal model, which is asked for ``yes`` or ``no``; and any
    other transformer, which gets a new head to be trained.

    Args:
        model_name_or_path: A checkpoint folder, or the id of a model on the Hugging Face hub.
        modules: The modules themselves, in a list or by name, instead of a checkpoint.
        device: A torch device; if None, an accelerator where there is one.
        prompts: Texts to put before the first text of pairs, by name; they win over the checkpoint's.
        default_prompt_name: The prompt that `predict` uses when it is given none.
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
        num_labels: K of a new head; the checkpoint's if None, or 1 where it has none.
        max_length: Tokens to which a pair is cut, the longer text first; the tokenizer's if None.
        activation_fn: Applied to the logits (B, K); the checkpoint's if None, or else a sigmoid for one label and
            nothing for several.
        keep_in_fp32_modules: Paths of linear layers that compute in float32; the checkpoint's if None.

    Raises:
        ValueError: The checkpoint does not have ``num_labels`` labels, or its activation is not one of torch's: give
            ``activation_fn`` then.
    """

    model_type = "CrossEncoder"

    activation_fn: Activation
    """What `predict` applies to the logits (B, K)."""

    @renamed(
        model_name="model_name_or_path",
        automodel_args="model_kwargs",
        tokenizer_args="processor_kwargs",
        tokenizer_kwargs="processor_kwargs",
        config_args="config_kwargs",
        cache_dir="cache_folder",
        default_activation_function="activation_fn",
    )
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
        num_labels: int | None = None,
        max_length: int | None = None,
        activation_fn: Activation | None = None,
        keep_in_fp32_modules: list[str] | None = None,
    ) -> None:
        if num_labels is not None:
            config_kwargs = dict(config_kwargs or {}) | {"num_labels": num_labels}
        if max_length is not None:
            processor_kwargs = dict(processor_kwargs or {}) | {"model_max_length": max_length}
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
            self.model_type, dict(prompts or {}), default_prompt_name, keep_in_fp32_modules=keep_in_fp32_modules
        )
        super().__init__(source, given)
        if num_labels is not None and num_labels != self.num_labels:
            raise ValueError(f"num_labels must be {self.num_labels}, which the modules give, got {num_labels}")
        if max_length is not None and modules is not None:
            self.max_length = max_length
        self.activation_fn = activation_fn or self.get_default_activation_fn()
        keep_in_float32(self, self.settings.keep_in_fp32_modules or [])

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "activation_fn":
            value = nn.Identity() if value is None else value
            object.__setattr__(self, name, value)  # torch would make it one of the modules in a row
            self.settings.activation_fn = saved_path(value)
        else:
            super().__setattr__(name, value)

    def get_default_activation_fn(self) -> Activation:
        """Return the activation that the checkpoint names: the one of its settings, else that of its transformer.

        Without either, or for a function without a class, it is a sigmoid for one label, and nothing for several.

        Raises:
            ValueError: It is none of torch's.
        """
        config = getattr(self.transformers_model, "config", None)
        path = (
            self.settings.activation_fn
            or (getattr(config, "sentence_transformers", None) or {}).get("activation_fn")
            or getattr(config, "sbert_ce_default_activation_function", None)
        )
        if path is not None and (found := stored_activation(path, "activation_fn")):
            return found
        return nn.Sigmoid() if self.num_labels == 1 else nn.Identity()

    @renamed(sentences="inputs", activation_fct="activation_fn")
    def predict(  # noqa: PLR0913, PLR0917 (the public signature)
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Activation | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | Sequence[str] | None = None,
        pool: Pool | None = None,
        chunk_size: int | None = None,
        *,
        max_batch_tokens: int | None = None,
        deduplicate: bool = False,
    ) -> Any:
        """Score pairs, as float32 in the order of ``inputs``: (N, K), or (N,) for a model with one label.

        Args:
            inputs: A pair of texts, or pairs; a single one gives (K,), or one number.
            prompt_name: The name of the prompt to put before the first text of each pair.
            prompt: The prompt itself.
            batch_size: Rows of the longest possible pairs that must fit into memory; shorter ones share larger
                batches, up to what suits the device.
            show_progress_bar: Whether to show progress; None means where INFO is logged.
            activation_fn: Applied to the logits (B, K); the model's if None.
            apply_softmax: Whether to turn the scores of several labels into probabilities.
            convert_to_numpy: Whether to return an array; a list of tensors if False.
            convert_to_tensor: Whether to return a tensor.
            device: Where to move the model first; several start a process each, for this call.
            pool: Processes of `start_multi_process_pool` to share the work among.
            chunk_size: Pairs that a process gets at a time; ten chunks each if None.
            max_batch_tokens: The most token positions of a batch, instead of ``batch_size``.
            deduplicate: Whether to compute equal pairs once, which may change the last bits of others.

        Raises:
            RuntimeError: A process failed.
            TypeError: A row is no pair of texts.
            ValueError: A row has more or fewer than two texts, or an argument is not among its choices.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be positive, got {batch_size}")
        pairs, is_single = as_pairs(inputs)
        repeated = distinct_texts(pairs) if deduplicate else None
        pairs = pairs if repeated is None else list(repeated.values)
        options: dict[str, Any] = {
            "prompt": self.settings.prompt(prompt, prompt_name),
            "batch_size": batch_size,
            "activation_fn": activation_fn or self.activation_fn,  # other processes have the one of their start
            "apply_softmax": apply_softmax,
            "max_batch_tokens": max_batch_tokens,
        }
        with progress_bar(len(pairs), show_progress_bar) as on_batch:
            if pool is None and not isinstance(device, (list, tuple)):
                scores = self._predict_here(pairs, device, on_batch, **options)
            else:
                options["prompt"] = options["prompt"] or ""  # else the model's default prompt would take its place
                parts = self._elsewhere("predict", pairs, device, pool, chunk_size, on_batch, options)
                scores = np.concatenate(parts) if parts else self._no_scores()
        scores = scores if repeated is None else scores[repeated.rows]
        if scores.ndim > 1 and scores.shape[1] == 1:
            scores = scores[:, 0]
        results = converted(scores, "float32", convert_to_numpy, convert_to_tensor, self.device)
        return results[0] if is_single else results

    def _predict_here(
        self,
        pairs: list[tuple[str, str]],
        device: Any,
        on_batch: Callable[[int], None],
        *,
        prompt: str | None,
        batch_size: int,
        activation_fn: Activation | None,
        apply_softmax: bool | None,
        max_batch_tokens: int | None,
    ) -> NDArray[np.float32]:
        if device is not None:
            self.to(device)
        max_tokens = self._max_tokens(max_batch_tokens, batch_size)

        def score(ready: Prepared) -> NDArray[np.float32]:
            run = self.score_prepared(
                ready, max_batch_tokens=max_tokens, activation_fn=activation_fn, on_batch=on_batch
            )
            return run.embeddings

        scores = joined_rows(len(pairs), self._runs(pairs, prompt, None, score))
        if apply_softmax and scores.shape[1] > 1:
            scores = torch.from_numpy(scores).softmax(dim=1).numpy()
        return scores

    @torch.inference_mode()
    def score_prepared(
        self,
        prepared: Prepared,
        *,
        max_batch_tokens: int | None = None,
        activation_fn: Activation | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> EmbedRun:
        """Score what `prepare` makes of pairs; the run's embeddings are the scores (N, K).

        Args:
            prepared: N pairs.
            max_batch_tokens: The most token positions of a batch; what suits the device if None.
            activation_fn: Applied to the logits (B, K); the model's if None.
            on_batch: Called with the number of rows after each batch.

        Raises:
            ValueError: ``max_batch_tokens`` is not positive, or no module writes scores.
        """
        self.eval()
        if not len(prepared):
            return EmbedRun(self._no_scores(), 0, 0)
        activate = activation_fn or self.activation_fn

        def read(features: Features) -> Tensor:
            if "scores" not in features:
                raise ValueError(f"a CrossEncoder's modules must write 'scores', got {sorted(features)}")
            scores = activate(features["scores"].float())  # (B, K)
            return scores if scores.ndim > 1 else scores[:, None]

        return embed(self._encoder(), prepared, self._max_tokens(max_batch_tokens), read, on_batch)

    def _no_scores(self) -> NDArray[np.float32]:
        return np.empty((0, self.num_labels), np.float32)

    @renamed(activation_fct="activation_fn")
    def rank(  # noqa: PLR0913, PLR0917 (the public signature)
        self,
        query: str,
        documents: Any,
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Activation | None = None,
        device: str | Sequence[str] | None = None,
        pool: Pool | None = None,
        chunk_size: int | None = None,
    ) -> list[dict[str, Any]]:
        """Rank documents by their score with a query, the best one first and equal ones in their order.

        Args:
            query: The query.
            documents: N texts.
            top_k: How many to return; all if None.
            return_documents: Whether to return the texts too.
            prompt_name: As in `predict`, like all that follow.
            prompt: The prompt before the query.
            batch_size: Rows of the longest possible pairs that must fit into memory.
            show_progress_bar: Whether to show progress.
            activation_fn: Applied to the logits (B, 1).
            device: Where to move the model first, or several devices.
            pool: Processes to share the work among.
            chunk_size: Pairs that a process gets at a time.

        Returns:
            Dicts of ``corpus_id``, the place in ``documents``, ``score`` and, if asked for, ``text``.

        Raises:
            TypeError: The query or a document is no text.
            ValueError: The model has several labels, or ``top_k`` is negative.
        """
        if self.num_labels != 1:
            raise ValueError(f"rank needs a model with 1 label, got {self.num_labels}; predict gives them all")
        if top_k is not None and top_k < 0:
            raise ValueError(f"top_k must not be negative, got {top_k}")
        if not isinstance(query, str):
            raise TypeError(f"query must be a text, got {type(query).__name__}")
        if isinstance(documents, str):
            raise TypeError("documents must be a list of texts, got str")
        texts, _ = as_texts(documents)
        scores = self.predict(
            [(query, text) for text in texts],
            prompt_name,
            prompt,
            batch_size,
            show_progress_bar,
            activation_fn,
            device=device,
            pool=pool,
            chunk_size=chunk_size,
        )
        order = np.argsort(-scores.reshape(-1), kind="stable")[:top_k]
        ranked: list[dict[str, Any]] = [{"corpus_id": int(row), "score": float(scores[row])} for row in order]
        if return_documents:
            ranked = [hit | {"text": texts[hit["corpus_id"]]} for hit in ranked]
        return ranked

    @property
    def num_labels(self) -> int:
        """K: scores of a pair."""
        for module in reversed(list(self)):
            if isinstance(module, LogitScore):
                return 1
            if isinstance(module, Dense) and module.module_output_name == "scores":
                return module.out_features
            if isinstance(module, Transformer):
                return cast(int, module.model.config.num_labels)
        return 1

    @property
    def max_length(self) -> int | None:
        """Tokens to which a pair is cut: the old name of `max_seq_length`."""
        return self.max_seq_length

    @max_length.setter
    def max_length(self, value: int | None) -> None:
        self.max_seq_length = value

    @property
    def default_activation_function(self) -> Activation:
        """The old name of `activation_fn`."""
        return self.activation_fn

    @property
    def model(self) -> Any:
        """The model of transformers: the old name of `transformers_model`."""
        return self.transformers_model

    @property
    def keep_in_fp32_modules(self) -> list[str]:
        """Paths of the linear layers that compute in float32."""
        return list(self.settings.keep_in_fp32_modules or [])

    def set_keep_in_fp32_modules(self, module_names: Sequence[str]) -> None:
        """Let linear layers compute in float32 and return it, even under autocast, instead of those set before.

        Args:
            module_names: Paths as in ``named_modules()``, such as ``0.model.classifier``.

        Raises:
            ValueError: A name is not that of a plain linear layer.
        """
        keep_in_float32(self, module_names, self.keep_in_fp32_modules)
        self.settings.keep_in_fp32_modules = list(module_names)

    def _card(self, title: str, train_datasets: Sequence[str]) -> str:
        kinds = [type(cast(Module, module)).__name__ for module in self]
        return cross_encoder_card(title, self.num_labels, kinds, self.max_seq_length, train_datasets)
