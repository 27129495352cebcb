"""`sbert-ray verify`: its exit code and what it prints. What it finds is tested with `sbert_ray.data.verify`."""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest

from jobs import verify
from jobs.job import EXIT_FATAL, EXIT_OK
from jobs.verify import EXIT_PROBLEMS, VerifyJob
from sbert_ray.data.verify import Verdict
from tests.jobs.conftest import Command
from tests.jobs.toy import ToyJob, write_corpus

ROWS_PER_UNIT = 10


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> Path:
    """A folder with a corpus `in` of 40 rows, 2 of them bad, and the toy job's output `out` of it."""
    folder = tmp_path_factory.mktemp("made")
    write_corpus(folder / "in", 40, {3: None, 25: None})
    (folder / "notes").mkdir()
    assert toy_job(folder, folder / "out").run() == EXIT_OK
    return folder


def toy_job(folder: Path, output: Path) -> ToyJob:
    return ToyJob(
        input=f"{folder}/in", output=f"{output}", notes=f"{folder}/notes", rows_per_unit=ROWS_PER_UNIT,
        num_workers=1, max_bad_rows=2,
    )  # fmt: skip


@pytest.fixture
def output(made: Path, tmp_path: Path) -> Path:
    """A copy of the output that a test may damage."""
    return Path(shutil.copytree(made / "out", tmp_path / "out"))


def test_a_whole_output_is_told_in_a_line(command: Command, output: Path) -> None:
    line = f"{output} is whole: 38 rows in 4 units, each once, 2 more in quarantine\n"
    assert command(VerifyJob.main, [f"{output}"]) == (EXIT_OK, line, "")


