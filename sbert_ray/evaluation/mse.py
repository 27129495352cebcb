"""Distillation: how far are a student's embeddings from its teacher's?

Shapes: N texts, embeddings of dimension D.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from sbert_ray.embeddings import is_sparse
from sbert_ray.evaluation.encoding import EmbeddingEvaluator
from sbert_ray.evaluation.evaluator import Result, check_lengths, file_name

_ROWS = 8192  # of the student, at a time


class MSEEvaluator(EmbeddingEvaluator):
    """The mean squared difference of a student's embeddings of one text and a teacher's of another, its translation.

        negative_mse = -100 mean (teacher(source) - student(target))^2

    The teacher embeds once, when the evaluator is made; of the student's embeddings a chunk at a time is kept.

    Args:
        source_sentences: N texts for the teacher.
        target_sentences: N texts for the student.
        teacher_model: Has ``encode``.
        show_progress_bar: Passed on to the models.
        batch_size: Texts at a time, passed on to the models.
        name: Prefix of the metric's name.
        write_csv: Whether to write a CSV file where a call gives a folder.
        truncate_dim: Keep so many leading dimensions, of both.

    Raises:
        ValueError: The columns are empty or differ in length, or there is no teacher.
    """

    card_name = "Knowledge Distillation"

    def __init__(
        self,
        source_sentences: Sequence[Any],
        target_sentences: Sequence[Any],
        teacher_model: Any = None,
        show_progress_bar: bool = False,
        batch_size: int = 32,
        name: str = "",
        write_csv: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        check_lengths(source_sentences=source_sentences, target_sentences=target_sentences)
        if teacher_model is None:
            raise ValueError("teacher_model must be a model, got None")
        self.target_sentences = target_sentences
        self.show_progress_bar = show_progress_bar
        self.batch_size = batch_size
        self.name = name
        self.write_csv = write_csv
        self.truncate_dim = truncate_dim
        self.csv_file = f"mse_evaluation_{name}_results.csv"  # with two underscores where there is no name
        self.primary_metric = "negative_mse"
        self.source_embeddings = self.embed_inputs(teacher_model, source_sentences, column="source").cpu()

    def evaluate(self, model: Any) -> Result:
        """Return the metric."""
        total = 0.0
        for start in range(0, len(self.target_sentences), _ROWS):
            embeddings = self.embed_inputs(model, self.target_sentences[start : start + _ROWS])
            total += _squared(_rows(self.source_embeddings, start, len(embeddings)), embeddings)
        mse = 100 * total / (len(self.target_sentences) * self.source_embeddings.shape[1])
        return Result({"negative_mse": -mse}, {"MSE": mse}, "negative_mse")


class MSEEvaluatorFromDataFrame(EmbeddingEvaluator):
    """The mean squared differences of a student's and a teacher's embeddings, over pairs of languages.

    The metric is ``negative_mse``, the mean over the pairs, times -100; the file has a column for each pair.

    Args:
        dataframe: Rows with a text for each language; a row counts for a pair if it has both.
        teacher_model: Embeds the first language of each pair, once for all calls.
        combinations: Pairs of languages, the teacher's and the student's.
        batch_size: Texts at a time, passed on to the models.
        name: Prefix of the metric's name.
        write_csv: Whether to write a CSV file where a call gives a folder.
        truncate_dim: Keep so many leading dimensions, of both.

    Raises:
        ValueError: There are no combinations, or no rows for one.
    """

    card_name = "Knowledge Distillation"
    card_options = ()
    show_progress_bar = None

    def __init__(
        self,
        dataframe: Sequence[dict[str, str]],
        teacher_model: Any,
        combinations: Sequence[tuple[str, str]],
        batch_size: int = 8,
        name: str = "",
        write_csv: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        self.combinations = combinations
        self.batch_size = batch_size
        self.name = name
        self.write_csv = write_csv
        self.truncate_dim = truncate_dim
        self.csv_file = file_name("mse_evaluation", name)
        self.primary_metric = "negative_mse"
        if not combinations:
            raise ValueError("combinations must be at least one pair of languages, got none")
        self.data = {pair: _texts_of(dataframe, *pair) for pair in combinations}
        sources = list(dict.fromkeys(text for texts, _ in self.data.values() for text in texts))
        self._source_rows = {text: row for row, text in enumerate(sources)}
        self._teacher = self.embed_inputs(teacher_model, sources).cpu()

    def evaluate(self, model: Any) -> Result:
        """Return the metric."""
        row = {}
        for (source, target), (sources, targets) in self.data.items():
            teacher = self._teacher[[self._source_rows[text] for text in sources]]
            student = self.embed_inputs(model, targets)
            row[f"{source}-{target}"] = 100 * _squared(teacher, student) / teacher.numel()
        return Result({"negative_mse": -float(np.mean(list(row.values())))}, row, "negative_mse")


def _texts_of(rows: Sequence[dict[str, str]], source: str, target: str) -> tuple[list[str], list[str]]:
    pairs = [(row[source], row[target]) for row in rows if _has(row, source) and _has(row, target)]
    if not pairs:
        raise ValueError(f"dataframe must have rows with texts in {source!r} and {target!r}, got none")
    return [first for first, _ in pairs], [second for _, second in pairs]


def _has(row: dict[str, str], language: str) -> bool:
    text = row.get(language)
    return isinstance(text, str) and bool(text.strip())


def _rows(embeddings: Tensor, start: int, count: int) -> Tensor:
    if not is_sparse(embeddings):
        return embeddings[start : start + count]
    rows: Tensor = embeddings.narrow_copy(0, start, count)
    return rows


def _squared(teacher: Tensor, student: Tensor) -> float:
    """Return the sum of the squared differences of two matrices (N, D)."""
    if teacher.shape != student.shape:
        expected, got = tuple(teacher.shape), tuple(student.shape)
        raise ValueError(f"student and teacher must have embeddings of one dimension, got {got} and {expected}")
    difference = teacher.to(student.device) - student
    if is_sparse(difference):
        difference = difference.coalesce().values()
    return float(difference.double().square().sum())
