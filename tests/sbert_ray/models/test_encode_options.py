"""What `encode` returns for its options, by the peer, and for models that pad on the left."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers import models as token_models

from sbert_ray import SentenceTransformer
from sbert_ray.modules import Normalize, Pooling, Transformer

peer = pytest.importorskip("sentence_transformers")

TEXTS = ["a cat", "the fast dog ran on the mat", "red", "the " * 20, "a red cat", "the dog sat on a mat"]


@pytest.fixture(scope="module")
def pair(tiny_checkpoint: Path) -> tuple[SentenceTransformer, Any]:
    """The same model on our side and on the peer's."""
    folder = str(tiny_checkpoint)
    return SentenceTransformer(folder, device="cpu"), peer.SentenceTransformer(folder, device="cpu")


def described(result: Any) -> Any:
    """Kind, shape and type of numbers of a result."""
    if isinstance(result, list):
        return [described(row) for row in result]
    return type(result), tuple(result.shape), result.dtype


@pytest.mark.parametrize("inputs", ["a cat", ["a cat"], TEXTS], ids=["a text", "a list of one", "a list"])
@pytest.mark.parametrize("output_value", ["sentence_embedding", "token_embeddings"])
def test_conversions_are_the_peers(inputs: Any, output_value: Any, pair: tuple[SentenceTransformer, Any]) -> None:
    precisions = ["float32", "ubinary"] if len(inputs) < 6 else ["float32", "int8", "binary"]
    options = {"output_value": output_value, "truncate_dim": 8}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("logging.Logger.warning", lambda *_, **__: None)  # of ranges from so few embeddings
        for to_numpy, to_tensor, precision in itertools.product((True, False), (True, False), precisions):
            options |= {"convert_to_numpy": to_numpy, "convert_to_tensor": to_tensor, "precision": precision}
            ours, theirs = (model.encode(inputs, **options) for model in pair)
            assert described(ours) == described(theirs)


def test_quantized_token_embeddings_share_their_ranges(pair: tuple[SentenceTransformer, Any]) -> None:
    texts = TEXTS * 40
    for precision in ("int8", "uint8", "binary"):
        ours, theirs = (model.encode(texts, output_value="token_embeddings", precision=precision) for model in pair)
        different = [row != other for row, other in zip(ours, theirs, strict=True)]
        assert np.concatenate(different).mean() < 1e-3  # a value on the edge may fall to either side


def test_features_have_no_precision(pair: tuple[SentenceTransformer, Any]) -> None:
    with pytest.raises(ValueError, match="precision must be 'float32' for output_value=None, got 'int8'"):
        pair[0].encode(TEXTS, output_value=None, precision="int8")


def test_no_texts_give_no_rows(pair: tuple[SentenceTransformer, Any]) -> None:
    model = pair[0]
    assert described(model.encode([])) == (np.ndarray, (0, 16), np.float32)
    assert described(model.encode([], convert_to_tensor=True, truncate_dim=4)) == (torch.Tensor, (0, 4), torch.float32)
    assert described(model.encode([], precision="ubinary")) == (np.ndarray, (0, 2), np.uint8)
    for options in ({"convert_to_numpy": False}, {"output_value": "token_embeddings"}, {"output_value": None}):
        assert model.encode([], **options) == pair[1].encode([], **options) == []


PAIRS: dict[str, Any] = {
    "pairs": [("a cat", "the dog ran"), ("red", "a fast dog")],
    "pairs in lists": [["a cat", "the dog ran"]],
    "two texts": ("a cat", "the dog ran"),
    "texts by kind": [{"text": "a cat"}, {"text": "the dog ran"}],
    "a text by its kind": {"text": "a cat"},
    "pairs by kind": [{"text": ("a cat", "red")}, {"text": ["the dog", "ran"]}],
    "a mixture": ["a cat", ("red", "the dog"), {"text": "the mat"}],
}


@pytest.mark.parametrize("prompt", [None, "the red "])
@pytest.mark.parametrize("inputs", PAIRS.values(), ids=PAIRS)
def test_pairs_and_texts_by_kind_are_the_peers(
    inputs: Any, prompt: str | None, pair: tuple[SentenceTransformer, Any]
) -> None:
    ours, theirs = (model.encode(inputs, prompt=prompt) for model in pair)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def left_padded(folder: Path, mode: str, include_prompt: bool) -> tuple[SentenceTransformer, Any]:
    """A causal model of random weights that pads on the left, on our side and on the peer's."""
    words = "<s> <pad> </s> <unk> a the cat dog sat ran on mat fast slow red blue".split()
    core = Tokenizer(token_models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=24,
        model_input_names=["input_ids", "attention_mask"],
    )
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=16,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        max_position_embeddings=40,
        pad_token_id=1,
    )
    modules = [
        Transformer(transformers.LlamaModel(config), tokenizer),
        Pooling(16, mode, include_prompt=include_prompt),
        Normalize(),
    ]
    prompts = {"query": "fast red ", "document": "slow "}
    SentenceTransformer(modules=modules, prompts=prompts, device="cpu").save_pretrained(str(folder))
    return SentenceTransformer(str(folder), device="cpu"), peer.SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("mode", ["lasttoken", "mean", "cls", "max", "weightedmean"])
def test_left_padding_changes_nothing(mode: str, include_prompt: bool, tmp_path: Path) -> None:
    ours, theirs = left_padded(tmp_path, mode, include_prompt)
    assert ours.tokenizer.padding_side == "left"
    for method in ("encode_query", "encode_document"):
        found = getattr(ours, method)(TEXTS)
        np.testing.assert_allclose(found, getattr(theirs, method)(TEXTS), atol=1e-5)
        np.testing.assert_allclose(found, [getattr(ours, method)(text) for text in TEXTS], atol=1e-5)
        np.testing.assert_allclose(found, getattr(ours, method)(TEXTS[::-1], max_batch_tokens=30)[::-1], atol=1e-5)


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_the_similarity_of_the_config_is_used(name: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = SentenceTransformer(str(tiny_checkpoint), device="cpu", similarity_fn_name=name)
    model.save_pretrained(str(tmp_path))
    loaded = [kind(str(tmp_path), device="cpu") for kind in (SentenceTransformer, peer.SentenceTransformer)]
    scores = [other.similarity(other.encode(TEXTS), other.encode(TEXTS[:2])).numpy() for other in loaded]
    assert loaded[0].similarity_fn_name == loaded[1].similarity_fn_name == name
    # The root of a difference that cancels: what is left of 1 - 1 in float32.
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-3 if name == "euclidean" else 1e-5)
    loaded[1].save_pretrained(str(tmp_path / "theirs"))
    assert SentenceTransformer(str(tmp_path / "theirs"), device="cpu").similarity_fn_name == name
    given = SentenceTransformer(str(tmp_path), device="cpu", similarity_fn_name="dot")
    assert given.similarity_fn_name == "dot"
