"""What an evaluator is: a callable from a model to metrics by name."""

import csv
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sbert_ray.similarity import SimilarityFunction

logger = logging.getLogger(__name__)


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
    card_name = ""
    """What a model's card calls the evaluator; the class's name in words if it is empty."""
    card_options: tuple[str, ...] = ()
    """The attributes that a model's card tells beside the metrics."""

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
        metrics = self.finish(self.evaluate(model), output_path, epoch, steps)
        self.store_metrics_in_model_card_data(model, metrics, epoch, steps)
        return metrics

    def evaluate(self, model: Any) -> Result:
        """Return what is to be told of a model."""
        raise NotImplementedError

    def finish(
        self, result: Result, output_path: str | os.PathLike[str] | None, epoch: int, steps: int
    ) -> dict[str, float]:
        """Write the row, set the primary metric, and return the metrics with the prefix."""
        if output_path is not None and self.write_csv:
            append_row(output_path, self.csv_file, {"epoch": epoch, "steps": steps} | result.row)
        metrics = self.prefix_name_to_metrics(result.metrics, self.name)
        # Also where the metric's own name begins like the evaluator's, as cosine_ap of an evaluator named cosine.
        self.primary_metric = f"{self.name}_{result.primary}" if self.name else result.primary
        logger.info("%s: %s", self.description, ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
        return metrics

    def prefix_name_to_metrics(self, metrics: Mapping[str, float], name: str) -> dict[str, float]:
        """Return metrics with ``{name}_`` before their names, and put it before the primary metric's too."""
        if not name:
            return {key: float(value) for key, value in metrics.items()}
        if self.primary_metric is not None and not self.primary_metric.startswith(f"{name}_"):
            self.primary_metric = f"{name}_{self.primary_metric}"
        return {f"{name}_{key}": float(value) for key, value in metrics.items()}

    def store_metrics_in_model_card_data(self, model: Any, *args: Any, **kwargs: Any) -> None:
        """Tell the metrics to a model that keeps data for its card; the evaluators of users may call it too.

        Args:
            model: Any; one without a ``set_evaluation_metrics`` of its ``model_card_data`` is told nothing.
            args: The metrics by name, the epoch and the step.
            kwargs: The same by name.
        """
        store = getattr(getattr(model, "model_card_data", None), "set_evaluation_metrics", None)
        if store is not None:
            store(self, *args, **kwargs)

    @property
    def description(self) -> str:
        """What a model's card calls the evaluator."""
        if self.card_name:
            return self.card_name
        name = type(self).__name__.partition("Evaluator")[0]
        name = f"CrossEncoder{name[2:]}" if name.startswith("CE") else name
        return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the options by name that a model's card tells, those that are given."""
        options = {name: getattr(self, name) for name in self.card_options}
        return {name: value for name, value in options.items() if value is not None}


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
        """Return the metrics of all evaluators, which write their files if ``output_path`` is given.

        Raises:
            ValueError: An evaluator returns no metrics, or not the one that it says is primary.
        """
        together: dict[str, float] = {}
        scores = []
        for number, evaluator in enumerate(self.evaluators):
            metrics = evaluator(model, output_path, epoch, steps)
            if isinstance(metrics, dict):
                scores.append(_primary(evaluator, metrics))
            else:
                metrics = {f"evaluator_{number}": metrics}
                scores += metrics.values()
            together |= metrics
        self.primary_metric = "sequential_score"
        return together | {"sequential_score": self.main_score_function(scores)}


def _primary(evaluator: Any, metrics: Mapping[str, float]) -> float:
    """Return the primary one of an evaluator's metrics, which is the first where it does not say."""
    primary = getattr(evaluator, "primary_metric", None)
    primary = next(iter(metrics), None) if primary is None else primary
    if primary is None or primary not in metrics:
        kind = type(evaluator).__name__
        raise ValueError(f"the primary metric of {kind} must be one of {list(metrics)}, got {primary!r}")
    return metrics[primary]


def append_row(folder: str | os.PathLike[str], file: str, row: Mapping[str, Any]) -> None:
    """Append a row to a CSV file, with a header where the file is new or its last header tells other columns."""
    path = Path(folder, file)
    path.parent.mkdir(parents=True, exist_ok=True)
    header = [str(name) for name in row]
    known = _last_header(path, header[0])
    if known not in ([], header):
        logger.warning("%s has columns %s so far; from now on they are %s, under a new header", path, known, header)
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        if known != header:
            writer.writerow(header)
        writer.writerow(row.values())


def _last_header(path: Path, first_column: str) -> list[str]:
    """Return the last row that begins as headers do, or none."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        headers = [row for row in csv.reader(stream) if row[:1] == [first_column]]
    return headers[-1] if headers else []


def file_name(start: str, name: str, end: str = "_results.csv") -> str:
    """Return the name of an evaluator's file, with the evaluator's name if it has one, and never another folder."""
    return re.sub(r"[/\\]", "_", f"{start}{f'_{name}' if name else ''}{end}")


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


def check_gold(scores: Sequence[Any]) -> None:
    """Make sure that gold scores are numbers.

    Raises:
        ValueError: One is not.
    """
    for row, score in enumerate(scores):
        # NumPy's and torch's scalars are numbers too, if not all of them Real
        if isinstance(score, str) or not hasattr(score, "__float__"):
            raise ValueError(f"scores must be numbers, got {score!r} in row {row}")


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
