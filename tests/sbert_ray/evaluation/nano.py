"""Small data sets in the layout of NanoBEIR."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


class Columns(list[Any]):
    """Rows with columns and `map`, as far as the peer asks them of a data set."""

    def __getitem__(self, key: Any) -> Any:
        return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(key)

    def map(self, function: Any, fn_kwargs: Any = None, **options: Any) -> "Columns":
        return Columns({**row, **function(row, **(fn_kwargs or {}))} for row in self)


def tables(split: str) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each subset."""
    documents = [f"{split}d{number}" for number in range(25 + len(split))]
    queries = [f"{split}q{number}" for number in range(len(split) // 2)]
    relevant = [
        (query, documents[row]) for number, query in enumerate(queries) for row in range(number, 4 * number + 2)
    ]
    return {
        "corpus": [{"_id": name, "text": f"text of {name}"} for name in documents] + [{"_id": "empty", "text": ""}],
        "queries": [{"_id": name, "text": f"query {name}"} for name in queries] + [{"_id": "none", "text": ""}],
        "qrels": [{"query-id": query, "corpus-id": document} for query, document in relevant],
        "bm25": [
            {"query-id": name, "corpus-ids": documents[number + 2 :] + documents[:number]}
            for number, name in enumerate(queries)
        ],
    }


def write(folder: Path, splits: Sequence[str], kind: str = "parquet", data: Any = tables) -> Path:
    """Write data sets as Parquet, one in two files, or as JSON lines."""
    for split in splits:
        for subset, rows in data(split).items():
            path = folder / subset
            path.mkdir(parents=True, exist_ok=True)
            if kind == "jsonl":
                (path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            elif split == "NanoNQ":
                pq.write_table(pa.Table.from_pylist(rows[:2]), path / f"{split}-00000-of-00002.parquet")
                pq.write_table(pa.Table.from_pylist(rows[2:]), path / f"{split}-00001-of-00002.parquet")
            else:
                pq.write_table(pa.Table.from_pylist(rows), path / f"{split}.parquet")
    return folder
