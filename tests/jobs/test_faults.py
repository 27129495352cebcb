"""Whatever happens to workers, drivers and files, the output in the end is that of an undisturbed run."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import ray

from actors.errors import PoolError
from actors.pool import PoolOptions
from jobs.cluster import start_ray
from jobs.job import EXIT_FATAL, EXIT_RETRYABLE, StoppedError
from sbert_ray.data.dataset import RowReader
from sbert_ray.data.errors import InputError, PlanChangedError
from sbert_ray.data.verify import verify
from tests.jobs.toy import ToyJob, ToyWorker, digests, write_corpus

pytestmark = pytest.mark.usefixtures("ray_local")

ROWS_PER_UNIT = 10
NUM_UNITS = 10
IN_FLIGHT = 6
"""Two workers, three units in each."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "texts")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, corpus: Path, ray_local: None) -> dict[str, str]:
    """Checksums of the output when nothing happens."""
    job = make_job(tmp_path_factory.mktemp("undisturbed"), corpus, num_workers=1)
    assert job.run() == 0
    assert job.begun() == list(range(NUM_UNITS))
    return job.outputs()


def make_job(folder: Path, corpus: Path, **options: object) -> ToyJob:
    (folder / "notes").mkdir(exist_ok=True)
    values = {"rows_per_unit": ROWS_PER_UNIT, "num_workers": 2, "hang_seconds": 30, **options}
    return ToyJob(input=str(corpus), output=f"{folder}/out", notes=f"{folder}/notes", **values)


def driver(job: ToyJob, **environment: str) -> "subprocess.Popen[bytes]":
    """Start the same job in a process of its own, on the Ray of these tests; ``errors`` has what it says."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in job.model_dump(exclude_defaults=True).items()]
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-m", "tests.jobs.toy", *flags, f"--ray-address={address}"]
    with Path(job.notes, f"stderr-{time.time_ns()}").open("wb") as log:
        return subprocess.Popen(command, cwd=Path(__file__).parents[2], env=os.environ | environment, stderr=log)


def errors(job: ToyJob) -> str:
    """What the newest driver of the job said."""
    return max(Path(job.notes).glob("stderr-*")).read_text()


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def assert_whole(job: ToyJob, undisturbed: dict[str, str], most_redone: int = IN_FLIGHT) -> None:
    assert job.outputs() == undisturbed
    *_, verdict = verify(job.output)
    assert verdict.problems == []
    [lease] = (Path(job.output) / "_manifest/lease").iterdir()
    assert json.loads(lease.read_text())["released"]
    redone = Counter(job.begun()) - Counter(range(NUM_UNITS))
    report = json.loads(Path(job.output, "report.json").read_text())
    assert report["state"] == "complete"
    assert redone.total() <= most_redone + report["units"]["speculated"]  # idle workers redo the last units unasked


@pytest.mark.parametrize("num_workers", [2, 4])
def test_the_number_of_workers_changes_nothing(
    tmp_path: Path, corpus: Path, undisturbed: dict[str, str], num_workers: int
) -> None:
    job = make_job(tmp_path, corpus, num_workers=num_workers)
    assert job.run() == 0
    assert_whole(job, undisturbed, most_redone=3 * num_workers)


def test_an_actor_killed_in_mid_unit(tmp_path: Path, corpus: Path, undisturbed: dict[str, str]) -> None:
    job = make_job(tmp_path, corpus)
    Path(job.notes, "kill-4").touch()
    assert job.run() == 0
    assert_whole(job, undisturbed)
    report = json.loads(Path(job.output, "report.json").read_text())
    assert report["units"]["retried"] >= 1


def test_an_actor_killed_by_its_pid(tmp_path: Path, corpus: Path, undisturbed: dict[str, str]) -> None:
    job = make_job(tmp_path, corpus)
    hold = Path(job.notes, "hold-5")
    hold.touch()
    process = driver(job)
    wait_for(lambda: 5 in job.begun())
    begun = next(Path(job.notes).glob("begun-5-*"))  # an idle worker may have begun it a second time
    os.kill(int(begun.name.split("-")[2]), signal.SIGKILL)
    hold.unlink()
    assert process.wait(120) == 0, errors(job)
    assert_whole(job, undisturbed)


def test_a_worker_that_hangs(tmp_path: Path, corpus: Path, undisturbed: dict[str, str]) -> None:
    job = make_job(tmp_path, corpus, hang_seconds=2)
    Path(job.notes, "hang-2").touch()
    assert job.run() == 0
    assert_whole(job, undisturbed)


@pytest.mark.parametrize(
    "when",
    [
        "before-work",
        "before-append 1",
        "before-append 4",
        "after-append 4",
        "after-append 10",
        "before-success",
        "after-success",
    ],
)
def test_a_driver_killed_at_any_point(tmp_path: Path, corpus: Path, undisturbed: dict[str, str], when: str) -> None:
    job = make_job(tmp_path, corpus)
    assert driver(job, DIE=when).wait(120) == -signal.SIGKILL
    assert Path(job.output, "_SUCCESS").exists() is (when == "after-success")
    assert job.run() == 0
    assert_whole(job, undisturbed)


def test_a_driver_told_to_stop_says_how_to_go_on(tmp_path: Path, corpus: Path, undisturbed: dict[str, str]) -> None:
    job = make_job(tmp_path, corpus)
    hold = Path(job.notes, "hold-8")
    hold.touch()
    process = driver(job)
    wait_for(lambda: Path(job.output, "data").exists() and len(list(Path(job.output, "data").glob("part-*"))) >= 2)
    process.terminate()
    assert process.wait(60) == EXIT_RETRYABLE
    hold.unlink()
    assert "stopped by SIGTERM; the same command goes on from here" in errors(job)
    assert "Traceback" not in errors(job)
    assert json.loads(Path(job.output, "report.json").read_text())["state"] == "stopped"
    assert job.run() == 0
    assert_whole(job, undisturbed)


def test_a_signal_in_the_middle_of_rays_own_code_stops_the_job(
    tmp_path: Path, corpus: Path, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen once: what the handler raised came out of ray.wait as the cause of a SystemError."""

    def wait(*_: Any, **__: Any) -> None:
        raise SystemError("returned a result with an exception set") from StoppedError("stopped by SIGTERM")

    job = make_job(tmp_path, corpus)
    with monkeypatch.context() as patch:
        patch.setattr(ray, "wait", wait)
        with pytest.raises(StoppedError, match="stopped by SIGTERM"):
            job.run()
    assert json.loads(Path(job.output, "report.json").read_text())["state"] == "stopped"
    assert job.run() == 0
    assert_whole(job, undisturbed)


