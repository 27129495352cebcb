"""What an evaluator is: a callable from a model to metrics by name."""

import csv
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sbert_ray.similarity import SimilarityFunction


class Encoder(Protocol):
    """Anything that embeds texts: a model, a pool of actors that hold one, or embeddings that are there already.

    Where it has ``encode_query`` and ``encode_document`` too, retrieval, reranking and triplets use them; where it has
    a ``similarity_fn_name``, that is how its embeddings are compared, and otherwise by cosine.
    """

    def encode(self, texts: Sequence[str], /, *, batch_size: int = ...) -> Any:
        """Embed texts, as (N, D): an array, a tensor, dense or sparse, or a list of N of them."""
        ...


class Result(NamedTuple):
    """What an evaluator found.

    Attributes:
        metrics: Values by name, without the prefix.
        row: What the CSV file says, by column.
        primary: The name of the metric that models are compared by.
    """

    metrics: dict[str, float]
    row: dict[str, Any]
    primary: str


class Evaluator:
    """A callable from a model to metrics by name, the greater the better.

    A subclass has ``evaluate``, or a ``__call__`` of its own.
    """

    greater_is_better = True
    primary_metric: str | None = None
    """The name of the metric that models are compared by, with the prefix; many evaluators know it once called."""
    name = ""
    """What the metrics' names begin with."""
    write_csv = True
    """Whether to append the metrics to a file where a call gives a folder for it."""
    csv_file = ""

    def __call__(
        self, model: Any, output_path: str | os.PathLike[str] | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """Return the metrics of a model, their names prefixed with the evaluator's.

        Args:
            model: What to evaluate.
            output_path: A folder for the evaluator's CSV file; nothing is written if None.
            epoch: Written to the file.
            steps: Written to the file.
        """
        return self.finish(self.evaluate(model), output_path, epoch, steps)

    def evaluate(self, model: Any) -> Result:
        """Return what is to be told of a model."""
        raise NotImplementedError

    def finish(
        self, result: Result, output_path: str | os.PathLike[str] | None, epoch: int, steps: int
    ) -> dict[str, float]:
        """Write the row, set the primary metric, and return the metrics with the prefix."""
        if output_path is not None and self.write_csv:
            append_row(output_path, self.csv_file, {"epoch": epoch, "steps": steps} | result.row)
        self.primary_metric = result.primary
        return self.prefix_name_to_metrics(result.metrics, self.name)

    def prefix_name_to_metrics(self, metrics: Mapping[str, float], name: str) -> dict[str, float]:
        """Return metrics with ``{name}_`` before their names, and put it before the primary metric's too."""
        if not name:
            return {key: float(value) for key, value in metrics.items()}
        if self.primary_metric is not None and not self.primary_metric.startswith(f"{name}_"):
            self.primary_metric = f"{name}_{self.primary_metric}"
        return {f"{name}_{key}": float(value) for key, value in metrics.items()}

    def store_metrics_in_model_card_data(self, model: Any, *args: Any, **kwargs: Any) -> None:
        """Tell the metrics to a model that keeps data for its card, as evaluators of users do."""
        store = getattr(getattr(model, "model_card_data", None), "set_evaluation_metrics", None)
        if store is not None:
            store(self, *args, **kwargs)


BaseEvaluator = Evaluator
SentenceEvaluator = Evaluator  # its older public name


class SequentialEvaluator(Evaluator):
    """Several evaluators, one after the other.

    Their metrics come together by name, a later one in place of an earlier one of the same name, and with
    ``sequential_score``.

    Args:
        evaluators: The evaluators. One that returns a number adds it as ``evaluator_{i}``.
        main_score_function: Makes ``sequential_score`` of the primary metrics of all; the last of them if not given.

    Raises:
        ValueError: There are no evaluators.
    """

    def __init__(
        self,
        evaluators: Iterable[Any],
        main_score_function: Callable[[list[float]], float] = lambda scores: scores[-1],
    ) -> None:
        self.evaluators = list(evaluators)
        self.main_score_function = main_score_function
        if not self.evaluators:
            raise ValueError("evaluators must be at least one, got none")

    def __call__(
        self, model: Any, output_path: str | os.PathLike[str] | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """Return the metrics of all evaluators, which write their files if ``output_path`` is given."""
        together: dict[str, float] = {}
        scores = []
        for number, evaluator in enumerate(self.evaluators):
            metrics = evaluator(model, output_path, epoch, steps)
            if not isinstance(metrics, dict):
                metrics = {f"evaluator_{number}": metrics}
            primary = getattr(evaluator, "primary_metric", None)
            scores.append(metrics[primary if primary in metrics else next(iter(metrics))])
            together |= metrics
        self.primary_metric = "sequential_score"
        return together | {"sequential_score": self.main_score_function(scores)}


def append_row(folder: str | os.PathLike[str], file: str, row: Mapping[str, Any]) -> None:
    """Append a row to a CSV file, with a header if the file is new."""
    path = Path(folder, file)
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        if is_new:
            writer.writerow(row.keys())
        writer.writerow(row.values())


def file_name(start: str, name: str, end: str = "_results.csv") -> str:
    """Return the name of an evaluator's file, with the evaluator's name if it has one."""
    return f"{start}{f'_{name}' if name else ''}{end}"


def similarity_name(model: Any) -> str:
    """Return by which similarity a model's embeddings are to be compared.

    Raises:
        ValueError: The model names an unknown one.
    """
    return SimilarityFunction.name_of(getattr(model, "similarity_fn_name", None) or SimilarityFunction.COSINE)


def similarity_names(names: "Sequence[str | SimilarityFunction] | None", model: Any) -> list[str]:
    """Return the given similarities' names, or the model's if there are none."""
    return [SimilarityFunction.name_of(name) for name in names] if names else [similarity_name(model)]


def chosen_similarities(names: "Sequence[str | SimilarityFunction] | None", main: str | None) -> list[str]:
    """Return the names of the similarities that a user chose; none of them leaves it to the model.

    Raises:
        ValueError: One is unknown, or the main one is not among them.
    """
    if not names:
        return [] if main is None else [main]
    chosen = [SimilarityFunction.name_of(name) for name in names]
    if main is not None and main not in chosen:
        raise ValueError(f"the main similarity must be one of similarity_fn_names {chosen}, got {main!r}")
    return chosen


def check_lengths(**columns: Sequence[Any]) -> None:
    """Make sure that columns have rows, all as many.

    Raises:
        ValueError: They do not.
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"{' and '.join(lengths)} must be of one length, got {lengths}")
    if not all(lengths.values()):
        raise ValueError(f"{' and '.join(lengths)} must have at least one row, got none")
