"""The 8-bit linear layer against float32, and what it does with odd inputs."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sbert_ray.inference import int8
from sbert_ray.inference.cpu_trial import Trial
from sbert_ray.inference.int8 import QuantizedLinear, outputs_of


@pytest.fixture(autouse=True)
def _code_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """CI sets ONEDNN_MAX_CPU_ISA; 63 is right on every CPU, 127 on those with VNNI, and no trial takes time here."""
    limit = 127 if "avx512_vnni" in _cpu_flags() else 63
    monkeypatch.setattr(int8, "trial", lambda *args: Trial(2.0, code_limit=limit))


def _cpu_flags() -> list[str]:
    return [name for name, is_there in torch.cpu.get_capabilities().items() if is_there is True]


def layer_of(num_inputs: int, num_outputs: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(num_outputs, num_inputs, generator=generator) / num_inputs**0.5
    return weight, torch.randn(num_outputs, generator=generator)


def inputs(num_rows: int, num_inputs: int, seed: int = 1) -> Tensor:
    return torch.randn(num_rows, num_inputs, generator=torch.Generator().manual_seed(seed))


def formula(x: Tensor, weight: Tensor, bias: Tensor | None, limit: int) -> Tensor:
    """The docstring's formula in float64."""
    s = weight.double().abs().amax(1) / limit
    t = x.double().abs().amax(1, keepdim=True) / 127
    q, p = (weight / s[:, None]).round(), (x / t).round()
    return (p @ q.T * s * t + (0 if bias is None else bias)).float()


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("num_rows", [1, 2, 37, 512, 1025, 1500])
@pytest.mark.parametrize(("num_inputs", "num_outputs"), [(384, 1152), (1536, 384), (1, 1), (7, 5), (16384, 3)])
@pytest.mark.parametrize("has_bias", [True, False], ids=["bias", "no bias"])
def test_is_the_formula(num_rows: int, num_inputs: int, num_outputs: int, has_bias: bool) -> None:
    weight, bias = layer_of(num_inputs, num_outputs)
    x = inputs(num_rows, num_inputs)
    found = QuantizedLinear(weight, bias if has_bias else None)(x)
    limit = int8.trial("int8", 1).code_limit
    expected = formula(x, weight, bias if has_bias else None, limit)
    assert found.dtype == torch.float32
    # A value in the middle of two codes may go either way.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=float(expected.abs().max()) * 0.02 + 1e-6)
    assert relative_error(found, expected) < 1e-3


@pytest.mark.parametrize(("outlier", "bound"), [(1.0, 0.012), (20.0, 0.04), (100.0, 0.06)])
def test_is_near_float32_with_outliers_in_rows_and_columns(outlier: float, bound: float) -> None:
    weight, _ = layer_of(384, 1536)
    x = inputs(600, 384)
    x[:, 7] *= outlier
    x[5] *= outlier * 1000  # another row's size is of no account, unlike with one step for all
    found, expected = QuantizedLinear(weight)(x), F.linear(x, weight)
    assert max(relative_error(*rows) for rows in zip(found, expected, strict=True)) < bound * 4
    others = torch.arange(600) != 5
    assert relative_error(found[others], expected[others]) < bound


def test_gelu_is_the_exact_one() -> None:
    weight, bias = layer_of(384, 1536)
    layer, x = QuantizedLinear(weight, bias), inputs(700, 384)
    torch.testing.assert_close(layer(x, activation="gelu"), F.gelu(layer(x)), rtol=0, atol=1e-6)


def test_rows_of_zeros_give_the_bias_and_equal_rows_equal_outputs() -> None:
    weight, bias = layer_of(384, 96)
    layer = QuantizedLinear(weight, bias)
    torch.testing.assert_close(layer(torch.zeros(3, 384)), bias.expand(3, -1))
    assert QuantizedLinear(weight)(torch.zeros(3, 384)).abs().max() == 0
    same = layer(inputs(1, 384).expand(40, -1))
    assert torch.equal(same, same[:1].expand(40, -1))
    assert torch.isfinite(layer(torch.full((2, 384), 1e-30))).all()
    torch.testing.assert_close(layer(inputs(4, 384) * 1e30) / 1e30, layer(inputs(4, 384)) - bias, rtol=1e-3, atol=1e-4)


def test_weights_of_zeros_give_the_bias() -> None:
    bias = torch.tensor([1.0, -2.0])
    torch.testing.assert_close(QuantizedLinear(torch.zeros(2, 8), bias)(inputs(3, 8)), bias.expand(3, -1))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("has_bias", [True, False], ids=["bias", "no bias"])
def test_a_row_that_is_not_finite_spoils_itself_alone(value: float, has_bias: bool) -> None:
    weight, bias = layer_of(384, 96)
    layer, x = QuantizedLinear(weight, bias if has_bias else None), inputs(20, 384)
    clean = layer(x)
    x[3, 11] = value
    found = layer(x)
    assert not torch.isfinite(found[3]).any()
    others = torch.arange(20) != 3
    assert torch.equal(found[others], clean[others])


