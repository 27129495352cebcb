"""Packed texts give what padded ones give, for every architecture; and which ones are packed at all."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.architectures import ARCHITECTURES, DIMENSION
from sbert_ray import CrossEncoder, SentenceTransformer, SparseEncoder
from sbert_ray.inference.engine import run_batches
from sbert_ray.modules import Pooling, Router
from sbert_ray.modules.int8_layers import compute_in_int8
from sbert_ray.modules.packed_attention import NAME

LAYERED = ("BERT", "RoBERTa", "XLM-R", "CamemBERT", "DistilBERT", "ELECTRA", "MPNet")
"""Those that are run layer by layer, for every task."""
BY_ITSELF = (
    "ALBERT",
    "ModernBERT",
    "NomicBERT",
    "GTE",
    "Jina v3",
    "EuroBERT",
    "Qwen3",
    "Qwen3, padded right",
    "Llama",
    "Llama, padded right",
    "Mistral",
    "GPT-2",
    "EmbeddingGemma",
)
"""Those that run themselves, with an attention that keeps texts apart; classifiers of these are padded."""

TEXTS = [
    "word",
    "Returns the number of rows.",
    "na\u00efve \u4f60\u597d \U0001f642",
    "",
    "the gradient of a tensor with respect to its input " * 20,
    "The device on which arrays are kept, and the one on which they are computed",
    "<pad> [PAD] inside <pad> a text",
    "[SEP] <s> </s>",
    "the gradient of a tensor with respect to its input, and of others " * 20,
    "a model",
    "Returns the number of rows.",
]
KINDS: dict[str, Any] = {
    "feature-extraction": SentenceTransformer,
    "text-generation": SentenceTransformer,
    "fill-mask": SparseEncoder,
    "sequence-classification": CrossEncoder,
}
CASES = [
    (name, task)
    for name, architecture in ARCHITECTURES.items()
    for task in dict.fromkeys((architecture.task, *architecture.heads))
    if name != "CLIP" and not (task == "text-generation" and task in architecture.heads)
]


def load(name: str, task: str, folder: Path, hidden_size: int | None = None, **options: Any) -> Any:
    fields = {"hidden_size": hidden_size, "intermediate_size": 2 * hidden_size} if hidden_size else {}
    ARCHITECTURES[name].write(folder, task, **fields)
    return KINDS[task](str(folder), device="cpu", **options)


def outputs(model: Any, texts: list[Any], **options: Any) -> NDArray[np.float32]:
    if isinstance(model, CrossEncoder):
        pairs = [(text.replace("</s>", ""), TEXTS[1]) for text in texts]  # as many as there are is all that BART takes
        return model.predict(pairs, activation_fn=nn.Identity(), **options)
    results = model.encode(texts, **options)
    return results.to_dense().numpy() if isinstance(model, SparseEncoder) else results


@contextmanager
def padding(model: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(type(model), "_packed_features", lambda *_: None)
        yield


@torch.inference_mode()
def is_packed(model: Any) -> bool:
    inputs = model.prepare([("one", "two")] if isinstance(model, CrossEncoder) else ["one"])
    return model._packed_features(inputs) is not None


@pytest.mark.parametrize(("name", "task"), CASES)
def test_packed_texts_give_what_padded_ones_give(
    name: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(name, task, tmp_path)
    with padding(model, monkeypatch):
        expected = outputs(model, TEXTS)
    assert is_packed(model) == (name in LAYERED or (name in BY_ITSELF and task != "sequence-classification"))
    spread = np.abs(expected - expected.mean(0)).max()
    assert spread > 1e-3, "texts that all give the same would show nothing"
    shuffled = np.random.default_rng(0).permutation(len(TEXTS))
    for budget in (None, 1, 40):  # of which 1 is each text alone
        found = outputs(model, [TEXTS[row] for row in shuffled], max_batch_tokens=budget)
        np.testing.assert_allclose(found, expected[shuffled], atol=1e-5, rtol=1e-5)


def test_packed_texts_are_not_padded(tmp_path: Path) -> None:
    model = load("BERT", "feature-extraction", tmp_path)
    run = model.embed_prepared(model.prepare(TEXTS))
    assert run.num_padded_tokens == run.num_tokens
    assert run.num_halvings == 0


@pytest.mark.parametrize("name", ["BERT", "MPNet", "ModernBERT", "Qwen3"])
def test_the_last_layer_is_computed_for_the_tokens_that_are_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformer = load(name, ARCHITECTURES[name].task, tmp_path)[0]
    for pooling, is_enough in ((Pooling(DIMENSION, "cls"), True), (Pooling(DIMENSION, ["cls", "mean"]), False)):
        model = SentenceTransformer(modules=[transformer, pooling], device="cpu")
        with torch.inference_mode():
            assert model._packed_features(model.prepare(["a"])) == {"firsts_only": is_enough}
            packed = transformer.text_tokenizer(TEXTS[:2]).packed(np.array([1, 0]))
            features = model(packed | {"firsts_only": is_enough})
        with padding(model, monkeypatch):
            expected = model.encode(TEXTS, prompt="Find: ")
        np.testing.assert_allclose(model.encode(TEXTS, prompt="Find: "), expected, atol=1e-5, rtol=1e-5)
        assert features["token_embeddings"].shape[0] == (2 if is_enough else features["input_ids"].shape[0])


def test_routes_are_packed_where_their_modules_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = load("BERT", "feature-extraction", tmp_path)
    model = SentenceTransformer(
        modules=[Router.for_query_document([dense[0], Pooling(DIMENSION, "cls")], [dense[0], dense[1]])], device="cpu"
    )
    with torch.inference_mode():
        assert model._packed_features(model.prepare(["a"], task="query")) == {"firsts_only": True}
        assert model._packed_features(model.prepare(["a"], task="document")) == {"firsts_only": False}
    for encode in (model.encode_query, model.encode_document):
        with padding(model, monkeypatch):
            expected = encode(TEXTS)
        np.testing.assert_allclose(encode(TEXTS), expected, atol=1e-5, rtol=0)


class Doubled(nn.Linear):
    """A linear layer that is more than that, as those of adapters and quantization are."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def test_changed_layers_are_not_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load("BERT", "feature-extraction", tmp_path)
    plain = model.encode(TEXTS)
    inner = model[0].model.encoder.layer[1].output.dense
    doubled = Doubled(inner.in_features, inner.out_features)
    doubled.load_state_dict(inner.state_dict())
    model[0].model.encoder.layer[1].output.dense = doubled
    with padding(model, monkeypatch):
        expected = model.encode(TEXTS)
    assert np.abs(expected - plain).max() > 0.01
    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["", "encoder", "encoder.layer.0", "encoder.layer.0.intermediate.dense"])
