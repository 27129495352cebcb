"""Which dtype a model gets, and the probe for CPUs that die of bfloat16."""

import subprocess

import pytest
import torch

from sbert_ray.inference import precision


@pytest.mark.parametrize(
    ("requested", "stored", "device", "expected"),
    [
        (None, torch.bfloat16, "cpu", torch.float32),
        (None, torch.bfloat16, "cuda", torch.bfloat16),
        (None, None, "cuda", torch.float32),
        ("auto", "float16", "cpu", torch.float16),
        ("float16", torch.float32, "cpu", torch.float16),
        (torch.float64, torch.float32, "cpu", torch.float64),
        ("bfloat16", torch.float32, "cuda:1", torch.bfloat16),
    ],
)
def test_chooses_the_dtype(requested: object, stored: object, device: str, expected: torch.dtype) -> None:
    assert precision.load_dtype(requested, stored, device) == expected


@pytest.mark.parametrize("name", ["int8", "half-ish", 16])
def test_rejects_other_names(name: object) -> None:
    with pytest.raises(ValueError, match="dtype must be 'auto', 'float32', 'float16' or 'bfloat16', got"):
        precision.load_dtype(name, None, "cpu")


@pytest.fixture
def _fresh_probe() -> None:
    precision.check_bfloat16_on_cpu.cache_clear()


@pytest.mark.usefixtures("_fresh_probe")
def test_a_cpu_that_dies_of_bfloat16_is_found_out_first(monkeypatch: pytest.MonkeyPatch) -> None:
    died = subprocess.CompletedProcess([], returncode=-4)
    monkeypatch.setattr(precision.subprocess, "run", lambda *args, **kwargs: died)
    with pytest.raises(RuntimeError, match="exit code -4; set ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 before"):
        precision.load_dtype("bfloat16", None, "cpu")


@pytest.mark.usefixtures("_fresh_probe")
def test_the_probe_passes_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
    assert precision.load_dtype("bfloat16", None, "cpu") == torch.bfloat16
