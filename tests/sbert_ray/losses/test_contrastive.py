"""MultipleNegativesRankingLoss and its relatives against their formula, their gradient and the peer."""

import math

import pytest
import torch
from torch import Tensor

from sbert_ray import SentenceTransformer
from sbert_ray.losses import (
    CachedMultipleNegativesRankingLoss,
    CachedMultipleNegativesSymmetricRankingLoss,
    MegaBatchMarginLoss,
    MultipleNegativesRankingLoss,
    MultipleNegativesSymmetricRankingLoss,
)
from sbert_ray.similarity import cos_sim, dot_score
from tests.sbert_ray.losses.compare import assert_equals_peer, columns_of, peer_losses

B, D = 4, 6
OPTIONS = {
    "default": {},
    "dot": {"similarity_fct": dot_score, "scale": 1.0},
    "both ways": {"directions": ("query_to_doc", "doc_to_query")},
    "both ways by themselves": {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"},
    "all ways": {"directions": ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")},
    "within": {"directions": ("doc_to_doc", "query_to_doc", "query_to_query"), "scale": 5.0},
    "hard in-batch": {"hardness_mode": "in_batch_negatives", "hardness_strength": 5.0},
    "hard own": {"hardness_mode": "hard_negatives", "hardness_strength": 5.0},
    "hard all": {"hardness_mode": "all_negatives", "hardness_strength": 5.0},
}


def by_hand(columns: list[Tensor], **options) -> float:
    """The formula of the docstring, one anchor and one candidate at a time."""
    scale, sim = options.get("scale", 20.0), options.get("similarity_fct", cos_sim)
    mode, strength = options.get("hardness_mode"), options.get("hardness_strength", 0.0)

    def s(a: Tensor, b: Tensor) -> float:
        return sim(a[None], b[None]).item()

    queries, documents = columns[0], [(i, k, column[i]) for k, column in enumerate(columns[1:]) for i in range(B)]
    total = 0.0
    for i in range(B):
        positive, by_direction = columns[1][i], {}
        for direction in options.get("directions", ("query_to_doc",)):
            logits = []
            if direction == "query_to_doc":
                for j, k, document in documents:
                    kind = "positive" if (j, k) == (i, 0) else "own" if j == i else "other"
                    raised = {"in_batch_negatives": ("other",), "hard_negatives": ("own",)}.get(mode, ("own", "other"))
                    extra = strength * s(queries[i], document) if mode and kind in raised else 0.0
                    logits.append(scale * s(queries[i], document) + extra)
            elif direction == "query_to_query":
                logits = [scale * s(queries[i], queries[j]) for j in range(B) if j != i]
            elif direction == "doc_to_query":
                logits = [scale * s(queries[j], positive) for j in range(B)]
            else:
                logits = [scale * s(document, positive) for j, _, document in documents if j != i]
            by_direction[direction] = sum(map(math.exp, logits))
        sums = list(by_direction.values())
        is_joint = options.get("partition_mode", "joint") == "joint"
        partition = math.log(sum(sums)) if is_joint else sum(map(math.log, sums)) / len(sums)
        total += partition - scale * s(queries[i], positive)
    return total / B


@pytest.mark.parametrize("num_columns", [2, 3, 5])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_is_the_formula(options: dict, num_columns: int) -> None:
    columns = columns_of(num_columns, B, D)
    value = MultipleNegativesRankingLoss(None, **options).compute_loss_from_embeddings(columns)
    assert value.item() == pytest.approx(by_hand(columns, **options))


@pytest.mark.parametrize("options", [o for name, o in OPTIONS.items() if "hard" not in name])
def test_gradient_is_right(options: dict) -> None:
    loss = MultipleNegativesRankingLoss(None, **options)
    columns = [column.requires_grad_() for column in columns_of(3, B, D)]
    assert torch.autograd.gradcheck(lambda *columns: loss.compute_loss_from_embeddings(columns), columns)


def test_hardness_is_a_constant() -> None:
    """With the penalty as a given number, the gradient is that of the formula."""
    columns = [column.requires_grad_() for column in columns_of(2, B, D)]
    MultipleNegativesRankingLoss(
        None, hardness_mode="in_batch_negatives", hardness_strength=4.0
    ).compute_loss_from_embeddings(columns).backward()
    found, columns = columns[0].grad, [column.detach().requires_grad_() for column in columns]
    scores = cos_sim(*columns)
    logits = scores * 20 + 4.0 * scores.detach() * (1 - torch.eye(B, dtype=scores.dtype))
    torch.nn.functional.cross_entropy(logits, torch.arange(B)).backward()
    torch.testing.assert_close(found, columns[0].grad)


@pytest.mark.parametrize("num_columns", [2, 4])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("loss", [MultipleNegativesRankingLoss, CachedMultipleNegativesRankingLoss])
def test_equals_the_peer(tiny_pair, loss: type, options: dict, num_columns: int) -> None:
    assert_equals_peer(tiny_pair, loss.__name__, num_columns, options=options)


@pytest.mark.parametrize("loss", [MultipleNegativesRankingLoss, CachedMultipleNegativesRankingLoss])
def test_equals_the_peer_with_a_real_model(minilm_pair, loss: type) -> None:
    assert_equals_peer(minilm_pair, loss.__name__, 3, options={"directions": ("query_to_doc", "doc_to_doc")})


@pytest.mark.filterwarnings("ignore:The .*SymmetricRankingLoss is deprecated:DeprecationWarning")
@pytest.mark.parametrize("loss", [MultipleNegativesSymmetricRankingLoss, CachedMultipleNegativesSymmetricRankingLoss])
def test_symmetric_equals_the_peer(tiny_pair, loss: type) -> None:
    assert_equals_peer(tiny_pair, loss.__name__, 3)


@pytest.mark.parametrize("options", [{}, {"use_mini_batched_version": False}, {"mini_batch_size": 2}])
@pytest.mark.parametrize("margins", [{}, {"positive_margin": 0.95, "negative_margin": 0.01}])
def test_mega_batch_margin_equals_the_peer(tiny_pair, options: dict, margins: dict) -> None:
    assert_equals_peer(tiny_pair, "MegaBatchMarginLoss", 2, options=options | margins)


def test_mega_batch_margin_is_the_formula() -> None:
    columns = columns_of(2, B, D)
    scores = cos_sim(*columns)
    expected = sum(
        max(0.8 - scores[i, i].item(), 0) + max(max(scores[i, j].item() for j in range(B) if j != i) - 0.3, 0)
        for i in range(B)
    )
    value = MegaBatchMarginLoss(None).compute_loss_from_embeddings(columns)
    assert value.item() == pytest.approx(expected / B)


def test_mega_batch_margin_gradient_is_right() -> None:
    loss = MegaBatchMarginLoss(None)
    columns = [column.requires_grad_() for column in columns_of(2, B, D)]
    assert torch.autograd.gradcheck(lambda *columns: loss.compute_loss_from_embeddings(columns), columns)


def test_scaling_of_embeddings_does_not_matter_to_cosines() -> None:
    columns = columns_of(3, B, D)
    loss = MultipleNegativesRankingLoss(None)
    scaled = [column * factor for column, factor in zip(columns, (3.0, 0.01, 1e4), strict=True)]
    torch.testing.assert_close(loss.compute_loss_from_embeddings(scaled), loss.compute_loss_from_embeddings(columns))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"directions": ("query_to_query",)}, "must contain 'query_to_doc'"),
        ({"directions": ("query_to_doc", "up")}, r"directions must be among .* got \['up'\]"),
        ({"directions": ("query_to_doc", "query_to_doc")}, "must differ"),
        ({"partition_mode": "both"}, "partition_mode must be 'joint' or 'per_direction', got 'both'"),
        (
            {"directions": ("query_to_doc", "doc_to_doc"), "partition_mode": "per_direction"},
            r"'per_direction' has no positives in \['doc_to_doc'\]",
        ),
        ({"hardness_mode": "soft"}, "hardness_mode must be None or one of"),
        ({"hardness_mode": "all_negatives", "hardness_strength": -1.0}, "hardness_strength must not be negative"),
        ({"scale": 0.0}, "scale must be positive, got 0.0"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultipleNegativesRankingLoss(None, **options)


@pytest.mark.parametrize("options", [{"mini_batch_size": 0}, {"mini_batch_num_tokens": -1}])
def test_bad_mini_batches_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(options))} must be positive"):
        CachedMultipleNegativesRankingLoss(None, **options)


def test_config_is_that_of_the_peer() -> None:
    options = {"scale": 5.0, "similarity_fct": dot_score, "hardness_mode": "all_negatives", "hardness_strength": 2.0}
    ours = MultipleNegativesRankingLoss(None, **options).get_config_dict()
    assert ours == peer_losses().MultipleNegativesRankingLoss(None, **options).get_config_dict()


def test_columns_are_one_forward_pass(tiny_model: SentenceTransformer) -> None:
    calls = []
    tiny_model.register_forward_pre_hook(lambda _, args: calls.append(args[0]))
    features = [tiny_model.preprocess(texts) for texts in (["a cat", "the dog"], ["a fast cat sat", "dog"])]
    MultipleNegativesRankingLoss(tiny_model)(features)
    [call] = calls
    assert call["packing"].num_texts == 4
    assert call["packing"].num_tokens == sum(int(column["attention_mask"].sum()) for column in features)
