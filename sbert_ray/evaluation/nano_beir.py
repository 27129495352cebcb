"""NanoBEIR: retrieval on small samples of the data sets of BEIR.

References:
    Thakur et al. 2021, BEIR: A heterogeneous benchmark for zero-shot evaluation of information retrieval models,
    arXiv:2104.08663.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sbert_ray.evaluation.evaluator import Evaluator, Result, file_name
from sbert_ray.evaluation.information_retrieval import InformationRetrievalEvaluator
from sbert_ray.evaluation.nano_data import NANO_NAMES, NanoData, known_names, nano_name
from sbert_ray.evaluation.sparse import SparseInformationRetrievalEvaluator
from sbert_ray.similarity import Similarity, SimilarityFunction

Aggregate = Callable[[list[float]], float]
NANO_BEIR = "sentence-transformers/NanoBEIR-en"


class Nano(Evaluator):
    """What evaluators on NanoBEIR share: one evaluator for each data set, and aggregates of their metrics."""

    evaluators: list[Any]
    aggregate_fn: Aggregate

    def __call__(
        self, model: Any, output_path: str | os.PathLike[str] | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """Return the metrics of each data set, and their aggregates.

        Args:
            model: What to evaluate.
            output_path: A folder for the files of all evaluators; nothing is written if None.
            epoch: Written to the files.
            steps: Written to the files.
        """
        by_name: dict[str, float] = {}
        results = []
        for evaluator in self.evaluators:
            result = self.result_of(evaluator, model, output_path)
            found = evaluator.finish(result, output_path, epoch, steps)
            evaluator.store_metrics_in_model_card_data(model, found, epoch, steps)
            by_name |= found
            results.append(result)
        texts = self.of_all_texts()
        metrics = self._aggregated([result.metrics for result in results]) | texts
        row = self._aggregated([result.row for result in results]) | texts
        found = self.finish(Result(metrics, row, self.best(metrics)), output_path, epoch, steps)
        self.store_metrics_in_model_card_data(model, found, epoch, steps)
        return by_name | found

    def _aggregated(self, values: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return {name: self.aggregate_fn([value[name] for value in values]) for name in values[0]}

    def result_of(self, evaluator: Any, model: Any, output_path: Any) -> Result:  # noqa: ARG002 (some write more)
        """Return the result of one data set."""
        result: Result = evaluator.evaluate(model)
        return result

    def of_all_texts(self) -> dict[str, float]:
        """Return metrics of the texts of all data sets together, in place of aggregates."""
        return {}

    def best(self, metrics: Mapping[str, float]) -> str:
        """Return the name of the primary metric."""
        raise NotImplementedError


class NanoBEIREvaluator(Nano):
    """Metrics of an InformationRetrievalEvaluator on each data set, and their aggregates.

    The metrics are ``Nano{Name}_{metric}`` and ``NanoBEIR_{aggregate_key}_{metric}``, with ``_{truncate_dim}`` after
    the first part if it is given.

    Args:
        dataset_names: Data sets, such as ``msmarco``, in any case; all 13 if None.
        dataset_id: A folder, or the id of a data set on the Hugging Face hub, with the subsets ``corpus``,
            ``queries`` and ``qrels``: ``corpus/NanoMSMARCO.parquet`` and so on, or JSON lines in ``.jsonl``.
        mrr_at_k: Passed on, as are those that are not named here.
        ndcg_at_k: Passed on.
        accuracy_at_k: Passed on.
        precision_recall_at_k: Passed on.
        map_at_k: Passed on.
        show_progress_bar: Passed on.
        batch_size: Passed on.
        write_csv: Whether to write CSV files, one of each data set and one of the aggregates.
        truncate_dim: Passed on.
        score_functions: Passed on.
        main_score_function: Passed on.
        aggregate_fn: Makes one number of those of all data sets.
        aggregate_key: What this is called.
        query_prompts: A prompt for queries, or one by data set.
        corpus_prompts: A prompt for documents, or one by data set.
        write_predictions: Passed on.

    Raises:
        ValueError: A data set is unknown or has no prompt, or there are none.
        FileNotFoundError: ``dataset_id`` is no folder with the data, and the hub cannot be reached.
    """

    card_options = ("dataset_names", "dataset_id", "truncate_dim", "query_prompts", "corpus_prompts")
    information_retrieval_class: type[InformationRetrievalEvaluator] = InformationRetrievalEvaluator

    def __init__(  # noqa: PLR0913, PLR0917 (the public signature)
        self,
        dataset_names: Sequence[str] | None = None,
        dataset_id: str = NANO_BEIR,
        mrr_at_k: Sequence[int] = [10],
        ndcg_at_k: Sequence[int] = [10],
        accuracy_at_k: Sequence[int] = [1, 3, 5, 10],
        precision_recall_at_k: Sequence[int] = [1, 3, 5, 10],
        map_at_k: Sequence[int] = [100],
        show_progress_bar: bool = False,
        batch_size: int = 32,
        write_csv: bool = True,
        truncate_dim: int | None = None,
        score_functions: Mapping[str, Similarity] | None = None,
        main_score_function: str | SimilarityFunction | None = None,
        aggregate_fn: Aggregate = np.mean,
        aggregate_key: str = "mean",
        query_prompts: str | Mapping[str, str] | None = None,
        corpus_prompts: str | Mapping[str, str] | None = None,
        write_predictions: bool = False,
    ) -> None:
        options = {
            "mrr_at_k": mrr_at_k,
            "ndcg_at_k": ndcg_at_k,
            "accuracy_at_k": accuracy_at_k,
            "precision_recall_at_k": precision_recall_at_k,
            "map_at_k": map_at_k,
            "show_progress_bar": show_progress_bar,
            "batch_size": batch_size,
            "write_csv": write_csv,
            "score_functions": score_functions,
            "main_score_function": main_score_function,
            "write_predictions": write_predictions,
            **self.dimensions(truncate_dim),
        }
        self.dataset_names = known_names(NANO_NAMES if dataset_names is None else dataset_names)
        self.dataset_id = dataset_id
        self.query_prompts = _by_name("query", query_prompts, self.dataset_names)
        self.corpus_prompts = _by_name("corpus", corpus_prompts, self.dataset_names)
        self.ndcg_at_k, self.write_csv = ndcg_at_k, write_csv
        self.aggregate_fn, self.aggregate_key = aggregate_fn, aggregate_key
        suffix = f"_{truncate_dim}" if truncate_dim else ""
        self.name = f"NanoBEIR_{aggregate_key}{suffix}"
        self.csv_file = file_name("NanoBEIR_evaluation", aggregate_key)
        self.evaluators = [self._of(name, suffix, options) for name in self.dataset_names]
        self.main_score_function = self.evaluators[0].main_score_function
        self._best: str | None = None
        vars(self).update(self.dimensions(truncate_dim))

    def dimensions(self, number: int | None) -> dict[str, int | None]:
        """Return the argument that limits the dimensions of embeddings."""
        return {"truncate_dim": number}

    def _of(self, name: str, suffix: str, options: Mapping[str, Any]) -> InformationRetrievalEvaluator:
        data = NanoData(self.dataset_id, name)
        # An empty text is no document, and no query.
        queries, corpus = ({key: text for key, text in texts.items() if text} for texts in (data.queries, data.corpus))
        return self.information_retrieval_class(
            queries,
            corpus,
            data.relevant_docs,
            name=f"{nano_name(name)}{suffix}",
            query_prompt=(self.query_prompts or {}).get(name),
            corpus_prompt=(self.corpus_prompts or {}).get(name),
            **options,
        )

    def result_of(self, evaluator: Any, model: Any, output_path: Any) -> Result:
        """Return the result of one data set, with its hits written where asked for."""
        result: Result = evaluator.evaluate(model, output_path=output_path)
        return result

    def best(self, metrics: Mapping[str, float]) -> str:
        """Return the name of the primary metric."""
        end = f"_ndcg@{max(self.ndcg_at_k)}"
        if self.main_score_function is not None:
            return f"{self.main_score_function}{end}"
        if self._best not in metrics:  # chosen once, so that calls are compared by one metric
            self._best = max(sorted(name for name in metrics if name.endswith(end)), key=metrics.__getitem__)
        return str(self._best)


class SparseNanoBEIREvaluator(NanoBEIREvaluator):
    """A NanoBEIREvaluator that tells how sparse queries and documents are too, in all data sets taken together.

    Its arguments are those of the dense one, but for ``max_active_dims``: keep so many values of largest magnitude.
    """

    card_options = ("dataset_names", "dataset_id", "query_prompts", "corpus_prompts", "max_active_dims")
    information_retrieval_class = SparseInformationRetrievalEvaluator

    def __init__(  # noqa: PLR0913, PLR0917 (the public signature)
        self,
        dataset_names: Sequence[str] | None = None,
        dataset_id: str = NANO_BEIR,
        mrr_at_k: Sequence[int] = [10],
        ndcg_at_k: Sequence[int] = [10],
        accuracy_at_k: Sequence[int] = [1, 3, 5, 10],
        precision_recall_at_k: Sequence[int] = [1, 3, 5, 10],
        map_at_k: Sequence[int] = [100],
        show_progress_bar: bool = False,
        batch_size: int = 32,
        write_csv: bool = True,
        max_active_dims: int | None = None,
        score_functions: Mapping[str, Similarity] | None = None,
        main_score_function: str | SimilarityFunction | None = None,
        aggregate_fn: Aggregate = np.mean,
        aggregate_key: str = "mean",
        query_prompts: str | Mapping[str, str] | None = None,
        corpus_prompts: str | Mapping[str, str] | None = None,
        write_predictions: bool = False,
    ) -> None:
        super().__init__(
            dataset_names,
            dataset_id,
            mrr_at_k,
            ndcg_at_k,
            accuracy_at_k,
            precision_recall_at_k,
            map_at_k,
            show_progress_bar,
            batch_size,
            write_csv,
            max_active_dims,
            score_functions,
            main_score_function,
            aggregate_fn,
            aggregate_key,
            query_prompts,
            corpus_prompts,
            write_predictions,
        )

    def dimensions(self, number: int | None) -> dict[str, int | None]:
        """Return the argument that limits the dimensions of embeddings."""
        return {"max_active_dims": number}

    def of_all_texts(self) -> dict[str, float]:
        """Return how sparse queries and documents are."""
        first, *others = (evaluator.sparsity for evaluator in self.evaluators)
        together = {column: sum((other[column] for other in others), counts) for column, counts in first.items()}
        metrics: dict[str, float] = self.evaluators[0].told(together)
        return metrics


def _by_name(kind: str, prompts: str | Mapping[str, str] | None, names: Sequence[str]) -> dict[str, str] | None:
    """Return the prompt of each data set, whose names may be in any case."""
    if prompts is None:
        return None
    if isinstance(prompts, str):
        return dict.fromkeys(names, prompts)
    by_name = {name.lower(): prompt for name, prompt in prompts.items()}
    if missing := [name for name in names if name.lower() not in by_name]:
        raise ValueError(f"{kind}_prompts must have a prompt for each data set, got none for {missing}")
    return {name: by_name[name.lower()] for name in names}
