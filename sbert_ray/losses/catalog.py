"""Which losses fit which data, read from the losses' own documentation. It writes the tables of docs/losses.md.

python -m sbert_ray.losses.catalog docs/losses.md
"""

import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sbert_ray.losses import LOSSES, cross_encoder

BEGIN, END = "<!-- begin: {} -->", "<!-- end: {} -->"
FAMILIES = ("SentenceTransformer", "SparseEncoder", "CrossEncoder")
WRAPPED = "those of the wrapped loss"


@dataclass(frozen=True)
class Entry:
    """What the documentation of a loss says."""

    name: str
    family: str
    """One of `FAMILIES`."""
    summary: str
    data: tuple[tuple[str, str], ...]
    """Alternatives of columns, as in ``(anchor, positive)``, and of the labels that go with them."""


def entries() -> list[Entry]:
    """Return all losses, dense ones first.

    Raises:
        ValueError: The documentation of one does not say what data it takes.
    """
    found = []
    for name, loss in LOSSES.items():
        is_sparse = loss.__module__.rpartition(".")[2] in ("sparse", "splade", "csr")
        found.append(_entry(name, loss, FAMILIES[1] if is_sparse else FAMILIES[0]))
    found += [_entry(name, loss, FAMILIES[2]) for name, loss in cross_encoder.LOSSES.items()]
    return found


def _entry(name: str, loss: type, family: str) -> Entry:
    text = " ".join((inspect.getdoc(loss) or "").split())
    summary = _plain(text.partition(". ")[0].partition(" Deprecated")[0].rstrip(".") + ".")
    said = re.search(r" Columns: (?P<columns>.*?)\. Labels: (?P<labels>.*?)\.(?: [A-Z]\w+:|$)", text)
    if said is None:
        raise ValueError(f"the documentation of {name} must say 'Columns: ... Labels: ...'")
    if other := re.fullmatch(r"those of `(\w+)`", said["columns"]):
        return Entry(name, family, summary, _entry(other[1], LOSSES[other[1]], family).data)
    columns, labels = re.split(r" or (?=\()", said["columns"]), said["labels"].split("; or ")
    labels = labels if len(labels) == len(columns) else [said["labels"]] * len(columns)
    return Entry(name, family, summary, tuple(zip(columns, labels, strict=True)))


def _plain(text: str) -> str:
    """Return code in a docstring's sentence as code of Markdown."""
    return re.sub(r"`+([^`]+)`+", r"`\1`", text)


def by_data(found: Iterable[Entry]) -> str:
    """Return the table from data to losses."""
    rows: dict[tuple[str, str], dict[str, list[str]]] = {}
    for entry in found:
        for data in entry.data:
            row = rows.setdefault(data, {family: [] for family in FAMILIES})
            row[entry.family].append(f"`{entry.name}`")
    lines = ["| columns | labels | " + " | ".join(FAMILIES) + " |", "|---|---|---|---|---|"]
    for (columns, labels), names in sorted(rows.items(), key=lambda row: (row[0][0] == WRAPPED, row[0])):
        of_data = "those of the loss inside" if columns == WRAPPED else columns
        cells = [of_data, "" if columns == WRAPPED else labels, *(", ".join(names[family]) for family in FAMILIES)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def by_name(found: Iterable[Entry]) -> str:
    """Return a table of what each loss is."""
    lines = ["| loss | of a | is |", "|---|---|---|"]
    lines += [f"| `{entry.name}` | {entry.family} | {entry.summary} |" for entry in found]
    return "\n".join(lines)


def with_tables(text: str) -> str:
    """Return a document with its tables renewed.

    Raises:
        ValueError: A place for a table is missing.
    """
    for name, table in _tables():
        begin, end = BEGIN.format(name), END.format(name)
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"the document must have {begin} and, after it, {end}")
        text = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    return text


def _tables() -> Iterator[tuple[str, str]]:
    found = entries()
    yield "by data", by_data(found)
    yield "by name", by_name(found)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
