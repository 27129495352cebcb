"""Fixtures that run a job as its command line does, in this process."""

import signal
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest


class Outcome(NamedTuple):
    """How a command ended, and what it said."""

    code: object
    out: str
    err: str


Command = Callable[..., Outcome]
"""Calls a main function with its arguments."""


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Run a main function to its exit."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(main: Callable[..., Any], *arguments: Any) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(*arguments)
        return Outcome(ended.value.code, *capsys.readouterr())

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where Ray would be started, or one that other tests have started would be used."""

    def refuse(*_: object) -> None:
        raise AssertionError("Ray must not start")

    monkeypatch.setattr("jobs.unit_job.start_ray", refuse)
    monkeypatch.setattr("jobs.unit_job.Pool", refuse)
    monkeypatch.setattr("ray.init", refuse)
