"""Operations and the peak that they are held against."""

import json

import pytest

from benchmarks.machine import ModelSizes, describe_lengths, describe_machine, gemm_peak

MINILM = ModelSizes(6, 384, 1536)


def test_operations_are_those_of_the_formula():
    # docs of the model: 21.23 MFLOP a token, and 9,216 for each token that it attends to
    assert MINILM.flops([1]) == pytest.approx(21.23e6 + 9216, rel=1e-3)
    assert MINILM.flops([100]) == pytest.approx(100 * (21.23e6 + 9216 * 100), rel=1e-3)
    assert MINILM.flops([7, 9]) == MINILM.flops([7]) + MINILM.flops([9])


def test_a_last_layer_read_at_first_tokens_alone_takes_less():
    length = 30
    layer = MINILM.flops([length]) / 6
    keys_and_values = 4 * 384**2 * length
    rest = 4 * 384**2 + 4 * 384 * 1536 + 4 * 384 * length
    expected = 5 * layer + keys_and_values + rest
    assert MINILM.flops([length], first_tokens_only=True) == pytest.approx(expected)
    assert MINILM.flops([1], first_tokens_only=True) == MINILM.flops([1])


def test_a_head_reads_every_token():
    headed = ModelSizes(6, 384, 1536, 30_522)
    assert headed.flops([10]) - MINILM.flops([10]) == 10 * 2 * 384 * (384 + 30_522)
    assert headed.gemms()[-1].flops_per_token == 2 * 384 * (384 + 30_522)


def test_products_weigh_what_a_token_takes():
    assert sum(gemm.flops_per_token for gemm in MINILM.gemms()) == 6 * 2 * (4 * 384**2 + 2 * 384 * 1536)


def test_sizes_are_read_from_a_checkpoint(tmp_path):
    config = {"num_hidden_layers": 2, "hidden_size": 8, "intermediate_size": 16, "vocab_size": 99}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert ModelSizes.read(tmp_path) == ModelSizes(2, 8, 16)
    assert ModelSizes.read(tmp_path, has_head=True) == ModelSizes(2, 8, 16, 99)


def test_the_peak_is_that_of_a_machine():
    assert gemm_peak(ModelSizes(1, 32, 64).gemms(), repeats=1) > 1e6


def test_machine_and_lengths_are_described():
    assert "cores, ONEDNN_MAX_CPU_ISA=" in describe_machine()
    assert describe_lengths([1, 2, 3]) == "2.0 tokens each (median 2, 95 % up to 3, longest 3)"
