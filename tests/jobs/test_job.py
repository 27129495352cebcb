"""What a job takes from its file and flags, and the exit code of each outcome."""

import errno
import re
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import yaml
from pydantic import Field, PositiveInt
from ray.exceptions import RaySystemError, RayTaskError

from actors.pool import PoolError, UnitFailedError
from jobs.job import EXIT_FATAL, EXIT_OK, EXIT_RETRYABLE, Job, Names, StoppedError
from jobs.unit_job import JOB_COPY, Location
from sbert_ray.data.errors import BusyError, InputError, LeaseLostError, PlanChangedError
from tests.jobs.conftest import Command


class Greet(Job):
    """Greet some people."""

    command: ClassVar[str] = "greet"

    place: Location = Field(description="where they are")
    text_column: Names = Field(default=("text",), min_length=1, description="who they are")
    times: PositiveInt = Field(default=1, description="how often")
    limit: PositiveInt | None = Field(default=None, description="at most so many, or 100% of them")
    normalize: bool = Field(default=False, description="be like all others")
    level: Literal["low", "high"] | None = Field(default=None, description="how loud")

    def run(self) -> int:
        return EXIT_OK


def config(folder: Path, **values: Any) -> str:
    path = folder / "greet.yaml"
    path.write_text(yaml.safe_dump(values))
    return f"--config={path}"


def test_fields_have_their_defaults() -> None:
    job = Greet.from_argv(["--place=/here"])
    assert job == Greet(place="/here", text_column=("text",), times=1, limit=None, normalize=False, level=None)


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = config(tmp_path, place="/there", times=2, level="low", normalize=True)
    job = Greet.from_argv([file, "--times", "3", "--no-normalize"])
    assert (job.place, job.times, job.level, job.normalize) == ("/there", 3, "low", False)


@pytest.mark.parametrize("name", ["text-column", "text_column"])
def test_names_in_the_file_have_dashes_or_underscores(tmp_path: Path, name: str) -> None:
    assert Greet.from_argv([config(tmp_path, place="/here", **{name: ["a", "b"]})]).text_column == ("a", "b")


def test_a_single_name_is_a_list_of_one(tmp_path: Path) -> None:
    assert Greet.from_argv([config(tmp_path, place="/here", text_column="body")]).text_column == ("body",)
    assert Greet(place="/here", text_column="body").text_column == ("body",)


@pytest.mark.parametrize(
    "flags",
    [
        ["--text-column", "a", "b"],
        ["--text-columns", "a", "b"],
        ["--text-column=a", "--text-column=b"],
    ],
    ids=" ".join,
)
def test_a_flag_takes_several_values(flags: list[str]) -> None:
    assert Greet.from_argv(["--place=/here", *flags]).text_column == ("a", "b")


def test_flags_replace_the_files_list(tmp_path: Path) -> None:
    file = config(tmp_path, place="/here", text_column=["a", "b"])
    assert Greet.from_argv([file, "--text-column", "c"]).text_column == ("c",)


@pytest.mark.parametrize(("flag", "expected"), [("--normalize", True), ("--no-normalize", False)])
def test_booleans_are_a_pair_of_flags(flag: str, expected: bool) -> None:
    assert Greet.from_argv(["--place=/here", flag]).normalize is expected


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"place": None}, "--place: Input should be a valid string"),
        ({"times": "often"}, "--times: Input should be a valid integer, unable to parse string as an integer"),
        ({"times": 0}, "--times: Input should be greater than 0"),
        ({"limit": 1.5}, "--limit: Input should be a valid integer, got a number with a fractional part"),
        ({"level": "middle"}, "--level: Input should be 'low' or 'high'"),
        ({"normalize": "perhaps"}, "--normalize: Input should be a valid boolean, unable to interpret input"),
        ({"text_column": []}, "--text-column: Tuple should have at least 1 item after validation, not 0"),
        ({"text_column": ["a", 7]}, "--text-column[1]: Input should be a valid string"),
        ({"text-colunm": "a"}, "--text-colunm: no such option; did you mean --text-column"),
        ({"place": " "}, "--place: a path or URL must not be empty"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_a_wrong_value_is_named(tmp_path: Path, values: dict[str, Any], problem: str) -> None:
    file = config(tmp_path, **{"place": "/here"} | values)
    with pytest.raises(
        InputError, match=rf"^1 wrong option\(s\) in .*greet\.yaml or the flags:\n  {re.escape(problem)}"
    ):
        Greet.from_argv([file])


def test_an_unknown_name_like_no_other_tells_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--xyz: no such option; known options are --level, --limit, --normalize, --p"):
        Greet.from_argv([config(tmp_path, place="/here", xyz=1)])


def test_a_missing_field_is_named() -> None:
    with pytest.raises(InputError, match=r"^1 wrong option\(s\):\n  --place: Field required$"):
        Greet.from_argv([])


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(
        InputError, match=r"^2 wrong option\(s\):\n  --place: Field required\n  --times: Input should be"
    ):
        Greet.from_argv(["--times=-1"])


def test_names_are_not_abbreviated(command: Command) -> None:
    outcome = command(Greet.main, ["--place=/here", "--norm"])
    assert outcome.code == EXIT_FATAL
    assert "unrecognized arguments: --norm" in outcome.err


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot read the config file {path}: [Errno 2] No such file or directory"),
        (b"place: [", "cannot read the config file {path}: while parsing a flow node"),
        (b"place: \xff", "cannot read the config file {path}: 'utf-8' codec can't decode byte 0xff"),
        (b"- place", "the config file {path} must hold names and values, got list"),
        (b"", "the config file {path} must hold names and values, got NoneType"),
    ],
    ids=["missing", "no YAML", "no UTF-8", "a list", "empty"],
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "greet.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(problem.format(path=path))):
        Greet.from_argv(["--config", str(path)])


