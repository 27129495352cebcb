"""Losses of a teacher against their formulas, their gradients, and the peer's implementation."""

import logging
import math

import pytest
import torch
from safetensors.torch import load_file

from sbert_ray.losses import DistillKLDivLoss, EmbedDistillLoss, MSELoss
from sbert_ray.similarity import pairwise_cos_sim, pairwise_dot_score
from tests.sbert_ray.losses.oracle import (
    EXTREMES,
    ROWS,
    Case,
    compute,
    gradient_is_right,
    is_finite,
    order_does_not_matter,
    random_columns,
)

GENERATOR = torch.Generator().manual_seed(0)
TEACHERS = {size: torch.randn(ROWS, size, dtype=torch.float64, generator=GENERATOR) for size in (1, 2, 3, 6, 16)}
PER_COLUMN = torch.randn(ROWS, 3, 16, dtype=torch.float64, generator=GENERATOR)
METRICS = ["mse", "l2", "cosine"]
EMBEDDINGS = [
    Case("MSELoss", {}, 1, TEACHERS[16]),
    Case("MSELoss", {}, 3, PER_COLUMN),
    *(Case("EmbedDistillLoss", {"distance_metric": metric}, 1, TEACHERS[16]) for metric in METRICS),
    *(Case("EmbedDistillLoss", {"distance_metric": metric}, 3, TEACHERS[16]) for metric in METRICS),
    *(Case("EmbedDistillLoss", {"distance_metric": metric}, 3, PER_COLUMN) for metric in METRICS),
]
SCORES = [
    Case("MarginMSELoss", {}, 3, TEACHERS[1].flatten()),
    Case("MarginMSELoss", {}, 3, TEACHERS[1]),
    Case("MarginMSELoss", {}, 3, TEACHERS[2]),
    Case("MarginMSELoss", {}, 4, TEACHERS[2]),
    Case("MarginMSELoss", {}, 4, TEACHERS[3]),
    Case("MarginMSELoss", {"similarity_fct": pairwise_cos_sim}, 4, TEACHERS[3]),
    Case("DistillKLDivLoss", {}, 3, TEACHERS[2]),
    Case("DistillKLDivLoss", {}, 4, TEACHERS[3]),
    Case("DistillKLDivLoss", {"similarity_fct": pairwise_cos_sim}, 4, TEACHERS[3]),
    Case("DistillKLDivLoss", {"temperature": 2.0}, 4, TEACHERS[3]),
    Case("DistillKLDivLoss", {"student_temperature": 0.5, "temperature": 2.0}, 4, TEACHERS[3]),
    Case("DistillKLDivLoss", {"student_temperature": 3.0, "teacher_temperature": 0.5}, 4, TEACHERS[3]),
]
PROJECTED = [Case("EmbedDistillLoss", {"distance_metric": m, "projection_dim": 6}, 3, TEACHERS[6]) for m in METRICS]


class Projected(Case):
    """Losses whose projections have the same weights on both sides."""

    def loss(self, model=None):
        torch.manual_seed(0)
        return super().loss(model)

    def peer_loss(self, model=None):
        loss = super().peer_loss(model).double()
        loss.projection.load_state_dict(self.loss(model).projection.state_dict())
        return loss


@pytest.mark.parametrize("metric", METRICS)
def test_embed_distill_is_the_formula(metric):
    columns = random_columns(3, dimensions=16)
    distances = []
    for column in columns:
        for student, teacher in zip(column.tolist(), TEACHERS[16].tolist(), strict=True):
            dot = sum(s * t for s, t in zip(student, teacher, strict=True))
            distances.append(
                {
                    "mse": math.dist(student, teacher) ** 2 / 16,
                    "l2": math.dist(student, teacher),
                    "cosine": 1 - dot / math.hypot(*student) / math.hypot(*teacher),
                }[metric]
            )
    case = Case("EmbedDistillLoss", {"distance_metric": metric}, 3, TEACHERS[16])
    assert compute(case, columns) == pytest.approx(sum(distances) / len(distances))
    if metric == "mse":
        assert compute(Case("MSELoss", {}, 3, TEACHERS[16]), columns) == compute(case, columns)


def test_margin_mse_is_the_formula():
    anchors, positives, *negatives = columns = random_columns(4)
    errors = []
    for k, others in enumerate(negatives):
        for i in range(ROWS):
            margin = (anchors[i] @ positives[i] - anchors[i] @ others[i]).item()
            errors.append((margin - (TEACHERS[3][i, 0] - TEACHERS[3][i, k + 1]).item()) ** 2)
    expected = sum(errors) / len(errors)
    assert compute(Case("MarginMSELoss", {}, 4, TEACHERS[3]), columns) == pytest.approx(expected)
    margins = TEACHERS[3][:, :1] - TEACHERS[3][:, 1:]
    assert compute(Case("MarginMSELoss", {}, 4, margins), columns) == pytest.approx(expected)


