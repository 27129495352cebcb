"""The pool: every unit once, whatever happens to the actors. Workers here know no torch, so they start at once."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from actors.device import BrokenDeviceError, DeviceMemoryError
from actors.pool import Pool, PoolError, PoolOptions, UnitFailedError
from sbert_ray.data.units import Unit

pytestmark = pytest.mark.usefixtures("ray_local")

Beat = Callable[[int], None]

UNITS = [Unit(index, "a.parquet", index * 8, index * 8 + 8) for index in range(10)]


class Worker:
    """Notes each attempt in a folder, then does to some units what the test asks for."""

    def __init__(
        self,
        folder: Path,
        faults: Mapping[int, str] | None = None,
        killers: tuple[int, ...] = (),
        seconds: float = 0.01,
        num_workers: int = 1,
    ) -> None:
        self.folder = folder
        self.faults = faults or {}
        self.killers = killers
        self.seconds = seconds
        self.num_workers = num_workers
        self.inside = 0
        self.lock = threading.Lock()
        self.pair = threading.Barrier(2)

    def process(self, unit: Unit, beat: Beat, excluded: Mapping[int, str] | None = None) -> str:
        attempt = self.note(unit)
        with self.lock:
            self.inside += 1
            (self.folder / f"inside-{self.inside}").touch()
        self.await_others(beat)
        fault = self.faults.get(unit.index, "")
        self.probe(unit, beat, [p for p in range(unit.start, unit.stop or 0) if p not in (excluded or {})])
        if fault and attempt <= int(fault.partition(" ")[2] or 1):
            getattr(self, fault.partition(" ")[0])(beat)
        time.sleep(self.seconds)
        beat(unit.stop - unit.start if unit.stop else 0)
        with self.lock:
            self.inside -= 1
        return f"{os.getpid()} {sorted(excluded or {})}"

    def positions(self, unit: Unit, beat: Beat) -> list[int]:
        return list(range(unit.start, unit.stop or 0))

    def probe(self, unit: Unit, beat: Beat, positions: list[int]) -> None:
        if set(positions) & set(self.killers):
            os.kill(os.getpid(), signal.SIGKILL)

    def note(self, unit: Unit) -> int:
        for attempt in range(1, 100):
            try:
                (self.folder / f"unit-{unit.index}-{attempt}").touch(exist_ok=False)
            except FileExistsError:
                continue
            return attempt
        raise AssertionError("a unit was begun a hundred times")

    def await_others(self, beat: Beat) -> None:
        """Let no worker do the work of those that start late."""
        (self.folder / f"pid-{os.getpid()}").touch()
        while len(list(self.folder.glob("pid-*"))) < self.num_workers:
            beat(0)
            time.sleep(0.05)

    def die(self, beat: Beat) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def hang(self, beat: Beat) -> None:
        time.sleep(600)

    def dawdle(self, beat: Beat) -> None:
        for _ in range(600):
            beat(0)
            time.sleep(0.1)

    def scribble(self, beat: Beat) -> None:
        while True:
            (self.folder / "scribble").write_text(str(time.time_ns()))

    def freeze(self, beat: Beat) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def meet(self, beat: Beat) -> None:
        self.pair.wait(60)

    def break_disk(self, beat: Beat) -> None:
        raise OSError(5, "Input/output error")

    def fill_device(self, beat: Beat) -> None:
        raise DeviceMemoryError("the device is out of memory; give the worker a device of its own")

    def raise_bug(self, beat: Beat) -> None:
        raise KeyError("a bug")

    def break_device(self, beat: Beat) -> None:
        raise BrokenDeviceError("CUDA error: device-side assert triggered")

    def die_once(self, word: str, beat: Beat) -> str:
        if not (self.folder / "died").exists():
            (self.folder / "died").touch()
            self.die(beat)
        return "alive"

    def die_always(self, word: str, beat: Beat) -> None:
        self.die(beat)

    def greet(self, name: str, beat: Beat) -> str:
        return f"hello {name}"


class Squatter:
    """Holds CPUs."""


def attempts(folder: Path) -> Counter[int]:
    return Counter(int(path.name.split("-")[1]) for path in folder.glob("unit-*"))


def run(folder: Path, num_workers: int = 2, options: Mapping[str, Any] | None = None, **worker: Any) -> Iterator[Any]:
    settings = PoolOptions(num_workers, num_cpus=1, **{"hang_seconds": 30, "speculate": False, **(options or {})})
    with Pool(partial(Worker, folder, **worker), settings) as pool:
        yield from (done for done in pool.run(UNITS) if done is not None)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_each_unit_is_done_once(tmp_path: Path, num_workers: int) -> None:
    with Pool(partial(Worker, tmp_path, num_workers=num_workers), PoolOptions(num_workers, speculate=False)) as pool:
        done = [item for item in pool.run(UNITS) if item is not None]
    assert sorted(item.unit.index for item in done) == list(range(10))
    assert attempts(tmp_path) == Counter(range(10))
    assert len({item.result.split()[0] for item in done}) == num_workers


def test_units_in_flight_are_bounded(tmp_path: Path) -> None:
    taken = 0

    def stream() -> Iterator[Unit]:
        nonlocal taken
        for unit in UNITS:
            taken += 1
            yield unit

    options = PoolOptions(num_workers=1, in_flight=2)
    with Pool(partial(Worker, tmp_path, faults={4: "meet", 5: "meet"}), options) as pool:
        for finished, _ in enumerate(done for done in pool.run(stream()) if done is not None):
            assert taken <= finished + 1 + options.in_flight
    assert {path.name for path in tmp_path.glob("inside-*")} == {"inside-1", "inside-2"}


def test_an_actor_that_is_killed_is_replaced_and_its_units_run_again(tmp_path: Path) -> None:
    done = list(run(tmp_path, faults={4: "die"}))
    assert sorted(item.unit.index for item in done) == list(range(10))
    again = [unit for unit, count in attempts(tmp_path).items() if count > 1]
    assert 4 in again
    assert len(again) <= PoolOptions(1).in_flight  # no more than was in that actor
    assert max(item.attempts for item in done) == 2


@pytest.mark.parametrize("fault", ["hang", "freeze"])
def test_an_actor_without_a_sign_of_life_is_killed(tmp_path: Path, fault: str) -> None:
    done = list(run(tmp_path, faults={3: fault}, options={"hang_seconds": 2}))
    assert sorted(item.unit.index for item in done) == list(range(10))
    assert attempts(tmp_path)[3] == 2


def test_a_unit_that_hangs_is_noticed_beside_one_that_does_not(tmp_path: Path) -> None:
    done = list(run(tmp_path, num_workers=1, faults={0: "hang", 1: "dawdle"}, options={"hang_seconds": 2}))
    assert sorted(item.unit.index for item in done) == list(range(10))
    assert attempts(tmp_path)[1] == 2  # it was busy when both were taken down


@pytest.mark.parametrize("fault", ["break_disk", "fill_device"])
def test_a_passing_failure_is_tried_again(tmp_path: Path, fault: str) -> None:
    done = list(run(tmp_path, faults={5: f"{fault} 2"}))
    assert sorted(item.unit.index for item in done) == list(range(10))
    assert attempts(tmp_path)[5] == 3


def test_a_lasting_failure_names_the_unit(tmp_path: Path) -> None:
    with pytest.raises(
        PoolError, match=r"unit 5 \(a.parquet \[40:48\]\) failed 2 times: OSError: .*Input/output error"
    ):
        list(run(tmp_path, faults={5: "break_disk 9"}, options={"max_attempts": 2}))
    assert attempts(tmp_path)[5] == 2


def test_a_device_that_stays_full_is_no_fault_of_the_unit(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"unit 5 .* failed 2 times: DeviceMemoryError: .*a device of its own"):
        list(run(tmp_path, faults={5: "fill_device 9"}, options={"max_attempts": 2}))
    assert attempts(tmp_path)[5] == 2


def test_a_bug_is_not_tried_again(tmp_path: Path) -> None:
    with pytest.raises(UnitFailedError, match=r"unit 2 .*KeyError: 'a bug'") as caught:
        list(run(tmp_path, faults={2: "raise_bug 9"}))
    assert attempts(tmp_path)[2] == 1
    assert "in raise_bug" in str(caught.value.__cause__)  # the worker's own traceback


def test_rows_that_kill_are_found_and_excluded(tmp_path: Path) -> None:
    done = {item.unit.index: item for item in run(tmp_path, killers=(50, 53), options={"max_attempts": 2})}
    assert sorted(done) == list(range(10))
    assert done[6].result.endswith("[50, 53]")
    assert all(item.result.endswith("[]") for index, item in done.items() if index != 6)


def test_a_unit_that_kills_as_a_whole_fails(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"unit 0 \(a.parquet \[0:8\]\) keeps taking its process down, and no row"):
        list(run(tmp_path, num_workers=1, faults={0: "die 99"}, options={"max_attempts": 2}))


def test_a_unit_whose_processes_died_for_other_reasons_is_done_in_the_end(tmp_path: Path) -> None:
    done = list(run(tmp_path, faults={2: "die 3"}))
    assert sorted(item.unit.index for item in done) == list(range(10))
    assert {item.unit.index: item.result.split(" ", 1)[1] for item in done}[2] == "[]"


def test_speculation_does_not_hide_who_kills(tmp_path: Path) -> None:
    done = {item.unit.index: item for item in run(tmp_path, killers=(77,), options={"speculate": True})}
    assert sorted(done) == list(range(10))
    assert done[9].result.endswith("[77]")


def test_an_actor_without_a_place_is_waited_for(tmp_path: Path) -> None:
    """Another job takes the CPU of an actor that died, as when spot machines are taken back, and returns it later."""
    options = PoolOptions(num_workers=1, num_cpus=4, max_attempts=1, start_seconds=60, speculate=False)
    squatter: Any = None
    results = []
    with Pool(partial(Worker, tmp_path, faults={3: "die"}), options) as pool:
        begun: float | None = None
        for done in pool.run(UNITS):
            if done is not None:
                results.append(done.unit.index)
            if squatter is None and (tmp_path / "unit-3-1").exists():
                squatter = ray.remote(Squatter).options(num_cpus=4).remote()
                begun = time.monotonic()
            if begun is not None and time.monotonic() - begun > 12:
                ray.kill(squatter)
                begun = None
    assert sorted(results) == list(range(10))


@pytest.mark.slow
def test_a_long_run_may_lose_its_only_worker(tmp_path: Path) -> None:
    """What start_seconds allows, enough for a slow machine, is not used up by the time before."""
    options = PoolOptions(num_workers=1, in_flight=1, start_seconds=30)
    with Pool(partial(Worker, tmp_path, faults={9: "die"}, seconds=3.5), options) as pool:
        done = [item for item in pool.run(UNITS) if item is not None]
    assert sorted(item.unit.index for item in done) == list(range(10))


def test_a_late_unit_is_begun_a_second_time(tmp_path: Path) -> None:
    begun = time.monotonic()
    done = list(run(tmp_path, faults={9: "hang"}, options={"speculate": True, "hang_seconds": 300}))
    assert sorted(item.unit.index for item in done) == list(range(10))
    assert attempts(tmp_path)[9] == 2
    assert time.monotonic() - begun < 60


def test_a_worker_that_cannot_be_built_says_why(tmp_path: Path) -> None:
    with pytest.raises(UnitFailedError, match=r"a worker could not start: TypeError: .*unexpected keyword"):
        list(run(tmp_path, nonsense=1))


def test_workers_that_cannot_be_placed_are_reported(tmp_path: Path) -> None:
    options = PoolOptions(num_workers=1, num_gpus=1, start_seconds=1)
    with (
        Pool(partial(Worker, tmp_path), options) as pool,
        pytest.raises(PoolError, match=r"no worker was ready for 1 s; each needs 1\.0 CPUs and 1 GPUs"),
    ):
        list(pool.run(UNITS))


def test_one_worker_can_be_called(tmp_path: Path) -> None:
    with Pool(partial(Worker, tmp_path), PoolOptions(num_workers=1)) as pool:
        ticks: list[None] = []
        assert pool.call("greet", "you", on_tick=lambda: ticks.append(None)) == "hello you"
        assert ticks
        with pytest.raises(UnitFailedError, match="missing failed: AttributeError"):
            pool.call("missing", "you")


def test_a_call_survives_the_death_of_its_worker(tmp_path: Path) -> None:
    with Pool(partial(Worker, tmp_path), PoolOptions(num_workers=2)) as pool:
        assert pool.call("die_once", "now") == "alive"
        assert sorted(done.unit.index for done in pool.run(UNITS) if done is not None) == list(range(10))


def test_a_call_that_keeps_killing_is_given_up(tmp_path: Path) -> None:
    options = PoolOptions(num_workers=1, max_attempts=2)
    with (
        Pool(partial(Worker, tmp_path), options) as pool,
        pytest.raises(PoolError, match="die_always keeps taking its process down"),
    ):
        pool.call("die_always", "now")


def test_a_call_fails_where_no_worker_can_be_placed(tmp_path: Path) -> None:
    options = PoolOptions(num_workers=1, num_gpus=1, start_seconds=1)
    with Pool(partial(Worker, tmp_path), options) as pool, pytest.raises(PoolError, match="no worker was ready"):
        pool.call("greet", "you")


def test_waiting_for_the_next_try_costs_nothing(tmp_path: Path) -> None:
    options = PoolOptions(num_workers=1, speculate=False)
    with Pool(partial(Worker, tmp_path, faults={9: "break_disk"}), options) as pool:
        turns = sum(done is None for done in pool.run(UNITS))
    assert turns < 100


def test_a_process_whose_device_is_broken_is_replaced(tmp_path: Path) -> None:
    done = list(run(tmp_path, faults={6: "break_device"}))
    assert sorted(item.unit.index for item in done) == list(range(10))
    assert attempts(tmp_path)[6] == 2


def test_nothing_to_do_is_no_work(tmp_path: Path) -> None:
    with Pool(partial(Worker, tmp_path), PoolOptions(num_workers=1)) as pool:
        assert [done for done in pool.run([]) if done is not None] == []


def test_nothing_is_written_after_the_end(tmp_path: Path) -> None:
    with Pool(partial(Worker, tmp_path, faults={0: "scribble", 1: "scribble"}), PoolOptions(num_workers=2)) as pool:
        for _ in pool.run(UNITS):
            if (tmp_path / "scribble").exists():
                break
    pids = [int(path.name.removeprefix("pid-")) for path in tmp_path.glob("pid-*")]
    alive = [pid for pid in pids if psutil.pid_exists(pid)]
    last = (tmp_path / "scribble").read_text()
    time.sleep(0.5)
    assert (tmp_path / "scribble").read_text() == last
    assert alive == []
