"""NanoBEIR for cross-encoders, from a folder, against the peer."""

from pathlib import Path
from typing import Any

import pytest

from sbert_ray.evaluation import cross_encoder as ours
from tests.sbert_ray.evaluation.cross_encoder.oracle import Scores
from tests.sbert_ray.evaluation.nano import Columns, tables, write
from tests.sbert_ray.evaluation.oracle import assert_same

peer = pytest.importorskip("sentence_transformers.cross_encoder.evaluation")

NAMES = ["msmarco", "NQ"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write(tmp_path_factory.mktemp("nano"), ["NanoMSMARCO", "NanoNQ"]))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rerank_k": 5, "at_k": 3, "always_rerank_positives": False, "prompt_name": "p"},
        {"write_csv": False, "aggregate_fn": min, "aggregate_key": "min"},
    ],
)
def test_equals_the_peer(options: dict[str, Any], folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: Any, subset: str, split: str, required_columns: Any) -> Columns:
        return Columns(tables(split)[subset])

    monkeypatch.setattr(peer.CrossEncoderNanoBEIREvaluator, "_load_dataset_subset_split", load)
    theirs = peer.CrossEncoderNanoBEIREvaluator(NAMES, **options)
    assert_same(ours.CrossEncoderNanoBEIREvaluator(NAMES, folder, **options), theirs, Scores(), tmp_path)


def test_two_data_sets_are_left_out(folder: str) -> None:
    with pytest.raises(FileNotFoundError, match="must have corpus/NanoClimateFEVER"):
        ours.CrossEncoderNanoBEIREvaluator(dataset_id=folder)
    with pytest.raises(ValueError, match=r"unknown data sets \['nope'\]"):
        ours.CrossEncoderNanoBEIREvaluator(["nope"], folder)


def test_empty_texts_are_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_empty(split: str) -> dict[str, Any]:
        data = tables(split)
        data["bm25"][0]["corpus-ids"].insert(1, "empty")
        data["bm25"].append({"query-id": "none", "corpus-ids": data["bm25"][0]["corpus-ids"]})
        data["qrels"].append({"query-id": "none", "corpus-id": "empty"})
        return data

    def load(self: Any, subset: str, split: str, required_columns: Any) -> Columns:
        return Columns(with_empty(split)[subset])

    monkeypatch.setattr(peer.CrossEncoderNanoBEIREvaluator, "_load_dataset_subset_split", load)
    folder = write(tmp_path / "data", ["NanoMSMARCO"], data=with_empty)
    theirs = peer.CrossEncoderNanoBEIREvaluator(["msmarco"])
    assert_same(ours.CrossEncoderNanoBEIREvaluator(["msmarco"], str(folder)), theirs, Scores(), tmp_path)