def test_kl_divergence_is_the_formula():
    queries, *candidates = columns = random_columns(4)
    expected = 0.0
    for i in range(ROWS):
        student = [math.exp((queries[i] @ column[i]).item() / 2) for column in candidates]
        teacher = [math.exp(score / 3) for score in TEACHERS[3][i].tolist()]
        for s, t in zip(student, teacher, strict=True):
            p, q = t / sum(teacher), s / sum(student)
            expected += p * math.log(p / q) * 2**2 / ROWS
    options = {"student_temperature": 2.0, "teacher_temperature": 3.0}
    assert compute(Case("DistillKLDivLoss", options, 4, TEACHERS[3]), columns) == pytest.approx(expected)


@pytest.mark.parametrize("case", [*EMBEDDINGS, *SCORES], ids=str)
def test_equals_the_peer(case, models):
    models.agree(case)


@pytest.mark.parametrize("case", PROJECTED, ids=str)
def test_projections_equal_the_peers(case, models):
    models.agree(Projected(case.name, case.options, 3, case.labels))


@pytest.mark.parametrize("case", SCORES, ids=str)
def test_gradient_of_scores_is_right(case):
    assert gradient_is_right(case)


@pytest.mark.parametrize("case", EMBEDDINGS, ids=str)
def test_gradient_of_embeddings_is_right(case):
    def value(*columns):
        return case.loss().compute_loss_from_embeddings(columns, case.targets())

    assert torch.autograd.gradcheck(value, random_columns(case.num_columns, dimensions=16))


@pytest.mark.parametrize("case", SCORES, ids=str)
def test_the_order_of_rows_does_not_matter(case):
    order_does_not_matter(case)


@pytest.mark.parametrize("scores", [-7.5, 1e3])
def test_moving_all_scores_of_a_teacher_does_not_matter(scores):
    for name in ("MarginMSELoss", "DistillKLDivLoss"):
        columns = random_columns(4)
        values = [compute(Case(name, {}, 4, TEACHERS[3] + move), columns) for move in (0, scores)]
        assert values[0] == pytest.approx(values[1])


@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("case", SCORES, ids=str)
def test_extremes_of_scores_are_finite(case, extreme):
    is_finite(case, EXTREMES[extreme], case.targets())
    is_finite(case, EXTREMES[extreme][:1], case.targets()[:1])
    is_finite(case, EXTREMES[extreme], case.targets() * 1e6)


@pytest.mark.parametrize("teacher", EXTREMES)
@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("metric", METRICS)
def test_extremes_of_embeddings_are_finite(metric, extreme, teacher):
    case = Case("EmbedDistillLoss", {"distance_metric": metric}, 2)
    is_finite(case, EXTREMES[extreme], EXTREMES[teacher])
    is_finite(case, EXTREMES[extreme][:1], EXTREMES[teacher][:1])


@pytest.mark.parametrize("metric", METRICS)
def test_a_student_that_is_its_teacher_has_no_loss(metric):
    case = Case("EmbedDistillLoss", {"distance_metric": metric}, 1, TEACHERS[16])
    assert compute(case, [TEACHERS[16]]) == pytest.approx(0.0, abs=1e-7)


def test_a_projection_is_the_losss_own_and_like_the_model(models):
    loss = EmbedDistillLoss(models.ours, projection_dim=6)
    assert [tuple(p.shape) for p in loss.own_parameters()] == [(6, 16), (6,)]
    assert loss.projection.weight.dtype == torch.float64


def test_a_projection_is_saved_and_loaded(models, tmp_path):
    file = tmp_path / "projection.safetensors"
    loss = EmbedDistillLoss(models.ours, projection_dim=6)
    loss.save_projection(file)
    for other in (MSELoss(models.ours, projection_dim=6), EmbedDistillLoss(models.ours)):
        other.load_projection(file)
        torch.testing.assert_close(other.projection.state_dict(), loss.projection.state_dict())
        assert other.projection_dim == 6
    with pytest.raises(ValueError, match="must project 16 to 8 dimensions, got 16 to 6"):
        EmbedDistillLoss(models.ours, projection_dim=8).load_projection(file)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        loss.load_projection(tmp_path / "other")
    with pytest.raises(ValueError, match="there must be a projection to save, got projection_dim=None"):
        EmbedDistillLoss(models.ours).save_projection(file)


def test_a_projection_of_the_peer_is_loaded_and_the_other_way_round(models, tmp_path):
    case = Case("EmbedDistillLoss", {"projection_dim": 6})
    ours, theirs = case.loss(models.ours), case.peer_loss(models.theirs)
    theirs.save_projection(tmp_path / "theirs")
    ours.load_projection(tmp_path / "theirs")
    torch.testing.assert_close(ours.projection.weight.float(), theirs.projection.weight)
    ours.save_projection(tmp_path / "ours")
    theirs.load_projection(tmp_path / "ours")
    assert load_file(tmp_path / "ours").keys() == load_file(tmp_path / "theirs").keys()


