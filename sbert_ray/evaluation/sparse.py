"""The evaluators of sparse embeddings: the dense ones, and how sparse the embeddings are."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from torch import Tensor

from sbert_ray.evaluation.classification import BinaryClassificationEvaluator
from sbert_ray.evaluation.information_retrieval import InformationRetrievalEvaluator
from sbert_ray.evaluation.mse import MSEEvaluator
from sbert_ray.evaluation.reranking import RerankingEvaluator
from sbert_ray.evaluation.similarity import EmbeddingSimilarityEvaluator
from sbert_ray.evaluation.sparsity import SparseEvaluator, Sparsity
from sbert_ray.evaluation.translation import TranslationEvaluator
from sbert_ray.evaluation.triplet import TripletEvaluator
from sbert_ray.similarity import Similarity, SimilarityFunction, cos_sim


class SparseBinaryClassificationEvaluator(SparseEvaluator, BinaryClassificationEvaluator):
    """A BinaryClassificationEvaluator that tells ``active_dims`` and ``sparsity_ratio`` too, each text counted once.

    Its arguments are those of the dense one, but for ``max_active_dims``: keep so many values of largest magnitude.
    """

    def __init__(  # noqa: PLR0913, PLR0917 (the public signature)
        self,
        sentences1: Sequence[Any],
        sentences2: Sequence[Any],
        labels: Sequence[int],
        name: str = "",
        batch_size: int = 32,
        show_progress_bar: bool = False,
        write_csv: bool = True,
        max_active_dims: int | None = None,
        similarity_fn_names: Sequence[str] | None = None,
    ) -> None:
        self.max_active_dims = max_active_dims
        super().__init__(
            sentences1, sentences2, labels, name, batch_size, show_progress_bar, write_csv, None, similarity_fn_names
        )


class SparseEmbeddingSimilarityEvaluator(SparseEvaluator, EmbeddingSimilarityEvaluator):
    """An EmbeddingSimilarityEvaluator that tells ``active_dims`` and ``sparsity_ratio`` too.

    Its arguments are those of the dense one, but for ``max_active_dims``: keep so many values of largest magnitude.
    """

    def __init__(  # noqa: PLR0913, PLR0917 (the public signature)
        self,
        sentences1: Sequence[Any],
        sentences2: Sequence[Any],
        scores: Sequence[float],
        batch_size: int = 16,
        main_similarity: str | SimilarityFunction | None = None,
        similarity_fn_names: Sequence[str] | None = None,
        name: str = "",
        show_progress_bar: bool = False,
        write_csv: bool = True,
        max_active_dims: int | None = None,
    ) -> None:
        self.max_active_dims = max_active_dims
        super().__init__(
            sentences1,
            sentences2,
            scores,
            batch_size,
            main_similarity,
            similarity_fn_names,
            name,
            show_progress_bar,
            write_csv,
        )


class SparseInformationRetrievalEvaluator(SparseEvaluator, InformationRetrievalEvaluator):
    """An InformationRetrievalEvaluator that tells how sparse queries and documents are too.

    The metrics are ``active_dims`` and ``sparsity_ratio`` of each, with ``query_`` and ``corpus_``, and ``avg_flops``,
    the mean number of dimensions that a query and a document share: the product of the shares of embeddings that have
    a dimension, summed over the dimensions.

    Its arguments are those of the dense one, but for ``max_active_dims``: keep so many values of largest magnitude.

    References:
        Paria et al. 2020, Minimizing FLOPs to learn efficient sparse representations, arXiv:2004.05665.
    """

    def __init__(  # noqa: PLR0913, PLR0917 (the public signature)
        self,
        queries: Mapping[str, Any],
        corpus: Mapping[str, Any],
        relevant_docs: Mapping[str, AbstractSet[str]],
        corpus_chunk_size: int = 50000,
        mrr_at_k: Sequence[int] = [10],
        ndcg_at_k: Sequence[int] = [10],
        accuracy_at_k: Sequence[int] = [1, 3, 5, 10],
        precision_recall_at_k: Sequence[int] = [1, 3, 5, 10],
        map_at_k: Sequence[int] = [100],
        show_progress_bar: bool = False,
        batch_size: int = 32,
        name: str = "",
        write_csv: bool = True,
        max_active_dims: int | None = None,
        score_functions: Mapping[str, Similarity] | None = None,
        main_score_function: str | SimilarityFunction | None = None,
        query_prompt: str | None = None,
        query_prompt_name: str | None = None,
        corpus_prompt: str | None = None,
        corpus_prompt_name: str | None = None,
        write_predictions: bool = False,
    ) -> None:
        self.max_active_dims = max_active_dims
        super().__init__(
            queries,
            corpus,
            relevant_docs,
            corpus_chunk_size,
            mrr_at_k,
            ndcg_at_k,
            accuracy_at_k,
            precision_recall_at_k,
            map_at_k,
            show_progress_bar,
            batch_size,
            name,
            write_csv,
            None,
            score_functions,
            main_score_function,
            query_prompt,
            query_prompt_name,
            corpus_prompt,
            corpus_prompt_name,
            write_predictions,
        )

    def columns(self) -> dict[str, Sparsity]:
        """Return what counts queries and documents."""
        return {"query": Sparsity(), "corpus": Sparsity()}

    def told(self, sparsity: dict[str, Sparsity]) -> dict[str, float]:
        """Return the metrics of sparsity."""
        flops = sparsity["query"].frequencies() @ sparsity["corpus"].frequencies()
        return super().told(sparsity) | {"avg_flops": float(flops)}


class SparseMSEEvaluator(SparseEvaluator, MSEEvaluator):
    """An MSEEvaluator that tells ``active_dims`` and ``sparsity_ratio`` of the student too. Nothing is made dense.

    Its arguments are those of the dense one, but for ``max_active_dims``: keep so many values of largest magnitude.
    """

    def __init__(
        self,
        source_sentences: Sequence[Any],
        target_sentences: Sequence[Any],
        teacher_model: Any = None,
        show_progress_bar: bool = False,
        batch_size: int = 32,
        name: str = "",
        write_csv: bool = True,
        max_active_dims: int | None = None,
    ) -> None:
        self.max_active_dims = max_active_dims
        super().__init__(
            source_sentences, target_sentences, teacher_model, show_progress_bar, batch_size, name, write_csv
        )


class SparseTranslationEvaluator(SparseEvaluator, TranslationEvaluator):
    """A TranslationEvaluator that tells ``active_dims`` and ``sparsity_ratio`` too.

    Its arguments are those of the dense one, but for ``max_active_dims``: keep so many values of largest magnitude.
    """

    def __init__(
        self,
        source_sentences: Sequence[Any],
        target_sentences: Sequence[Any],
        show_progress_bar: bool = False,
        batch_size: int = 16,
        name: str = "",
        print_wrong_matches: bool = False,
        write_csv: bool = True,
        max_active_dims: int | None = None,
    ) -> None:
        self.max_active_dims = max_active_dims
        super().__init__(
            source_sentences, target_sentences, show_progress_bar, batch_size, name, print_wrong_matches, write_csv
        )


class SparseTripletEvaluator(SparseEvaluator, TripletEvaluator):
    """A TripletEvaluator that tells how sparse the columns are too.

    The metrics are ``active_dims`` and ``sparsity_ratio`` with ``anchor_``, ``positive_`` and ``negative_``.

    Its arguments are those of the dense one, but for ``max_active_dims``: keep so many values of largest magnitude.
    """

    def __init__(  # noqa: PLR0913, PLR0917 (the public signature)
        self,
        anchors: Sequence[Any],
        positives: Sequence[Any],
        negatives: Sequence[Any],
        main_similarity_function: str | SimilarityFunction | None = None,
        margin: float | Mapping[str, float] | None = None,
        name: str = "",
        batch_size: int = 16,
        show_progress_bar: bool = False,
        write_csv: bool = True,
        max_active_dims: int | None = None,
        similarity_fn_names: Sequence[str] | None = None,
        main_distance_function: str | SimilarityFunction | None = "deprecated",
    ) -> None:
        self.max_active_dims = max_active_dims
        super().__init__(
            anchors,
            positives,
            negatives,
            main_similarity_function,
            margin,
            name,
            batch_size,
            show_progress_bar,
            write_csv,
            None,
            similarity_fn_names,
            main_distance_function,
        )

    def columns(self) -> dict[str, Sparsity]:
        """Return what counts the columns."""
        return {column: Sparsity() for column in ("anchor", "positive", "negative")}


class SparseRerankingEvaluator(SparseEvaluator, RerankingEvaluator):
    """A RerankingEvaluator that tells how sparse queries and documents are too.

    The metrics are ``active_dims`` and ``sparsity_ratio`` with ``query_`` and ``corpus_``; without batched encoding
    they are means over the samples, whatever their numbers of documents.

    Its arguments are those of the dense one, but for ``max_active_dims``: keep so many values of largest magnitude.
    """

    def __init__(  # noqa: PLR0913, PLR0917 (the public signature)
        self,
        samples: Sequence[Mapping[str, Any]] | Mapping[Any, Mapping[str, Any]],
        at_k: int = 10,
        name: str = "",
        write_csv: bool = True,
        similarity_fct: Callable[[Tensor, Tensor], Tensor] = cos_sim,
        batch_size: int = 64,
        show_progress_bar: bool = False,
        use_batched_encoding: bool = True,
        max_active_dims: int | None = None,
        mrr_at_k: int | None = None,
    ) -> None:
        self.max_active_dims = max_active_dims
        super().__init__(
            samples,
            at_k,
            name,
            write_csv,
            similarity_fct,
            batch_size,
            show_progress_bar,
            use_batched_encoding,
            None,
            mrr_at_k,
        )

    def columns(self) -> dict[str, Sparsity]:
        """Return what counts queries and documents."""
        return {column: Sparsity(by_part=not self.use_batched_encoding) for column in ("query", "corpus")}
