"""Contrastive tension against its formulas, its gradients, and the peer's implementation."""

import math
import random

import pytest
import torch

from sbert_ray.losses import (
    ContrastiveTensionDataLoader,
    ContrastiveTensionLoss,
    ContrastiveTensionLossInBatchNegatives,
)
from sbert_ray.similarity import dot_score
from tests.sbert_ray.losses.oracle import EXTREMES, ROWS, TEXTS, Case, gradient_is_right, random_columns

SAME = [1, 0, 0, 1, 1, 0, 1]
IN_BATCH = "ContrastiveTensionLossInBatchNegatives"
PAIRS = [Case("ContrastiveTensionLoss", labels=SAME), Case("ContrastiveTensionLoss", labels=[[float(y)] for y in SAME])]
TEXTS_ALONE = [
    Case(IN_BATCH, {}, 1),
    Case(IN_BATCH, {"scale": 3.0}, 1),
    Case(IN_BATCH, {"similarity_fct": dot_score, "scale": 1.0}, 1),
]


@pytest.mark.parametrize("labels", [SAME, [float(y) for y in SAME], [bool(y) for y in SAME]], ids=str)
def test_pairs_are_the_formula(labels):
    copied, kept = columns = random_columns(2)
    expected = sum(
        math.log1p(math.exp(-z if y else z)) for y, z in zip(SAME, (copied * kept).sum(1).tolist(), strict=True)
    )
    value = ContrastiveTensionLoss(None).compute_loss_from_embeddings(columns, torch.tensor(labels))
    assert value.item() == pytest.approx(expected)


def test_in_batch_negatives_are_the_formula():
    copied, kept = columns = random_columns(2)
    z = [[3 * torch.cosine_similarity(a, b, dim=0).item() for b in kept] for a in copied]
    rows, expected = range(ROWS), 0.0
    for i in rows:
        expected += math.log(sum(math.exp(z[i][j]) for j in rows)) + math.log(sum(math.exp(z[j][i]) for j in rows))
        expected -= 2 * z[i][i]
    value = ContrastiveTensionLossInBatchNegatives(None, scale=3.0).compute_loss_from_embeddings(columns)
    assert value.item() == pytest.approx(expected / 2 / ROWS, rel=1e-6)


@pytest.mark.parametrize("case", [*PAIRS, Case("ContrastiveTensionLoss"), *TEXTS_ALONE], ids=str)
def test_equals_the_peer(case, models):
    models.agree(case)


@pytest.mark.parametrize("case", [PAIRS[0], *TEXTS_ALONE], ids=str)
def test_both_models_and_the_scale_learn_as_the_peers(case, models):
    found = []
    for model, loss in ((models.ours, case.loss(models.ours)), (models.theirs, case.peer_loss(models.theirs))):
        model.zero_grad()
        loss([dict(model.preprocess(texts)) for texts in case.texts()], case.targets()).backward()
        scale = [loss.logit_scale] if case in TEXTS_ALONE else []
        found.append([p.grad for p in [*scale, *loss.model1.parameters()] if p.grad is not None])
        assert any(gradient.any() for gradient in found[-1])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", [PAIRS[0], *(Case(c.name, c.options, 2) for c in TEXTS_ALONE)], ids=str)
def test_gradient_is_right(case):
    assert gradient_is_right(case)


@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("name", ["ContrastiveTensionLoss", IN_BATCH])
def test_extremes_are_finite(name, extreme):
    for rows in (1, ROWS):
        columns = [EXTREMES[extreme][:rows].clone().requires_grad_() for _ in range(2)]
        value = Case(name).loss().compute_loss_from_embeddings(columns, torch.tensor(SAME[:rows]))
        value.backward()
        assert torch.isfinite(value)
        assert all(torch.isfinite(column.grad).all() for column in columns)


@pytest.mark.parametrize("loss", [ContrastiveTensionLoss, ContrastiveTensionLossInBatchNegatives])
def test_the_copy_is_trained_and_the_model_is_kept(loss, models):
    tension = loss(models.ours)
    assert tension.model2 is models.ours
    assert tension.model1 is not models.ours
    own = {id(parameter) for parameter in tension.own_parameters()}
    assert {id(parameter) for parameter in tension.model1.parameters()} <= own
    assert not own & {id(parameter) for parameter in models.ours.parameters()}


