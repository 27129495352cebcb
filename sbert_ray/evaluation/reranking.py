"""Reranking: are the relevant ones of a query's documents the nearest?

Shapes: K documents of a query, embeddings of dimension D.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sbert_ray.evaluation import metrics as of
from sbert_ray.evaluation.encoding import DOCUMENT, QUERY, EmbeddingEvaluator
from sbert_ray.evaluation.evaluator import Result, file_name
from sbert_ray.similarity import cos_sim

T = TypeVar("T")

_DOCUMENTS = 50_000  # embedded at a time


class RerankingEvaluator(EmbeddingEvaluator):
    """Metrics of a query's documents in the order of their similarities with it.

    The metrics are ``map``, ``mrr@k`` and ``ndcg@k``, means over the queries. In ``map`` equal scores are one rank, and
    ``ndcg@k`` is the mean over their orders.

    Args:
        samples: Rows with a text ``query``, and texts, or one, ``positive`` and ``negative``; those that lack one of
            these are left out.
        at_k: Rank down to which the relevant ones are looked for.
        name: Prefix of the metrics' names.
        write_csv: Whether to write a CSV file where a call gives a folder.
        similarity_fct: Scores (1, K) of a query (1, D) and documents (K, D).
        batch_size: Texts at a time, passed on to the model.
        show_progress_bar: Passed on to the model.
        use_batched_encoding: Whether the texts of many samples are embedded together; else those of one.
        truncate_dim: Keep so many leading dimensions.
        mrr_at_k: Older name of ``at_k``.

    Raises:
        ValueError: ``at_k`` is not positive, or no sample is left.
    """

    card_options = ("at_k", "truncate_dim")

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
        truncate_dim: int | None = None,
        mrr_at_k: int | None = None,
    ) -> None:
        rows = list(samples.values()) if isinstance(samples, Mapping) else samples
        self.samples = [sample for sample in map(_listed, rows) if sample["positive"] and sample["negative"]]
        self.at_k = at_k if mrr_at_k is None else mrr_at_k
        self.name = name
        self.write_csv = write_csv
        self.similarity_fct = similarity_fct
        self.batch_size = batch_size
        self.show_progress_bar = show_progress_bar
        self.use_batched_encoding = use_batched_encoding
        self.truncate_dim = truncate_dim
        self.csv_file = file_name("RerankingEvaluator", name, f"_results_@{self.at_k}.csv")
        self.primary_metric = f"ndcg@{self.at_k}"
        check_k(self.at_k)
        if not self.samples:
            raise ValueError("samples must have at least one with positive and negative documents, got none")

    def evaluate(self, model: Any) -> Result:
        """Return the metrics."""
        found = []
        for samples in self._groups():
            queries = self.embed_inputs(model, [sample["query"] for sample in samples], QUERY, "query")
            texts = [text for sample in samples for text in (*sample["positive"], *sample["negative"])]
            documents = self.embed_inputs(model, texts, DOCUMENT, "corpus")
            start = 0
            for number, sample in enumerate(samples):
                relevance = [1] * len(sample["positive"]) + [0] * len(sample["negative"])
                rows = torch.arange(start, start + len(relevance), device=documents.device)
                query = queries.index_select(0, torch.tensor([number], device=queries.device))
                scores = self.similarity_fct(query, documents.index_select(0, rows)).reshape(-1).cpu()  # (K,)
                # Not a stable sort: it would favour the relevant ones, which are before the others. This one leaves
                # equal scores in the order that they have in sentence_transformers.
                order = torch.argsort(-scores).numpy()
                found.append(ranking_metrics(relevance, scores.numpy(), self.at_k, order))
                start += len(relevance)
        return ranking_result(found, self.at_k)

    def _groups(self) -> Iterator[list[dict[str, Any]]]:
        most = _DOCUMENTS if self.use_batched_encoding else 0
        return groups(self.samples, lambda sample: len(sample["positive"]) + len(sample["negative"]), most)


def groups(samples: Iterable[T], size_of: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """Yield samples in groups, each of which is full when its sizes sum up to ``most``."""
    group: list[T] = []
    size = 0
    for sample in samples:
        group.append(sample)
        size += size_of(sample)
        if size >= most:
            yield group
            group, size = [], 0
    if group:
        yield group


def _listed(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Return a sample with its documents in lists."""
    if missing := [name for name in ("query", "positive", "negative") if name not in sample]:
        raise ValueError(f"samples must have 'query', 'positive' and 'negative', got one without {missing}")
    return {"query": sample["query"]} | {name: listed(sample[name]) for name in ("positive", "negative")}


def listed(texts: Any) -> list[Any]:
    """Return texts in a list, also a single one.

    Raises:
        ValueError: There are none to speak of.
    """
    if not isinstance(texts, Iterable):
        raise ValueError(f"documents must be a text or texts, got {texts!r}")
    return [texts] if isinstance(texts, str) else list(texts)


def check_k(at_k: int) -> None:
    """Make sure that a rank is one.

    Raises:
        ValueError: It is not positive.
    """
    if at_k < 1:
        raise ValueError(f"at_k must be positive, got {at_k}")


def ranking_metrics(
    relevance: Sequence[int], scores: ArrayLike, at_k: int, order: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """Return average precision, reciprocal rank and NDCG of documents by their scores, as (3,).

    Args:
        relevance: K of 0 and 1.
        scores: K numbers, the greater the more relevant.
        at_k: Rank down to which documents count for the latter two.
        order: Places in descending order of scores, for the reciprocal rank; of equal ones the first is first if None.

    Raises:
        ValueError: A score is nan.
    """
    if order is None:
        order = np.argsort(-np.asarray(scores), kind="stable")
    hits = np.asarray(relevance, bool)[None, order]
    precision = of.average_precision(relevance, scores)
    return np.array([precision, of.mrr_at_k(hits, at_k)[0], of.tied_ndcg_at_k(relevance, scores, at_k)])


def ranking_result(found: Sequence[NDArray[np.float64]], at_k: int) -> Result:
    """Return the means of the three metrics of queries."""
    names = ("map", f"mrr@{at_k}", f"ndcg@{at_k}")
    metrics = dict(zip(names, np.mean(found, axis=0).tolist(), strict=True))
    return Result(metrics, {name.upper(): value for name, value in metrics.items()}, names[-1])
