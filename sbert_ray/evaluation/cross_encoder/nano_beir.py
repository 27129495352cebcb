"""NanoBEIR for cross-encoders, which rerank what BM25 found."""

from collections.abc import Mapping, Sequence

import numpy as np

from sbert_ray.evaluation.cross_encoder.reranking import CrossEncoderRerankingEvaluator, Gains
from sbert_ray.evaluation.evaluator import file_name
from sbert_ray.evaluation.nano_beir import NANO_BEIR, Aggregate, Nano
from sbert_ray.evaluation.nano_data import NANO_NAMES, NanoData, known_names, nano_name

_LEFT_OUT = ("arguana", "touche2020")  # whose queries are documents themselves


class CrossEncoderNanoBEIREvaluator(Gains, Nano):
    """Metrics of a CrossEncoderRerankingEvaluator on each data set, and their aggregates.

    The metrics are ``Nano{Name}_R{rerank_k}_{metric}`` and ``NanoBEIR_R{rerank_k}_{aggregate_key}_{metric}``.

    Args:
        dataset_names: Data sets, such as ``msmarco``, in any case; all but arguana and touche2020 if None.
        dataset_id: A folder, or the id of a data set on the Hugging Face hub, with the subsets ``corpus``,
            ``queries``, ``qrels`` and ``bm25``: ``corpus/NanoMSMARCO.parquet`` and so on, or JSON lines in ``.jsonl``.
        rerank_k: So many of BM25's documents are reranked.
        at_k: Passed on, as are those that are not named here.
        always_rerank_positives: Passed on.
        prompt_name: Passed on.
        batch_size: Passed on.
        show_progress_bar: Passed on.
        write_csv: Whether to write CSV files, one of each data set and one of the aggregates.
        aggregate_fn: Makes one number of those of all data sets.
        aggregate_key: What this is called.

    Raises:
        ValueError: A data set is unknown, or there are none.
        FileNotFoundError: ``dataset_id`` is no folder with the data, and the hub cannot be reached.
    """

    card_options = ("dataset_names", "dataset_id", "rerank_k", "at_k", "always_rerank_positives")

    def __init__(  # noqa: PLR0913, PLR0917 (the public signature)
        self,
        dataset_names: Sequence[str] | None = None,
        dataset_id: str = NANO_BEIR,
        rerank_k: int = 100,
        at_k: int = 10,
        always_rerank_positives: bool = True,
        prompt_name: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool = False,
        write_csv: bool = True,
        aggregate_fn: Aggregate = np.mean,
        aggregate_key: str = "mean",
    ) -> None:
        names = [name for name in NANO_NAMES if name not in _LEFT_OUT] if dataset_names is None else dataset_names
        self.dataset_names = known_names(names)
        self.dataset_id = dataset_id
        self.rerank_k, self.at_k, self.always_rerank_positives = rerank_k, at_k, always_rerank_positives
        self.aggregate_fn, self.aggregate_key = aggregate_fn, aggregate_key
        self.write_csv = write_csv
        self.name = f"NanoBEIR_R{rerank_k}_{aggregate_key}"
        self.csv_file = file_name("NanoBEIR_evaluation", aggregate_key)
        self.primary_metric = f"ndcg@{at_k}"
        self.evaluators = [
            CrossEncoderRerankingEvaluator(
                _samples(NanoData(dataset_id, name), rerank_k),
                at_k,
                always_rerank_positives,
                f"{nano_name(name)}_R{rerank_k}",
                prompt_name,
                batch_size,
                show_progress_bar,
                write_csv,
            )
            for name in self.dataset_names
        ]

    def best(self, metrics: Mapping[str, float]) -> str:  # noqa: ARG002 (others look)
        """Return the name of the primary metric."""
        return f"ndcg@{self.at_k}"


def _samples(data: NanoData, rerank_k: int) -> list[dict[str, str | list[str]]]:
    return [
        {
            "query": data.queries[query],
            "positive": [data.corpus[document] for document in sorted(data.relevant_docs.get(query, ()))],
            "documents": [data.corpus[document] for document in documents[:rerank_k]],
        }
        for query, documents in data.rankings()
    ]