def test_help_shows_every_field(command: Command) -> None:
    outcome = command(Greet.main, ["--help"])
    shown = " ".join(outcome.out.split())
    assert outcome.code == EXIT_OK
    assert "usage: sbert-ray greet" in shown
    assert "Greet some people." in shown
    for text in (
        "--config FILE YAML file with any of the fields below",
        "--place VALUE where they are (required)",
        "--text-column VALUE [VALUE ...], --text-columns VALUE [VALUE ...] who they are (default: text)",
        "--times VALUE how often (default: 1)",
        "--limit VALUE at most so many, or 100% of them (default: None)",
        "--normalize, --no-normalize be like all others (default: False)",
        "--level {low,high} how loud (default: None)",
    ):
        assert text in shown


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("here", "{cwd}/here"),
        ("./a/../here/", "{cwd}/here"),
        ("~/here", "{home}/here"),
        ("/here/*.parquet", "/here/*.parquet"),
        ("s3://bucket/here", "s3://bucket/here"),
        ("file:///here", "file:///here"),
    ],
)
def test_a_local_path_becomes_a_full_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert Greet(place=given).place == expected.format(cwd=tmp_path, home="/home/someone")


def test_a_path_in_the_copy_of_a_submitted_job_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / f"{JOB_COPY[1:]}package"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    message = r"--place: here lies in the job's temporary copy of the working directory; give a full path or a URL"
    with pytest.raises(InputError, match=message):
        Greet.from_argv(["--place=here"])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("column 'a' is not there"), EXIT_FATAL),
        (PlanChangedError("it was begun with other settings"), EXIT_FATAL),
        (BusyError("process 7 is writing"), EXIT_RETRYABLE),
        (LeaseLostError("another run has taken over"), EXIT_RETRYABLE),
        (PoolError("no worker was ready"), EXIT_RETRYABLE),
        (StoppedError("stopped by SIGTERM"), EXIT_RETRYABLE),
        (ConnectionError("there is no Ray at that address"), EXIT_RETRYABLE),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_a_failure_is_told_in_a_line(
    command: Command, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    def fail(_: Greet) -> int:
        raise error

    monkeypatch.setattr(Greet, "run", fail)
    outcome = command(Greet.main, ["--place=/here"])
    assert outcome == (code, "", f"error: {error}\n")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left", "/out/a"),
            EXIT_RETRYABLE,
            "[Errno 28] No space left: '/out/a'; the same",
        ),
        (TimeoutError("the store is silent"), EXIT_RETRYABLE, "the store is silent; the same"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/out"),
            EXIT_FATAL,
            "[Errno 13] Permission denied: '/out'; ",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file", "/in/a"),
            EXIT_FATAL,
            "[Errno 2] No such file: '/in/a'; mend ",
        ),
        (NotADirectoryError("/out/a/b"), EXIT_FATAL, "/out/a/b; mend "),
        (IsADirectoryError("/out/a"), EXIT_FATAL, "/out/a; mend "),
        (FileNotFoundError("https://me:pw@host/a?sig=x"), EXIT_FATAL, "https://***@host/a?***"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_a_failure_of_the_file_system_is_told_in_a_line(
    command: Command, monkeypatch: pytest.MonkeyPatch, error: OSError, code: int, message: str
) -> None:
    def fail(_: Greet) -> int:
        raise error

    monkeypatch.setattr(Greet, "run", fail)
    outcome = command(Greet.main, ["--place=/here"])
    assert outcome.code == code
    assert outcome.err.startswith(f"error: {message}")
    assert outcome.err.endswith("the same command goes on from here\n")


def test_a_failure_of_ray_may_pass(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Greet) -> int:
        raise RaySystemError("the head is gone")

    monkeypatch.setattr(Greet, "run", fail)
    outcome = command(Greet.main, ["--place=/here"])
    assert outcome.code == EXIT_RETRYABLE
    assert outcome.err.startswith("error: Ray failed: System error: the head is gone")
    assert outcome.err.endswith("; the same command goes on from here\n")


def test_success_is_zero(command: Command) -> None:
    assert command(Greet.main, ["--place=/here"]) == (EXIT_OK, "", "")


def test_the_jobs_own_code_is_the_exit_code(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Greet, "run", lambda _: 1)
    assert command(Greet.main, ["--place=/here"]).code == 1


def failed_unit(cause: Exception) -> UnitFailedError:
    error = UnitFailedError(f"a.parquet [0:10] failed: {type(cause).__name__}: {cause}")
    error.__cause__ = RayTaskError("run", "Traceback (most recent call last):\n  in compute", cause)
    return error


def test_a_bug_in_a_worker_is_told_with_its_place(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Greet) -> int:
        raise failed_unit(ArithmeticError("a text is poison"))

    monkeypatch.setattr(Greet, "run", fail)
    outcome = command(Greet.main, ["--place=/here"])
    assert outcome.code == EXIT_FATAL
    assert outcome.err.startswith("in the worker: ")
    assert "  in compute\n" in outcome.err
    assert outcome.err.endswith("\nerror: a.parquet [0:10] failed: ArithmeticError: a text is poison\n")


def test_bad_input_that_a_worker_finds_needs_no_place_in_the_code(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Greet) -> int:
        raise failed_unit(InputError("a.parquet is damaged"))

    monkeypatch.setattr(Greet, "run", fail)
    outcome = command(Greet.main, ["--place=/here"])
    assert outcome == (EXIT_FATAL, "", "error: a.parquet [0:10] failed: InputError: a.parquet is damaged\n")
