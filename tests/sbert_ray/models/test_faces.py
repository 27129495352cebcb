"""Modules at the import paths, and by the arguments, that scripts of all versions of the peer use."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sbert_ray.modules
from sbert_ray import SentenceTransformer, models

peer = pytest.importorskip("sentence_transformers")
theirs = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
their_tokenizers = pytest.importorskip("sentence_transformers.sentence_transformer.modules.tokenizer")


def test_the_old_way_to_build_a_model(tiny_checkpoint: Path) -> None:
    words = models.Transformer(str(tiny_checkpoint), max_seq_length=8)
    pooling = models.Pooling(words.get_word_embedding_dimension())
    dense = models.Dense(pooling.get_sentence_embedding_dimension(), 4)
    model = SentenceTransformer(modules=[words, pooling, dense], device="cpu")
    assert model.encode(["a cat", "the dog"]).shape == (2, 4)
    assert model.max_seq_length == 8


@pytest.mark.parametrize("face", ["models", "sentence_transformer.modules", "sentence_transformer.modules.tokenizer"])
def test_a_face_has_the_peers_names(face: str) -> None:
    ours = importlib.import_module(f"sbert_ray.{face}")
    expected = set((their_tokenizers if face.endswith("tokenizer") else theirs).__all__)
    assert set(ours.__all__) == expected
    assert all(getattr(ours, name) is getattr(sbert_ray.modules, name) for name in ours.__all__)


def test_models_is_imported_without_torch() -> None:
    code = "import sys, sbert_ray.models as m; assert 'torch' not in sys.modules; m.Pooling; sys.modules['torch']"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_another_name_is_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Median'"):
        _ = models.Median


FLAGS: list[tuple[dict[str, Any], Any]] = [
    ({"pooling_mode_mean_tokens": True}, "mean"),
    ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True, "pooling_mode_max_tokens": False}, "cls"),
    ({"pooling_mode_max_tokens": True, "pooling_mode_cls_token": True}, ("cls", "max")),
    ({"pooling_mode_weightedmean_tokens": True}, "weightedmean"),
    (
        {"pooling_mode_mean_sqrt_len_tokens": True, "pooling_mode_lasttoken": True},
        ("mean_sqrt_len_tokens", "lasttoken"),
    ),
    ({"pooling_mode_cls_token": False}, "mean"),
    ({"pooling_mode_cls_token": True, "pooling_mode": "max"}, "max"),
]


@pytest.mark.parametrize(("flags", "mode"), FLAGS)
def test_pooling_takes_the_flags_of_old_versions(flags: dict[str, Any], mode: Any) -> None:
    with pytest.warns(FutureWarning, match=r"the arguments \['pooling_mode_.*\] are one, pooling_mode, now") as warned:
        ours = models.Pooling(768, **flags)
    assert warned[0].filename == __file__
    with pytest.warns(FutureWarning):
        expected = theirs.Pooling(768, **flags)
    assert ours.pooling_mode == expected.pooling_mode == mode
    assert ours.get_embedding_dimension() == expected.get_embedding_dimension()


def test_pooling_takes_old_and_new_names_together() -> None:
    with pytest.warns(FutureWarning) as warned:
        pooling = models.Pooling(word_embedding_dimension=6, pooling_mode_cls_token=True, include_prompt=False)
    assert len(warned) == 2
    assert (pooling.embedding_dimension, pooling.pooling_mode, pooling.include_prompt) == (6, "cls", False)
    with pytest.warns(FutureWarning), pytest.raises(TypeError, match="pooling_mode"):
        models.Pooling(6, "cls", pooling_mode_max_tokens=True)


def test_pooling_without_flags_warns_of_nothing() -> None:
    assert models.Pooling(6).pooling_mode == "mean"
    assert models.Pooling(6, ["cls"]).pooling_mode == "cls"


def test_old_names_of_the_dimension_are_on_every_module() -> None:
    for module in (models.Dense(3, 2), models.Pooling(2), models.LSTM(4, 1), models.LayerNorm(2)):
        assert module.get_sentence_embedding_dimension() == module.get_word_embedding_dimension() == 2
    assert models.Normalize().get_sentence_embedding_dimension() is None


def test_the_old_way_gives_the_peers_embeddings(tiny_checkpoint: Path) -> None:
    def build(kit: Any, kind: Any) -> Any:
        words = kit.Transformer(str(tiny_checkpoint))
        with pytest.warns(FutureWarning):
            pooling = kit.Pooling(16, pooling_mode_max_tokens=True, pooling_mode_cls_token=True)
        return kind(modules=[words, pooling, kit.Normalize()], device="cpu")

    texts = ["a cat", "the fast dog ran", ""]
    ours, expected = build(models, SentenceTransformer), build(theirs, peer.SentenceTransformer)
    np.testing.assert_allclose(ours.encode(texts), expected.encode(texts), atol=1e-6)
