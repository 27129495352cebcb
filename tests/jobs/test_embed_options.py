"""The options of the embedding job: which go together, and what they say of the results, before Ray starts."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from jobs.embed import EmbedJob
from sbert_ray.data.errors import InputError
from sbert_ray.data.manifest import Manifest, Plan, Record
from sbert_ray.data.storage import Storage
from tests.jobs.conftest import Command

pytestmark = pytest.mark.usefixtures("without_ray")

TEXTS = ["the cat sat on the mat", "a dog ran", "slow", None] * 25


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    table = pa.table({"id": range(100), "text": TEXTS, "title": ["a"] * 100})
    for part in range(2):
        pq.write_table(table.slice(50 * part, 50), folder / f"{part}.parquet", row_group_size=25)
    return folder


@pytest.fixture
def model(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """A copy of the tiny model that a test may change."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "model"))


def configure(model: Path, **settings: Any) -> None:
    path = model / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def make_job(model: Path, **options: Any) -> EmbedJob:
    return EmbedJob(**{"input": "/in", "output": "/out", "model": str(model), **options})


def flags(job: EmbedJob) -> list[str]:
    return [f"--input={job.input}", f"--output={job.output}", f"--model={job.model}"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--prompt=query: ", "--prompt-name=query"], "options: give prompt or prompt_name, not both"),
        (
            ["--id-column=id", "--keep-columns", "title", "id"],
            "options: column(s) ['id'] would be in the output twice; see id_column and keep_columns",
        ),
        (["--keep-columns", "title", "title"], "options: column(s) ['title'] would be in the output twice"),
        (["--keep-columns=embedding"], "options: column(s) ['embedding'] would be in the output twice"),
        (["--id-column=embedding"], "options: column(s) ['embedding'] would be in the output twice"),
        (["--keep-columns=source_file"], "options: column(s) ['source_file'] would be in the output twice"),
        (["--truncate-dim=0"], "--truncate-dim: Input should be greater than 0"),
        (["--max-batch-tokens=0"], "--max-batch-tokens: Input should be greater than 0"),
    ],
    ids=" ".join,
)
def test_options_that_exclude_each_other_are_named(options: list[str], problem: str) -> None:
    with pytest.raises(InputError) as caught:
        EmbedJob.from_argv(["--input=/in", "--output=/out", "--model=m", *options])
    assert str(caught.value).startswith(f"1 wrong option(s):\n  {problem}")


def test_an_id_column_makes_room_for_source_columns() -> None:
    job = make_job(Path("m"), id_column="id", keep_columns=["source_file", "source_position"])
    assert job.keep_columns == ("source_file", "source_position")


def test_an_unknown_prompt_name_lists_those_that_exist(model: Path) -> None:
    configure(model, prompts={"query": "find: ", "document": ""})
    with pytest.raises(
        InputError, match=r"^--prompt-name: .*model has no prompt 'qury'; it has \['document', 'query'\]"
    ):
        make_job(model, prompt_name="qury").settings()


def test_the_models_default_prompt_is_used_unless_another_is_given(model: Path) -> None:
    configure(model, prompts={"query": "find: ", "document": "read: ", "none": ""}, default_prompt_name="query")
    prompts = [
        make_job(model, **options).settings()["prompt"]
        for options in ({}, {"prompt_name": "document"}, {"prompt": "say: "}, {"prompt": ""}, {"prompt_name": "none"})
    ]
    assert prompts == ["find: ", "read: ", "say: ", None, None]


def test_a_default_prompt_that_the_model_lacks_is_told(model: Path) -> None:
    configure(model, prompts={"query": "find: "}, default_prompt_name="find")
    with pytest.raises(InputError, match=r"has no prompt 'find'; it has \['document', 'query'\]"):
        make_job(model).settings()


def test_truncation_must_not_exceed_the_model(tiny_checkpoint: Path) -> None:
    with pytest.raises(InputError, match=r"^--truncate-dim must be at most the model's 16, got 17$"):
        make_job(tiny_checkpoint, truncate_dim=17).settings()
    assert make_job(tiny_checkpoint, truncate_dim=16).settings()["truncate_dim"] == 16


@pytest.mark.parametrize("precision", ["binary", "ubinary"])
def test_bits_need_a_dimension_that_8_divides(tiny_checkpoint: Path, precision: str) -> None:
    with pytest.raises(InputError, match=f"^--precision {precision} needs a dimension that 8 divides, got 12$"):
        make_job(tiny_checkpoint, precision=precision, truncate_dim=12).settings()
    assert make_job(tiny_checkpoint, precision=precision, truncate_dim=8).settings()["precision"] == precision
    assert make_job(tiny_checkpoint, precision=precision).settings()["precision"] == precision


