"""Translation against the peer."""

import logging
from pathlib import Path
from typing import Any

import pytest

from sbert_ray.evaluation import TranslationEvaluator
from tests.sbert_ray.evaluation.oracle import Texts, assert_same, words

peer = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation")


@pytest.mark.parametrize("options", [{}, {"name": "en-de", "truncate_dim": 3, "batch_size": 5}, {"write_csv": False}])
@pytest.mark.parametrize(
    "columns",
    [(words("a", 40), words("b", 40)), (words("a", 20) * 2, words("b", 8) * 5), (words("a", 9), words("a", 9))],
)
def test_equals_the_peer(columns: Any, options: dict[str, Any], tmp_path: Path) -> None:
    theirs = peer.TranslationEvaluator(*columns, **options)
    assert_same(TranslationEvaluator(*columns, **options), theirs, Texts(dim=16), tmp_path)


def test_wrong_matches_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        TranslationEvaluator(["a", "b"], ["b", "a"], print_wrong_matches=True)(Texts(dim=16))
    assert len(caplog.messages) == 2
    assert "nearest to 'a' are 1.0000 'a', " in caplog.messages[0]
    assert caplog.messages[0].endswith("its translation is 'b'")


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="source_sentences and target_sentences must be of one length"):
        TranslationEvaluator(["a"], [])
