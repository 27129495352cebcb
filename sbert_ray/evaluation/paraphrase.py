"""Paraphrase mining: are the pairs of greatest similarity the duplicates?"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import combinations
from typing import Any

import numpy as np

from sbert_ray.evaluation import metrics as of
from sbert_ray.evaluation.encoding import EmbeddingEvaluator
from sbert_ray.evaluation.evaluator import Result, file_name
from sbert_ray.mining.paraphrase import paraphrase_mining_embeddings


class ParaphraseMiningEvaluator(EmbeddingEvaluator):
    """Metrics of the most similar pairs among texts, of which some are known to be duplicates.

    The metrics are ``average_precision``, and ``precision``, ``recall`` and ``f1`` at the best ``threshold`` of the
    cosine. Pairs of equal similarity are one rank.

    Args:
        sentences_map: Texts by id.
        duplicates_list: Pairs of ids; those with an unknown id are left out.
        duplicates_dict: Ids that are duplicates of an id, as keys of true values; either order of a pair will do.
        add_transitive_closure: Whether duplicates of duplicates are duplicates.
        query_chunk_size: Texts at a time whose neighbours are looked for.
        corpus_chunk_size: Texts at a time among which they are.
        max_pairs: How many pairs to mine at the most.
        top_k: How many neighbours of each text to look at.
        show_progress_bar: Passed on to the model.
        batch_size: Texts at a time, passed on to the model.
        name: Prefix of the metrics' names.
        write_csv: Whether to write a CSV file where a call gives a folder.
        truncate_dim: Keep so many leading dimensions.

    Raises:
        ValueError: There are no texts.
    """

    card_options = ("add_transitive_closure", "max_pairs", "top_k", "truncate_dim")

    def __init__(  # noqa: PLR0913, PLR0917 (the public signature)
        self,
        sentences_map: Mapping[str, Any],
        duplicates_list: Sequence[tuple[str, str]] | None = None,
        duplicates_dict: Mapping[str, Mapping[str, bool]] | None = None,
        add_transitive_closure: bool = False,
        query_chunk_size: int = 5000,
        corpus_chunk_size: int = 100000,
        max_pairs: int = 500000,
        top_k: int = 100,
        show_progress_bar: bool = False,
        batch_size: int = 16,
        name: str = "",
        write_csv: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        if not sentences_map:
            raise ValueError("sentences_map must have at least one text, got none")
        self.ids, self.sentences = list(sentences_map), list(sentences_map.values())
        known = _known(duplicates_list, duplicates_dict)
        # A text that is said to be its own duplicate counts as a pair, which is never found.
        pairs = {frozenset(pair) for pair in known if sentences_map.keys() >= {*pair}}
        self.duplicates = _closure(pairs) if add_transitive_closure else pairs
        self.total_num_duplicates = len(self.duplicates)
        self.query_chunk_size, self.corpus_chunk_size = query_chunk_size, corpus_chunk_size
        self.max_pairs, self.top_k = max_pairs, top_k
        self.add_transitive_closure = add_transitive_closure
        self.show_progress_bar = show_progress_bar
        self.batch_size = batch_size
        self.name = name
        self.write_csv = write_csv
        self.truncate_dim = truncate_dim
        self.csv_file = file_name("paraphrase_mining_evaluation", name)
        self.primary_metric = "average_precision"

    def evaluate(self, model: Any) -> Result:
        """Return the metrics."""
        embeddings = self.embed_inputs(model, self.sentences)
        pairs = paraphrase_mining_embeddings(
            embeddings, self.query_chunk_size, self.corpus_chunk_size, self.max_pairs, self.top_k
        )
        scores = np.array([score for score, _, _ in pairs])
        labels = [frozenset((self.ids[int(i)], self.ids[int(j)])) in self.duplicates for _, i, j in pairs]
        best = of.best_f1(scores, labels, self.total_num_duplicates)
        row = {"precision": best.precision, "recall": best.recall, "f1": best.f1, "threshold": best.threshold}
        row["average_precision"] = of.average_precision(labels, scores, self.total_num_duplicates)
        names = ("average_precision", "f1", "precision", "recall", "threshold")
        return Result({name: row[name] for name in names}, row, "average_precision")


def _known(
    pairs: Iterable[tuple[str, str]] | None, by_id: Mapping[str, Mapping[str, bool]] | None
) -> Iterator[tuple[str, str]]:
    yield from ((first, second) for first, second in pairs or ())
    for first, others in (by_id or {}).items():
        yield from ((first, second) for second, is_duplicate in others.items() if is_duplicate)


def _closure(pairs: AbstractSet[frozenset[str]]) -> set[frozenset[str]]:
    """Return all pairs of ids that a path of pairs connects."""
    neighbors: defaultdict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        for name in pair:
            neighbors[name] |= pair
    closure = {pair for pair in pairs if len(pair) == 1}
    seen: set[str] = set()
    for start in neighbors:
        if start in seen:
            continue
        group, waiting = {start}, [start]
        while waiting:
            new = neighbors[waiting.pop()] - group
            group |= new
            waiting += new
        seen |= group
        closure |= set(map(frozenset, combinations(group, 2)))
    return closure