def test_a_second_driver_is_fenced_off(tmp_path: Path, corpus: Path, undisturbed: dict[str, str]) -> None:
    job = make_job(tmp_path, corpus)
    hold = Path(job.notes, "hold-0")
    hold.touch()
    first = driver(job)
    wait_for(job.begun)
    assert driver(job).wait(60) == EXIT_RETRYABLE
    hold.unlink()
    assert f"process {first.pid} on " in errors(job)
    assert f"is writing to {job.output}; wait until it ends" in errors(job)
    assert "Traceback" not in errors(job)
    assert first.wait(120) == 0
    assert_whole(job, undisturbed)


def test_a_truncated_output_file_is_made_again(tmp_path: Path, corpus: Path, undisturbed: dict[str, str]) -> None:
    job = make_job(tmp_path, corpus)
    assert job.run() == 0
    before = Counter(job.begun())
    damaged = Path(job.output, "data/part-00000003.parquet")
    os.truncate(damaged, 100)
    *_, verdict = verify(job.output)
    assert any("part-00000003.parquet" in problem for problem in verdict.problems)
    assert job.run() == 0
    assert set(Counter(job.begun()) - before) == {3}
    assert_whole(job, undisturbed)


def test_a_second_run_does_nothing(tmp_path: Path, corpus: Path) -> None:
    job = make_job(tmp_path, corpus)
    assert job.run() == 0
    begun, report = job.begun(), Path(job.output, "report.json").read_bytes()
    assert job.run() == 0
    assert job.begun() == begun
    assert Path(job.output, "report.json").read_bytes() == report


def test_a_changed_setting_is_refused(tmp_path: Path, corpus: Path) -> None:
    job = make_job(tmp_path, corpus)
    assert job.run() == 0
    before = digests(job.output)
    with pytest.raises(PlanChangedError, match=r"other settings:\n  scale: 1\.0 -> 2\.0\nGive a new output"):
        make_job(tmp_path, corpus, scale=2.0).run()
    assert digests(job.output) == before


def test_a_changed_input_is_refused(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "texts")
    job = make_job(tmp_path, corpus)
    assert job.run() == 0
    os.remove(corpus / "b.parquet")
    with pytest.raises(PlanChangedError, match=r"1 input file\(s\) removed: b\.parquet"):
        job.run()


