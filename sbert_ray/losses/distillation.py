"""Losses that let a student do what a teacher does, given the teacher's embeddings, scores or margins.

Shapes: B rows, C columns, D dimensions of the student, T of the teacher, N candidates of a query.
"""

import logging
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sbert_ray.losses.labels import labels_per_row
from sbert_ray.losses.loss import Loss
from sbert_ray.losses.weights import linear_for
from sbert_ray.similarity import Similarity, pairwise_cos_sim, pairwise_dot_score

logger = logging.getLogger(__name__)

EmbeddingDistance = Literal["mse", "l2", "cosine"]

_DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": F.mse_loss,
    "l2": lambda student, teacher: torch.linalg.vector_norm(student - teacher, dim=1).mean(),
    "cosine": lambda student, teacher: (1 - pairwise_cos_sim(student, teacher)).mean(),
}


class EmbedDistillLoss(Loss):
    """Let the student's embeddings be the teacher's.

    With s_i the student's embedding of text i, projected if asked for, and t_i the teacher's::

        mse:     loss = 1/(B T) sum_i |s_i - t_i|^2
        l2:      loss = 1/B sum_i |s_i - t_i|
        cosine:  loss = 1/B sum_i (1 - cos(s_i, t_i))

    Several columns are so many texts for the teacher's embedding of each row, such as translations, or have one each;
    the loss is the mean over the columns.

    Columns: any number of texts. Labels: the teacher's embedding.

    Args:
        model: The student.
        distance_metric: ``mse``, ``l2`` or ``cosine``.
        projection_dim: T where it is not D: a linear layer that is trained along takes the one to the other.

    Raises:
        ValueError: The metric is unknown, or there is no model to be projected from.

    References:
        Reimers and Gurevych 2020, Making Monolingual Sentence Embeddings Multilingual, arXiv:2004.09813.
        Kim et al. 2023, EmbedDistill, arXiv:2301.12005.
    """

    num_columns = (1, None)
    label_use = "required"
    label_hint = "the teacher's embedding of each row"
    labels_are_embeddings = True

    def __init__(
        self,
        model: nn.Module | None,
        distance_metric: EmbeddingDistance = "cosine",
        projection_dim: int | None = None,
    ) -> None:
        super().__init__(model)
        if distance_metric not in _DISTANCES:
            raise ValueError(f"distance_metric must be one of {list(_DISTANCES)}, got {distance_metric!r}")
        self.distance_metric = distance_metric
        self.projection_dim = projection_dim
        self.projection: nn.Linear | None = None
        if projection_dim is not None:
            if model is None:
                raise ValueError(f"projection_dim needs a model to project from, got {projection_dim} and no model")
            self.projection = linear_for(model, _dimension(model), projection_dim)

    def compute(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Return the mean distance over rows and columns."""
        assert labels is not None
        student = torch.stack(list(embeddings), dim=1)  # (B, C, D)
        if self.projection is not None:
            student = self.projection(student)  # (B, C, T)
        teacher = self._teacher(labels.to(student), student)
        return _DISTANCES[self.distance_metric](student.flatten(0, 1), teacher.flatten(0, 1))

    def _teacher(self, labels: Tensor, student: Tensor) -> Tensor:
        """Return the teacher's embeddings of all columns (B, C, T)."""
        name, shape = type(self).__name__, tuple(labels.shape)
        num_rows, num_columns, dimension = student.shape
        if shape not in ((num_rows, shape[-1]), (num_rows, num_columns, shape[-1])):
            raise ValueError(
                f"{name} needs labels of shape ({num_rows}, T) or ({num_rows}, {num_columns}, T), got {shape}"
            )
        if shape[-1] != dimension:
            raise ValueError(
                f"{name} needs teacher's embeddings of {dimension} dimensions, got {shape[-1]}; "
                f"projection_dim={shape[-1]} takes the student's to so many"
            )
        return labels if labels.ndim == 3 else labels[:, None].expand_as(student)

    def save_projection(self, path: str | os.PathLike[str]) -> None:
        """Write the projection to a safetensors file, so that training can go on with it.

        Raises:
            ValueError: There is none.
        """
        if self.projection is None:
            raise ValueError("there must be a projection to save, got projection_dim=None")
        save_file({name: weight.detach().contiguous() for name, weight in self.projection.state_dict().items()}, path)

    def load_projection(self, path: str | os.PathLike[str]) -> None:
        """Read the projection from a file that `save_projection` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is of another shape.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no file {os.fspath(path)}")
        weights = load_file(path)
        num_outputs, num_inputs = weights["weight"].shape
        if self.projection is None:
            self.projection = linear_for(self.model, num_inputs, num_outputs)
            self.projection_dim = num_outputs
        if weights["weight"].shape != self.projection.weight.shape:
            wanted = f"{self.projection.in_features} to {self.projection.out_features}"
            raise ValueError(f"{os.fspath(path)} must project {wanted} dimensions, got {num_inputs} to {num_outputs}")
        self.projection.load_state_dict(weights)


class MSELoss(EmbedDistillLoss):
    """`EmbedDistillLoss` of squared errors.

    Columns: any number of texts. Labels: the teacher's embedding.

    Args:
        model: The student.
        projection_dim: T where it is not D: a linear layer that is trained along takes the one to the other.

    References:
        Reimers and Gurevych 2020, Making Monolingual Sentence Embeddings Multilingual, arXiv:2004.09813.
    """

    def __init__(self, model: nn.Module | None, projection_dim: int | None = None) -> None:
        super().__init__(model, "mse", projection_dim)


class MarginMSELoss(Loss):
    """Let the student's margins between positives and negatives be the teacher's.

    With s the similarity and t the teacher's score, over all negatives n_ik of anchor a_i, N - 1 of each::

        loss = 1/(B (N - 1)) sum_i sum_k ( s(a_i, p_i) - s(a_i, n_ik) - (t(a_i, p_i) - t(a_i, n_ik)) )^2

    A positive that is worse than a negative does no harm then, as the margin is negative.

    Columns: (anchor, positive, negative_1, ..., negative_n). Labels: the teacher's margins, or its scores of the
    positive and of the negatives.

    Args:
        model: The student.
        similarity_fct: Similarity of row i with row i, such as ``pairwise_dot_score``.

    References:
        Hofstaetter et al. 2020, Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge
        Distillation, arXiv:2010.02666.
    """

    num_columns = (3, None)
    label_use = "required"
    label_hint = "the teacher's margins or scores"

    def __init__(self, model: nn.Module | None, similarity_fct: Similarity = pairwise_dot_score) -> None:
        super().__init__(model)
        self.similarity_fct = similarity_fct

    def compute(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Return the mean over all negatives."""
        assert labels is not None
        anchors, *candidates = embeddings
        scores = torch.stack([self.similarity_fct(anchors, candidate) for candidate in candidates], dim=1)  # (B, N)
        margins = scores[:, :1] - scores[:, 1:]
        return F.mse_loss(margins, self._margins(labels.to(margins), *scores.shape))

    def _margins(self, labels: Tensor, num_rows: int, num_candidates: int) -> Tensor:
        """Return the teacher's margins (B, N - 1)."""
        if labels.ndim == 1 and num_candidates == 2:
            labels = labels_per_row(labels, num_rows, type(self).__name__)[:, None]
        if labels.shape == (num_rows, num_candidates):
            return labels[:, :1] - labels[:, 1:]
        if labels.shape != (num_rows, num_candidates - 1):
            raise ValueError(
                f"{type(self).__name__} needs labels of shape ({num_rows}, {num_candidates - 1}), margins, or "
                f"({num_rows}, {num_candidates}), scores, got {tuple(labels.shape)}"
            )
        return labels


class DistillKLDivLoss(Loss):
    """Let the student's distribution over the candidates of a query be the teacher's.

    With s_i and t_i the scores (N,) of the student and of the teacher for query i, and U and V their temperatures::

        loss = U^2/B sum_i KL( softmax(t_i / V) || softmax(s_i / U) )

    Columns: (query, candidate_1, candidate_2, ..., candidate_n). Labels: the teacher's scores of the candidates.

    Args:
        model: The student.
        similarity_fct: Similarity of row i with row i, such as ``pairwise_dot_score``.
        temperature: Of both, where they have none of their own; higher ones make distributions softer.
        student_temperature: U.
        teacher_temperature: V.

    Raises:
        ValueError: A temperature is not positive and finite.

    References:
        Hinton et al. 2015, Distilling the Knowledge in a Neural Network, arXiv:1503.02531.
        Lin et al. 2020, Distilling Dense Representations for Ranking using Tightly-Coupled Teachers, arXiv:2010.11386.
    """

    num_columns = (3, None)  # one candidate alone has probability 1, whatever its score
    label_use = "required"
    label_hint = "the teacher's scores of the candidates"

    def __init__(
        self,
        model: nn.Module | None,
        similarity_fct: Similarity = pairwise_dot_score,
        temperature: float = 1.0,
        student_temperature: float | None = None,
        teacher_temperature: float | None = None,
    ) -> None:
        super().__init__(model)
        self.similarity_fct = similarity_fct
        self.temperature = _positive("temperature", temperature)
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self._of_student = _positive("student_temperature", student_temperature, temperature)
        self._of_teacher = _positive("teacher_temperature", teacher_temperature, temperature)
        self._has_warned = False

    def compute(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Return the mean over the queries."""
        assert labels is not None
        queries, *candidates = embeddings
        scores = torch.stack([self.similarity_fct(queries, candidate) for candidate in candidates], dim=1)  # (B, N)
        if labels.shape != scores.shape:
            raise ValueError(
                f"{type(self).__name__} needs labels of shape {tuple(scores.shape)}, the teacher's scores of all "
                f"candidates, got {tuple(labels.shape)}"
            )
        teacher = (labels.to(scores) / self._of_teacher).softmax(1)
        self._warn_of_zeros(teacher)
        student = (scores / self._of_student).log_softmax(1)
        return F.kl_div(student, teacher, reduction="batchmean") * self._of_student**2

    def _warn_of_zeros(self, teacher: Tensor) -> None:
        """Say it once if a teacher is so sure that its other candidates teach nothing."""
        if self._has_warned or not (num_zeros := int((teacher == 0).sum())):
            return
        self._has_warned = True
        logger.warning(
            "the teacher gives %d of %d candidates a probability of exactly 0, so they teach nothing: its scores are "
            "far apart for a temperature of %g; a higher teacher_temperature brings them together",
            num_zeros,
            teacher.numel(),
            self._of_teacher,
        )

    def get_config_dict(self) -> dict[str, Any]:
        """Return the constructor's arguments, without temperatures that are not given."""
        return {name: value for name, value in super().get_config_dict().items() if value is not None}


def _positive(name: str, given: float | None, otherwise: float = 1.0) -> float:
    if given is not None and not (given > 0 and math.isfinite(given)):
        raise ValueError(f"{name} must be positive and finite, got {given}")
    return otherwise if given is None else given


def _dimension(model: nn.Module) -> int:
    dimension = getattr(model, "get_embedding_dimension", lambda: None)()
    if dimension is None:
        raise ValueError(f"projection_dim needs a model that knows its dimension, got {type(model).__name__}")
    return int(dimension)
