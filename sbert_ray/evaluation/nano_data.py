"""The data of NanoBEIR: small samples of the data sets of BEIR, in a folder or on the hub."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

NANO_NAMES = {
    "climatefever": "ClimateFEVER",
    "dbpedia": "DBPedia",
    "fever": "FEVER",
    "fiqa2018": "FiQA2018",
    "hotpotqa": "HotpotQA",
    "msmarco": "MSMARCO",
    "nfcorpus": "NFCorpus",
    "nq": "NQ",
    "quoraretrieval": "QuoraRetrieval",
    "scidocs": "SCIDOCS",
    "arguana": "ArguAna",
    "scifact": "SciFact",
    "touche2020": "Touche2020",
}
"""What the split of each data set is called, after ``Nano``."""

_COLUMNS = {
    "corpus": ("_id", "text"),
    "queries": ("_id", "text"),
    "qrels": ("query-id", "corpus-id"),
    "bm25": ("query-id", "corpus-ids"),
}


class NanoData:
    """One data set: texts, judgements, and BM25's ranking.

    Args:
        dataset_id: A folder, or the id of a data set on the Hugging Face hub, with the subsets ``corpus``,
            ``queries``, ``qrels`` and ``bm25``: folders with a file ``Nano{Name}.parquet``, several
            ``Nano{Name}-*.parquet``, or JSON lines in ``.jsonl``.
        name: One of `NANO_NAMES`, in any case.

    Raises:
        FileNotFoundError: A file is missing, or the hub cannot be reached.
        ValueError: A file lacks a column.
    """

    def __init__(self, dataset_id: str, name: str) -> None:
        self.dataset_id = dataset_id
        self.split = nano_name(name)
        self.corpus = {str(row["_id"]): row["text"] for row in self._rows("corpus")}
        self.queries = {str(row["_id"]): row["text"] for row in self._rows("queries")}
        self.relevant_docs: dict[str, set[str]] = {}
        for row in self._rows("qrels"):
            ids = row["corpus-id"] if isinstance(row["corpus-id"], list) else [row["corpus-id"]]
            self.relevant_docs.setdefault(str(row["query-id"]), set()).update(map(str, ids))

    def rankings(self) -> Iterator[tuple[str, list[str]]]:
        """Yield query ids and BM25's documents for them, the best first."""
        for row in self._rows("bm25"):
            yield str(row["query-id"]), [str(document) for document in row["corpus-ids"]]

    def _rows(self, subset: str) -> list[dict[str, Any]]:
        folder = Path(_folder(self.dataset_id, subset, self.split), subset)
        files = _files(folder, self.split, "parquet") or _files(folder, self.split, "jsonl")
        rows: list[dict[str, Any]] = []
        for file in files:
            rows += _read(file, _COLUMNS[subset])
        if not files:
            raise FileNotFoundError(f"{self.dataset_id} must have {subset}/{self.split}.parquet or .jsonl, found none")
        return rows


def nano_name(name: str) -> str:
    """Return what a data set's split is called."""
    return f"Nano{NANO_NAMES[name.lower()]}"


def known_names(names: Iterable[str]) -> list[str]:
    """Return the names of data sets, at least one.

    Raises:
        ValueError: One is unknown, or there are none.
    """
    if isinstance(names, str):
        raise ValueError(f"dataset_names must be a list of names, such as [{names!r}], got {names!r}")
    names = list(names)
    if not names:
        raise ValueError("dataset_names must be at least one, or None for all, got none")
    if unknown := [name for name in names if name.lower() not in NANO_NAMES]:
        raise ValueError(f"unknown data sets {unknown}; known ones are {list(NANO_NAMES)}")
    return names


def _files(folder: Path, split: str, suffix: str) -> list[Path]:
    """Return the files of a split that end in ``suffix``: one, or its parts."""
    return sorted([*folder.glob(f"{split}.{suffix}"), *folder.glob(f"{split}-*.{suffix}")])


def _folder(dataset_id: str, subset: str, split: str) -> str:
    if os.path.isdir(dataset_id):
        return dataset_id
    patterns = [f"{subset}/{split}{part}.{suffix}" for part in ("", "-*") for suffix in ("parquet", "jsonl")]
    try:
        return snapshot_download(dataset_id, repo_type="dataset", allow_patterns=patterns)
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, HFValidationError, OSError) as error:
        raise FileNotFoundError(
            f"dataset_id must be a local folder with {subset}/{split}.parquet, or the id of a data set on the Hugging "
            f"Face hub, which is needed for it, got {dataset_id!r}: {error}"
        ) from error


def _read(file: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    if file.suffix == ".parquet":
        names: Sequence[str] = pq.read_schema(file).names
        _check_columns(file, columns, names)
        rows: list[dict[str, Any]] = pq.read_table(file, columns=list(columns)).to_pylist()
        return rows
    with file.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines if line.strip()]
    for row in rows:
        _check_columns(file, columns, row)
    return rows


def _check_columns(file: Path, columns: Sequence[str], found: Sequence[str] | Mapping[str, Any]) -> None:
    if missing := [name for name in columns if name not in found]:
        raise ValueError(f"{file} lacks column(s) {missing}; it has {list(found)}")