def test_hooks_are_called(name: str, tmp_path: Path) -> None:
    model = load("BERT", "feature-extraction", tmp_path)
    plain = model.encode(TEXTS)
    seen: list[int] = []
    layer = model[0].model.get_submodule(name)
    handle = layer.register_forward_hook(lambda *_: seen.append(1) or None)
    np.testing.assert_allclose(model.encode(TEXTS), plain, atol=1e-5, rtol=0)
    assert seen
    handle.remove()
    np.testing.assert_array_equal(model.encode(TEXTS), plain)


def test_a_layer_of_another_forward_is_called(tmp_path: Path) -> None:
    model = load("BERT", "feature-extraction", tmp_path)
    plain = model.encode(TEXTS)
    layer = model[0].model.encoder.layer[1]
    layer.forward = lambda hidden, *_, **__: 0 * hidden
    assert np.abs(model.encode(TEXTS) - plain).max() > 0.01
    del layer.forward
    np.testing.assert_array_equal(model.encode(TEXTS), plain)


@pytest.mark.parametrize("task", ["feature-extraction", "fill-mask", "sequence-classification"])
@pytest.mark.parametrize("name", ["BERT", "ELECTRA"])
def test_autocast_may_come_and_go(name: str, task: str, tmp_path: Path) -> None:
    model = load(name, task, tmp_path)
    plain = outputs(model, TEXTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_allclose(outputs(model, TEXTS), plain, atol=0.3)
    np.testing.assert_array_equal(outputs(model, TEXTS), plain)


def test_a_device_that_fails_in_the_trial_is_not_taken_for_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load("BERT", "feature-extraction", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(model[0].model, "forward", Mock(side_effect=torch.OutOfMemoryError("full")))
        with pytest.raises(torch.OutOfMemoryError, match="full"):
            model.encode(TEXTS)
    model.encode(TEXTS)
    assert is_packed(model)


def test_8_bit_layers_pack_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load("BERT", "feature-extraction", tmp_path, hidden_size=64)
    expected = model.encode(TEXTS)
    compute_in_int8(model[0].model)
    assert model.precision == "int8"
    assert is_packed(model)
    found = model.encode(TEXTS)
    cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert 0.9 < cosines.min() < 0.99999
    with padding(model, monkeypatch):
        np.testing.assert_allclose(found, model.encode(TEXTS), atol=0.05)
    copied = copy.deepcopy(model)
    np.testing.assert_array_equal(copied.encode(TEXTS), found)


def test_weights_that_change_are_seen(tmp_path: Path) -> None:
    model = load("BERT", "feature-extraction", tmp_path)
    plain = model.encode(TEXTS)
    model[0].model.encoder.layer[0].attention.self.value.bias.data += 1
    assert np.abs(model.encode(TEXTS) - plain).max() > 0.01


def test_a_model_that_packs_wrongly_is_padded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load("ModernBERT", "feature-extraction", tmp_path)
    inner = model[0].model
    forward = inner.forward

    def sees_its_neighbours(input_ids: torch.Tensor, position_ids: torch.Tensor | None = None, **kwargs: Any) -> Any:
        output = forward(input_ids=input_ids, position_ids=position_ids, **kwargs)
        output.last_hidden_state = output.last_hidden_state + output.last_hidden_state.roll(1, 1)
        return output

    monkeypatch.setattr(inner, "forward", sees_its_neighbours)
    attention = inner.config._attn_implementation
    assert not is_packed(model)
    assert inner.config._attn_implementation == attention != NAME


def test_the_attention_of_packed_models_is_not_saved(tmp_path: Path) -> None:
    model = load("ModernBERT", "feature-extraction", tmp_path / "first")
    expected = model.encode(TEXTS)
    assert model[0].model.config._attn_implementation == NAME
    model.save_pretrained(tmp_path / "second")
    assert NAME not in (tmp_path / "second" / "config.json").read_text()
    again = SentenceTransformer(str(tmp_path / "second"), device="cpu")
    np.testing.assert_array_equal(again.encode(TEXTS), expected)


def test_an_attention_that_the_user_chose_stays(tmp_path: Path) -> None:
    model = load("ModernBERT", "feature-extraction", tmp_path, model_kwargs={"attn_implementation": "eager"})
    model.encode(TEXTS)
    assert model[0].model.config._attn_implementation == "eager"
    assert not is_packed(model)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["BERT", "Qwen3"])
def test_half_precision_packs_too(name: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(name, ARCHITECTURES[name].task, tmp_path, model_kwargs={"dtype": dtype})
    assert is_packed(model)
    with padding(model, monkeypatch):
        expected = model.encode(TEXTS)
    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=0.1, rtol=0)


def test_gradients_do_without_the_layers(tmp_path: Path) -> None:
    transformer = load("BERT", "feature-extraction", tmp_path)[0]
    features = transformer.text_tokenizer(TEXTS[:3]).packed(np.array([2, 1, 0]))
    with torch.inference_mode():
        expected = transformer(features)["token_embeddings"]
    found = transformer(features)["token_embeddings"]
    assert found.requires_grad
    torch.testing.assert_close(found.detach(), expected, atol=1e-5, rtol=0)
    found.sum().backward()
    assert transformer.model.embeddings.word_embeddings.weight.grad.abs().sum() > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_in_half_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in BY_ITSELF:
        ARCHITECTURES[name].write(tmp_path / name)
        model = SentenceTransformer(str(tmp_path / name), device="cuda", model_kwargs={"dtype": "bfloat16"})
        with padding(model, monkeypatch):
            expected = model.encode(TEXTS)
        np.testing.assert_allclose(model.encode(TEXTS), expected, atol=0.1, rtol=0)


def test_batches_come_with_their_rows(tmp_path: Path) -> None:
    model = load("BERT", "feature-extraction", tmp_path)
    with torch.inference_mode():
        batches = list(run_batches(model._encoder(), model.prepare(TEXTS), 40))
    assert sorted(np.concatenate([batch.rows for batch in batches])) == list(range(len(TEXTS)))
    assert all(batch.num_positions <= 40 or len(batch.rows) == 1 for batch in batches)


@pytest.mark.parametrize("task", ["feature-extraction", "fill-mask", "sequence-classification"])
def test_equal_texts_can_be_computed_once(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load("BERT", task, tmp_path)
    texts = TEXTS * 3
    expected = outputs(model, texts)
    seen: list[int] = []
    prepare = model.prepare
    monkeypatch.setattr(
        model, "prepare", lambda inputs, *args, **kw: seen.append(len(inputs)) or prepare(inputs, *args, **kw)
    )
    np.testing.assert_allclose(outputs(model, texts, deduplicate=True), expected, atol=1e-6, rtol=1e-5)
    assert seen == [len(set(TEXTS))]
    if task == "feature-extraction":
        tokens = model.encode(texts, output_value="token_embeddings", deduplicate=True)
        assert [len(part) for part in tokens] == [
            len(part) for part in model.encode(texts, output_value="token_embeddings")
        ]
