"""Which number format a model gets, and what is said about it."""

import logging
from typing import Any

import pytest
import torch

from sbert_ray.inference import precision
from sbert_ray.inference.cpu_trial import Trial
from sbert_ray.inference.precision import Precision, load_precision


@pytest.fixture(autouse=True)
def trials(monkeypatch: pytest.MonkeyPatch) -> dict[str, Trial]:
    """What trials find, by format."""
    found = {"bfloat16": Trial(3.0), "float16": Trial(1.0), "int8": Trial(2.5)}
    monkeypatch.setattr(precision, "trial", lambda name, num_threads: found[name])
    return found


@pytest.mark.parametrize(
    ("requested", "stored", "device", "expected"),
    [
        (None, torch.bfloat16, "cpu", torch.float32),
        (None, torch.bfloat16, "cuda", torch.bfloat16),
        (None, None, "cuda", torch.float32),
        ("auto", "float16", "cpu", torch.float16),
        ("auto", None, "cpu", torch.float32),
        ("float16", torch.float32, "cpu", torch.float16),
        ("bfloat16", torch.float32, "cpu", torch.bfloat16),
        (torch.float64, torch.float32, "cpu", torch.float64),
        ("bfloat16", torch.float32, "cuda:1", torch.bfloat16),
        ("fastest", torch.float32, "cpu", torch.bfloat16),
        ("fastest", torch.float16, "mps", torch.float32),
    ],
)
def test_chooses_the_dtype(requested: object, stored: object, device: str, expected: torch.dtype) -> None:
    assert load_precision(requested, stored, device) == Precision(expected)


def test_int8_loads_float32() -> None:
    assert load_precision("int8", torch.bfloat16, "cpu") == Precision(torch.float32, is_int8=True)


def test_int8_needs_a_cpu() -> None:
    with pytest.raises(ValueError, match="dtype='int8' must run on a CPU, got device 'cuda:0'"):
        load_precision("int8", None, "cuda:0")


@pytest.mark.parametrize("name", ["int4", "half-ish", 16, torch.int8])
def test_rejects_other_names(name: object) -> None:
    known = "'auto', 'fastest', 'float32', 'float16', 'bfloat16' or 'int8'"
    with pytest.raises(ValueError, match=f"dtype must be {known}, got"):
        load_precision(name, None, "cpu")


@pytest.mark.parametrize("name", ["bfloat16", "float16", "int8"])
def test_a_cpu_that_dies_of_a_format_is_found_out_first(name: str, trials: dict[str, Trial]) -> None:
    trials[name] = Trial(None, "a trial matrix product ended with exit code -4")
    with pytest.raises(RuntimeError, match=f"{name} must work on this CPU, but .* code -4; set ONEDNN_MAX_CPU_ISA="):
        load_precision(name, None, "cpu")


@pytest.mark.parametrize("name", ["bfloat16", "float16", "int8"])
def test_a_slower_format_is_honoured_and_warned_about(
    name: str, trials: dict[str, Trial], caplog: pytest.LogCaptureFixture
) -> None:
    trials[name] = Trial(0.75)
    found = load_precision(name, None, "cpu")
    assert found == Precision(torch.float32, is_int8=True) if name == "int8" else Precision(getattr(torch, name))
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert f"dtype='{name}' is only 0.75 times as fast as float32 on this CPU with" in record.getMessage()


def test_a_faster_format_is_not_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        load_precision("bfloat16", None, "cpu")
    [record] = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage().startswith("bfloat16 is 3.00 times as fast as float32 on this CPU with")


@pytest.mark.parametrize(
    ("found", "dtype", "why"),
    [
        (Trial(2.0), torch.bfloat16, "as bfloat16 is 2.00 times as fast as float32 on this CPU"),
        (Trial(1.1), torch.float32, "as bfloat16 is 1.10 times as fast as float32 on this CPU"),
        (Trial(None, "it died"), torch.float32, "as bfloat16 is of no use: it died on this CPU"),
    ],
    ids=["faster", "no gain", "dies"],
)
def test_the_fastest_on_a_cpu_is_tried_and_logged(
    found: Trial, dtype: torch.dtype, why: str, trials: dict[str, Trial], caplog: pytest.LogCaptureFixture
) -> None:
    trials["bfloat16"] = found
    with caplog.at_level(logging.INFO):
        assert load_precision("fastest", torch.float32, "cpu") == Precision(dtype)
    assert caplog.messages == [f"dtype='fastest' chose {dtype}, {why}"]


class _Device:
    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __enter__(self) -> None: ...

    def __exit__(self, *args: object) -> None: ...


@pytest.mark.parametrize(("has_bfloat16", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_the_fastest_on_a_gpu_is_what_its_hardware_has(
    has_bfloat16: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(torch.cuda, "device", _Device)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: asked.append(options) or has_bfloat16)
    with caplog.at_level(logging.INFO):
        assert load_precision("fastest", torch.float32, "cuda:1") == Precision(dtype)
    assert asked == [{"including_emulation": False}]
    has = "has" if has_bfloat16 else "lacks"
    assert caplog.messages == [f"dtype='fastest' chose {dtype}, as cuda:1 {has} bfloat16 in hardware"]
