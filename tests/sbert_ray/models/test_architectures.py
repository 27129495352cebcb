"""Every architecture, with random weights: the embeddings are the peer's, however texts are batched."""

import random
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

from benchmarks.architectures import ARCHITECTURES, DIMENSION
from benchmarks.vocabularies import MAX_LENGTH, byte_level
from sbert_ray import SentenceTransformer
from sbert_ray.modules import Pooling
from sbert_ray.modules.pooling import POOLERS

peer = pytest.importorskip("sentence_transformers")
peer_modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")

TEXTS = [
    "",
    " \n",
    "word",
    "Returns the number of rows.",
    "na\u00efve \u4f60\u597d \U0001f642",
    "The device on which arrays are kept, and the one on which they are computed",
    "the gradient of a tensor with respect to its input " * 20,
    "[SEP] <s> </s>",
    "a model",
    "Returns the number of rows.",
]
PROMPT = "Find what answers: "


@dataclass(frozen=True)
class Pair:
    """One checkpoint as both libraries load it."""

    name: str
    ours: SentenceTransformer
    theirs: Any
    embeddings: NDArray[np.float32]
    """The peer's, of `TEXTS`."""


def load(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu")


def load_peer(folder: Path) -> Any:
    return peer.SentenceTransformer(str(folder), device="cpu")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("plain")
    ARCHITECTURES[request.param].write(folder)
    theirs = load_peer(folder)
    return Pair(request.param, load(folder), theirs, theirs.encode(TEXTS))


def test_embeddings_are_the_peers(pair: Pair) -> None:
    ours, theirs = pair.ours, pair.theirs
    assert [type(module).__name__ for module in ours] == [type(module).__name__ for module in theirs]
    assert type(ours[0].model) is type(theirs[0].model)
    assert ours.max_seq_length == theirs.max_seq_length == MAX_LENGTH
    assert ours.get_embedding_dimension() == theirs.get_embedding_dimension() == DIMENSION
    pooling = ARCHITECTURES[pair.name].pooling
    for model in (ours, theirs):
        assert [module.pooling_mode for module in list(model)[1:]] == [pooling] * (pooling is not None)
    embeddings = ours.encode(TEXTS)
    assert embeddings.std(0).mean() > 0.1, "texts that all embed alike would show nothing"
    np.testing.assert_allclose(embeddings, pair.embeddings, atol=1e-5, rtol=0)


def test_tokens_masks_and_padding_are_the_peers(pair: Pair) -> None:
    mine, yours = (model[0].preprocess(TEXTS, prompt=PROMPT) for model in (pair.ours, pair.theirs))
    names = {"input_ids", "attention_mask", "token_type_ids"} & yours.keys()
    assert names <= mine.keys()
    for name in names:
        np.testing.assert_array_equal(mine[name], yours[name])
    assert int(mine["prompt_length"]) == yours["prompt_length"]


@pytest.mark.parametrize(
    "options", [{"batch_size": 1}, {"batch_size": 3}, {"max_batch_tokens": 1}, {"max_batch_tokens": 2 * MAX_LENGTH}]
)
def test_neither_batches_nor_order_nor_padding_matter(options: dict[str, int], pair: Pair) -> None:
    order = random.Random(0).sample(range(len(TEXTS)), len(TEXTS))
    shuffled = pair.ours.encode([TEXTS[row] for row in order], **options)
    np.testing.assert_allclose(shuffled, pair.embeddings[order], atol=1e-5, rtol=0)


def test_a_text_alone_embeds_as_among_others(pair: Pair) -> None:
    for text, expected in zip(TEXTS, pair.embeddings, strict=True):
        np.testing.assert_allclose(pair.ours.encode(text), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("include_prompt", [True, False])
def test_prompts_agree_whether_pooled_or_not(include_prompt: bool, pair: Pair) -> None:
    results = []
    for model in (pair.ours, pair.theirs):
        model.set_pooling_include_prompt(include_prompt)
        results.append(model.encode(TEXTS, prompt=PROMPT))
        model.set_pooling_include_prompt(True)
    np.testing.assert_allclose(*results, atol=1e-5, rtol=0)


def test_checkpoints_go_back_and_forth(pair: Pair, tmp_path: Path) -> None:
    pair.ours.save_pretrained(tmp_path / "ours")
    theirs = load_peer(tmp_path / "ours")
    np.testing.assert_allclose(theirs.encode(TEXTS), pair.embeddings, atol=1e-5, rtol=0)
    theirs.save_pretrained(str(tmp_path / "theirs"))
    ours = load(tmp_path / "theirs")
    np.testing.assert_array_equal(ours.encode(TEXTS), pair.ours.encode(TEXTS))
    assert ours.max_seq_length == MAX_LENGTH


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("mode", [*POOLERS, ("cls", "lasttoken", "mean")])
@pytest.mark.parametrize("pair", ["BERT", "Qwen3", "Llama, padded right"], indirect=True)
def test_every_pooling_agrees_with_padding_on_either_side(
    mode: str | tuple[str, ...], include_prompt: bool, pair: Pair
) -> None:
    mine = SentenceTransformer(modules=[pair.ours[0], Pooling(DIMENSION, mode, include_prompt)], device="cpu")
    yours = peer.SentenceTransformer(
        modules=[pair.theirs[0], peer_modules.Pooling(DIMENSION, mode, include_prompt)], device="cpu"
    )
    for options in ({}, {"prompt": PROMPT}):
        expected = yours.encode(TEXTS, **options)
        expected[np.isneginf(expected)] = 0  # the largest of no tokens, where an empty text's prompt is left out
        for budget in (None, 1):
            embeddings = mine.encode(TEXTS, max_batch_tokens=budget, **options)
            np.testing.assert_allclose(embeddings, expected, atol=1e-5, rtol=0)


def test_a_causal_model_without_special_tokens_takes_empty_texts(tmp_path: Path) -> None:
    tokenizer = partial(byte_level, special=("<pad>",), pad_token="<pad>")
    replace(ARCHITECTURES["Llama"], tokenizer=tokenizer).write(tmp_path)
    embeddings = load(tmp_path).encode(["a cat", "", "the dog"])
    assert np.isfinite(embeddings).all()
    assert not embeddings[1].any()
    np.testing.assert_allclose(embeddings[[0, 2]], load_peer(tmp_path).encode(["a cat", "the dog"]), atol=1e-5)


INNER = [name for name, architecture in ARCHITECTURES.items() if architecture.is_encoder]


@pytest.mark.parametrize("head", ["AutoModel", "AutoModelForSeq2SeqLM"])
@pytest.mark.parametrize("name", INNER)
def test_the_encoder_is_taken_out_of_a_whole_checkpoint(name: str, head: str, tmp_path: Path) -> None:
    """The peer starts these with random weights: their names in the checkpoint are not those that it looks for."""
    replace(ARCHITECTURES[name], is_encoder=False).write(tmp_path)
    whole = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    if head != "AutoModel":
        whole.save_pretrained(tmp_path)
    ours = load(tmp_path)
    ids = ours.tokenizer(TEXTS[3], return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        expected = whole.get_encoder()(input_ids=ids).last_hidden_state.mean(1)[0]
    np.testing.assert_allclose(ours.encode(TEXTS[3]), expected, atol=1e-5)
    ours.save_pretrained(tmp_path / "encoder")
    np.testing.assert_allclose(load_peer(tmp_path / "encoder").encode(TEXTS), ours.encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize("model_type", ["whisper", "nllb-moe"])
def test_other_encoder_decoder_models_are_refused(model_type: str, tmp_path: Path) -> None:
    ARCHITECTURES["BERT"].write(tmp_path)
    transformers.AutoConfig.for_model(model_type).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"encoder-decoder models must be of .*'t5'.*, got '{model_type}'"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["GPT-2", "BERT", "Llama"])
def test_a_tokenizer_that_pads_left_changes_nothing(name: str, tmp_path: Path) -> None:
    """Positions that count the padding would make an embedding depend on what else is in its batch."""
    ARCHITECTURES[name].write(tmp_path)
    model, theirs = load(tmp_path), load_peer(tmp_path)
    model.tokenizer.padding_side = theirs.tokenizer.padding_side = "left"
    texts = ["a cat", "the return value of a function that takes a file and a mode", "red"]
    batch = model.encode(texts, max_batch_tokens=10_000)
    singly = np.stack([model.encode(text) for text in texts])
    np.testing.assert_allclose(batch, singly, atol=1e-5)
    np.testing.assert_allclose(batch, np.stack([theirs.encode(text) for text in texts]), atol=1e-5)
    mask = model.preprocess(texts)["attention_mask"]
    assert torch.equal(mask, theirs.preprocess(texts)["attention_mask"])
    assert mask[0, 0] == 0
