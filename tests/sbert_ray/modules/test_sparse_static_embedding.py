"""Weights of tokens by hand and against the peer, and its three kinds of files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sbert_ray.modules import LoadOptions, SparseStaticEmbedding
from tests.sbert_ray.masked_models import TEXTS, VOCABULARY, word_tokenizer

peer = pytest.importorskip("sentence_transformers.sparse_encoder.modules")

WEIGHTS = torch.arange(16) / 4


def embedded(module: Any, texts: list[str] = TEXTS, prompt: str | None = None) -> torch.Tensor:
    result: torch.Tensor = module(module.preprocess(texts, prompt))["sentence_embedding"]
    return result.detach()


def test_is_the_weight_of_each_token_that_is_there() -> None:
    module = SparseStaticEmbedding(word_tokenizer(), WEIGHTS)
    expected = torch.zeros(2, 16)
    for row, words in enumerate((["the", "cat", "mat"], ["red", "<unk>"])):
        for word in words:
            expected[row, VOCABULARY.index(word)] = WEIGHTS[VOCABULARY.index(word)]
    torch.testing.assert_close(embedded(module, ["the cat the mat", "red zebra"]), expected)
    assert module.get_embedding_dimension() == 16


@pytest.mark.parametrize("prompt", [None, "red "])
@pytest.mark.parametrize("weight", [None, WEIGHTS])
def test_agrees_with_the_peer(prompt: str | None, weight: torch.Tensor | None) -> None:
    texts = [text for text in TEXTS if text]  # of none at all the peer makes no batch
    ours, theirs = (kind(word_tokenizer(), weight) for kind in (SparseStaticEmbedding, peer.SparseStaticEmbedding))
    torch.testing.assert_close(embedded(ours, texts, prompt), embedded(theirs, texts, prompt))
    assert ours.max_seq_length == theirs.max_seq_length == 24
    features = ours.preprocess(texts) | {"sentence_embedding": torch.full((len(texts), 16), 2.0)}
    expected = theirs(dict(features))["sentence_embedding"]
    torch.testing.assert_close(ours(features)["sentence_embedding"], expected)


def test_padding_hides_no_token() -> None:
    """The padding token has weight where it is written in the text."""
    module = SparseStaticEmbedding(word_tokenizer(padding_side="left"))
    [first, _] = embedded(module, ["<pad>", "a cat sat"])
    assert first.nonzero().flatten().tolist() == [1]


def test_frozen_weights_are_not_trained() -> None:
    assert SparseStaticEmbedding(word_tokenizer()).weight.requires_grad
    assert not SparseStaticEmbedding(word_tokenizer(), frozen=True).weight.requires_grad


@pytest.mark.parametrize("frozen", [False, True])
def test_survives_saving_in_both_directions(frozen: bool, tmp_path: Path) -> None:
    ours, theirs = (
        kind(word_tokenizer(), WEIGHTS, frozen) for kind in (SparseStaticEmbedding, peer.SparseStaticEmbedding)
    )
    ours.save(tmp_path / "ours")
    (tmp_path / "theirs").mkdir()
    theirs.save(str(tmp_path / "theirs"))
    for folder in (tmp_path / "ours", tmp_path / "theirs"):
        for loaded in (SparseStaticEmbedding.load(folder, LoadOptions()), peer.SparseStaticEmbedding.load(str(folder))):
            assert loaded.frozen is frozen
            assert loaded.weight.requires_grad is not frozen
            torch.testing.assert_close(embedded(loaded, TEXTS[2:]), embedded(ours, TEXTS[2:]))


@pytest.fixture
def idf(tmp_path: Path) -> Path:
    """A checkpoint with its weights in a JSON file."""
    module = SparseStaticEmbedding(word_tokenizer())
    module.save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "idf.json").write_text('{"cat": 2.5, "mat": 1, "the": 0.25}')
    (tmp_path / "config.json").write_text('{"path": "idf.json", "frozen": true}')
    return tmp_path


def test_weights_may_be_a_json_file(idf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = SparseStaticEmbedding.load(idf, LoadOptions())
    monkeypatch.chdir(idf)  # where the peer looks for it
    theirs = peer.SparseStaticEmbedding.load(str(idf))
    assert ours.frozen is theirs.frozen is True
    torch.testing.assert_close(embedded(ours, TEXTS[2:]), embedded(theirs, TEXTS[2:]))
    torch.testing.assert_close(
        SparseStaticEmbedding.from_json(str(idf / "idf.json"), word_tokenizer()).weight, ours.weight
    )
    assert ours.weight[VOCABULARY.index("cat")] == 2.5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"zebra": 2}', r"must have tokens of the vocabulary, got none, but \['zebra'\]"),
        ('{"cat": "much"}', "must be an object of one number per token"),
        ("[1, 2]", "must be an object of one number per token"),
        ("{}", "must be an object of one number per token"),
        ("{", r"idf\.json' must be JSON"),
    ],
)
def test_a_json_file_that_holds_no_weights_is_named(content: str, message: str, idf: Path) -> None:
    (idf / "idf.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        SparseStaticEmbedding.load(idf, LoadOptions())


@pytest.mark.parametrize("path", ["../idf.json", "/etc/hostname"])
def test_weights_lie_within_the_checkpoint(path: str, idf: Path) -> None:
    (idf / "config.json").write_text(json.dumps({"path": path}))
    with pytest.raises(ValueError, match="the path of weights must stay within"):
        SparseStaticEmbedding.load(idf, LoadOptions())


def test_missing_weights_are_named(idf: Path) -> None:
    (idf / "config.json").write_text('{"path": "other.json"}')
    with pytest.raises(FileNotFoundError, match=r"lacks 'other\.json', which its config names"):
        SparseStaticEmbedding.load(idf, LoadOptions())
    (idf / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"must hold model\.safetensors"):
        SparseStaticEmbedding.load(idf, LoadOptions())


def test_a_token_without_a_weight_is_named() -> None:
    module = SparseStaticEmbedding(word_tokenizer(), torch.ones(10))
    assert embedded(module, ["a cat"]).sum() == 2
    with pytest.raises(ValueError, match="every token must have a weight; 'mat' has id 11 of 10 weights"):
        module.preprocess(["a mat"])
    with pytest.raises(ValueError, match=r"weight must have one value per token \(V,\), got shape \(2, 3\)"):
        SparseStaticEmbedding(word_tokenizer(), torch.ones(2, 3))


def test_tokens_that_the_vocabulary_lacks_are_left_out(idf: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = SparseStaticEmbedding.load(idf, LoadOptions()).weight
    (idf / "idf.json").write_text('{"cat": 2.5, "mat": 1, "zebra": 9, "the": 0.25}')
    assert torch.equal(SparseStaticEmbedding.load(idf, LoadOptions()).weight, before)
    assert "has weights of 1 tokens that are not in the vocabulary: ['zebra']" in caplog.text


def test_the_json_file_may_be_a_link_as_in_the_hubs_cache(idf: Path, tmp_path: Path) -> None:
    blob = tmp_path.parent / "a-blob-of-the-hub"
    (idf / "idf.json").rename(blob)
    (idf / "idf.json").symlink_to(blob)
    assert SparseStaticEmbedding.load(idf, LoadOptions()).weight[VOCABULARY.index("cat")] == 2.5
