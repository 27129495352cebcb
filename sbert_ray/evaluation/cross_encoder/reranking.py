"""Reranking by a cross-encoder: are the relevant ones of a query's documents first?"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbert_ray.evaluation.cross_encoder.renamed import Renamed
from sbert_ray.evaluation.encoding import predict
from sbert_ray.evaluation.evaluator import Evaluator, Result, file_name
from sbert_ray.evaluation.fusion import ranked_metrics
from sbert_ray.evaluation.reranking import check_k, groups, listed, ranking_metrics, ranking_result

_PAIRS = 100_000  # scored at a time


class Gains(Evaluator):
    """What makes an evaluator tell a model's card how far the metrics are from those before reranking."""

    def store_metrics_in_model_card_data(
        self, model: Any, metrics: Mapping[str, float], *args: Any, **kwargs: Any
    ) -> None:
        """Tell the metrics, with their gains over ``base_`` ones where there are such."""
        start = f"{self.name}_" if self.name else ""
        own = {key.removeprefix(start): value for key, value in metrics.items() if key.startswith(start)}
        told: dict[str, Any] = {
            f"{start}{key}": f"{value:.4f} ({value - own[f'base_{key}']:+.4f})"
            for key, value in own.items()
            if f"base_{key}" in own
        }
        super().store_metrics_in_model_card_data(model, told or metrics, *args, **kwargs)


class CrossEncoderRerankingEvaluator(Gains):
    """Metrics of a query's documents in the order of their scores.

    The metrics are ``map``, ``mrr@k`` and ``ndcg@k``, means over the queries, and with ``documents`` also those of the
    order in which they came, with ``base_``, where relevant ones that are not among them count as the last. Without any
    relevant one to rank, a query's metrics are 0.

    Args:
        samples: Rows with a text ``query``, the relevant texts ``positive``, and either ``documents``, the ranked ones
            to rerank, or ``negative``.
        at_k: Rank down to which the relevant ones are looked for.
        always_rerank_positives: Whether relevant texts that are not among ``documents`` are scored too; else they
            do not count.
        name: Prefix of the metrics' names.
        prompt_name: Passed on to the model.
        batch_size: Pairs at a time, passed on to the model.
        show_progress_bar: Passed on to the model.
        write_csv: Whether to write a CSV file where a call gives a folder.
        mrr_at_k: Older name of ``at_k``.

    Raises:
        ValueError: There are no samples, one lacks what it needs, or ``at_k`` is not positive.
    """

    def __init__(  # noqa: PLR0913, PLR0917 (the public signature)
        self,
        samples: Sequence[Mapping[str, Any]] | Mapping[Any, Mapping[str, Any]],
        at_k: int = 10,
        always_rerank_positives: bool = True,
        name: str = "",
        prompt_name: str | None = None,
        batch_size: int = 64,
        show_progress_bar: bool = False,
        write_csv: bool = True,
        mrr_at_k: int | None = None,
    ) -> None:
        self.samples = list(samples.values()) if isinstance(samples, Mapping) else samples
        self.at_k = at_k if mrr_at_k is None else mrr_at_k
        self.always_rerank_positives = always_rerank_positives
        self.name = name
        self.prompt_name = prompt_name
        self.batch_size = batch_size
        self.show_progress_bar = show_progress_bar
        self.write_csv = write_csv
        self.csv_file = file_name("CrossEncoderRerankingEvaluator", name, f"_results_@{self.at_k}.csv")
        self.primary_metric = f"ndcg@{self.at_k}"
        check_k(self.at_k)
        if not self.samples:
            raise ValueError("samples must be at least one, got none")
        for row, sample in enumerate(self.samples):
            if not {"query", "positive"} <= sample.keys() or not (sample.get("documents") or "negative" in sample):
                raise ValueError(
                    "samples must have 'query', 'positive', and 'documents', at least one, or 'negative', got "
                    f"{list(sample)} in row {row}"
                )

    def get_config_dict(self) -> dict[str, Any]:
        """Return the options by name that a model's card tells, those that matter."""
        options: dict[str, Any] = {"at_k": self.at_k}
        reranks = self.samples[0].get("documents") is not None
        return options | {"always_rerank_positives": self.always_rerank_positives} if reranks else options

    def evaluate(self, model: Any) -> Result:
        """Return the metrics."""
        found: list[NDArray[np.float64]] = []
        for group in self._groups():
            pairs = [(query, text) for query, texts, _ in group for text in texts]
            scores = self._scores(model, pairs)
            start = 0
            for _, texts, relevance in group:
                found.append(self._metrics(relevance, scores[start : start + len(texts)]))
                start += len(texts)
        result = ranking_result(found, self.at_k)
        base = [
            ranked_metrics(listed(sample["documents"]), listed(sample["positive"]), self.at_k)
            for sample in self.samples
            if sample.get("documents")
        ]
        if not base:
            return result
        told = {f"base_{name}": value for name, value in ranking_result(base, self.at_k).metrics.items()}
        return result._replace(metrics=result.metrics | told)

    def _groups(self) -> Iterator[list[tuple[str, list[str], list[int]]]]:
        """Yield queries in groups, the texts to score for each, and which of these are relevant."""
        candidates = ((sample["query"], *self._candidates(sample)) for sample in self.samples)
        return groups(candidates, lambda found: len(found[1]), _PAIRS)

    def _candidates(self, sample: Mapping[str, Any]) -> tuple[list[str], list[int]]:
        positive = listed(sample["positive"])
        if not positive:
            return [], []
        if not sample.get("documents"):
            negative = listed(sample["negative"])
            return [*positive, *negative], [1] * len(positive) + [0] * len(negative)
        documents = listed(sample["documents"])
        if self.always_rerank_positives:
            others = [text for text in documents if text not in positive]
            return [*positive, *others], [1] * len(positive) + [0] * len(others)
        relevance = [int(text in positive) for text in documents]
        return (documents, relevance) if any(relevance) else ([], [])

    def _scores(self, model: Any, pairs: Sequence[tuple[str, str]]) -> NDArray[np.floating]:
        if not pairs:
            return np.empty(0)
        options = {"batch_size": self.batch_size, "show_progress_bar": self.show_progress_bar}
        scores = np.asarray(predict(model, pairs, prompt_name=self.prompt_name, **options))
        if scores.size != len(pairs):
            raise ValueError(f"predict must return one score for a pair, got shape {scores.shape}")
        return scores.reshape(-1)

    def _metrics(self, relevance: Sequence[int], scores: NDArray[np.floating]) -> NDArray[np.float64]:
        if not relevance:
            return np.zeros(3)
        # Not a stable sort, so that of equal scores the same are first as in sentence_transformers.
        return ranking_metrics(relevance, scores, self.at_k, np.argsort(scores)[::-1])


class CERerankingEvaluator(Renamed, CrossEncoderRerankingEvaluator):
    """A CrossEncoderRerankingEvaluator under an older name."""
