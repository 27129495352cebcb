"""Real texts for the demo, tests and benchmarks: the docstrings of installed packages, read without importing them."""

import ast
import hashlib
import os
import shutil
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

# Packages of the environment that explain themselves, and the share of the corpus that each may fill: more than one in
# sum, as some have less to say.
PACKAGES = {
    "torch": 0.2,
    "transformers": 0.2,
    "ray": 0.15,
    "sympy": 0.15,
    "numpy": 0.1,
    "networkx": 0.1,
    "pyarrow": 0.05,
    "huggingface_hub": 0.05,
    "pydantic": 0.05,
    "fsspec": 0.05,
    "aiohttp": 0.05,
}
SKIPPED_FOLDERS = {"tests", "test", "testing", "_vendor", "vendor", "thirdparty_files", "generated"}
MIN_CHARS = 20
# What a docstring says comes first, parameters follow. Up to 600 characters make 72 tokens on average and at most 335:
# all-MiniLM-L6-v2 truncates 2 texts in 1000, and two slow cores embed 12,000 of them within minutes.
MAX_CHARS = 600
ROWS_PER_GROUP = 500


class Docstring(NamedTuple):
    """One document."""

    id: str
    """Where it stands, as `package.module:qualified.name`, or `package.module` for that of a module."""
    text: str
    package: str


def docstrings(limit: int) -> list[Docstring]:
    """Return up to `limit` docstrings of different texts and ids, sorted by id.

    They depend on the installed versions only. Files come in an order of their hash, so that every part of a large
    package has its say.
    """
    found: dict[str, Docstring] = {}
    texts: set[str] = set()
    for package, share in PACKAGES.items():
        fresh = (doc for doc in _of_package(package) if doc.id not in found and doc.text not in texts)
        for doc in islice(fresh, min(round(limit * share), limit - len(found))):
            found[doc.id] = doc
            texts.add(doc.text)
    return [found[id_] for id_ in sorted(found)]


def write_corpus(folder: Path, docs: Sequence[Docstring], num_shards: int = 8) -> None:
    """Write a new folder of Parquet files with the columns id, text and package; it appears whole or not at all."""
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    schema = pa.schema([(name, pa.string()) for name in Docstring._fields])
    table = pa.Table.from_pylist([doc._asdict() for doc in docs], schema)
    size = -(-len(docs) // num_shards)
    for shard in range(num_shards):
        part = table.slice(shard * size, size)
        pq.write_table(part, draft / f"docs-{shard:03}.parquet", row_group_size=ROWS_PER_GROUP)
    draft.replace(folder)


def _of_package(package: str) -> Iterator[Docstring]:
    root = Path(sysconfig.get_paths()["purelib"])
    paths = [path.relative_to(root) for path in (root / package).rglob("*.py")]
    kept = [path for path in paths if not SKIPPED_FOLDERS & set(path.parts)]
    for path in sorted(kept, key=lambda path: hashlib.blake2b(path.as_posix().encode()).digest()):
        yield from _of_file(root, path, package)


def _of_file(root: Path, path: Path, package: str) -> Iterator[Docstring]:
    try:
        with warnings.catch_warnings(action="ignore"):  # invalid escapes in the sources of others
            tree = ast.parse((root / path).read_bytes())
    except (SyntaxError, ValueError):  # templates, and sources for another version of Python
        return
    module = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    for names, node in _documented(tree, ()):
        text = shorten(ast.get_docstring(node) or "")
        if len(text) >= MIN_CHARS:
            yield Docstring(f"{module}:{'.'.join(names)}" if names else module, text, package)


Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _documented(node: Documented, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Documented]]:
    yield names, node
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _documented(child, (*names, child.name))


def shorten(text: str) -> str:
    """Return the first paragraphs of a text, up to `MAX_CHARS`; a longer first one is cut between words."""
    text = text.strip()
    if len(text) <= MAX_CHARS:
        return text
    head = text[: MAX_CHARS + 1]
    ends = (head.rfind("\n\n"), head.rfind(" "), MAX_CHARS)
    return head[: next(end for end in ends if end >= MIN_CHARS)].rstrip()
