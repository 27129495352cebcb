"""All losses against their formulas, and against numerical derivatives."""

import pytest
import torch

import sbert_ray.cross_encoder.losses as face
import sbert_ray.losses.cross_encoder as ours
from tests.sbert_ray.losses.cross_encoder.cases import CASES, PAIRS, Case, logits_of, lookup
from tests.sbert_ray.losses.cross_encoder.scored import Scored

WITH_FORMULAS = [case for case in CASES if case.formula is not None]


def test_every_loss_has_a_formula() -> None:
    assert {case.loss for case in WITH_FORMULAS} == ours.LOSSES.keys()


def test_the_face_has_all_losses_and_their_helpers() -> None:
    assert set(face.__all__) == set(ours.__all__) - {"LOSSES", "CrossEncoderLoss"}
    assert all(getattr(face, name) is getattr(ours, name) for name in face.__all__)


@pytest.mark.parametrize("case", WITH_FORMULAS, ids=str)
def test_the_loss_is_its_formula(case: Case) -> None:
    logits = logits_of(case.num_labels, torch.float64)
    loss = case.build(ours, Scored(PAIRS, logits))
    assert case.formula is not None
    expected = case.formula(lookup(logits), case.inputs, case.labels)
    assert loss(case.inputs, case.labels).item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_are_those_of_the_value(case: Case) -> None:
    logits = logits_of(case.num_labels, torch.float64)
    loss = case.build(ours, Scored(PAIRS, logits))
    torch.manual_seed(0)
    pairs, targets = loss.pairs(case.inputs, case.labels)
    scores = torch.stack([logits[PAIRS.index(pair)] for pair in pairs]).requires_grad_()
    assert torch.autograd.gradcheck(lambda some: loss.value(some, targets), [scores])
