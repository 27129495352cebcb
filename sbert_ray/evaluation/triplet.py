"""Triplets: is an anchor nearer to its positive than to its negative?"""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Self

from sbert_ray.evaluation.encoding import DOCUMENT, QUERY, EmbeddingEvaluator
from sbert_ray.evaluation.evaluator import Result, check_lengths, chosen_similarities, file_name, similarity_names
from sbert_ray.similarity import SimilarityFunction


class TripletEvaluator(EmbeddingEvaluator):
    """The share of triplets whose anchor is more similar to the positive than to the negative, by a margin.

    The metrics are ``{fn}_accuracy``, with several similarities also ``max_accuracy``.

    Args:
        anchors: N texts, embedded as queries.
        positives: N texts, embedded as documents, as the negatives are.
        negatives: N texts.
        main_similarity_function: Whose accuracy is the primary metric; if None, the greatest one's.
        margin: By how much the similarity must be greater; one number, or one by similarity, 0 for the others.
        name: Prefix of the metrics' names.
        batch_size: Texts at a time, passed on to the model.
        show_progress_bar: Passed on to the model.
        write_csv: Whether to write a CSV file where a call gives a folder.
        truncate_dim: Keep so many leading dimensions.
        similarity_fn_names: ``cosine``, ``dot``, ``euclidean``, ``manhattan``; if None, the main one, or the model's.
        main_distance_function: Older name of ``main_similarity_function``.

    Raises:
        ValueError: The columns are empty or differ in length, or a similarity is unknown.
    """

    def __init__(  # noqa: PLR0913, PLR0917 (the public signature)
        self,
        anchors: Sequence[Any],
        positives: Sequence[Any],
        negatives: Sequence[Any],
        main_similarity_function: str | SimilarityFunction | None = None,
        margin: float | Mapping[str, float] | None = None,
        name: str = "",
        batch_size: int = 16,
        show_progress_bar: bool = False,
        write_csv: bool = True,
        truncate_dim: int | None = None,
        similarity_fn_names: Sequence[str] | None = None,
        main_distance_function: str | SimilarityFunction | None = "deprecated",
    ) -> None:
        check_lengths(anchors=anchors, positives=positives, negatives=negatives)
        self.anchors, self.positives, self.negatives = anchors, positives, negatives
        if main_distance_function != "deprecated" and main_similarity_function is None:
            main_similarity_function = main_distance_function
        main = main_similarity_function
        self.main_similarity_function = None if main is None else SimilarityFunction.name_of(main)
        self.similarity_fn_names = chosen_similarities(similarity_fn_names, self.main_similarity_function)
        self.margin = _margins(margin)
        self.name = name
        self.batch_size = batch_size
        self.show_progress_bar = show_progress_bar
        self.write_csv = write_csv
        self.truncate_dim = truncate_dim
        self.csv_file = file_name("triplet_evaluation", name)

    @classmethod
    def from_input_examples(cls, examples: Sequence[Any], **kwargs: Any) -> Self:
        """Make an evaluator of examples with ``texts``, three."""
        anchors, positives, negatives = zip(*(example.texts for example in examples), strict=True)
        return cls(list(anchors), list(positives), list(negatives), **kwargs)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the options by name that a model's card tells, those that are given."""
        margin = {"margin": self.margin} if any(self.margin.values()) else {}
        return margin | super().get_config_dict()

    def evaluate(self, model: Any) -> Result:
        """Return the accuracies."""
        anchors = self.embed_inputs(model, self.anchors, QUERY, "anchor")
        positives = self.embed_inputs(model, self.positives, DOCUMENT, "positive")
        negatives = self.embed_inputs(model, self.negatives, DOCUMENT, "negative")
        names = similarity_names(self.similarity_fn_names, model)
        metrics: dict[str, float] = {}
        for name in names:
            similarity = SimilarityFunction.to_similarity_pairwise_fn(name)
            is_right = similarity(anchors, positives) > similarity(anchors, negatives) + self.margin[name]  # (N,)
            metrics[f"{name}_accuracy"] = float(is_right.double().mean())
        row = {f"accuracy_{name}": metrics[f"{name}_accuracy"] for name in names}
        if len(names) > 1:
            metrics["max_accuracy"] = max(metrics.values())
        main = self.main_similarity_function or (names[0] if len(names) == 1 else "max")
        return Result(metrics, row, f"{main}_accuracy")


def _margins(margin: float | Mapping[str, float] | None) -> dict[str, float]:
    names = SimilarityFunction.possible_values()
    values = margin.values() if isinstance(margin, Mapping) else [margin or 0.0]
    if not all(isinstance(value, Real) for value in values):  # NumPy's numbers are too
        raise ValueError(f"margin must be a number, or numbers by similarity, got {margin!r}")
    if not isinstance(margin, Mapping):
        return dict.fromkeys(names, float(margin or 0.0))
    given = {str(getattr(name, "value", name)): float(value) for name, value in margin.items()}
    if unknown := sorted(given.keys() - names):
        raise ValueError(f"margin must be by similarities among {names}, got {unknown}")
    return dict.fromkeys(names, 0.0) | given