def test_the_models_own_truncation_counts(model: Path) -> None:
    configure(model, truncate_dim=12)
    with pytest.raises(InputError, match="needs a dimension that 8 divides, got 12"):
        make_job(model, precision="binary").settings()
    assert make_job(model).describe_model()["dimension"] == 12
    assert make_job(model, truncate_dim=8).describe_model()["dimension"] == 8


def test_settings_are_what_changes_results(tiny_checkpoint: Path) -> None:
    settings = make_job(tiny_checkpoint, num_workers=3, prompt="say: ").settings()
    revision = settings.pop("model_revision")
    assert revision.startswith("sha256:")
    assert settings == {
        "kind": "SentenceTransformer",
        "text_column": ["text"],
        "image_column": None,
        "id_column": None,
        "keep_columns": [],
        "task": None,
        "max_active_dims": None,
        "normalize": False,
        "truncate_dim": None,
        "precision": "float32",
        "dtype": None,
        "max_seq_length": None,
        "max_batch_tokens": None,
        "deduplicate": True,
        "prompt": "say: ",
    }


@pytest.mark.parametrize(
    "options",
    [
        {"text_column": ["title", "text"]},
        {"id_column": "id"},
        {"task": "query"},
        {"keep_columns": ["title"]},
        {"prompt": "say: "},
        {"normalize": True},
        {"truncate_dim": 8},
        {"precision": "float16"},
        {"dtype": "bfloat16"},
        {"max_seq_length": 16},
        {"max_batch_tokens": 1024},
        {"deduplicate": False},
    ],
    ids=lambda options: next(iter(options)),
)
def test_each_option_that_changes_results_is_in_the_settings(tiny_checkpoint: Path, options: dict[str, Any]) -> None:
    assert make_job(tiny_checkpoint, **options).settings() != make_job(tiny_checkpoint).settings()


def test_what_changes_no_results_is_not_in_the_settings(tiny_checkpoint: Path) -> None:
    options = {"num_workers": 3, "num_cpus_per_worker": 2, "num_gpus_per_worker": 0.5, "max_bad_rows": 7}
    others = {"hang_seconds": 5, "max_attempts": 9, "dry_run": True, "cost_per_worker_hour": 1, "calibration_rows": 9}
    job = make_job(tiny_checkpoint, **options, **others, input="/moved", output="/elsewhere", local_files_only=True)
    assert job.settings() == make_job(tiny_checkpoint).settings()


def test_the_prompts_that_each_model_has_can_be_named(tiny_checkpoint: Path) -> None:
    assert make_job(tiny_checkpoint, prompt_name="query").settings()["prompt"] is None


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("num_gpus_per_worker", 1.5, "must be at most 1, or a whole number"),
        ("num_gpus_per_worker", -1, "greater than or equal to 0"),
        ("num_cpus_per_worker", float("inf"), "finite number"),
        ("num_cpus_per_worker", 0, "greater than 0"),
    ],
)
def test_what_ray_cannot_give_is_refused(tiny_checkpoint: Path, option: str, value: float, problem: str) -> None:
    with pytest.raises(InputError, match=rf"--{option.replace('_', '-')}: .*{problem}"):
        EmbedJob.from_argv([*flags(make_job(tiny_checkpoint)), f"--{option.replace('_', '-')}={value}"])
    assert make_job(tiny_checkpoint, num_gpus_per_worker=2, num_cpus_per_worker=0.5).settings()


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_calibration_counts_where_there_is_any(tiny_checkpoint: Path, precision: str) -> None:
    settings = make_job(tiny_checkpoint, precision=precision, calibration_rows=9).settings()
    assert settings["calibration_rows"] == 9


def test_a_model_that_was_moved_is_the_same(model: Path, tiny_checkpoint: Path) -> None:
    (model / "README.md").write_text("another card")
    assert make_job(model).settings() == make_job(tiny_checkpoint).settings()