def test_without_labels_texts_of_the_same_tokens_match(models):
    loss = ContrastiveTensionLoss(models.ours)
    a, b = TEXTS[:ROWS], [text if y else f"{text} ran" for text, y in zip(TEXTS, SAME, strict=False)]
    columns = [models.ours.preprocess(texts) for texts in (a, b)]
    torch.testing.assert_close(loss(columns), loss(columns, torch.tensor(SAME)))
    for column in columns:  # the side of the padding does not matter
        column |= {name: value.flip(1) for name, value in column.items()}
    assert loss.targets(columns, None).tolist() == [bool(y) for y in SAME]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (Case("ContrastiveTensionLoss", num_columns=1), r"ContrastiveTensionLoss takes 2 column\(s\) of inputs, got 1"),
        (Case("ContrastiveTensionLoss", num_columns=3), r"ContrastiveTensionLoss takes 2 column\(s\) of inputs, got 3"),
        (Case("ContrastiveTensionLoss", labels=[1, 0]), r"needs one label per row, 7, got labels of shape \(2,\)"),
        (Case("ContrastiveTensionLoss", labels=[2.0] * ROWS), r"needs labels that are 0 or 1, got \[2.0\]"),
        (Case(IN_BATCH), rf"{IN_BATCH} takes 1 column\(s\) of inputs, got 2"),
    ],
    ids=str,
)
def test_a_batch_of_another_form_is_refused(case, message, models):
    with pytest.raises(ValueError, match=message):
        case.loss(models.ours)([models.ours.preprocess(texts) for texts in case.texts()], case.targets())


def test_a_loss_without_what_it_needs_says_so():
    columns = random_columns(2)
    with pytest.raises(ValueError, match="of embeddings needs labels, 0 or 1 per pair, got None"):
        ContrastiveTensionLoss(None).compute_loss_from_embeddings(columns)
    with pytest.raises(ValueError, match="ContrastiveTensionLoss has no model"):
        ContrastiveTensionLoss(None)([{}, {}], torch.tensor(SAME))
    with pytest.raises(ValueError, match=r"needs labels for a model without tokens, got \['offsets'\]"):
        ContrastiveTensionLoss(None).targets([{"offsets": columns[0]}] * 2, None)
    with pytest.raises(ValueError, match="scale must be positive, got 0"):
        ContrastiveTensionLossInBatchNegatives(None, scale=0)


@pytest.mark.parametrize("case", [PAIRS[0], *TEXTS_ALONE], ids=str)
def test_the_model_card_says_what_the_peers_does(case, models):
    assert case.loss(models.ours).get_config_dict() == case.peer_loss(models.theirs).get_config_dict()


@pytest.mark.parametrize("ratio", [1, 2, 4, 8])
@pytest.mark.parametrize("num_texts", [0, 3, 13, 40, 100])
def test_a_loader_makes_the_pairs_that_the_peers_does(num_texts, ratio):
    peer = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    texts = [f"text {number}" for number in range(num_texts)]
    ours = ContrastiveTensionDataLoader(texts, 8, ratio)
    theirs = peer.ContrastiveTensionDataLoader(texts, 8, ratio)
    batches = list(ours)
    assert len(ours) == len(theirs) == len(batches)
    assert [[pair.label for pair in batch] for batch in batches] == [[pair.label for pair in b] for b in theirs]
    assert all((pair.texts[0] == pair.texts[1]) == bool(pair.label) for batch in batches for pair in batch)
    used = [text for batch in batches for pair in batch for text in set(pair.texts)]
    assert len(used) == len(set(used))


def test_a_loader_shuffles_each_time_and_as_its_seed_says():
    loader = ContrastiveTensionDataLoader([str(number) for number in range(200)], 8)
    random.seed(1)
    first, second = list(loader), list(loader)
    random.seed(1)
    assert first == list(loader) != second


def test_a_loader_collates():
    loader = ContrastiveTensionDataLoader([str(number) for number in range(200)], 8)
    loader.collate_fn = len
    assert set(loader) == {8}


@pytest.mark.parametrize(("size", "ratio"), [(10, 4), (8, 0), (0, 4)])
def test_a_loader_of_broken_groups_is_refused(size, ratio):
    with pytest.raises(ValueError, match=f"must be a multiple of pos_neg_ratio, got {size} and {ratio}"):
        ContrastiveTensionDataLoader(["a"], size, ratio)
