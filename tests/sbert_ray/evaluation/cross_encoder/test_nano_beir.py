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