def test_a_row_gives_the_same_whatever_is_beside_it() -> None:
    weight, bias = layer_of(384, 1536)
    layer, x = QuantizedLinear(weight, bias), inputs(1200, 384)
    together = layer(x, activation="gelu")
    for rows in (slice(0, 1), slice(700, 733), slice(3, 1093)):
        torch.testing.assert_close(layer(x[rows], activation="gelu"), together[rows], rtol=1e-6, atol=1e-6)
    assert torch.equal(layer(x, activation="gelu"), together)


def test_pads_rows_to_few_numbers() -> None:
    padded = [int8._padded(num_rows) for num_rows in range(1, 1025)]
    assert len(set(padded)) == 23
    assert all(0 <= more - num_rows < 64 for num_rows, more in enumerate(padded, 1))


def test_writes_to_the_output_that_it_is_given() -> None:
    weight, bias = layer_of(384, 96)
    layer, x = QuantizedLinear(weight, bias), inputs(600, 384)
    out = torch.empty(700, 128)
    found = layer(x, out=out[:600, :96])  # neither whole nor contiguous
    assert found.data_ptr() == out.data_ptr()
    assert torch.equal(out[:600, :96], layer(x))
    whole = torch.zeros(700, 96)
    assert layer(x, out=whole[50:650]).data_ptr() == whole[50:].data_ptr()
    assert torch.equal(whole[50:650], layer(x))
    assert whole[:50].abs().max() == whole[650:].abs().max() == 0
    assert layer(x[:0]).shape == (0, 96)
    assert torch.equal(layer(x.T.contiguous().T), layer(x))


def test_works_in_inference_mode_and_out_of_it() -> None:
    weight, bias = layer_of(64, 32)
    weight.requires_grad_()
    layer, x = QuantizedLinear(weight, bias), inputs(5, 64)
    with torch.inference_mode():
        first = layer(x)
    again = layer(x.clone().requires_grad_())
    assert torch.equal(first, again)
    assert not again.requires_grad


def test_threads_do_not_disturb_each_other() -> None:
    layers = [QuantizedLinear(*layer_of(384, 256, seed)) for seed in range(3)]
    xs = [inputs(300 + 100 * seed, 384, seed) for seed in range(3)]
    alone = [layer(x) for layer, x in zip(layers, xs, strict=True)]
    work = [index % 3 for index in range(60)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda index: layers[index](xs[index]), work))
    assert all(torch.equal(result, alone[index]) for index, result in zip(work, found, strict=True))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_give_the_same(duplicate: object) -> None:
    layer, x = QuantizedLinear(*layer_of(384, 96)), inputs(9, 384)
    assert torch.equal(duplicate(layer)(x), layer(x))  # type: ignore[operator]


def test_codes_are_made_coarser_on_a_cpu_that_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, bias = layer_of(384, 96)
    pickled = pickle.dumps(QuantizedLinear(weight, bias, code_limit=127))
    monkeypatch.setattr(int8, "trial", lambda *args: Trial(1.5, code_limit=63))
    layer = pickle.loads(pickled)
    assert layer._codes.abs().max() == 63
    x = inputs(50, 384)
    assert relative_error(layer(x), F.linear(x, weight, bias)) < 0.02


def test_changing_the_weights_later_changes_nothing() -> None:
    weight, bias = layer_of(64, 32)
    layer, x = QuantizedLinear(weight, bias), inputs(5, 64)
    before = layer(x)
    weight.zero_()
    bias.zero_()
    assert torch.equal(layer(x), before)


@pytest.mark.parametrize("shape", [(3,), (2, 0), (1, 2**31 // (255 * 127) + 1)])
def test_rejects_weights_of_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"weight must be \(N, K\) with K up to 66311, got"):
        QuantizedLinear(torch.zeros(shape))


def test_rejects_a_bias_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"bias must be \(2,\), got \(3,\)"):
        QuantizedLinear(torch.zeros(2, 4), torch.zeros(3))


def test_says_so_where_the_cpu_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "trial", lambda *args: Trial(None, "a trial matrix product ended with exit code -4"))
    with pytest.raises(RuntimeError, match=r"int8 must work on this CPU, but a trial .* code -4; load with dtype='flo"):
        QuantizedLinear(torch.zeros(2, 4))


@pytest.mark.parametrize("num_rows", [1, 8, 70, 1500])
def test_outputs_can_be_added_to_what_is_there(num_rows: int) -> None:
    layer = QuantizedLinear(torch.randn(48, 96), torch.randn(48))
    x, total = torch.nn.functional.gelu(torch.randn(num_rows, 96)), torch.randn(num_rows, 48)
    expected = total + layer(x)
    torch.testing.assert_close(layer.add_to(total.clone(), x), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(layer.add_to(total.clone(), x, least=-0.17), expected, atol=1e-5, rtol=1e-5)


def test_several_layers_share_rounded_inputs() -> None:
    layers = [QuantizedLinear(torch.randn(size, 96), torch.randn(size)) for size in (48, 64)]
    x = torch.randn(1100, 96)
    outs = [torch.empty(1100, size) for size in (48, 64)]
    outputs_of(layers, x, outs)
    for layer, out in zip(layers, outs, strict=True):
        torch.testing.assert_close(out, layer(x), atol=0, rtol=0)