def test_what_outputs_tell_of_the_model_is_that_of_the_first_run(tmp_path: Path, corpus: Path) -> None:
    """Else a model by another path, which is the same model, would make other bytes."""
    seen = []

    class Named(ToyJob):
        name: ClassVar[str] = "./model"

        def facts(self) -> dict[str, Any]:
            return {"model": self.name}

        def worker(self, reader: RowReader, options: PoolOptions, facts: dict[str, Any]) -> Any:
            seen.append(facts)
            return super().worker(reader, options, facts)

    job = Named(**make_job(tmp_path, corpus).model_dump())
    assert job.run() == 0
    Path(job.output, "data/part-00000003.parquet").unlink()
    Named.name = "/home/me/model"
    assert job.run() == 0
    assert seen == [{"model": "./model"}] * 2


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            ValueError("Invalid address format"),
            InputError,
            "cannot use Ray at 'nonsense': Invalid .*; see --ray-address",
        ),
        (RuntimeError("Failed to connect to GCS"), PoolError, "cannot use Ray at 'nonsense': Failed to connect to GCS"),
        (StoppedError("stopped by SIGTERM"), StoppedError, "^stopped by SIGTERM$"),
        (ConnectionError("no cluster there"), ConnectionError, "^no cluster there$"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_a_ray_that_does_not_start_is_told(
    error: Exception, kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: Any) -> None:
        raise error

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(kind, match=message):
        start_ray("nonsense")


def test_workers_that_write_to_another_disk_are_found_out(tmp_path: Path, corpus: Path) -> None:
    class Elsewhere(ToyJob):
        def worker(self, reader: RowReader, options: PoolOptions, facts: dict[str, Any]) -> Any:
            (tmp_path / "elsewhere").mkdir(exist_ok=True)
            return partial(ToyWorker, reader, f"{tmp_path}/elsewhere", Path(self.notes), 0.0, 1.0)

    job = Elsewhere(**make_job(tmp_path, corpus).model_dump())
    with pytest.raises(InputError, match=r"wrote data/part-\d+.parquet to another disk than this one's"):
        job.run()
    assert not Path(job.output, "_SUCCESS").exists()


def test_workers_on_another_kind_of_device_are_refused(tmp_path: Path, corpus: Path) -> None:
    job = make_job(tmp_path, corpus)
    assert job.run() == 0
    Path(job.output, "data/part-00000003.parquet").unlink()
    Path(job.output, "_manifest/environment.json").write_text('"cuda in float16"')
    with pytest.raises(PlanChangedError, match="was begun on cuda in float16; run it there"):
        job.run()


def test_a_bad_row_beside_one_that_kills_in_a_unit(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "texts", odd={33: "poison", 36: "deadly"})
    job = make_job(tmp_path, corpus, max_bad_rows=2, max_attempts=2)
    assert job.run() == 0
    *_, verdict = verify(job.output)
    assert (verdict.problems, verdict.rows, verdict.bad_rows) == ([], 98, 2)


def test_an_output_within_the_input_is_refused(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "texts")
    (tmp_path / "notes").mkdir()
    job = ToyJob(input=str(corpus), output=f"{corpus}/out", notes=f"{tmp_path}/notes")
    with pytest.raises(InputError, match=r"--output .*texts/out lies in the input"):
        job.run()
    assert not (corpus / "out").exists()


def test_bad_rows_go_to_quarantine(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "texts", odd={7: None, 33: "poison", 71: "deadly"})
    job = make_job(tmp_path, corpus, max_bad_rows=3, max_attempts=2)
    assert job.run() == 0
    *_, verdict = verify(job.output)
    assert (verdict.problems, verdict.rows, verdict.bad_rows) == ([], 97, 3)
    files = sorted(Path(job.output, "_quarantine").iterdir())
    lines = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    assert [(line["file"], line["position"], line["id"], line["reason"]) for line in lines] == [
        ("a.parquet", 7, "id-7", "the text is null"),
        ("a.parquet", 33, "id-33", "ArithmeticError: a text is poison"),
        ("b.parquet", 21, "id-71", "takes the worker's process down"),
    ]
    assert lines[1]["text"] == "poison"


def test_too_many_bad_rows_fail_and_a_higher_budget_goes_on(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "texts", odd={7: None, 8: None})
    with pytest.raises(InputError, match=r"2 bad row\(s\) so far, and max_bad_rows is 1:\n  a.parquet, position 7, id"):
        make_job(tmp_path, corpus, max_bad_rows=1).run()
    report = json.loads(Path(tmp_path, "out/report.json").read_text())
    assert (report["state"], report["bad_rows"]["count"]) == ("failed", 2)
    job = make_job(tmp_path, corpus, max_bad_rows=2)
    assert job.run() == 0
    report = json.loads(Path(tmp_path, "out/report.json").read_text())
    redone = Counter(job.begun()) - Counter(range(NUM_UNITS))
    assert redone.total() <= IN_FLIGHT + report["units"]["speculated"]
    *_, verdict = verify(job.output)
    assert (verdict.problems, verdict.rows) == ([], 98)


def test_a_bug_is_told_with_its_unit_and_place(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "texts", odd=dict.fromkeys(range(10), "poison"))
    job = make_job(tmp_path, corpus)
    assert driver(job).wait(60) == EXIT_FATAL
    assert "error: unit 0 (a.parquet [0:10]) failed: ArithmeticError: a text is poison" in errors(job)
    assert "in compute" in errors(job)  # where in the worker's code