def test_other_weights_are_another_model(model: Path, tiny_checkpoint: Path) -> None:
    weights = next(model.rglob("model.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    changed, original = make_job(model).settings(), make_job(tiny_checkpoint).settings()
    assert changed.pop("model_revision") != original.pop("model_revision")
    assert changed == original


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_dry_run_tells_the_plan_and_does_nothing(
    command: Command, tmp_path: Path, corpus: Path, tiny_checkpoint: Path
) -> None:
    job = make_job(tiny_checkpoint, input=f"{corpus}", output=f"{tmp_path}/out")
    outcome = command(EmbedJob.main, [*flags(job), "--dry-run", "--rows-per-unit=20"])
    assert (outcome.code, outcome.err) == (0, "")
    told, _, settings = outcome.out.partition("settings ")
    tokenizer = Tokenizer.from_file(str(next(tiny_checkpoint.rglob("tokenizer.json"))))
    mean = sum(len(tokenizer.encode(text or "").ids) for text in TEXTS) / 100
    assert told == (
        f"input    {corpus}: 2 files, 100 rows\n"
        "units    8 of about 20 rows: 0.parquet [0:12], 0.parquet [12:25], 0.parquet [25:37], ...\n"
        f"output   {tmp_path}/out: new\n"
        f"tokens   about {100 * mean:,.0f}, from 100 texts with {mean:.0f} on average\n"
    )
    expected = make_job(tiny_checkpoint).settings() | {"rows_per_unit": 20, "limit": None}
    assert json.loads(settings) == expected
    assert not (tmp_path / "out").exists()


def test_a_dry_run_minds_the_limit(command: Command, tmp_path: Path, corpus: Path, tiny_checkpoint: Path) -> None:
    job = make_job(tiny_checkpoint, input=f"{corpus}", output=f"{tmp_path}/out")
    outcome = command(EmbedJob.main, [*flags(job), "--dry-run", "--limit=60"])
    assert f"input    {corpus}: 2 files, 60 rows\n" in outcome.out
    assert "units    2 of about 256 rows: 0.parquet [0:50], 1.parquet [0:10]\n" in outcome.out


def test_the_estimate_minds_the_models_limit_and_not_the_tokenizer_files(
    command: Command, tmp_path: Path, model: Path
) -> None:
    file = model / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.enable_padding(length=24)
    tokenizer.enable_truncation(8)
    tokenizer.save(str(file))
    pq.write_table(pa.table({"text": ["the cat " * 5] * 10}), tmp_path / "in.parquet")
    job = make_job(model, input=f"{tmp_path}/in.parquet", output=f"{tmp_path}/out")
    assert (
        "\ntokens   about 120, from 10 texts with 12 on average\n"
        in command(EmbedJob.main, [*flags(job), "--dry-run"]).out
    )
    assert (
        "\ntokens   about 100, from 10 texts with 10 on average\n"
        in command(EmbedJob.main, [*flags(job), "--dry-run", "--max-seq-length=10"]).out
    )


def begin(job: EmbedJob, rows_per_unit: int = 256, done: int = 0) -> None:
    """Write the manifest of a run that did some units."""
    dataset = job.open_dataset()
    settings = {**job.settings(), "rows_per_unit": rows_per_unit, "limit": None}
    num_units = sum(1 for _ in dataset.units(rows_per_unit))
    plan = Plan("embed", settings, [file.described() for file in dataset.files], num_units, job.input)
    manifest = Manifest.open(Storage(job.output), plan)
    manifest.append([Record(unit, f"data/part-{unit:08d}.parquet", 50, 0, 1, "") for unit in range(done)])


@pytest.mark.parametrize(
    ("done", "options", "state"),
    [
        (0, [], "0 of 2 units done\n"),
        (1, [], "1 of 2 units done\n"),
        (2, ["--num-workers=7"], "2 of 2 units done\n"),
        (
            1,
            ["--limit=60"],
            "1 of 2 units done; REFUSED, since input or settings differ:\n  limit: null -> 60\n",
        ),
    ],
    ids=["begun", "partly done", "done", "refused"],
)
def test_a_dry_run_tells_the_state_of_the_output(
    command: Command, tmp_path: Path, corpus: Path, tiny_checkpoint: Path, done: int, options: list[str], state: str
) -> None:
    job = make_job(tiny_checkpoint, input=f"{corpus}", output=f"{tmp_path}/out")
    begin(job, done=done)
    before = contents(tmp_path / "out")
    outcome = command(EmbedJob.main, [*flags(job), *options, "--dry-run"])
    assert outcome.code == 0
    assert f"output   {tmp_path}/out: {state}tokens " in outcome.out
    assert contents(tmp_path / "out") == before


def test_a_dry_run_tells_of_a_folder_that_is_no_output(
    command: Command, tmp_path: Path, corpus: Path, tiny_checkpoint: Path
) -> None:
    job = make_job(tiny_checkpoint, input=f"{corpus}", output=f"{tmp_path}/out")
    (tmp_path / "out/data").mkdir(parents=True)
    (tmp_path / "out/data/mine.csv").write_text("a,b")
    outcome = command(EmbedJob.main, [*flags(job), "--dry-run"])
    assert f"output   {tmp_path}/out: REFUSED, since it has a data folder but no manifest\n" in outcome.out


def test_the_help_tells_every_field(command: Command) -> None:
    outcome = command(EmbedJob.main, ["--help"])
    assert outcome.code == 0
    for name in EmbedJob.model_fields:
        assert f"--{name.replace('_', '-')}" in outcome.out
