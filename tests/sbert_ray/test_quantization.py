"""Quantization by hand and against the peer."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from sbert_ray.quantization import PRECISIONS, calibration_ranges, dequantize_embeddings, quantize_embeddings

EMBEDDINGS = np.random.default_rng(0).standard_normal((150, 12)).astype(np.float32)
RANGES = np.array([[0.0, -1.0], [255.0, -1.0]], np.float32)  # steps of 1, and of 0, which counts as 1


def test_codes_by_hand() -> None:
    rows = np.array([[0.0, -1.0], [254.9, 3.5], [300.0, -2.0]], np.float32)
    assert quantize_embeddings(rows, "uint8", RANGES).tolist() == [[0, 0], [254, 4], [255, 0]]
    assert quantize_embeddings(rows, "int8", RANGES).tolist() == [[-128, -128], [126, -124], [127, -128]]


def test_bits_by_hand() -> None:
    row = np.array([[1.0, -1.0, 0.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0]])  # 9 bits: the last one starts a byte
    assert quantize_embeddings(row, "ubinary").tolist() == [[0b10011111, 0b10000000]]
    assert quantize_embeddings(row, "binary").tolist() == [[0b10011111 - 128, 0]]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", [np.asarray, torch.tensor, list], ids=["array", "tensor", "list"])
def test_agrees_with_the_peer(precision: str, kind: object) -> None:
    peer = pytest.importorskip("sentence_transformers.util").quantize_embeddings
    for options in ({}, {"calibration_embeddings": EMBEDDINGS[:120] * 0.5}, {"ranges": calibration_ranges(EMBEDDINGS)}):
        ours, theirs = (f(kind(EMBEDDINGS), precision, **options) for f in (quantize_embeddings, peer))
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def test_matrices_of_a_list_share_their_ranges() -> None:
    peer = pytest.importorskip("sentence_transformers.util").quantize_embeddings
    matrices = [EMBEDDINGS[:100], EMBEDDINGS[100:]]
    for ours, theirs in zip(quantize_embeddings(matrices, "int8"), peer(matrices, "int8"), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_half_precision_is_read_as_it_is() -> None:
    half = torch.tensor(EMBEDDINGS).bfloat16()
    np.testing.assert_array_equal(quantize_embeddings(half, "uint8"), quantize_embeddings(half.float(), "uint8"))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_rows_stay_no_rows(precision: str) -> None:
    assert len(quantize_embeddings(np.empty((0, 16), np.float32), precision)) == 0


def test_few_rows_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    quantize_embeddings(EMBEDDINGS[:10], "int8")
    assert "int8 ranges come from 10 embeddings only" in caplog.text


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_codes_stand_for_the_low_ends_of_their_steps(precision: str) -> None:
    ranges = calibration_ranges(EMBEDDINGS)
    values = dequantize_embeddings(quantize_embeddings(EMBEDDINGS, precision, ranges), precision, ranges)
    step = (ranges[1] - ranges[0]) / 255
    assert np.all(values <= EMBEDDINGS + 1e-5)
    assert np.all(EMBEDDINGS - values <= step + 1e-5)
    assert values.dtype == np.float64


@pytest.mark.parametrize("precision", ["binary", "ubinary"])
def test_bits_stand_for_zeros_and_ones(precision: str) -> None:
    values = dequantize_embeddings(quantize_embeddings(EMBEDDINGS, precision), precision, dim=12)
    np.testing.assert_array_equal(values, EMBEDDINGS > 0)
    assert dequantize_embeddings(quantize_embeddings(EMBEDDINGS, precision), precision).shape == (150, 16)


def test_floats_stand_for_themselves() -> None:
    np.testing.assert_array_equal(dequantize_embeddings(EMBEDDINGS, "float32"), EMBEDDINGS)


def test_searches_are_there_on_first_use() -> None:
    code = (
        "import sys, sbert_ray.quantization as q; assert 'torch' not in sys.modules; "
        "q.semantic_search_faiss, q.semantic_search_usearch"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    import sbert_ray.quantization

    with pytest.raises(AttributeError, match=r"module 'sbert_ray.quantization' has no attribute 'search'"):
        sbert_ray.quantization.search  # noqa: B018 (the attribute is what is tested)


@pytest.mark.parametrize(
    ("ranges", "came"),
    [
        (np.zeros((2, 3)), r"got shape \(2, 3\)"),
        (np.zeros(12), r"got shape \(12,\)"),
        (np.zeros((2, 1)), r"got shape \(2, 1\)"),
        (np.zeros((12, 2)), r"got shape \(12, 2\)"),
        (np.full((2, 12), np.nan), r"got nan and nan for dimension 0"),
        (np.array([[0] * 12, [1] * 11 + [np.inf]]), r"got 0\.0 and inf for dimension 11"),
        (np.array([[0] * 12, [1, -2] + [1] * 10]), r"got 0\.0 and -2\.0 for dimension 1"),
    ],
)
@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_ranges_must_be_two_numbers_of_each_dimension(ranges: np.ndarray, came: str, precision: str) -> None:
    message = rf"ranges must be the least and the greatest value of each dimension, of shape \(2, 12\), .*{came}"
    with pytest.raises(ValueError, match=message):
        quantize_embeddings(EMBEDDINGS, precision, ranges)
    with pytest.raises(ValueError, match=message):
        quantize_embeddings(EMBEDDINGS[0], precision, ranges)
    with pytest.raises(ValueError, match=message):
        dequantize_embeddings(np.zeros((3, 12), precision), precision, ranges)


def test_ranges_of_embeddings_that_are_no_numbers_are_refused() -> None:
    embeddings = EMBEDDINGS.copy()
    embeddings[7, 3] = np.nan
    with pytest.raises(ValueError, match="got nan and nan for dimension 3"):
        quantize_embeddings(embeddings, "int8")


def test_errors_say_what_is_needed() -> None:
    with pytest.raises(ValueError, match="unknown precision 'int4'; known precisions are"):
        quantize_embeddings(EMBEDDINGS, "int4")
    with pytest.raises(ValueError, match="int8 of a single embedding needs ranges or calibration_embeddings"):
        quantize_embeddings(EMBEDDINGS[:1], "int8")
    with pytest.raises(ValueError, match="embeddings must be floats, got int8"):
        quantize_embeddings(torch.zeros(3, 2, dtype=torch.int8), "binary")
    with pytest.raises(
        ValueError, match=r"ranges need at least two embeddings \(N, D\), got an array of shape \(1, 12\)"
    ):
        calibration_ranges(EMBEDDINGS[:1])
    with pytest.raises(ValueError, match="unknown precision 'int4'; known precisions are"):
        dequantize_embeddings(EMBEDDINGS, "int4")
    with pytest.raises(ValueError, match="int8 codes need the ranges that made them, got None"):
        dequantize_embeddings(EMBEDDINGS, "int8")