def test_a_teacher_that_is_too_sure_is_told_once(caplog):
    loss, columns = DistillKLDivLoss(None), random_columns(3)
    with caplog.at_level(logging.WARNING):
        loss.compute_loss_from_embeddings(columns, TEACHERS[2])
        assert not caplog.messages
        for _ in range(2):
            loss.compute_loss_from_embeddings(columns, torch.tensor([[1000.0, 0.0]] * ROWS))
    [message] = caplog.messages
    assert "gives 7 of 14 candidates a probability of exactly 0" in message


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (Case("MSELoss", {}, 1), "MSELoss needs labels, the teacher's embedding of each row, got None"),
        (Case("MSELoss", {}, 0, TEACHERS[6]), r"MSELoss takes at least 1 column\(s\) of inputs, got 0"),
        (Case("MSELoss", {}, 1, TEACHERS[16]), "needs teacher's embeddings of 6 dimensions, got 16; projection_dim=16"),
        (Case("MSELoss", {}, 2, PER_COLUMN), r"needs labels of shape \(7, T\) or \(7, 2, T\), got \(7, 3, 16\)"),
        (Case("MSELoss", {}, 1, TEACHERS[6][:3]), r"needs labels of shape \(7, T\) or \(7, 1, T\), got \(3, 6\)"),
        (Case("MSELoss", {}, 1, [1.0] * ROWS), r"needs labels of shape \(7, T\) or \(7, 1, T\), got \(7,\)"),
        (Case("MarginMSELoss", {}, 2, TEACHERS[1]), r"MarginMSELoss takes at least 3 column\(s\) of inputs, got 2"),
        (Case("MarginMSELoss", {}, 3), "MarginMSELoss needs labels, the teacher's margins or scores, got None"),
        (
            Case("MarginMSELoss", {}, 3, TEACHERS[3]),
            r"needs labels of shape \(7, 1\), margins, or \(7, 2\), scores, got \(7, 3\)",
        ),
        (
            Case("MarginMSELoss", {}, 4, [1.0] * ROWS),
            r"needs labels of shape \(7, 2\), margins, or \(7, 3\), scores, got \(7,\)",
        ),
        (Case("MarginMSELoss", {}, 3, [1.0] * 3), r"needs one label per row, 7, got labels of shape \(3,\)"),
        (
            Case("DistillKLDivLoss", {}, 2, TEACHERS[1]),
            r"takes at least 3 column\(s\) of inputs, got 2",
        ),
        (Case("DistillKLDivLoss", {}, 3), "DistillKLDivLoss needs labels, the teacher's scores of the candidates"),
        (Case("DistillKLDivLoss", {}, 3, TEACHERS[3]), r"needs labels of shape \(7, 2\), .*, got \(7, 3\)"),
    ],
    ids=str,
)
def test_a_batch_of_another_form_is_refused(case, message):
    with pytest.raises(ValueError, match=message):
        compute(case, random_columns(case.num_columns))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("EmbedDistillLoss", {"distance_metric": "dot"}, r"must be one of \['mse', 'l2', 'cosine'\], got 'dot'"),
        ("EmbedDistillLoss", {"projection_dim": 6}, "projection_dim needs a model to project from, got 6 and no model"),
        ("DistillKLDivLoss", {"temperature": -1.0}, "temperature must be positive and finite, got -1.0"),
        ("DistillKLDivLoss", {"student_temperature": 0.0}, "student_temperature must be positive and finite, got 0.0"),
        ("DistillKLDivLoss", {"teacher_temperature": math.inf}, "teacher_temperature must be positive and finite"),
    ],
)
def test_options_that_make_no_sense_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        Case(name, options).loss()


@pytest.mark.parametrize("case", [*EMBEDDINGS, *SCORES, *PROJECTED, Case("MSELoss", {"projection_dim": 6})], ids=str)
def test_the_model_card_says_what_the_peers_does(case, models):
    assert case.loss(models.ours).get_config_dict() == case.peer_loss(models.theirs).get_config_dict()


def test_similarities_of_ones_own_are_taken():
    def twice(a, b):
        return 2 * pairwise_dot_score(a, b)

    columns = random_columns(3)
    case = Case("DistillKLDivLoss", {"similarity_fct": twice}, 3, TEACHERS[2])
    plain = Case("DistillKLDivLoss", {}, 3, TEACHERS[2])
    assert compute(case, columns) == pytest.approx(compute(plain, [columns[0] * 2, *columns[1:]]))
