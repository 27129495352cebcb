"""The trial of number formats in a process of its own."""

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from sbert_ray.inference import cpu_trial
from sbert_ray.inference.cpu_trial import Trial, trial


@pytest.fixture(autouse=True)
def _fresh_trials() -> Iterator[None]:
    trial.cache_clear()
    yield
    trial.cache_clear()


def answer(monkeypatch: pytest.MonkeyPatch, **result: Any) -> list[Any]:
    """Let the process end so, and return the commands that are run."""
    commands: list[Any] = []
    process = subprocess.CompletedProcess([], **({"returncode": 0, "stdout": "", "stderr": ""} | result))
    monkeypatch.setattr(cpu_trial.subprocess, "run", lambda command, **kwargs: commands.append(command) or process)
    return commands


@pytest.mark.parametrize("format_name", ["bfloat16", "float16", "int8"])
def test_measures_in_a_process_that_may_die(format_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")  # without it the process may really die
    found = trial(format_name, 1)
    assert found.reason == ""
    assert found.ratio is not None
    assert 0.001 < found.ratio < 100
    assert found.code_limit in (63, 127)


@pytest.mark.slow
def test_finds_out_that_products_saturate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")  # an older CPU than those with VNNI
    assert trial("int8", 1).code_limit == 63


def test_runs_once_for_each_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = answer(monkeypatch, stdout='a warning\n{"ratio": 2.5, "reason": "", "code_limit": 127}\n')
    assert [trial("int8", 1), trial("int8", 1), trial("int8", 2)] == [Trial(2.5)] * 3
    assert [command[-2:] for command in commands] == [["int8", "1"], ["int8", "2"]]


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({"returncode": -4}, "a trial matrix product ended with exit code -4"),
        (
            {"returncode": 1, "stderr": "Traceback\n  ...\nAttributeError: no qlinear\n"},
            "a trial matrix product ended with exit code 1 (AttributeError: no qlinear)",
        ),
    ],
)
def test_says_how_the_process_ended(result: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, **result)
    assert trial("bfloat16", 1) == Trial(None, reason)


def test_waits_for_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], timeout: float, **kwargs: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(cpu_trial.subprocess, "run", hang)
    assert trial("float16", 1) == Trial(None, "a trial matrix product took more than 120 seconds")


@pytest.mark.parametrize(
    ("exact", "expected"), [({127, 63}, Trial(3.0)), ({63}, Trial(3.0, code_limit=63)), (set(), None)]
)
def test_takes_the_codes_that_do_not_saturate(
    exact: set[int], expected: Trial | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_trial, "_is_exact", lambda limit: limit in exact)
    monkeypatch.setattr(cpu_trial, "_ratio", lambda *args: 3.0)
    monkeypatch.setattr(torch.ops.onednn, "qlinear_prepack", lambda *args: None)
    assert cpu_trial._measured("int8") == (expected or Trial(None, "a trial product of 8-bit matrices was wrong"))


def test_the_ratio_is_that_of_the_best_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    baseline_seconds = iter([9.0, 0.8, 0.2, 0.4] + [0.4] * 100)  # the first round is for warming up

    def spend(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(cpu_trial.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(cpu_trial, "_SECONDS", 15.0)
    assert cpu_trial._ratio(lambda: spend(next(baseline_seconds)), lambda: spend(0.1)) == 2.0
