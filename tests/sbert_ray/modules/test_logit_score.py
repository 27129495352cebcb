"""The score of a decoder's answer."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from sbert_ray.modules import LoadOptions, LogitScore, Module

LOGITS = torch.arange(24.0).reshape(2, 3, 4) ** 2  # (B, T, V)


def first_module(*vocabulary: str) -> Module:
    tokenizer = SimpleNamespace(get_vocab=lambda: {word: index for index, word in enumerate(vocabulary)})
    return cast(Module, SimpleNamespace(tokenizer=tokenizer))


def test_it_is_the_difference_of_two_logits_at_the_last_position() -> None:
    features = {"causal_logits": LOGITS}
    scored = LogitScore(3, 1)(features)
    torch.testing.assert_close(scored["scores"], LOGITS[:, -1, 3:] - LOGITS[:, -1, 1:2])
    assert scored["scores"].shape == (2, 1)
    assert "scores" not in features


def test_without_a_false_token_it_is_one_logit() -> None:
    torch.testing.assert_close(LogitScore(2)({"causal_logits": LOGITS})["scores"], LOGITS[:, -1, 2:3])


def test_it_reads_the_feature_that_it_is_told_to() -> None:
    scored = LogitScore(0, module_input_name="answers")({"answers": LOGITS})
    torch.testing.assert_close(scored["scores"], LOGITS[:, -1, :1])


@pytest.mark.parametrize("false_token_id", [None, 2])
def test_the_peers_module_is_the_same_and_reads_the_same_files(false_token_id: int | None, tmp_path: Path) -> None:
    peer = pytest.importorskip("sentence_transformers.cross_encoder.modules")
    ours = LogitScore(1, false_token_id)
    ours.save(tmp_path / "ours")
    assert [path.name for path in (tmp_path / "ours").iterdir()] == ["config.json"]
    theirs = peer.LogitScore.load(str(tmp_path / "ours"))
    theirs.save(str(tmp_path))
    again = LogitScore.load(tmp_path, LoadOptions())
    assert ours.config() == again.config() == json.loads((tmp_path / "config.json").read_text())
    expected = theirs({"causal_logits": LOGITS})["scores"]
    torch.testing.assert_close(again({"causal_logits": LOGITS})["scores"], expected)


def test_the_default_is_yes_against_no() -> None:
    module = LogitScore.default({}, [first_module("a", "no", "yes")])
    assert (module.true_token_id, module.false_token_id) == (2, 1)


@pytest.mark.parametrize("missing", ["yes", "no"])
def test_a_tokenizer_without_the_answers_is_refused(missing: str) -> None:
    words: list[Any] = [word for word in ("yes", "no", "a") if word != missing]
    with pytest.raises(ValueError, match=f"the tokenizer has no token '{missing}'"):
        LogitScore.default({}, [first_module(*words)])
