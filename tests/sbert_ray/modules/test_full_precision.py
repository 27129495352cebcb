"""Linear layers in float32 within a model of lower precision."""

import copy
import pickle

import pytest
import torch
from torch import nn

from sbert_ray.modules.full_precision import keep_in_float32


@pytest.mark.parametrize("bias", [True, False])
def test_a_chosen_layer_computes_in_float32(bias: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3, bias=bias)).bfloat16()
    x = torch.randn(4, 8).bfloat16()
    inner = model[0](x)
    expected = nn.functional.linear(inner.float(), model[1].weight.float(), model[1].bias.float() if bias else None)
    keep_in_float32(model, ["1"])
    for same in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert same(x).dtype == torch.float32
        torch.testing.assert_close(same(x), expected)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(same(x), expected)
    assert model[1].weight.dtype == torch.bfloat16
    keep_in_float32(model, [], before=["1"])
    assert model(x).dtype == torch.bfloat16


def test_a_copy_has_weights_of_its_own() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    keep_in_float32(model, ["0"])
    other = copy.deepcopy(model)
    nn.init.zeros_(other[0].weight)
    nn.init.zeros_(other[0].bias)
    x = torch.ones(1, 2)
    assert not other(x).any()
    assert model(x).any()


@pytest.mark.parametrize(
    ("names", "message"), [(["1"], "'1' is ReLU"), (["x"], "'x' is nothing"), ("0", "must be a list"), ([0], "must be")]
)
def test_what_is_no_linear_layer_is_named(names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        keep_in_float32(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), names)
