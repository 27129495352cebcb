"""Binary classification of pairs of texts by their similarity."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbert_ray.evaluation import metrics as of
from sbert_ray.evaluation.encoding import EmbeddingEvaluator
from sbert_ray.evaluation.evaluator import Result, check_lengths, chosen_similarities, file_name, similarity_names
from sbert_ray.similarity import SimilarityFunction

DISTANCES = ("euclidean", "manhattan")
_COLUMNS = ("accuracy", "accuracy_threshold", "f1", "precision", "recall", "f1_threshold", "ap", "mcc")


class BinaryClassificationEvaluator(EmbeddingEvaluator):
    """How well a threshold on the similarity tells pairs of label 1 from pairs of label 0.

    The metrics are ``{fn}_accuracy``, ``{fn}_f1``, ``{fn}_precision`` and ``{fn}_recall`` at the best thresholds,
    ``{fn}_accuracy_threshold`` and ``{fn}_f1_threshold``, ``{fn}_ap``, the average precision, and ``{fn}_mcc``,
    Matthews' correlation at the F1 threshold; with several similarities also the greatest of each as ``max_{metric}``.
    Thresholds of euclidean and manhattan are distances, below which pairs count as positive.

    Args:
        sentences1: N first texts.
        sentences2: N second texts.
        labels: N of 0 and 1.
        name: Prefix of the metrics' names.
        batch_size: Texts at a time, passed on to the model.
        show_progress_bar: Passed on to the model.
        write_csv: Whether to write a CSV file where a call gives a folder.
        truncate_dim: Keep so many leading dimensions.
        similarity_fn_names: ``cosine``, ``dot``, ``euclidean``, ``manhattan``; the model's own if None.

    Raises:
        ValueError: The columns are empty or differ in length, a label is not 0 or 1, or a similarity is unknown.
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
        truncate_dim: int | None = None,
        similarity_fn_names: Sequence[str] | None = None,
    ) -> None:
        check_lengths(sentences1=sentences1, sentences2=sentences2, labels=labels)
        check_binary(labels)
        self.sentences1, self.sentences2, self.labels = sentences1, sentences2, labels
        self.name = name
        self.batch_size = batch_size
        self.show_progress_bar = show_progress_bar
        self.write_csv = write_csv
        self.truncate_dim = truncate_dim
        self.similarity_fn_names = chosen_similarities(similarity_fn_names, None)
        self.csv_file = file_name("binary_classification_evaluation", name)

    @classmethod
    def from_input_examples(cls, examples: Sequence[Any], **kwargs: Any) -> Self:
        """Make an evaluator of examples with ``texts``, two, and ``label``."""
        first, second = zip(*(example.texts for example in examples), strict=True)
        return cls(list(first), list(second), [example.label for example in examples], **kwargs)

    def evaluate(self, model: Any) -> Result:
        """Return the metrics."""
        pair = self._pair(model)
        names = similarity_names(self.similarity_fn_names, model)
        metrics: dict[str, float] = {}
        for name in names:
            scores = SimilarityFunction.to_similarity_pairwise_fn(name)(*pair).cpu().numpy()  # (N,)
            values = binary_metrics(scores, self.labels, sign=-1 if name in DISTANCES else 1)
            metrics |= {f"{name}_{key}": value for key, value in values.items()}
        row = {f"{name}_{column}": metrics[f"{name}_{column}"] for name in names for column in _COLUMNS}
        if len(names) > 1:
            keys = [key.removeprefix(f"{names[0]}_") for key in metrics if key.startswith(f"{names[0]}_")]
            metrics |= {f"max_{key}": max(metrics[f"{name}_{key}"] for name in names) for key in keys}
        return Result(metrics, row, f"{names[0] if len(names) == 1 else 'max'}_ap")

    def _pair(self, model: Any) -> list[Tensor]:
        """Return the embeddings of both columns, each text embedded once."""
        columns = (self.sentences1, self.sentences2)
        try:
            rows = {text: row for row, text in enumerate(dict.fromkeys(chain(*columns)))}
        except TypeError:  # texts and images in dicts, say, which have no hash
            return [self.embed_inputs(model, column) for column in columns]
        embeddings = self.embed_inputs(model, list(rows))
        places = (torch.tensor([rows[text] for text in column], device=embeddings.device) for column in columns)
        return [embeddings.index_select(0, place) for place in places]


def binary_metrics(scores: NDArray[np.floating], labels: Sequence[int], sign: int = 1) -> dict[str, float]:
    """Return the metrics at the best thresholds.

    Args:
        scores: N numbers, the greater the more positive.
        labels: N of 0 and 1.
        sign: -1 if the scores are negative distances, and thresholds are to be told as distances.
    """
    accuracy, accuracy_threshold = of.best_accuracy(scores, labels)
    f1, precision, recall, f1_threshold = of.best_f1(scores, labels)
    return {
        "accuracy": accuracy,
        "accuracy_threshold": sign * accuracy_threshold,
        "f1": f1,
        "f1_threshold": sign * f1_threshold,
        "precision": precision,
        "recall": recall,
        "ap": of.average_precision(labels, scores),
        "mcc": of.matthews_correlation(labels, scores >= f1_threshold),
    }


def check_binary(labels: Sequence[Any]) -> None:
    """Make sure that labels are 0 and 1.

    Raises:
        ValueError: One is something else.
    """
    for row, label in enumerate(labels):
        if label not in (0, 1):
            raise ValueError(f"labels must be 0 or 1, got {label!r} in row {row}")
