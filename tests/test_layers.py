"""The architecture, kept by a test: who may import whom, and what modules are called."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PEER = "sentence_transformers"

# A module path, as a prefix, and what nothing below it may import, as prefixes too.
MAY_NOT_IMPORT = {
    "sbert_ray": {"ray", "actors", "jobs", PEER},
    "sbert_ray.modules": {"sbert_ray.models"},  # a model is modules in a row, not the other way round
    "sbert_ray.data": {"torch", "transformers", "sbert_ray.models", "sbert_ray.modules", "sbert_ray.inference"},
    "sbert_ray.losses": {"sbert_ray.models"},  # models are protocols to losses and evaluation
    "sbert_ray.evaluation": {"sbert_ray.models"},
    "actors": {"jobs", PEER},
    "jobs": {"torch", "transformers", PEER},  # a driver starts without them; its actors load them
    "demo": {PEER},
    "benchmarks.docstrings": {PEER},
}
ARRAYS = {"torch", "numpy", "sbert_ray.embeddings", "sbert_ray.similarity", "sbert_ray.quantization"}
# Modules that know these packages, the standard library and themselves, and nothing else.
MAY_ONLY_IMPORT = {
    "sbert_ray.embeddings": {"torch", "numpy", "scipy"},
    "sbert_ray.similarity": {"torch", "numpy", "sbert_ray.embeddings"},
    "sbert_ray.quantization": {"numpy", "sbert_ray.search"},  # search for its public name, on first use only
    "sbert_ray.search": {*ARRAYS, "faiss", "usearch", "sbert_ray.search"},
    "sbert_ray.mining": {*ARRAYS, "sbert_ray.search", "sbert_ray.mining"},
}
NAMES_THAT_SAY_NOTHING = {"utils", "util", "base", "common", "helper", "helpers", "misc"}
FACES = {"sbert_ray/util"}  # the public import paths of sentence_transformers


def modules(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the dotted name and the path of every module that the rules are about."""
    packages = ("sbert_ray", "actors", "jobs", "benchmarks")
    files = [path for package in packages for path in (root / package).rglob("*.py")]
    for path in [*files, *root.glob("demo.py")]:
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        yield name.removesuffix(".__init__"), path


def imports(name: str, path: Path) -> set[str]:
    """Return the dotted names that a module imports, wherever in it, relative imports resolved."""
    found: set[str] = set()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*parents, *filter(None, [node.module])])
            found |= {f"{source}.{alias.name}" for alias in node.names}  # the name may be a module
    return found


def is_below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def violations(root: Path) -> list[str]:
    """Return every import that breaks a rule, as `module imports other`."""
    wrong = []
    for name, path in modules(root):
        for other in sorted(imports(name, path)):
            denied = {p for rule, prefixes in MAY_NOT_IMPORT.items() if is_below(name, rule) for p in prefixes}
            stray = any(
                is_below(name, rule) and not is_known(other, allowed) for rule, allowed in MAY_ONLY_IMPORT.items()
            )
            if stray or any(is_below(other, prefix) for prefix in denied):
                wrong.append(f"{name} imports {other}")
    return wrong


def is_known(other: str, allowed: set[str]) -> bool:
    return other.partition(".")[0] in sys.stdlib_module_names or any(is_below(other, prefix) for prefix in allowed)


def names_that_say_nothing(root: Path) -> list[str]:
    paths = (path.relative_to(root) for _, path in modules(root))
    places = {place for path in paths for place in (path.with_suffix(""), *path.parents)}
    return sorted(str(p) for p in places if p.name in NAMES_THAT_SAY_NOTHING and str(p) not in FACES)


def test_imports_point_one_way():
    assert not violations(ROOT)


def test_modules_have_names_that_say_something():
    assert not names_that_say_nothing(ROOT)


@pytest.mark.parametrize(
    ("file", "source", "expected"),
    [
        ("sbert_ray/x.py", "import ray", "sbert_ray.x imports ray"),
        ("sbert_ray/x.py", "def f():\n    from actors.pool import Pool", "sbert_ray.x imports actors.pool.Pool"),
        ("sbert_ray/x.py", f"import {PEER}.util", f"sbert_ray.x imports {PEER}.util"),
        ("sbert_ray/modules/x.py", "from ..models import y", "sbert_ray.modules.x imports sbert_ray.models.y"),
        ("sbert_ray/modules/__init__.py", "from ..models import y", "sbert_ray.modules imports sbert_ray.models.y"),
        ("sbert_ray/modules/x.py", "from sbert_ray import models", "sbert_ray.modules.x imports sbert_ray.models"),
        ("sbert_ray/data/x.py", "import torch.nn", "sbert_ray.data.x imports torch.nn"),
        ("sbert_ray/similarity.py", "import pyarrow", "sbert_ray.similarity imports pyarrow"),
        ("sbert_ray/search/x.py", "import sbert_ray.models", "sbert_ray.search.x imports sbert_ray.models"),
        ("sbert_ray/quantization.py", "import torch", "sbert_ray.quantization imports torch"),
        ("actors/x.py", "import jobs", "actors.x imports jobs"),
        ("jobs/x.py", "from torch import nn", "jobs.x imports torch.nn"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path, file, source, expected):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert violations(tmp_path) == [expected]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("sbert_ray/similarity.py", "import math\nfrom collections.abc import Callable\nimport torch"),
        ("sbert_ray/x.py", "import raygun  # not ray"),
        ("jobs/x.py", "from actors.pool import Pool\nimport ray"),
        ("sbert_ray/models/x.py", "from ..modules import Pooling"),
    ],
)
def test_an_allowed_import_is_not(tmp_path, file, source):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert not violations(tmp_path)


@pytest.mark.parametrize("file", ["sbert_ray/utils.py", "jobs/common/x.py", "actors/base.py", "jobs/util/x.py"])
def test_a_name_that_says_nothing_is_found(tmp_path, file):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.touch()
    assert len(names_that_say_nothing(tmp_path)) == 1


def test_the_util_face_is_the_exception(tmp_path):
    (tmp_path / "sbert_ray/util").mkdir(parents=True)
    (tmp_path / "sbert_ray/util/__init__.py").touch()
    assert not names_that_say_nothing(tmp_path)
