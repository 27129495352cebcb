"""Fusion of a dense and a sparse ranking by the ranks alone."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbert_ray.evaluation.evaluator import Evaluator, Result, file_name
from sbert_ray.evaluation.reranking import check_k, listed, ranking_metrics, ranking_result


class ReciprocalRankFusionEvaluator(Evaluator):
    """Metrics of two rankings, and of their fusion.

        score(document) = sum over rankings: 1 / (rrf_k + rank),   rank from 1

    The metrics are ``map``, ``mrr@k`` and ``ndcg@k`` of the fusion, and the same with ``dense_`` and ``sparse_``, means
    over the queries. A relevant document that a ranking lacks counts as its last. Of equal scores, the document that
    is earlier in the dense ranking is first. It is called without a model.

    Args:
        dense_samples: Rows with ``query_id``, ``query``, the relevant documents ``positive``, and the ranked
            ``documents``.
        sparse_samples: The same, for the same queries.
        at_k: Rank down to which the relevant ones are looked for.
        rrf_k: The greater, the less the first ranks weigh.
        name: Prefix of the metrics' names.
        batch_size: Not used, as nothing is embedded.
        show_progress_bar: Not used.
        write_csv: Whether to write a CSV file where a call gives a folder.
        write_predictions: Whether to write the fused rankings as JSON lines where a call gives a folder.

    Raises:
        ValueError: The queries of the two differ, or there are none, a row lacks what it needs, ``at_k`` is not
            positive, or ``rrf_k`` is negative.

    References:
        Cormack, Clarke and Buettcher 2009, Reciprocal rank fusion outperforms Condorcet and individual rank learning
        methods, doi:10.1145/1571941.1572114.
    """

    card_options = ("at_k", "rrf_k", "write_predictions")

    def __init__(  # noqa: PLR0913, PLR0917 (the public signature)
        self,
        dense_samples: Sequence[Mapping[str, Any]],
        sparse_samples: Sequence[Mapping[str, Any]],
        at_k: int = 10,
        rrf_k: int = 60,
        name: str = "",
        batch_size: int = 32,
        show_progress_bar: bool = False,
        write_csv: bool = True,
        write_predictions: bool = False,
    ) -> None:
        check_k(at_k)
        self.dense_samples, self.sparse_samples = dense_samples, sparse_samples
        self.at_k = at_k
        self.rrf_k = rrf_k
        self.name = name
        self.batch_size = batch_size
        self.show_progress_bar = show_progress_bar
        self.write_csv = write_csv
        self.write_predictions = write_predictions
        self.csv_file = file_name("ReciprocalRankFusion_evaluation", name)
        self.predictions_file = file_name("ReciprocalRankFusion_evaluation", name, "_predictions.jsonl")
        self.primary_metric = f"ndcg@{at_k}"
        for samples in (dense_samples, sparse_samples):
            _check_samples(samples)
        if rrf_k < 0:
            raise ValueError(f"rrf_k must not be negative, got {rrf_k}")
        self._sparse = {sample["query_id"]: sample for sample in sparse_samples}
        dense = {sample["query_id"] for sample in dense_samples}
        if not dense or dense != self._sparse.keys():
            raise ValueError(
                "dense_samples and sparse_samples must be of the same queries, at least one, got "
                f"{len(dense)} and {len(self._sparse)}, of which {len(dense & self._sparse.keys())} are in both"
            )

    def __call__(  # type: ignore[override]
        self, output_path: str | os.PathLike[str] | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """Return the metrics, of samples that hold all that there is to know."""
        found: dict[str, list[NDArray[np.float64]]] = {"dense_": [], "sparse_": [], "": []}
        predictions = []
        for sample in self.dense_samples:
            positive = listed(sample["positive"])
            dense, sparse = sample["documents"], self._sparse[sample["query_id"]]["documents"]
            fused = fuse([dense, sparse], self.rrf_k)
            for name, documents in zip(found, (dense, sparse, fused), strict=True):
                found[name].append(ranked_metrics(documents, positive, self.at_k))
            told = {"query_id": sample["query_id"], "query": sample["query"]}
            predictions.append(told | {"positive": positive, "documents": fused})
        if output_path is not None and self.write_predictions:
            self._write(Path(output_path), predictions)
        return self.finish(self._result(found), output_path, epoch, steps)

    def _result(self, found: Mapping[str, Sequence[NDArray[np.float64]]]) -> Result:
        metrics: dict[str, float] = {}
        row: dict[str, Any] = {}
        for prefix, values in found.items():
            result = ranking_result(values, self.at_k)
            metrics |= {f"{prefix}{name}": value for name, value in result.metrics.items()}
            row |= {f"{(prefix or 'fusion_').capitalize()}{name}": value for name, value in result.row.items()}
        return Result(metrics, row, result.primary)

    def _write(self, folder: Path, predictions: Sequence[Mapping[str, Any]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / self.predictions_file).open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(prediction) + "\n" for prediction in predictions)


def _check_samples(samples: Sequence[Mapping[str, Any]]) -> None:
    for row, sample in enumerate(samples):
        if missing := [name for name in ("query_id", "query", "positive", "documents") if name not in sample]:
            raise ValueError(
                f"samples must have query_id, query, positive and documents, got {missing} not in row {row}"
            )


def fuse(rankings: Sequence[Sequence[str]], rrf_k: int = 60) -> list[str]:
    """Return the documents of rankings by their sums of 1 / (rrf_k + rank), equal ones in the order they come in."""
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, document in enumerate(ranking, 1):
            scores[document] = scores.get(document, 0.0) + 1 / (rrf_k + rank)
    return sorted(scores, key=lambda document: -scores[document])


def ranked_metrics(documents: Sequence[str], positive: Sequence[str], at_k: int) -> NDArray[np.float64]:
    """Return average precision, reciprocal rank and NDCG of ranked documents, as (3,).

    Relevant ones that are missing count as the last, unless all are missing: then the metrics are 0.
    """
    relevance = [int(document in positive) for document in documents]
    if not any(relevance):
        return np.zeros(3)
    relevance += [1] * (len(positive) - sum(relevance))
    return ranking_metrics(relevance, -np.arange(len(relevance)), at_k)
