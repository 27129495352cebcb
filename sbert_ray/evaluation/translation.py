"""Translation: is a sentence's translation the nearest one?"""

import logging
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sbert_ray.evaluation.encoding import EmbeddingEvaluator
from sbert_ray.evaluation.evaluator import Result, check_lengths, file_name
from sbert_ray.search import nearest

logger = logging.getLogger(__name__)

_SHOWN = 5  # of the nearest sentences, in a message on a wrong one
_QUERIES, _ROWS = 256, 2**15  # at a time


class TranslationEvaluator(EmbeddingEvaluator):
    """The share of sentences to which, among all translations, their own is nearest by cosine.

    The metrics are ``src2trg_accuracy``, ``trg2src_accuracy`` and ``mean_accuracy``. An equal text is as good. Of
    equally near ones the first counts. Scores are computed in blocks.

    Args:
        source_sentences: N texts.
        target_sentences: N texts, their translations.
        show_progress_bar: Passed on to the model.
        batch_size: Texts at a time, passed on to the model.
        name: Prefix of the metrics' names.
        print_wrong_matches: Whether to log, as warnings, the sources whose translation is not nearest.
        write_csv: Whether to write a CSV file where a call gives a folder.
        truncate_dim: Keep so many leading dimensions.

    Raises:
        ValueError: The columns are empty or differ in length.
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
        truncate_dim: int | None = None,
    ) -> None:
        check_lengths(source_sentences=source_sentences, target_sentences=target_sentences)
        self.source_sentences, self.target_sentences = source_sentences, target_sentences
        self.show_progress_bar = show_progress_bar
        self.batch_size = batch_size
        self.name = name
        self.print_wrong_matches = print_wrong_matches
        self.write_csv = write_csv
        self.truncate_dim = truncate_dim
        self.csv_file = file_name("translation_evaluation", name)
        self.primary_metric = "mean_accuracy"

    def evaluate(self, model: Any) -> Result:
        """Return the accuracies."""
        sources = self.embed_inputs(model, self.source_sentences)
        targets = self.embed_inputs(model, self.target_sentences)
        if self.print_wrong_matches:
            self._log_wrong(sources, targets)
        forward = _accuracy(sources, targets, self.target_sentences)
        backward = _accuracy(targets, sources, self.source_sentences)
        metrics = {
            "src2trg_accuracy": forward,
            "trg2src_accuracy": backward,
            "mean_accuracy": (forward + backward) / 2,
        }
        return Result(metrics, {"src2trg": forward, "trg2src": backward}, "mean_accuracy")

    def _log_wrong(self, sources: Tensor, targets: Tensor) -> None:
        found = nearest(sources, targets, _SHOWN, query_chunk_size=_QUERIES, corpus_chunk_size=_ROWS)
        for row, (scores, ids) in enumerate(zip(found.scores.tolist(), found.ids.tolist(), strict=True)):
            if self.target_sentences[ids[0]] != self.target_sentences[row]:
                near = [f"{score:.4f} {self.target_sentences[i]!r}" for score, i in zip(scores, ids, strict=True)]
                text, wanted = self.source_sentences[row], self.target_sentences[row]
                logger.warning("nearest to %r are %s; its translation is %r", text, ", ".join(near), wanted)


def _accuracy(queries: Tensor, candidates: Tensor, texts: Sequence[Any]) -> float:
    """Return how often the candidate nearest to query i has the text of candidate i."""
    nearest_ids = nearest(queries, candidates, 1, query_chunk_size=_QUERIES, corpus_chunk_size=_ROWS).ids[:, 0].tolist()
    return sum(bool(texts[found] == texts[row]) for row, found in enumerate(nearest_ids)) / len(texts)
