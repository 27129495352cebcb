"""Distances from a teacher, against the peer."""

from pathlib import Path
from typing import Any

import pytest

from sbert_ray.evaluation import MSEEvaluator, MSEEvaluatorFromDataFrame
from sbert_ray.evaluation import mse as module
from tests.sbert_ray.evaluation.oracle import Texts, assert_same, words

peer = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation")

COLUMNS = (words("a", 40), words("b", 40))
TEACHER = Texts(levels=2)
ROWS = [{"en": f"a{i}", "de": f"b{i}", "fr": f"c{i}" if i % 3 else ""} for i in range(9)]


@pytest.mark.parametrize("options", [{}, {"name": "dev", "truncate_dim": 3, "batch_size": 7}, {"write_csv": False}])
def test_equals_the_peer(options: dict[str, Any], tmp_path: Path) -> None:
    theirs = peer.MSEEvaluator(*COLUMNS, TEACHER, **options)
    assert_same(MSEEvaluator(*COLUMNS, TEACHER, **options), theirs, Texts(), tmp_path)


@pytest.mark.parametrize("options", [{}, {"name": "dev", "truncate_dim": 3}, {"write_csv": False}])
def test_data_frames_are_as_with_the_peer(options: dict[str, Any], tmp_path: Path) -> None:
    pairs = [("en", "de"), ("en", "fr")]
    theirs = peer.MSEEvaluatorFromDataFrame(ROWS, TEACHER, pairs, **options)
    assert_same(MSEEvaluatorFromDataFrame(ROWS, TEACHER, pairs, **options), theirs, Texts(), tmp_path)


def test_the_student_is_embedded_chunk_by_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = MSEEvaluator(*COLUMNS, TEACHER)(Texts())
    monkeypatch.setattr(module, "_ROWS", 15)
    student = Texts()
    assert MSEEvaluator(*COLUMNS, TEACHER)(student) == pytest.approx(expected)
    assert student.counts == [15, 15, 10]


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="must be of one length"):
        MSEEvaluator(["a"], ["b", "c"], TEACHER)
    with pytest.raises(ValueError, match="teacher_model must be a model, got None"):
        MSEEvaluator(["a"], ["b"])
    with pytest.raises(ValueError, match=r"of one dimension, got \(1, 6\) and \(1, 4\)"):
        MSEEvaluator(["a"], ["b"], TEACHER)(Texts(dim=6))
    with pytest.raises(ValueError, match="rows with texts in 'en' and 'xx', got none"):
        MSEEvaluatorFromDataFrame(ROWS, TEACHER, [("en", "xx")])
    with pytest.raises(ValueError, match="combinations must be at least one pair"):
        MSEEvaluatorFromDataFrame(ROWS, TEACHER, [])
