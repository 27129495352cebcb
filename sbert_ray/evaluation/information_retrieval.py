"""Information retrieval: are a query's relevant documents found first?

Shapes: Q queries, K hits of each, chunks of M documents, embeddings of dimension D.
"""

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbert_ray.evaluation import metrics as of
from sbert_ray.evaluation.encoding import DOCUMENT, QUERY, EmbeddingEvaluator, GivenEmbeddings
from sbert_ray.evaluation.evaluator import Result, file_name, similarity_name
from sbert_ray.evaluation.id_order import id_ranks, merged
from sbert_ray.search import Neighbors, nearest
from sbert_ray.similarity import Similarity, SimilarityFunction

logger = logging.getLogger(__name__)

_SCORES = 2**24  # of queries and documents, as many are computed at a time
_PROMPTS = ("query_prompt", "query_prompt_name", "corpus_prompt", "corpus_prompt_name")


class InformationRetrievalEvaluator(EmbeddingEvaluator):
    """Metrics of the documents that are ranked first for each query.

    The metrics are ``{fn}_accuracy@k``, ``{fn}_precision@k``, ``{fn}_recall@k``, ``{fn}_ndcg@k``, ``{fn}_mrr@k`` and
    ``{fn}_map@k``. Documents of equal scores are ranked by their ids. The corpus is read, embedded and
    forgotten chunk by chunk; kept are the queries' embeddings, the best hits so far, and the corpus's ids.

    Args:
        queries: Texts by id. Those without relevant documents are left out.
        corpus: Texts by id, in any mapping; read in its order.
        relevant_docs: Ids of the relevant documents, by query id; those that are not in the corpus count as not found.
        corpus_chunk_size: Documents at a time; changes no metric.
        mrr_at_k: Ranks down to which to look for the first relevant document.
        ndcg_at_k: Likewise for the normalised discounted cumulative gain.
        accuracy_at_k: Likewise for whether there is a relevant document.
        precision_recall_at_k: Likewise for the shares of relevant documents.
        map_at_k: Likewise for the mean average precision.
        show_progress_bar: Passed on to the model.
        batch_size: Texts at a time, passed on to the model.
        name: Prefix of the metrics' names.
        write_csv: Whether to write a CSV file where a call gives a folder.
        truncate_dim: Keep so many leading dimensions.
        score_functions: Similarities by the names that the metrics get; the model's own if None.
        main_score_function: Whose NDCG at the greatest k is the primary metric; if None, that of the greatest one in
            the first call, the first by name of equal ones.
        query_prompt: Passed on to the model as ``prompt``, for queries.
        query_prompt_name: Passed on to the model as ``prompt_name``, for queries.
        corpus_prompt: The same for documents.
        corpus_prompt_name: The same for documents.
        write_predictions: Whether to write the hits as JSON lines where a call gives a folder.

    Raises:
        ValueError: No query has relevant documents, none of these is in the corpus, a number is not positive, or the
            main score function is unknown.
    """

    card_options: tuple[str, ...] = ("truncate_dim", *_PROMPTS)

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
        truncate_dim: int | None = None,
        score_functions: Mapping[str, Similarity] | None = None,
        main_score_function: str | SimilarityFunction | None = None,
        query_prompt: str | None = None,
        query_prompt_name: str | None = None,
        corpus_prompt: str | None = None,
        corpus_prompt_name: str | None = None,
        write_predictions: bool = False,
    ) -> None:
        self.queries_ids = [query for query in queries if relevant_docs.get(query)]
        self.queries = [queries[query] for query in self.queries_ids]
        self.corpus = corpus
        self.corpus_ids = list(corpus)
        self.relevant_docs = relevant_docs
        self.corpus_chunk_size = corpus_chunk_size
        self.mrr_at_k, self.ndcg_at_k, self.map_at_k = mrr_at_k, ndcg_at_k, map_at_k
        self.accuracy_at_k, self.precision_recall_at_k = accuracy_at_k, precision_recall_at_k
        self.show_progress_bar = show_progress_bar
        self.batch_size = batch_size
        self.name = name
        self.write_csv = write_csv
        self.truncate_dim = truncate_dim
        self.score_functions = dict(score_functions or {})
        self.main_score_function = _name(main_score_function)
        self.query_prompt, self.query_prompt_name = query_prompt, query_prompt_name
        self.corpus_prompt, self.corpus_prompt_name = corpus_prompt, corpus_prompt_name
        self.write_predictions = write_predictions
        self.csv_file = file_name("Information-Retrieval_evaluation", name)
        self._best_function: str | None = None
        self._check_numbers()
        self._check_documents()

    def _check_numbers(self) -> None:
        ks = (self.mrr_at_k, self.ndcg_at_k, self.accuracy_at_k, self.precision_recall_at_k, self.map_at_k)
        if any(not isinstance(at_k, Iterable) for at_k in ks):
            raise ValueError(f"every at_k must be ranks, such as [1, 10], got {ks}")
        if not self.ndcg_at_k or min(self.corpus_chunk_size, *(k for at_k in ks for k in at_k)) < 1:
            raise ValueError(
                "corpus_chunk_size and every k must be positive, and ndcg_at_k have one, got "
                f"corpus_chunk_size={self.corpus_chunk_size} and {ks}"
            )
        main, known = self.main_score_function, list(self.score_functions)
        known = known or SimilarityFunction.possible_values()
        if main is not None and main not in known:
            raise ValueError(f"main_score_function must be one of {known}, got {main!r}")

    def _check_documents(self) -> None:
        if text := next((ids for ids in self.relevant_docs.values() if isinstance(ids, str)), None):
            raise ValueError(f"relevant_docs must have sets of ids, got {text!r}")
        if not self.queries_ids:
            raise ValueError("queries must have at least one with relevant documents, got none")
        known = set(self.corpus_ids)
        wanted = {document for query in self.queries_ids for document in self.relevant_docs[query]}
        if unknown := wanted - known:
            some = f"{len(unknown)} of {len(wanted)}, such as {min(unknown, key=str)!r}"
            if unknown == wanted:
                raise ValueError(f"relevant_docs must name documents of the corpus, got {some}, that are not in it")
            logger.warning("relevant_docs names documents that are not in the corpus and so cannot be found: %s", some)

    def __call__(
        self,
        model: Any,
        output_path: str | os.PathLike[str] | None = None,
        epoch: int = -1,
        steps: int = -1,
        corpus_model: Any = None,
        corpus_embeddings: Any = None,
    ) -> dict[str, float]:
        """Return the metrics of a model.

        Args:
            model: What to evaluate.
            output_path: A folder for files; nothing is written if None.
            epoch: Written to the file.
            steps: Written to the file.
            corpus_model: Embeds the corpus instead of ``model``.
            corpus_embeddings: The corpus's embeddings (N, D) in its order, instead of embedding it; dense or sparse,
                an array, memory-mapped too, a tensor, or a list of them.
        """
        result = self.evaluate(model, corpus_model, corpus_embeddings, output_path)
        metrics = self.finish(result, output_path, epoch, steps)
        self.store_metrics_in_model_card_data(model, metrics, epoch, steps)
        return metrics

    def evaluate(
        self,
        model: Any,
        corpus_model: Any = None,
        corpus_embeddings: Any = None,
        output_path: str | os.PathLike[str] | None = None,
    ) -> Result:
        """Return the metrics, and write the hits where asked for."""
        hits = self.search(model, corpus_model or model, corpus_embeddings)
        if output_path is not None and self.write_predictions:
            for function, found in hits.items():
                self._write(Path(output_path), function, found)
        return self.result(hits)

    def search(self, model: Any, corpus_model: Any = None, corpus_embeddings: Any = None) -> dict[str, Neighbors]:
        """Return the best documents of each query by score function: scores, and row numbers of ``corpus_ids``.

        Raises:
            ValueError: A score is nan, or there are not as many ``corpus_embeddings`` as documents.
        """
        given = None if corpus_embeddings is None else GivenEmbeddings(corpus_embeddings, len(self.corpus_ids))
        functions = self.score_functions or _functions_of(model, self.main_score_function)
        k = max(k for at_k in self._all_ks() for k in at_k)
        prompts = {"prompt": self.query_prompt, "prompt_name": self.query_prompt_name}
        queries = self.embed_inputs(model, self.queries, QUERY, QUERY, **prompts)  # (Q, D)
        ranks = id_ranks(self.corpus_ids)
        found: dict[str, Neighbors] = {}
        for rows, embeddings in self._chunks(corpus_model or model, ranks, given):
            for function, similarity in functions.items():
                size = max(1, _SCORES // len(rows))
                part = nearest(queries, embeddings.to(queries.device), k, similarity, size, len(rows))
                of.check_numbers(part.scores.cpu().numpy())
                part = Neighbors(part.scores.cpu(), torch.from_numpy(ranks[rows])[part.ids.cpu()])
                found[function] = merged(found[function], part, k) if function in found else part
        by_rank = torch.from_numpy(np.argsort(ranks))
        return {function: Neighbors(scores, by_rank[ids]) for function, (scores, ids) in found.items()}

    def _chunks(
        self, model: Any, ranks: NDArray[np.int64], given: GivenEmbeddings | None
    ) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yield the rows of chunks, those of lesser ids first, and their embeddings (M, D)."""
        for start in range(0, len(self.corpus_ids), self.corpus_chunk_size):
            ids = self.corpus_ids[start : start + self.corpus_chunk_size]
            order = np.argsort(ranks[start : start + len(ids)])
            if given is None:
                texts = [self.corpus[name] for name in ids]  # in the order of the mapping, which may read a file
                texts = [texts[row] for row in order]
                prompts = {"prompt": self.corpus_prompt, "prompt_name": self.corpus_prompt_name}
                embeddings = self.embed_inputs(model, texts, DOCUMENT, "corpus", **prompts)
            else:
                embeddings = given.rows(start, start + len(ids))
                self.count(embeddings, "corpus")
                embeddings = embeddings.index_select(0, torch.from_numpy(order).to(embeddings.device))
            yield start + order, embeddings

    def _all_ks(self) -> tuple[Sequence[int], ...]:
        return self.accuracy_at_k, self.precision_recall_at_k, self.ndcg_at_k, self.mrr_at_k, self.map_at_k

    def result(self, found: Mapping[str, Neighbors]) -> Result:
        """Return the metrics of hits."""
        by_function = {function: self._metrics(hits.ids.numpy()) for function, hits in found.items()}
        best = f"ndcg@{max(self.ndcg_at_k)}"
        if self._best_function not in by_function:  # chosen once, so that calls are compared by one metric
            self._best_function = max(sorted(by_function), key=lambda function: by_function[function][best])
        main = self.main_score_function or self._best_function
        metrics = {f"{name}_{key}": value for name, values in by_function.items() for key, value in values.items()}
        row = {
            f"{name}-{column}": by_function[name][key]
            for name in sorted(by_function)
            for column, key in self._columns()
        }
        return Result(metrics, row, f"{main}_{best}")

    def _metrics(self, ids: NDArray[np.int64]) -> dict[str, float]:
        relevant = [self.relevant_docs[query] for query in self.queries_ids]
        hits = np.array(
            [[self.corpus_ids[row] in wanted for row in rows] for rows, wanted in zip(ids, relevant, strict=True)]
        )  # (Q, K)
        num_relevant = np.array([len(wanted) for wanted in relevant])
        values = {
            **{f"accuracy@{k}": of.accuracy_at_k(hits, k) for k in self.accuracy_at_k},
            **{f"precision@{k}": of.precision_at_k(hits, k) for k in self.precision_recall_at_k},
            **{f"recall@{k}": of.recall_at_k(hits, num_relevant, k) for k in self.precision_recall_at_k},
            **{f"ndcg@{k}": of.ndcg_at_k(hits, num_relevant, k) for k in self.ndcg_at_k},
            **{f"mrr@{k}": of.mrr_at_k(hits, k) for k in self.mrr_at_k},
            **{f"map@{k}": of.map_at_k(hits, num_relevant, k) for k in self.map_at_k},
        }
        return {name: float(value.mean()) for name, value in values.items()}

    def _columns(self) -> Iterator[tuple[str, str]]:
        """Yield the CSV file's columns and the metrics that are in them."""
        both = [(name, k) for k in self.precision_recall_at_k for name in ("Precision", "Recall")]
        yield from ((f"Accuracy@{k}", f"accuracy@{k}") for k in self.accuracy_at_k)
        yield from ((f"{name}@{k}", f"{name.lower()}@{k}") for name, k in both)
        for name, at_k in (("MRR", self.mrr_at_k), ("NDCG", self.ndcg_at_k), ("MAP", self.map_at_k)):
            yield from ((f"{name}@{k}", f"{name.lower()}@{k}") for k in at_k)

    def _write(self, folder: Path, function: str, found: Neighbors) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        file = file_name("Information-Retrieval_evaluation", self.name, f"_predictions_{function}.jsonl")
        with (folder / file).open("w", encoding="utf-8") as stream:
            for query, text, scores, rows in zip(self.queries_ids, self.queries, *found, strict=True):
                results = [
                    {"corpus_id": self.corpus_ids[row], "score": score}
                    for score, row in zip(scores.tolist(), rows.tolist(), strict=True)
                ]
                stream.write(json.dumps({"query_id": query, "query": text, "results": results}) + "\n")


def _functions_of(model: Any, main: str | None) -> dict[str, Similarity]:
    """Return the model's own similarity by its name."""
    similarity = getattr(model, "similarity", None)
    name = model.similarity_fn_name if callable(similarity) else similarity_name(model)
    name = _name(name) or SimilarityFunction.COSINE.value
    if main not in (None, name):
        raise ValueError(f"main_score_function must be {name!r}, the model's similarity, got {main!r}")
    return {name: similarity if callable(similarity) else SimilarityFunction.to_similarity_fn(name)}


def _name(function: str | SimilarityFunction | None) -> str | None:
    return SimilarityFunction.name_of(function) if isinstance(function, SimilarityFunction) else function
