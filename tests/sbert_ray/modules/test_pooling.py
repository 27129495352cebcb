"""Pooling by hand, with padding on either side, and its checkpoint format of all ages."""

import json
import math
from pathlib import Path

import pytest
import torch

from sbert_ray.modules import LoadOptions, Pooling
from sbert_ray.modules.pooling import POOLERS

TOKENS = torch.tensor([[[1.0, 4.0], [3.0, 0.0], [9.0, 9.0]]])  # the third token is padding
MASK = torch.tensor([[1, 1, 0]])
EXPECTED = {
    "cls": [1.0, 4.0],
    "max": [3.0, 4.0],
    "mean": [2.0, 2.0],
    "mean_sqrt_len_tokens": [4.0 / math.sqrt(2), 4.0 / math.sqrt(2)],
    "weightedmean": [7.0 / 3, 4.0 / 3],  # weights 1 and 2
    "lasttoken": [3.0, 0.0],
}


def pooled(mode: str | list[str], tokens: torch.Tensor, mask: torch.Tensor | None, **more: torch.Tensor) -> list[float]:
    features = {"token_embeddings": tokens} | more | ({} if mask is None else {"attention_mask": mask})
    before = set(features)
    result = Pooling(tokens.shape[-1], mode)(features)["sentence_embedding"]
    assert set(features) == before  # a module leaves its input alone
    return result.tolist()[0]


def test_every_mode_has_an_expected_value() -> None:
    assert EXPECTED.keys() == POOLERS.keys()


@pytest.mark.parametrize("mode", POOLERS)
@pytest.mark.parametrize("shift", [0, 1], ids=["right padding", "left padding"])
def test_pools_real_tokens_only(mode: str, shift: int) -> None:
    assert pooled(mode, TOKENS.roll(shift, 1), MASK.roll(shift, 1)) == pytest.approx(EXPECTED[mode])


@pytest.mark.parametrize("mode", POOLERS)
def test_a_missing_mask_counts_every_token(mode: str) -> None:
    assert pooled(mode, TOKENS[:, :2], None) == pytest.approx(EXPECTED[mode])


def test_a_text_without_tokens_gives_zeros() -> None:
    for mode in ("max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"):
        assert pooled(mode, TOKENS, torch.zeros_like(MASK)) == [0.0, 0.0]


def test_concatenates_modes_in_their_order() -> None:
    assert pooled(["mean", "cls"], TOKENS, MASK) == [2.0, 2.0, 1.0, 4.0]
    assert Pooling(2, ["mean", "cls"]).get_embedding_dimension() == 4


def test_ready_made_features_win() -> None:
    assert pooled("cls", TOKENS, MASK, cls_token_embeddings=torch.tensor([[7.0, 7.0]])) == [7.0, 7.0]
    assert pooled("mean", TOKENS, MASK, token_weights_sum=torch.tensor([8.0])) == [0.5, 0.5]


@pytest.mark.parametrize("shift", [0, 1], ids=["right padding", "left padding"])
def test_leaves_out_the_prompt(shift: int) -> None:
    features = {"token_embeddings": TOKENS.roll(shift, 1), "attention_mask": MASK.roll(shift, 1)}
    features["prompt_length"] = torch.tensor([1])
    for mode in ("cls", "mean", "max", "weightedmean", "lasttoken"):
        result = Pooling(2, mode, include_prompt=False)(features)["sentence_embedding"]
        assert result.tolist() == [[3.0, 0.0]]


def test_half_precision_sums_in_float32() -> None:
    tokens = torch.ones(1, 5000, 1, dtype=torch.float16)  # a float16 sum of ones stops at 2048
    result = Pooling(1)({"token_embeddings": tokens, "attention_mask": torch.ones(1, 5000)})["sentence_embedding"]
    assert (result.dtype, result.item()) == (torch.float16, 1.0)


LEGACY = {"word_embedding_dimension": 8, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
CONFIGS = {
    "legacy": (LEGACY, "mean"),
    "legacy, two": (LEGACY | {"pooling_mode_lasttoken": True, "include_prompt": False}, ("mean", "lasttoken")),
    "legacy, none": ({"word_embedding_dimension": 8, "pooling_mode_cls_token": False}, "mean"),
    "v6": ({"embedding_dimension": 8, "pooling_mode": "cls", "include_prompt": True}, "cls"),
    "v6, two": ({"embedding_dimension": 8, "pooling_mode": ["max", "cls"]}, ("max", "cls")),
}


@pytest.mark.parametrize(("config", "mode"), CONFIGS.values(), ids=CONFIGS)
def test_reads_configs_of_all_ages(config: dict, mode: str | tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    pooling = Pooling.load(tmp_path, LoadOptions())
    assert (pooling.embedding_dimension, pooling.pooling_mode) == (8, mode)
    assert pooling.include_prompt is config.get("include_prompt", True)


def test_saves_the_config_of_v6(tmp_path: Path) -> None:
    Pooling(8, ["mean", "lasttoken"]).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config == {"embedding_dimension": 8, "pooling_mode": ["mean", "lasttoken"], "include_prompt": True}


def test_rejects_unknown_modes() -> None:
    with pytest.raises(ValueError, match=r"unknown pooling modes \['median'\]; known modes are \['cls', "):
        Pooling(8, ["median"])
    with pytest.raises(ValueError, match="pooling_mode must name at least one of"):
        Pooling(8, [])
