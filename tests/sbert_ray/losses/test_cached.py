"""Cached losses are the plain ones, value and gradients, for every loss, with dropout and with any mini-batches."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sbert_ray import SentenceTransformer
from sbert_ray.losses import CachedLoss, CachedMultipleNegativesRankingLoss, MultipleNegativesRankingLoss
from tests.sbert_ray.losses.cases import CASES, Case, D, Toy
from tests.sbert_ray.losses.compare import assert_close, features_of, gradients, text_columns
from tests.sbert_ray.losses.oracle import total

SIZE = 10


class Remembering(nn.Module):
    """A model that gives the same dropout to a row whenever it comes, as both passes of caching must."""

    def __init__(self) -> None:
        super().__init__()
        self.toy = Toy()

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        found = self.toy(features)["sentence_embedding"]
        kept = (features["x"][:, :1] * 1e4 + torch.arange(D)).sin() > -0.5
        return features | {"sentence_embedding": found * kept / 0.75}

    def get_embedding_dimension(self) -> int:
        return D


@pytest.mark.parametrize("mini_batch_size", [1, 3, 100])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_value_and_gradients_are_those_of_the_whole_batch(case: Case, mini_batch_size: int) -> None:
    found = []
    for wrap in (lambda model, loss: loss, lambda model, loss: CachedLoss(model, loss, mini_batch_size)):
        model = Remembering()
        loss = wrap(model, case.loss(model))
        value = total(loss(case.features(SIZE), case.targets(SIZE)))
        (value * 3.0).backward()  # as a scaler of gradients does
        found.append({"": value.detach()} | {name.removeprefix("loss."): g for name, g in gradients(loss).items()})
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_both_passes_draw_the_same_dropout(case: Case) -> None:
    model = Toy(dropout=0.3).train()
    seen: list[Tensor] = []
    model.register_forward_hook(lambda _module, _args, output: seen.append(output["sentence_embedding"].detach()))
    torch.manual_seed(1)
    total(CachedLoss(model, case.loss(model), 3)(case.features(SIZE), case.targets(SIZE))).backward()
    first, second = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert len(first) == len(second) >= 4
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    assert any((one != other).any() for one, other in pairwise(first))


@pytest.mark.parametrize("options", [{"mini_batch_size": 2}, {"mini_batch_num_tokens": 11}, {"mini_batch_size": 99}])
def test_mini_batches_of_texts(tiny_model: SentenceTransformer, options: dict) -> None:
    columns = text_columns(3, 6)
    found = []
    for loss in (MultipleNegativesRankingLoss(tiny_model), CachedMultipleNegativesRankingLoss(tiny_model, **options)):
        tiny_model.zero_grad()
        value = loss(features_of(tiny_model, columns))
        value.backward()
        found.append(({"": value.detach()}, gradients(tiny_model)))
    assert_close(found[1], found[0])


def test_activations_are_those_of_one_mini_batch(tiny_model: SentenceTransformer) -> None:
    tokens: list[int] = []
    rows: list[int] = []

    def note(_module: nn.Module, args: Any) -> None:
        rows.append(args[0]["packing"].num_texts)
        tokens.append(args[0]["packing"].num_tokens)

    tiny_model.register_forward_pre_hook(note)
    features = features_of(tiny_model, text_columns(2, 12))
    CachedMultipleNegativesRankingLoss(tiny_model, mini_batch_size=5)(features).backward()
    assert max(rows) == 5
    assert sum(rows) == 2 * 24
    rows.clear(), tokens.clear()
    CachedMultipleNegativesRankingLoss(tiny_model, mini_batch_num_tokens=40)(features).backward()
    assert max(tokens) <= 40
    assert sum(rows) == 2 * 24


def test_nothing_is_run_twice_without_gradients() -> None:
    model = Toy()
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    case = next(case for case in CASES if case.name == "MultipleNegativesRankingLoss")
    with torch.no_grad():
        value = CachedLoss(model, case.loss(model), 5)(case.features(SIZE))
    assert not value.requires_grad
    assert len(calls) == 3 * 2
    torch.testing.assert_close(value, case.loss(model)(case.features(SIZE)).detach())


def test_autocast_is_that_of_the_first_pass() -> None:
    model = Toy().float()
    seen: list[torch.dtype] = []
    model.layers[0].register_forward_hook(lambda _module, _args, output: seen.append(output.dtype))
    features = [{"x": torch.randn(4, 6)} for _ in range(2)]
    with torch.autocast("cpu", torch.bfloat16):
        value = CachedMultipleNegativesRankingLoss(model, mini_batch_size=2)(features)
    value.backward()
    assert seen == [torch.bfloat16] * 8


def test_gradients_reach_weights_of_the_loss_itself() -> None:
    case = next(case for case in CASES if case.name == "SoftmaxLoss")
    model = Toy()
    loss = CachedLoss(model, case.loss(model), 4)
    total(loss(case.features(SIZE), case.targets(SIZE))).backward()
    assert any("classifier" in name for name in gradients(loss))
