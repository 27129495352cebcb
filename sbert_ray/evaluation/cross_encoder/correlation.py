"""Correlation of a cross-encoder's scores with gold scores."""

from collections.abc import Sequence
from typing import Any, Self

from sbert_ray.evaluation.cross_encoder.renamed import Renamed
from sbert_ray.evaluation.encoding import predict
from sbert_ray.evaluation.evaluator import Evaluator, Result, check_gold, check_lengths, file_name
from sbert_ray.evaluation.metrics import pearson, spearman


class CrossEncoderCorrelationEvaluator(Evaluator):
    """Pearson's and Spearman's correlations of scores with gold scores: ``pearson`` and ``spearman``.

    Args:
        sentence_pairs: N pairs of texts.
        scores: N gold scores, on any scale.
        name: Prefix of the metrics' names.
        prompt_name: Passed on to the model.
        batch_size: Pairs at a time, passed on to the model.
        show_progress_bar: Passed on to the model.
        write_csv: Whether to write a CSV file where a call gives a folder.

    Raises:
        ValueError: The columns are empty or differ in length, or a gold score is no number.
    """

    def __init__(
        self,
        sentence_pairs: Sequence[Sequence[str]],
        scores: Sequence[float],
        name: str = "",
        prompt_name: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        write_csv: bool = True,
    ) -> None:
        check_lengths(sentence_pairs=sentence_pairs, scores=scores)
        check_gold(scores)
        self.sentence_pairs, self.scores = sentence_pairs, scores
        self.name = name
        self.prompt_name = prompt_name
        self.batch_size = batch_size
        self.show_progress_bar = show_progress_bar
        self.write_csv = write_csv
        self.csv_file = file_name("CrossEncoderCorrelationEvaluator", name)
        self.primary_metric = "spearman"

    @classmethod
    def from_input_examples(cls, examples: Sequence[Any], **kwargs: Any) -> Self:
        """Make an evaluator of examples with ``texts``, two, and ``label``, the gold score."""
        return cls([example.texts for example in examples], [example.label for example in examples], **kwargs)

    def evaluate(self, model: Any) -> Result:
        """Return the correlations.

        Raises:
            ValueError: The model has several scores for a pair.
        """
        scores = predict(
            model,
            self.sentence_pairs,
            prompt_name=self.prompt_name,
            batch_size=self.batch_size,
            show_progress_bar=self.show_progress_bar,
        )
        if scores.size != len(self.scores):
            raise ValueError(f"predict must return one score for a pair, got shape {scores.shape}")
        metrics = {
            "pearson": pearson(scores.reshape(-1), self.scores),
            "spearman": spearman(scores.reshape(-1), self.scores),
        }
        return Result(metrics, {f"{name.title()}_Correlation": value for name, value in metrics.items()}, "spearman")


class CECorrelationEvaluator(Renamed, CrossEncoderCorrelationEvaluator):
    """A CrossEncoderCorrelationEvaluator under an older name."""
