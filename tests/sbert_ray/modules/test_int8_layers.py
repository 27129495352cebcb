"""Models whose linear layers compute in 8-bit integers."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sbert_ray import SentenceTransformer
from sbert_ray.inference import int8, precision
from sbert_ray.inference.cpu_trial import Trial
from sbert_ray.modules.int8_layers import compute_in_int8


@pytest.fixture(autouse=True)
def _no_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (int8, precision):
        monkeypatch.setattr(module, "trial", lambda *args: Trial(2.0, code_limit=63))  # right on every CPU


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 128), nn.GELU(), nn.Linear(128, 64, bias=False), nn.Linear(64, 2))


def test_large_linear_layers_compute_in_int8_and_a_head_does_not() -> None:
    exact, rounded = model(), model()
    compute_in_int8(rounded)
    x = torch.randn(3, 5, 32)
    with torch.no_grad():
        assert rounded(x).shape == (3, 5, 2)
        error = (rounded[:3](x) - exact[:3](x)).norm() / exact[:3](x).norm()
        assert 0 < error < 0.03
        hidden = torch.randn(4, 64)
        assert torch.equal(rounded[3](hidden), exact[3](hidden))


def test_weights_stay_and_learn_and_are_rounded_anew() -> None:
    exact, rounded = model(), model()
    compute_in_int8(rounded)
    x = torch.randn(4, 32)
    assert rounded.state_dict().keys() == exact.state_dict().keys()
    assert torch.equal(rounded(x), exact(x))  # while gradients are wanted
    with torch.no_grad():
        before = rounded[0](x)
    rounded(x).sum().backward()
    torch.optim.SGD(rounded.parameters(), lr=1.0).step()
    with torch.no_grad():
        after = rounded[0](x)
        plain = nn.functional.linear(x, rounded[0].weight, rounded[0].bias)
    assert (after - before).norm() > (after - plain).norm()
    rounded[0].weight.data = torch.zeros(128, 32)
    with torch.no_grad():
        torch.testing.assert_close(rounded[0](x), rounded[0].bias.expand(4, -1))


def test_a_copy_computes_the_same_with_its_own_weights() -> None:
    rounded, x = model(), torch.randn(4, 32)
    compute_in_int8(rounded)
    with torch.no_grad():
        expected = rounded(x)
        other = copy.deepcopy(rounded)
        assert torch.equal(other(x), expected)
        other[0].weight.zero_()
        assert torch.equal(rounded(x), expected)
        assert not torch.equal(other(x), expected)


def test_leaving_the_cpu_is_an_error() -> None:
    rounded = model()
    compute_in_int8(rounded)
    with torch.no_grad(), pytest.raises(RuntimeError, match="dtype='int8' must stay on the CPU, got inputs on meta"):
        rounded(torch.zeros(2, 32, device="meta"))


def test_a_checkpoint_embeds_in_int8(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sbert_ray.modules.int8_layers._MIN_OUTPUTS", 1)  # a tiny model has tiny layers
    texts = ["a red fox", "the dog sleeps", "a fox"]
    exact = SentenceTransformer(str(tiny_checkpoint), device="cpu")
    rounded = SentenceTransformer(str(tiny_checkpoint), device="cpu", model_kwargs={"dtype": "int8"})
    expected, found = exact.encode(texts), rounded.encode(texts)
    assert not np.array_equal(found, expected)
    cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() > 0.99
    rounded.save(str(tmp_path / "saved"))
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_array_equal(again.encode(texts), expected)
