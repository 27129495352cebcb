"""Classification of pairs of texts by a cross-encoder.

Shapes: N pairs, C classes.
"""

from collections.abc import Sequence
from typing import Any, Self

from sbert_ray.evaluation import metrics as of
from sbert_ray.evaluation.classification import binary_metrics, check_binary
from sbert_ray.evaluation.cross_encoder.renamed import Renamed
from sbert_ray.evaluation.encoding import predict
from sbert_ray.evaluation.evaluator import Evaluator, Result, check_lengths, file_name

_COLUMNS = {
    "accuracy": "Accuracy",
    "accuracy_threshold": "Accuracy_Threshold",
    "f1": "F1",
    "f1_threshold": "F1_Threshold",
    "precision": "Precision",
    "recall": "Recall",
    "average_precision": "Average_Precision",
}


class CrossEncoderClassificationEvaluator(Evaluator):
    """How well scores tell labels.

    With one score a pair, the metrics are ``accuracy``, ``f1``, ``precision`` and ``recall`` at the best thresholds
    ``accuracy_threshold`` and ``f1_threshold``, and ``average_precision``. With a score for each class, they are
    ``f1_macro``, ``f1_micro`` and ``f1_weighted`` of the class with the greatest one.

    Args:
        sentence_pairs: N pairs of texts.
        labels: N of 0 and 1, or N classes.
        name: Prefix of the metrics' names.
        prompt_name: Passed on to the model.
        batch_size: Pairs at a time, passed on to the model.
        show_progress_bar: Passed on to the model.
        write_csv: Whether to write a CSV file where a call gives a folder.
        kwargs: Arguments of older versions, which are not used.

    Raises:
        ValueError: The columns are empty or differ in length.
    """

    def __init__(
        self,
        sentence_pairs: Sequence[Sequence[str]],
        labels: Sequence[int],
        *,
        name: str = "",
        prompt_name: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        write_csv: bool = True,
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        check_lengths(sentence_pairs=sentence_pairs, labels=labels)
        self.sentence_pairs, self.labels = sentence_pairs, labels
        self.name = name
        self.prompt_name = prompt_name
        self.batch_size = batch_size
        self.show_progress_bar = show_progress_bar
        self.write_csv = write_csv
        self.csv_file = file_name("CrossEncoderClassificationEvaluator", name)

    @classmethod
    def from_input_examples(cls, examples: Sequence[Any], **kwargs: Any) -> Self:
        """Make an evaluator of examples with ``texts``, two, and ``label``."""
        return cls([example.texts for example in examples], [example.label for example in examples], **kwargs)

    def evaluate(self, model: Any) -> Result:
        """Return the metrics.

        Raises:
            ValueError: There is one score a pair, and a label is not 0 or 1.
        """
        scores = predict(
            model,
            self.sentence_pairs,
            prompt_name=self.prompt_name,
            batch_size=self.batch_size,
            show_progress_bar=self.show_progress_bar,
        )  # (N,), (N, 1) or (N, C)
        if scores.ndim == 2 and scores.shape[1] > 1:
            macro, micro, weighted = of.f1_by_class(self.labels, scores.argmax(1))
            metrics = {"f1_macro": macro, "f1_micro": micro, "f1_weighted": weighted}
            row = {"Macro_F1": macro, "Micro_F1": micro, "Weighted_F1": weighted}
            return Result(metrics, row, "f1_macro")
        check_binary(self.labels)
        values = binary_metrics(scores.reshape(-1), self.labels)
        values["average_precision"] = values["ap"]
        metrics = {name: values[name] for name in _COLUMNS}
        return Result(metrics, {_COLUMNS[name]: value for name, value in metrics.items()}, "average_precision")


class CEBinaryAccuracyEvaluator(Renamed, CrossEncoderClassificationEvaluator):
    """A CrossEncoderClassificationEvaluator under an older name."""


class CEBinaryClassificationEvaluator(Renamed, CrossEncoderClassificationEvaluator):
    """A CrossEncoderClassificationEvaluator under an older name."""


class CEF1Evaluator(Renamed, CrossEncoderClassificationEvaluator):
    """A CrossEncoderClassificationEvaluator under an older name."""


class CESoftmaxAccuracyEvaluator(Renamed, CrossEncoderClassificationEvaluator):
    """A CrossEncoderClassificationEvaluator under an older name."""
