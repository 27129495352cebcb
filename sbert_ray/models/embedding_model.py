"""What models that embed have in common, dense and sparse ones: queries and documents, similarity."""

from typing import Any, cast

from torch import Tensor

from sbert_ray.models.model import Model
from sbert_ray.modules import Pooling
from sbert_ray.renamed import renamed
from sbert_ray.similarity import Embeddings, SimilarityFunction

DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""Names under which models keep the prompt of documents, the first one found winning."""


class EmbeddingModel(Model):
    """A model with an `encode`."""

    def encode(self, inputs: Any, *args: Any, **options: Any) -> Any:
        """Embed inputs."""
        raise NotImplementedError

    @renamed(sentences="inputs")
    def encode_query(
        self, inputs: Any, prompt_name: str | None = None, prompt: str | None = None, *args: Any, **options: Any
    ) -> Any:
        """Embed queries: `encode` with the prompt ``query``, unless another is given, and by the route ``query``."""
        if prompt_name is None and prompt is None and "query" in self.prompts:
            prompt_name = "query"
        return self.encode(inputs, prompt_name, prompt, *args, **{"task": "query"} | options)

    @renamed(sentences="inputs")
    def encode_document(
        self, inputs: Any, prompt_name: str | None = None, prompt: str | None = None, *args: Any, **options: Any
    ) -> Any:
        """Embed documents: `encode` with the first prompt of ``document``, ``passage``, ``corpus``, unless given.

        A model with a Router takes its route ``document``.
        """
        if prompt_name is None and prompt is None:
            prompt_name = next((name for name in DOCUMENT_PROMPTS if name in self.prompts), None)
        return self.encode(inputs, prompt_name, prompt, *args, **{"task": "document"} | options)

    def similarity(self, embeddings1: Embeddings, embeddings2: Embeddings) -> Tensor:
        """Return the similarity of every row of ``embeddings1`` (N, D) with every row of ``embeddings2`` (M, D)."""
        return SimilarityFunction.to_similarity_fn(self.similarity_fn_name)(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Embeddings, embeddings2: Embeddings) -> Tensor:
        """Return the similarity of row i of ``embeddings1`` (N, D) with row i of ``embeddings2`` (N, D)."""
        return SimilarityFunction.to_similarity_pairwise_fn(self.similarity_fn_name)(embeddings1, embeddings2)

    @property
    def similarity_fn_name(self) -> str:
        """How embeddings of this model are compared."""
        return cast(str, self.settings.similarity)

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: str | SimilarityFunction | None) -> None:
        self.settings.similarity_fn_name = None if value is None else SimilarityFunction.name_of(value)

    def get_sentence_embedding_dimension(self) -> int | None:
        """Return D of what `encode` returns: the old name of `get_embedding_dimension`."""
        return self.get_embedding_dimension()

    def set_pooling_include_prompt(self, include_prompt: bool) -> None:
        """Set whether the prompt's tokens are pooled."""
        for module in self.modules():
            if isinstance(module, Pooling):
                module.include_prompt = include_prompt
