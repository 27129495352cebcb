"""The console script: which job it runs, and what it says otherwise."""

import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from jobs.cli import JOBS, main
from jobs.job import Job
from jobs.verify import VerifyJob
from tests.jobs.conftest import Command


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]], ids=["nothing", "--help", "-h"])
def test_help_lists_the_jobs(command: Command, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["sbert-ray", *arguments])
    outcome = command(main)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("usage: sbert-ray JOB [--config FILE] [--option VALUE ...]\n\n  embed ")
    width = max(map(len, JOBS))
    for name, (_, _, what) in JOBS.items():
        assert f"  {name:<{width}}  {what}\n" in outcome.out


def test_an_unknown_job_is_refused_with_the_known_ones(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["sbert-ray", "embbed"])
    outcome = command(main)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("unknown job 'embbed'\nusage: sbert-ray JOB")
    assert "  embed     embed the texts" in outcome.err


def test_the_first_argument_names_the_job(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["sbert-ray", "verify", "/there", "--input", "/here"])
    seen: list[VerifyJob] = []
    monkeypatch.setattr(VerifyJob, "run", lambda job: seen.append(job) or 1)
    assert command(main).code == 1
    assert seen == [VerifyJob(output="/there", input="/here")]


@pytest.mark.parametrize("name", JOBS)
def test_each_job_is_there_under_its_name(name: str) -> None:
    module, class_name, _ = JOBS[name]
    job = getattr(import_module(module), class_name)
    assert issubclass(job, Job)
    assert job.command == name


def test_the_console_script_is_installed() -> None:
    [script] = entry_points(group="console_scripts", name="sbert-ray")
    assert script.value == "jobs.cli:main"
    done = subprocess.run(
        [Path(sys.executable).with_name("sbert-ray"), "--help"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("usage: sbert-ray JOB")
