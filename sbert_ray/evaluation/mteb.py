"""Models in the place of those of mteb, the benchmark of text embeddings: its protocols for encoders and rerankers.

mteb itself is imported on first use; it is no requirement of this package.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sbert_ray.embeddings import is_sparse

_KINDS = {"SentenceTransformer": "dense", "SparseEncoder": "sparse", "CrossEncoder": "cross-encoder"}
_MODALITIES = ("text", "image")


class _Adapter:
    """A model by the name and revision that mteb files its results under.

    mteb keeps results by both and takes up what it finds: two models, or versions of one, must not share them.

    Args:
        model: The model.
        name: As ``OWNER/NAME``.
        revision: The version of the weights, such as a commit on the hub.

    Raises:
        ValueError: ``name`` has no owner.
    """

    def __init__(self, model: Any, name: str, revision: str) -> None:
        if "/" not in name:
            raise ValueError(f"name must be OWNER/NAME, got {name!r}")
        self.model = model
        self.name = name
        self.revision = revision

    @cached_property
    def mteb_model_meta(self) -> Any:
        """What mteb tells of the model along with the results."""
        try:
            from mteb.models import ModelMeta
        except ImportError as error:
            raise ImportError("this needs mteb: pip install mteb") from error
        facts = {
            "name": self.name,
            "revision": self.revision,
            "model_type": [_KINDS.get(getattr(self.model, "model_type", ""), "dense")],
            "max_tokens": getattr(self.model, "max_seq_length", None),
            "modalities": list(self._modalities),
        }
        if hasattr(self.model, "get_embedding_dimension"):
            facts["embed_dim"] = self.model.get_embedding_dimension()
        return ModelMeta.create_empty(overwrites=facts)

    @property
    def _modalities(self) -> tuple[str, ...]:
        known = getattr(self.model, "modalities", ["text"])
        return tuple(kind for kind in _MODALITIES if kind in known)

    def _rows(self, batch: Any) -> list[Any]:
        """Return the inputs of a batch: texts, or a dict of each row's modalities."""
        kinds = [kind for kind in self._modalities if kind in batch]
        if not kinds:
            raise ValueError(f"{self.name} takes {list(self._modalities)}, and the task has {sorted(batch)}")
        if kinds == ["text"]:
            return list(batch["text"])
        return [dict(zip(kinds, row, strict=True)) for row in zip(*(batch[kind] for kind in kinds), strict=True)]


class MTEBEncoder(_Adapter):
    """A dense or sparse model as an encoder of mteb: ``mteb.evaluate(MTEBEncoder(model, name, revision), tasks)``.

    Queries and documents go to `encode_query` and `encode_document`, all else to `encode`. Of the model's prompts, the
    first of these names wins: the task's with ``-query`` or ``-document``, the task's, those of the task's type
    likewise, and ``query`` or ``document``.
    """

    def encode(
        self,
        inputs: Iterable[Any],
        *,
        task_metadata: Any,
        hf_split: str,  # noqa: ARG002 (mteb's signature)
        hf_subset: str,  # noqa: ARG002
        prompt_type: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Embed the rows of mteb's batches, as (N, D): an array, or a sparse tensor for retrieval with sparse ones.

        Args:
            inputs: Batches with their rows' texts and images.
            task_metadata: Of the task.
            hf_split: Of the task's dataset.
            hf_subset: Likewise.
            prompt_type: ``query``, ``document`` or neither.
            kwargs: Passed on to the model, such as ``batch_size``.
        """
        rows = [row for batch in inputs for row in self._rows(batch)]
        role = getattr(prompt_type, "value", prompt_type)
        embeddings = self._encoder(role)(rows, prompt=self._prompt(task_metadata, role), **kwargs)
        if not isinstance(embeddings, Tensor):
            return embeddings
        is_searched = str(task_metadata.type).endswith("Retrieval")
        if is_sparse(embeddings) and not is_searched:  # only its search knows sparse tensors
            embeddings = embeddings.to_dense()
        return embeddings.cpu().float()

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Return the similarity of every row of ``embeddings1`` (N, D) with every row of ``embeddings2`` (M, D)."""
        found: Tensor = self.model.similarity(embeddings1, embeddings2)
        return found

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Return the similarity of row i of ``embeddings1`` (N, D) with row i of ``embeddings2`` (N, D)."""
        found: Tensor = self.model.similarity_pairwise(embeddings1, embeddings2)
        return found

    def _encoder(self, role: str | None) -> Callable[..., Any]:
        encode: Callable[..., Any] = getattr(self.model, "encode" if role is None else f"encode_{role}")
        return encode

    def _prompt(self, task: Any, role: str | None) -> str | None:
        prompts = getattr(self.model, "prompts", {})
        names = [f"{task.name}-{role}", task.name, f"{task.type}-{role}", task.type, role]
        return next((prompts[name] for name in names if name in prompts), None)


class MTEBCrossEncoder(_Adapter):
    """A cross-encoder as a reranker of mteb: ``mteb.evaluate(MTEBCrossEncoder(model, name, revision), tasks)``."""

    def predict(
        self,
        inputs1: Iterable[Any],
        inputs2: Iterable[Any],
        *,
        task_metadata: Any,  # noqa: ARG002 (mteb's signature)
        hf_split: str,  # noqa: ARG002
        hf_subset: str,  # noqa: ARG002
        prompt_type: Any = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> NDArray[np.float32]:
        """Score pairs of the rows of two runs of batches, as (N,).

        Args:
            inputs1: Batches with the queries.
            inputs2: Batches with the documents, as many.
            task_metadata: Of the task.
            hf_split: Of the task's dataset.
            hf_subset: Likewise.
            prompt_type: Not used.
            kwargs: Passed on to the model, such as ``batch_size``.
        """
        pairs = list(zip(self._all(inputs1), self._all(inputs2), strict=True))
        return np.asarray(self.model.predict(pairs, **kwargs), np.float32)

    def _all(self, batches: Iterable[Any]) -> Iterator[Any]:
        return (row for batch in batches for row in self._rows(batch))
