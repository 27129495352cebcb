"""What users get wrong: each mistake ends the command with code 2 and words that name it, before Ray starts."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.embed import EmbedJob
from jobs.job import EXIT_FATAL
from sbert_ray.data.manifest import Manifest, Plan
from sbert_ray.data.storage import Storage
from tests.jobs.conftest import Command

pytestmark = pytest.mark.usefixtures("without_ray", "workplace")

Mistake = Callable[[], None]
FLAGS = {"input": "in", "output": "out", "model": "model", "id-column": "id"}


@pytest.fixture
def workplace(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with all that a run needs: a corpus `in` and a `model`."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_checkpoint, "model")
    Path("in").mkdir()
    for name in ("a", "b"):
        pq.write_table(pa.table({"id": [1, 2], "text": ["a dog", "a cat"], "number": [3, 4]}), f"in/{name}.parquet")


def run(command: Command, *more: str, **changes: str) -> str:
    """Run the job, which must fail, and return what it says, with the present folder as `.`."""
    flags = [f"--{name}={value}" for name, value in (FLAGS | changes).items()]
    outcome = command(EmbedJob.main, [*flags, *more])
    assert (outcome.code, outcome.out) == (EXIT_FATAL, "")
    assert "Traceback" not in outcome.err
    assert outcome.err.startswith("error: ")
    return outcome.err.removeprefix("error: ").rstrip("\n").replace(str(Path.cwd()), ".")


def test_nothing_is_wrong_without_a_mistake(command: Command) -> None:
    assert command(EmbedJob.main, [*(f"--{name}={value}" for name, value in FLAGS.items()), "--dry-run"]).code == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--text-column=body"], "./in/a.parquet lacks column(s) ['body']; it has ['id', 'text', 'number']"),
        (["--id-column=url"], "./in/a.parquet lacks column(s) ['url']; it has ['id', 'text', 'number']"),
        (
            ["--keep-columns", "title", "number", "date"],
            "./in/a.parquet lacks column(s) ['title', 'date']; it has ['id', 'text', 'number']",
        ),
        (["--text-column=number"], "./in/a.parquet: column 'number' is int64; a text column must hold strings"),
        (["--num-workers=0"], "1 wrong option(s):\n  --num-workers: Input should be greater than 0"),
        (["--max-seq-length=0"], "1 wrong option(s):\n  --max-seq-length: Input should be greater than 0"),
        (["--hang-seconds=soon"], "1 wrong option(s):\n  --hang-seconds: Input should be a valid number"),
        (
            ["--input=s3://bucket/in"],
            "cannot use s3://bucket/in: Install s3fs to access S3",
        ),
        (["--output=s3://b/out"], "cannot use s3://b/out: Install s3fs to access S3"),
        (["--input=what://in"], "cannot use what://in: Protocol not known: what"),
        (["--truncate-dim=999"], "--truncate-dim must be at most the model's 16, got 999"),
        (["--prompt-name=qury"], "--prompt-name: model has no prompt 'qury'; it has "),
        (["--revision=main"], "--model: revision must be None for the local folder 'model', got 'main'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_option_is_named(command: Command, flags: list[str], message: str) -> None:
    assert run(command, *flags).startswith(message)
    assert not Path("out").exists()


def test_a_column_that_one_file_lacks_is_told_with_that_file(command: Command) -> None:
    pq.write_table(pa.table({"id": [1], "body": ["a dog"]}), "in/b.parquet")
    assert run(command) == "./in/b.parquet lacks column(s) ['text']; it has ['id', 'body']"


def test_a_column_that_one_jsonl_file_lacks_is_told_with_that_file(command: Command) -> None:
    empty_the_input()
    for name, key in {"a": "id", "b": "ID"}.items():
        Path(f"in/{name}.jsonl").write_text(f'{{"{key}": 1, "text": "a dog"}}\n' * 3)
    assert run(command) == "./in/b.jsonl (first 1000 lines) lacks column(s) ['id']; it has ['ID', 'text']"
    assert not Path("out").exists()


def test_ids_of_a_type_that_cannot_be_copied_are_told(command: Command) -> None:
    empty_the_input()
    Path("in/a.jsonl").write_text('{"id": {}, "text": "a dog"}\n')
    assert run(command).startswith(
        "./in/a.jsonl (first 1000 lines): column 'id' is struct<>, which cannot be copied to the output: Parquet has no"
    )


def test_a_column_of_two_types_is_told_with_both_files(command: Command) -> None:
    pq.write_table(pa.table({"id": ["x"], "text": ["a dog"]}), "in/b.parquet")
    assert run(command) == (
        "./in/b.parquet: column 'id' is string, but int64 in ./in/a.parquet; a column that is copied must have one type"
    )


def empty_the_input() -> None:
    shutil.rmtree("in")
    Path("in").mkdir()


def remove_the_input() -> None:
    shutil.rmtree("in")


def leave_no_rows() -> None:
    for path in Path("in").iterdir():
        pq.write_table(pq.read_table(path).slice(0, 0), path)


def give_other_files() -> None:
    empty_the_input()
    Path("in/notes.txt").write_text("a dog")


def mix_formats() -> None:
    Path("in/c.jsonl").write_text('{"id": 5, "text": "a dog"}\n')


def damage_the_footer() -> None:
    path = Path("in/b.parquet")
    path.write_bytes(path.read_bytes()[:-20])


def give_no_parquet() -> None:
    Path("in/b.parquet").write_text("id,text\n1,a dog\n")


def give_an_empty_file() -> None:
    Path("in/b.parquet").write_bytes(b"")


def give_no_objects() -> None:
    empty_the_input()
    Path("in/a.jsonl").write_text("a dog\n[1, 2]\n")


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (remove_the_input, "no Parquet or JSONL files at ./in, or it does not exist; known suffixes are ['.parquet', "),
        (empty_the_input, "no Parquet or JSONL files at ./in, or it does not exist; known suffixes are ['.parquet', "),
        (give_other_files, "no Parquet or JSONL files at ./in; it has ['notes.txt']; known suffixes are ['.parquet', "),
        (leave_no_rows, "./in holds no rows in its 2 files"),
        (mix_formats, "./in holds Parquet and JSONL files; give one kind, with a glob such as ./in/*.parquet"),
        (damage_the_footer, "./in/b.parquet is no readable Parquet file: "),
        (give_no_parquet, "./in/b.parquet is no readable Parquet file: "),
        (give_an_empty_file, "./in/b.parquet is no readable Parquet file: "),
        (give_no_objects, "./in holds no JSON objects in its 1 files"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_input_that_cannot_be_read_is_named(command: Command, mistake: Mistake, message: str) -> None:
    mistake()
    assert run(command).startswith(message)
    assert not Path("out").exists()


def remove_the_model() -> None:
    shutil.rmtree("model")


def leave_nothing_of_the_model() -> None:
    remove_the_model()
    Path("model").mkdir()


def make_the_model_a_file() -> None:
    remove_the_model()
    Path("model").write_text("weights")


def pickle_the_weights() -> None:
    weights = next(Path("model").rglob("model.safetensors"))
    weights.rename(weights.with_name("pytorch_model.bin"))


def lose_the_weights() -> None:
    next(Path("model").rglob("model.safetensors")).unlink()


def name_a_module(kind: str) -> Mistake:
    def mistake() -> None:
        path = Path("model/modules.json")
        modules = json.loads(path.read_text())
        modules[1]["type"] = kind
        path.write_text(json.dumps(modules))

    mistake.__name__ = kind
    return mistake


def damage_the_modules() -> None:
    Path("model/modules.json").write_text("[{")


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (remove_the_model, "--model: there is no model folder './model'"),
        (leave_nothing_of_the_model, "has neither modules.json nor config.json, so it is not a checkpoint"),
        (make_the_model_a_file, "--model: a model must be a folder or a hub id, './model' is a file"),
        (pickle_the_weights, "lacks model.safetensors and has pytorch_model.bin, a pickle, which can run code"),
        (lose_the_weights, "has no weights: it lacks model.safetensors"),
        (
            name_a_module("sentence_transformers.models.Unheard"),
            "unknown module 'sentence_transformers.models.Unh",
        ),
        (name_a_module("mine.Pooling"), "names the custom module 'mine.Pooling', which runs code from the checkpoint"),
        (damage_the_modules, "modules.json' must be JSON: Expecting property name"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_a_model_that_will_not_do_is_named(command: Command, mistake: Mistake, message: str) -> None:
    mistake()
    error = run(command, model=f"{Path.cwd()}/model")
    assert error.startswith("--model: ")
    assert message in error
    assert "./model" in error
    assert not Path("out").exists()


def test_a_damaged_tokenizer_is_named(command: Command) -> None:
    Path("model/tokenizer.json").write_text("{")
    assert run(command, "--dry-run").startswith("--model: ./model/tokenizer.json is no tokenizer: EOF while parsing")


@pytest.mark.parametrize("output", ["model/config.json/out", "model/config.json", "/proc/out"])
def test_an_output_that_cannot_be_written_is_named(command: Command, output: str) -> None:
    error = run(command, output=output)
    assert error.startswith(f"cannot write to {output if output.startswith('/') else f'./{output}'}: [Errno ")
    assert error.endswith("; give a folder that can be written to")


def test_a_folder_that_is_no_output_is_left_alone(command: Command) -> None:
    Path("out/data").mkdir(parents=True)
    Path("out/data/mine.csv").write_text("a,b")
    assert run(command) == "./out has a data folder but no manifest; give a new or empty output"
    assert [path.name for path in Path("out").rglob("*") if path.is_file()] == ["mine.csv"]


def test_an_output_of_other_settings_is_left_alone(command: Command) -> None:
    job = EmbedJob(input="in", output="out", model="model", id_column="id")
    files = [file.described() for file in job.open_dataset().files]
    settings = job.settings() | {"rows_per_unit": 256, "limit": None}
    Manifest.open(Storage("out"), Plan("embed", settings, files, 2, job.input))
    before = Path("out/_manifest/plan.json").read_bytes()
    assert run(command, "--normalize", "--precision=int8") == (
        "./out was begun with another input or other settings:\n"
        "  calibration_rows: null -> 4096\n"
        "  normalize: false -> true\n"
        '  precision: "float32" -> "int8"\n'
        "Give a new output, or run again as before."
    )
    assert Path("out/_manifest/plan.json").read_bytes() == before


def test_an_output_whose_manifest_is_damaged_is_left_alone(command: Command) -> None:
    Path("out/_manifest").mkdir(parents=True)
    Path("out/_manifest/plan.json").write_text("{")
    error = run(command)
    assert error.startswith("./out/_manifest/plan.json is damaged: ")
    assert error.endswith("; give a new output")


def test_a_missing_config_file_is_named(command: Command) -> None:
    assert run(command, "--config=embed.yaml").startswith(
        "cannot read the config file embed.yaml: [Errno 2] No such file"
    )


def test_a_mistake_in_a_config_file_is_named(command: Command) -> None:
    Path("embed.yaml").write_text("text-colum: body\nprecision: float8\n")
    assert run(command, "--config=embed.yaml") == (
        "2 wrong option(s) in embed.yaml or the flags:\n"
        "  --precision: Input should be 'float32', 'float16', 'int8', 'uint8', 'binary' or 'ubinary'\n"
        "  --text-colum: no such option; did you mean --text-column"
    )
