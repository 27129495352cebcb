"""SoftmaxLoss against its formula, its gradient, and the peer's implementation."""

import itertools
import math
import operator

import pytest
import torch
from torch import nn

from sbert_ray.losses import SoftmaxLoss
from tests.sbert_ray.losses.oracle import EXTREMES, ROWS, Case, compute, is_finite, random_columns

CLASSES = [0, 2, 1, 1, 0, 2, 2]
PROBABILITIES = torch.softmax(torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(0)), 1)
PARTS = ("concatenation_sent_rep", "concatenation_sent_difference", "concatenation_sent_multiplication")
CHOICES = [chosen for chosen in itertools.product([True, False], repeat=3) if any(chosen)]
OPTIONS = [dict(zip(PARTS, chosen, strict=True)) for chosen in CHOICES]


def softmax_case(dimension: int = 6, labels=CLASSES, **options) -> Case:
    return Case("SoftmaxLoss", {"embedding_dimension": dimension, "num_labels": 3, **options}, labels=labels)


class Seeded(Case):
    """Losses whose classifiers have the same weights on both sides."""

    def loss(self, model=None):
        torch.manual_seed(0)
        return super().loss(model)

    def peer_loss(self, model=None):
        torch.manual_seed(0)
        loss = super().peer_loss(model).double()
        loss.classifier.load_state_dict(self.loss(model).classifier.state_dict())
        return loss


@pytest.mark.parametrize("options", OPTIONS)
def test_is_the_formula(options):
    loss = SoftmaxLoss(None, 6, 3, **options).double()
    columns = random_columns(2)
    expected = 0.0
    for u, v, label in zip(*(column.tolist() for column in columns), CLASSES, strict=True):
        seen = (u + v) * options[PARTS[0]]
        seen += [abs(x - y) for x, y in zip(u, v, strict=True)] * options[PARTS[1]]
        seen += [x * y for x, y in zip(u, v, strict=True)] * options[PARTS[2]]
        weights, biases = loss.classifier.weight.tolist(), loss.classifier.bias.tolist()
        logits = [bias + sum(map(operator.mul, row, seen)) for row, bias in zip(weights, biases, strict=True)]
        expected += math.log(sum(map(math.exp, logits))) - logits[label]
    value = loss.compute_loss_from_embeddings(columns, torch.tensor(CLASSES))
    assert value.item() == pytest.approx(expected / ROWS)


@pytest.mark.parametrize(
    "case",
    [
        *(softmax_case(16, **options) for options in OPTIONS),
        softmax_case(16, [[one] for one in CLASSES]),
        softmax_case(16, PROBABILITIES),
        softmax_case(16, loss_fct=nn.CrossEntropyLoss(label_smoothing=0.3)),
        softmax_case(16, loss_fct=nn.CrossEntropyLoss(reduction="sum")),
        softmax_case(16, loss_fct=nn.MultiMarginLoss()),
    ],
    ids=str,
)
def test_equals_the_peer(case, models):
    models.agree(Seeded(case.name, case.options, 2, case.labels))


def test_the_classifier_learns_as_the_peers(models):
    case, gradients = softmax_case(16), []
    case = Seeded(case.name, case.options, 2, CLASSES)
    for model, loss in ((models.ours, case.loss(models.ours)), (models.theirs, case.peer_loss(models.theirs))):
        loss([dict(model.preprocess(texts)) for texts in case.texts()], case.targets()).backward()
        gradients.append([loss.classifier.weight.grad, loss.classifier.bias.grad])
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("labels", [CLASSES, PROBABILITIES.double()], ids=["classes", "probabilities"])
def test_gradient_is_right(labels):
    loss = SoftmaxLoss(None, 6, 3, concatenation_sent_multiplication=True).double()

    def value(*columns):
        return loss.compute_loss_from_embeddings(columns, torch.as_tensor(labels))

    assert torch.autograd.gradcheck(value, random_columns(2))


def test_probabilities_of_one_are_classes():
    loss, columns = SoftmaxLoss(None, 6, 3).double(), random_columns(2)
    one_hot = nn.functional.one_hot(torch.tensor(CLASSES), 3).double()
    values = [loss.compute_loss_from_embeddings(columns, labels) for labels in (torch.tensor(CLASSES), one_hot)]
    torch.testing.assert_close(*values)


def test_the_order_of_rows_does_not_matter():
    loss, columns, order = SoftmaxLoss(None, 6, 3).double(), random_columns(2), torch.randperm(ROWS)
    labels = torch.tensor(CLASSES)
    value = loss.compute_loss_from_embeddings(columns, labels)
    permuted = loss.compute_loss_from_embeddings([column[order] for column in columns], labels[order])
    torch.testing.assert_close(value, permuted)


@pytest.mark.parametrize("extreme", EXTREMES)
def test_extremes_are_finite(extreme):
    is_finite(softmax_case(), EXTREMES[extreme], torch.tensor(CLASSES))
    is_finite(softmax_case(), EXTREMES[extreme][:1], torch.tensor([1]))


def test_without_labels_the_logits_come_back(models):
    case = softmax_case(16)
    loss = case.loss(models.ours)
    (u, v), logits = loss([dict(models.ours.preprocess(texts)) for texts in case.texts()])
    assert u.shape == v.shape == (ROWS, 16)
    torch.testing.assert_close(logits, loss.classifier(torch.cat([u, v, (u - v).abs()], dim=1)))


def test_the_classifier_is_the_losss_own(models):
    loss = SoftmaxLoss(models.ours, 16, 3)
    assert [tuple(p.shape) for p in loss.own_parameters()] == [(3, 48), (3,)]
    assert loss.classifier.weight.dtype == torch.float64  # as the model


def test_classes_to_be_ignored_are():
    loss, columns = SoftmaxLoss(None, 6, 3).double(), random_columns(2)
    all_but_one = loss.compute_loss_from_embeddings(columns, torch.tensor([-100, *CLASSES[1:]]))
    others = loss.compute_loss_from_embeddings([column[1:] for column in columns], torch.tensor(CLASSES[1:]))
    torch.testing.assert_close(all_but_one, others)


@pytest.mark.parametrize(
    ("num_columns", "labels", "message"),
    [
        (1, CLASSES, r"takes 2 column\(s\) of inputs, got 1"),
        (3, CLASSES, r"takes 2 column\(s\) of inputs, got 3"),
        (2, None, "needs labels, one class per pair, got None"),
        (2, CLASSES[:3], r"needs one label per row, 7, got labels of shape \(3,\)"),
        (2, [0.0] * ROWS, "needs integer classes as labels, got labels of torch.float32"),
        (2, [[0.5, 0.5]] * ROWS, "needs integer classes as labels, got labels of torch.float32"),
        (2, [3, -1, *CLASSES[2:]], r"needs classes from 0 to 2, got \[-1, 3\]"),
    ],
)
def test_a_batch_of_another_form_is_refused(num_columns, labels, message):
    case = softmax_case(labels=labels)
    with pytest.raises(ValueError, match=f"SoftmaxLoss {message}"):
        compute(Case(case.name, case.options, num_columns, labels), random_columns(num_columns))


def test_a_classifier_that_sees_nothing_is_refused():
    with pytest.raises(ValueError, match="one of the concatenation_sent_\\* arguments must be True"):
        SoftmaxLoss(None, 6, 3, False, False, False)


def test_the_model_card_says_what_the_peers_does(models):
    case = softmax_case(16, concatenation_sent_multiplication=True)
    assert case.loss(models.ours).get_config_dict() == case.peer_loss(models.theirs).get_config_dict()
