"""GISTEmbedLoss against its formula, its gradient and the peer."""

import math

import pytest
import torch
from torch import Tensor

from sbert_ray import SentenceTransformer, losses
from sbert_ray.losses import CachedGISTEmbedLoss, GISTEmbedLoss
from tests.sbert_ray.losses.compare import assert_close, columns_of, features_of, peer_losses, run, text_columns

B, D = 5, 6
OPTIONS = {
    "default": {},
    "margin": {"margin": 0.2},
    "relative": {"margin": 0.3, "margin_strategy": "relative", "temperature": 0.1},
    "no anchors": {"contrast_anchors": False},
    "no positives": {"contrast_positives": False, "temperature": 0.05},
    "neither": {"contrast_anchors": False, "contrast_positives": False},
}


def by_hand(columns: list[Tensor], guide: Tensor, **options) -> float:
    """The formula of the docstring, one anchor and one candidate at a time."""
    temperature, margin = options.get("temperature", 0.01), options.get("margin", 0.0)

    def cosine(a: Tensor, b: Tensor) -> float:
        return torch.cosine_similarity(a, b, dim=0).item()

    total = 0.0
    for i in range(B):
        pairs = [((0, i), (1, j)) for j in range(B)]
        if options.get("contrast_anchors", True):
            pairs += [((0, i), (0, j)) for j in range(B) if j != i]
        if options.get("contrast_positives", True):
            pairs += [((1, i), (1, j)) for j in range(B) if j != i]
        pairs += [((0, i), (c, j)) for c in range(2, len(columns)) for j in range(B)]
        of_positive = cosine(guide[i, 0], guide[i, 1])
        is_relative = options.get("margin_strategy") == "relative"
        least = of_positive - (abs(of_positive) * margin if is_relative else margin)
        kept = [(a, b) for a, b in pairs if b == (1, i) or cosine(guide[a[1], a[0]], guide[b[1], b[0]]) <= least]
        logits = [cosine(columns[a[0]][a[1]], columns[b[0]][b[1]]) / temperature for a, b in kept]
        positive = cosine(columns[0][i], columns[1][i]) / temperature
        largest = max(logits)
        total += largest + math.log(sum(math.exp(logit - largest) for logit in logits)) - positive
    return total / B


@pytest.mark.parametrize("num_columns", [2, 3])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_is_the_formula(options: dict, num_columns: int) -> None:
    columns, guide = columns_of(num_columns, B, D), torch.stack(columns_of(num_columns, B, 4, seed=1), dim=1)
    value = GISTEmbedLoss(None, None, **options).compute_loss_from_embeddings(columns, guide)
    assert value.item() == pytest.approx(by_hand(columns, guide, **options))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_gradient_is_right(options: dict) -> None:
    loss, guide = GISTEmbedLoss(None, None, **options | {"temperature": 0.5}), torch.stack(columns_of(3, B, 4), dim=1)
    columns = [column.requires_grad_() for column in columns_of(3, B, D)]
    assert torch.autograd.gradcheck(lambda *columns: loss.compute_loss_from_embeddings(columns, guide), columns)


@pytest.mark.parametrize("name", ["GISTEmbedLoss", "CachedGISTEmbedLoss"])
@pytest.mark.parametrize("num_columns", [2, 3])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_equals_the_peer(tiny_pair, minilm_pair, name: str, num_columns: int, options: dict) -> None:
    """The guide has another vocabulary, so that texts are tokenized again for it."""
    found = []
    for model, guide, module in zip(tiny_pair, minilm_pair, (losses, peer_losses()), strict=True):
        loss = getattr(module, name)(model, guide, **options)
        assert loss.must_retokenize
        found.append(run(loss, model, text_columns(num_columns), None))
    assert_close(*found)


def test_a_guide_of_the_same_tokens_reads_them_as_they_are(tiny_pair) -> None:
    found = []
    for model, module in zip(tiny_pair, (losses, peer_losses()), strict=True):
        loss = module.GISTEmbedLoss(model, model, temperature=0.1)
        assert not loss.must_retokenize
        found.append(run(loss, model, text_columns(3), None))
    assert_close(*found)


def test_the_cached_one_takes_any_number_of_negatives(tiny_model: SentenceTransformer) -> None:
    features = features_of(tiny_model, text_columns(5))
    assert CachedGISTEmbedLoss(tiny_model, tiny_model)(features).isfinite()
    with pytest.raises(ValueError, match=r"GISTEmbedLoss takes 2 to 3 column\(s\) of inputs, got 5"):
        GISTEmbedLoss(tiny_model, tiny_model)(features)


def test_a_text_is_no_candidate_for_itself_even_if_its_positive_is_the_same() -> None:
    column = columns_of(1, B, D)[0]
    guide = torch.stack([column, column], dim=1)
    value = GISTEmbedLoss(None, None, temperature=1.0).compute_loss_from_embeddings([column, column], guide)
    cosines = torch.cosine_similarity(column[:, None], column[None], dim=-1)
    others = cosines - torch.diag_embed(torch.full((B,), float("inf"), dtype=cosines.dtype))
    expected = torch.cat([cosines, others, others], dim=1).logsumexp(1).mean() - 1.0
    torch.testing.assert_close(value, expected)


def test_the_guide_is_not_trained(tiny_model: SentenceTransformer, minilm_pair) -> None:
    guide = minilm_pair[0]
    guide.zero_grad()
    for loss in (GISTEmbedLoss(tiny_model, guide), CachedGISTEmbedLoss(tiny_model, guide, mini_batch_size=2)):
        loss.train()
        loss(features_of(tiny_model, text_columns(2))).backward()
        assert not any(weight.grad is not None for weight in guide.parameters())
        assert not guide.training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin_strategy": "soft"}, "margin_strategy must be 'absolute' or 'relative', got 'soft'"),
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GISTEmbedLoss(None, None, **options)


def test_embeddings_need_those_of_the_guide() -> None:
    with pytest.raises(
        ValueError, match=r"labels must be the guide's embeddings of shape \(5, 2, 'D'\), got \(5, 3, 4\)"
    ):
        GISTEmbedLoss(None, None).compute_loss_from_embeddings(columns_of(2, B, D), torch.zeros(5, 3, 4))
    with pytest.raises(ValueError, match="GISTEmbedLoss needs a guide"):
        GISTEmbedLoss(None, None).targets([], None)