@pytest.mark.parametrize(
    "arguments",
    [["out"], ["--output", "out"], ["--input={corpus}", "out"], ["out", "--input", "{corpus}"]],
    ids=" ".join,
)
def test_the_output_needs_no_flag(
    command: Command, made: Path, output: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(output.parent)
    outcome = command(VerifyJob.main, [argument.format(corpus=made / "in") for argument in arguments])
    assert outcome.code == EXIT_OK
    assert outcome.out.startswith(f"{output} is whole: ")


def test_the_output_may_come_from_a_file(command: Command, output: Path, tmp_path: Path) -> None:
    (tmp_path / "verify.yaml").write_text(f"output: {output}\n")
    assert command(VerifyJob.main, ["--config", f"{tmp_path}/verify.yaml"]).code == EXIT_OK


def test_each_problem_has_a_line(command: Command, output: Path) -> None:
    os.truncate(output / "data/part-00000001.parquet", 100)
    (output / "data/part-00000003.parquet").unlink()
    (output / "data/stray.txt").write_text("mine")
    outcome = command(VerifyJob.main, [f"{output}"])
    assert (outcome.code, outcome.err) == (EXIT_PROBLEMS, "")
    *problems, last = outcome.out.splitlines()
    assert last == f"{output} is NOT whole: {len(problems)} problem(s)"
    assert all(line.startswith("problem: ") for line in problems)
    for name in ("part-00000001.parquet", "part-00000003.parquet", "data/stray.txt is not in the manifest"):
        assert any(name in line for line in problems)


@pytest.mark.parametrize("damage", ["lost", "truncated", "emptied"])
def test_a_damaged_quarantine_is_mended_as_the_problem_says(
    damage: str, command: Command, made: Path, output: Path
) -> None:
    [path] = [path for path in (output / "_quarantine").iterdir() if path.name == "part-00000002.jsonl"]
    whole = path.read_bytes()
    if damage != "lost":
        os.truncate(path, 20 if damage == "truncated" else 0)
        outcome = command(VerifyJob.main, [f"{output}"])
        problem, _ = outcome.out.splitlines()
        assert (outcome.code, outcome.err) == (EXIT_PROBLEMS, "")
        assert problem.startswith("problem: data/part-00000002.parquet: ")
        assert problem.endswith("; remove _quarantine/part-00000002.jsonl and run the job again")
    path.unlink()
    outcome = command(VerifyJob.main, [f"{output}"])
    assert outcome.out.splitlines()[0].endswith("part-00000002.jsonl is missing, with 1 bad row(s); run the job again")
    assert toy_job(made, output).run() == EXIT_OK
    assert path.read_bytes() == whole
    assert command(VerifyJob.main, [f"{output}"]).code == EXIT_OK


def test_of_very_many_problems_the_first_are_shown(
    command: Command, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "MAX_SHOWN", 3)
    for number in range(8):
        (output / f"data/stray-{number}").write_text("mine")
    outcome = command(VerifyJob.main, [f"{output}"])
    assert outcome.code == EXIT_PROBLEMS
    lines = outcome.out.splitlines()
    assert [line.partition(" is")[0] for line in lines] == [
        "problem: data/stray-0",
        "problem: data/stray-1",
        "problem: data/stray-2",
        "and 5 problems more",
        f"{output}",
    ]


def test_an_unfinished_output_is_not_whole(command: Command, output: Path) -> None:
    (output / "_SUCCESS").unlink()
    outcome = command(VerifyJob.main, [f"{output}"])
    assert outcome.code == EXIT_PROBLEMS
    assert "problem: there is no _SUCCESS: the job has not finished; run it again\n" in outcome.out


def test_an_input_that_has_moved_is_found_where_it_is_now(command: Command, made: Path, output: Path) -> None:
    moved = shutil.copytree(made / "in", output.parent / "moved")
    plan = json.loads((output / "_manifest/plan.json").read_text())
    plan["plan"]["input"] = "/gone"
    (output / "_manifest/plan.json").write_text(json.dumps(plan))
    outcome = command(VerifyJob.main, [f"{output}"])
    assert outcome.code == EXIT_FATAL
    assert outcome.err.startswith("error: no Parquet or JSONL files at /gone, or it does not exist; ")
    assert command(VerifyJob.main, [f"{output}", f"--input={moved}"]).code == EXIT_OK


def test_a_note_is_no_problem(command: Command, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = Verdict(num_units=4, notes=["2 ids occur more than once"], units=4, rows=40)
    monkeypatch.setattr(verify, "verify", lambda *_: iter([verdict]))
    lines = f"note: 2 ids occur more than once\n{output} is whole: 40 rows in 4 units, each once\n"
    assert command(VerifyJob.main, [f"{output}"]) == (EXIT_OK, lines, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "error: {cwd}/missing has no _manifest/plan.json: it is not the output of a job\n"),
        ([], "error: 1 wrong option(s):\n  --output: Field required\n"),
        (["s3://b/out"], "error: cannot use s3://b/out: Install s3fs to access S3\n"),
    ],
    ids=["no output", "nothing", "unknown store"],
)
def test_what_is_no_output_is_refused(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(VerifyJob.main, arguments) == (EXIT_FATAL, "", message.format(cwd=tmp_path))


def test_an_output_that_cannot_be_read_is_no_problem_of_its_contents(command: Command, output: Path) -> None:
    path = output / "data/part-00000001.parquet"
    path.unlink()
    path.mkdir()
    outcome = command(VerifyJob.main, [f"{output}"])
    assert (outcome.code, outcome.out) == (EXIT_FATAL, "")
    assert outcome.err.startswith("error: [Errno 21] Is a directory: ")
    assert "part-00000001.parquet'; mend that" in outcome.err


def test_a_long_check_logs_how_far_it_is(
    output: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(verify, "LOG_SECONDS", -1.0)
    caplog.set_level(logging.INFO, logger="jobs.verify")
    assert VerifyJob(output=str(output)).run() == EXIT_OK
    assert caplog.messages[0] == "0 of 4 units checked"
    assert caplog.messages[-1] == "4 of 4 units checked"
