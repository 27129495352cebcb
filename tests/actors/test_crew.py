"""How actors come to life, and what the pool does without those that do not."""

import importlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
import ray

from actors.crew import Crew
from actors.pool import Pool, PoolError, PoolOptions, UnitFailedError
from sbert_ray.data.errors import InputError
from sbert_ray.data.units import Unit
from tests.actors.unreadable import TwoPartError

pytestmark = pytest.mark.usefixtures("ray_local")

Start = Callable[[Path, int], None]


class Worker:
    """Notes each time that it is built, after which ``start`` may raise; dies in unit 3, once."""

    def __init__(self, folder: Path, start: Start) -> None:
        self.folder = folder
        start(folder, next(number for number in count(1) if first(folder / f"start-{number}")))

    def process(self, unit: Unit, beat: Callable[[int], None]) -> int:
        if unit.index == 3 and first(self.folder / "died"):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
        return os.getpid()


class Unimportable:
    """A worker's recipe that a node cannot read, as where a package is missing."""

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, ("no_such_package",)

    def __call__(self) -> None:
        raise AssertionError("it was read after all")


def first(path: Path) -> bool:
    """Create a file, and return whether it was not there."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def fail(error: Exception, folder: Path, number: int) -> None:
    raise error


def fail_in_two_parts(folder: Path, number: int) -> None:
    raise TwoPartError("no model", "no disk")


def fail_but_once(folder: Path, number: int) -> None:
    if not first(folder / "healthy"):
        (folder / f"failed-{number}").touch()
        raise ConnectionError("no hub")


def fail_every_other_time(folder: Path, number: int) -> None:
    if number % 2:
        raise ConnectionError("no hub")


def sleep() -> None:
    time.sleep(600)


def run(folder: Path, start: Start, **options: Any) -> list[int]:
    """Return the units that were done."""
    with Pool(partial(Worker, folder, start), PoolOptions(**{"num_workers": 1, "max_attempts": 2, **options})) as pool:
        units = (Unit(index, "a.parquet", index, index + 1) for index in range(5))
        return sorted(done.unit.index for done in pool.run(units) if done is not None)


def test_an_actor_that_cannot_start_is_given_up_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def stream() -> Iterator[Unit]:
        for index in count(4):
            if "is given up" in caplog.text:
                return
            yield Unit(index, "a.parquet", index, index + 1)

    options = PoolOptions(num_workers=2, max_attempts=3)
    with Pool(partial(Worker, tmp_path, fail_but_once), options) as pool:
        done = [(time.time(), done.result) for done in pool.run(stream()) if done is not None]
    assert "could not start 3 times is given up, and the pool goes on with 1: ConnectionError: no hub" in caplog.text
    assert len({pid for _, pid in done}) == 1
    failed = sorted(path.stat().st_mtime for path in tmp_path.glob("failed-*"))
    assert len(failed) == 3
    for pause, (begin, end) in zip((2, 4), pairwise(failed), strict=True):
        assert end - begin > pause - 0.1  # the clocks of files and processes differ
        assert any(begin < moment < end for moment, _ in done)


def test_a_worker_that_starts_in_the_end_is_as_good_as_any(tmp_path: Path) -> None:
    assert run(tmp_path, fail_every_other_time) == list(range(5))
    assert (tmp_path / "start-4").exists()  # it failed twice, but not in a row


@pytest.mark.parametrize(
    ("start", "kind", "message"),
    [
        (partial(fail, ConnectionError("no hub")), PoolError, "ConnectionError: no hub"),
        (partial(fail, FileNotFoundError("no model")), UnitFailedError, "FileNotFoundError: no model"),
        (partial(fail, KeyError("a bug")), UnitFailedError, "KeyError: 'a bug'"),
        (fail_in_two_parts, UnitFailedError, "RuntimeError: TwoPartError: no model: no disk"),
    ],
    ids=["passing", "lasting", "bug", "unreadable"],
)
def test_the_last_worker_that_cannot_start_ends_the_pool(
    tmp_path: Path, start: Start, kind: type, message: str
) -> None:
    with pytest.raises(kind, match=f"^a worker could not start: {message}$"):
        run(tmp_path, start, num_workers=2)
    assert 3 <= len(list(tmp_path.glob("start-*"))) <= 4  # the last fails when the other has been given up


def test_bad_input_is_not_tried_again_where_no_worker_was_ever_ready(tmp_path: Path) -> None:
    with pytest.raises(UnitFailedError, match="a worker could not start: InputError: another model"):
        run(tmp_path, partial(fail, InputError("another model")))
    assert [path.name for path in tmp_path.iterdir()] == ["start-1"]


def test_an_actor_that_cannot_be_made_is_tried_again_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    cause = "ModuleNotFoundError: No module named 'no_such_package'"
    options = PoolOptions(num_workers=1, max_attempts=2, start_seconds=60)
    with (
        Pool(Unimportable(), options) as pool,
        pytest.raises(UnitFailedError, match=f"^a worker could not start: {cause}$"),
    ):
        list(pool.run([Unit(0, "a.parquet", 0, 1)]))
    assert caplog.messages == [f"a worker could not start and is tried again in 2 s: {cause}"]


def test_who_waits_in_vain_for_a_worker_is_told_why_none_started(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    crew = Crew(partial(Worker, tmp_path, fail_every_other_time), PoolOptions(num_workers=1))
    try:
        while "tried again" not in caplog.text:
            crew.watch()
            for ref in ray.wait(list(crew.starting))[0]:
                crew.settle_start(crew.starting[ref])
        crew.options = replace(crew.options, start_seconds=0)
        with pytest.raises(PoolError, match=r"no worker was ready for 0 s; .* failed: ConnectionError: no hub$"):
            crew.watch()
    finally:
        crew.close([])


def test_calls_that_do_not_end_are_not_waited_for_long(tmp_path: Path) -> None:
    crew = Crew(partial(Worker, tmp_path, fail_every_other_time), PoolOptions(num_workers=1))
    endless = ray.remote(sleep).remote()
    begun = time.monotonic()
    crew.close([endless])
    assert time.monotonic() - begun < 60
    ray.cancel(endless, force=True)
