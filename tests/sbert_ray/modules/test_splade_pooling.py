"""SPLADE pooling by the formula, by the peer's, and with logits that are never all there."""

import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sbert_ray.modules import Dense, LoadOptions, Normalize, Pooling, SpladePooling, Transformer, token_logits
from sbert_ray.modules.token_logits import TokenLogits
from tests.sbert_ray.masked_models import CONFIGS, TEXTS, WITHOUT_PROJECTION, masked_model, word_tokenizer

peer = pytest.importorskip("sentence_transformers.sparse_encoder.modules")

CHOICES = [(strategy, activation) for strategy in ("max", "sum") for activation in ("relu", "log1p_relu")]


def batch(seed: int = 0) -> dict[str, Tensor]:
    """Logits of texts of several lengths, padded on either side, and one without tokens."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 0, 0]])
    return {"token_embeddings": torch.randn(4, 5, 7, generator=generator), "attention_mask": mask}


def by_hand(features: dict[str, Tensor], strategy: str, activation: str) -> Tensor:
    rows = []
    for logits, mask in zip(features["token_embeddings"], features["attention_mask"], strict=True):
        values = logits[mask.bool()].clamp(min=0).log1p()
        values = values.log1p() if activation == "log1p_relu" else values
        zeros = torch.zeros(1, logits.shape[-1])  # of a text without tokens
        values = torch.cat([zeros, values])
        rows.append(values.max(0).values if strategy == "max" else values.sum(0))
    return torch.stack(rows)


@pytest.mark.parametrize(("strategy", "activation"), CHOICES)
@pytest.mark.parametrize("chunk_size", [None, 0, 1, 2, 99])
@pytest.mark.parametrize("part_bytes", [1, 4 * 7 * 5, 2**26])
def test_is_the_formula(
    strategy: Any, activation: Any, chunk_size: int | None, part_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_logits, "PART_BYTES", part_bytes)
    features = batch()
    before = {name: value.clone() for name, value in features.items()}
    pooling = SpladePooling(strategy, activation, chunk_size=chunk_size)
    expected = by_hand(features, strategy, activation)
    theirs = peer.SpladePooling(strategy, activation)(dict(before, token_embeddings=before["token_embeddings"].clone()))
    torch.testing.assert_close(expected, theirs["sentence_embedding"])
    torch.testing.assert_close(pooling(features)["sentence_embedding"], expected)
    with torch.no_grad():
        torch.testing.assert_close(pooling(features)["sentence_embedding"], expected)
    assert all(torch.equal(features[name], value) for name, value in before.items())
    assert pooling.get_embedding_dimension() == 7


def test_without_a_mask_every_token_counts() -> None:
    features = batch()
    expected = by_hand(features | {"attention_mask": torch.ones(4, 5)}, "max", "relu")
    del features["attention_mask"]
    torch.testing.assert_close(SpladePooling()(features)["sentence_embedding"], expected)


@pytest.mark.parametrize(("strategy", "activation"), CHOICES)
def test_gradients_are_those_of_the_peer(strategy: Any, activation: Any) -> None:
    gradients = []
    for kind in (SpladePooling, peer.SpladePooling):
        features = batch()
        logits = features["token_embeddings"].requires_grad_()
        features["token_embeddings"] = logits * 1
        pooled = kind(strategy, activation).train()(features)["sentence_embedding"]
        (pooled * torch.arange(7)).sum().backward()
        gradients.append(logits.grad)
    torch.testing.assert_close(*gradients)


def transformer(name: str) -> Transformer:
    return Transformer(masked_model(name), word_tokenizer(), transformer_task="fill-mask").eval()


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_come_when_they_are_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the architecture, and with padding, they are those of the whole model, which is left as it was."""
    module = transformer(name)
    assert module.get_embedding_dimension() == 16
    features = module.preprocess(TEXTS)
    expected = module.model(**{key: features[key] for key in ("input_ids", "attention_mask")}).logits
    logits = module(features)["token_embeddings"]
    assert isinstance(logits, TokenLogits)
    assert logits.by_text is (name in WITHOUT_PROJECTION)
    assert tuple(logits.shape) == expected.shape == (len(TEXTS), 24, 16)
    torch.testing.assert_close(logits.whole(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits[3], expected[3], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(list(logits), list(expected), atol=1e-5, rtol=1e-5)
    pooled = SpladePooling()(features | {"token_embeddings": expected})["sentence_embedding"]
    for part_bytes in (1, 4 * 16 * 30, 2**26):
        monkeypatch.setattr(token_logits, "PART_BYTES", part_bytes)
        parts = SpladePooling()(features | {"token_embeddings": logits})["sentence_embedding"]
        torch.testing.assert_close(parts, pooled, atol=1e-5, rtol=1e-5)
    assert not any(layer._forward_pre_hooks for layer in module.modules())


@pytest.mark.parametrize("name", ["bert", "mobilebert"])
@pytest.mark.parametrize("strategy", ["max", "sum"])
def test_trains_as_with_all_logits(name: str, strategy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_logits, "PART_BYTES", 4 * 16 * 30)
    gradients = []
    for is_whole in (True, False):
        module = transformer(name)
        features = module(module.preprocess(TEXTS[2:6]))
        if is_whole:
            features["token_embeddings"] = features["token_embeddings"].whole()
        SpladePooling(strategy)(features)["sentence_embedding"].square().sum().backward()
        gradients.append({key: value.grad for key, value in module.named_parameters() if value.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for key, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], expected, atol=1e-4, rtol=1e-4, msg=key)


@pytest.mark.parametrize("strategy", ["max", "sum"])
def test_a_graph_holds_no_logits(strategy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training, too, they are there a part at a time: their storage is free before the next part comes."""
    monkeypatch.setattr(token_logits, "PART_BYTES", 4 * 100 * 8)
    hidden = torch.randn(4, 8, 3, requires_grad=True)
    projection = nn.Linear(3, 100)
    seen: list[weakref.ref[Any]] = []

    def compute(rows: slice, columns: slice) -> Tensor:
        assert not any(storage() is not None for storage in seen)
        logits: Tensor = projection(hidden[rows, columns])
        seen.append(weakref.ref(logits.untyped_storage()))
        return logits

    logits = TokenLogits((4, 8, 100), torch.float32, compute)
    pooled = SpladePooling(strategy)({"token_embeddings": logits})["sentence_embedding"]
    assert len(seen) == 4
    pooled.sum().backward()
    assert hidden.grad is not None


def test_a_failing_model_is_left_as_it_was() -> None:
    module = transformer("bert")
    features = module.preprocess(TEXTS)
    expected = module(features)["token_embeddings"].whole()
    with pytest.raises(IndexError):
        module(features | {"input_ids": features["input_ids"] + 99})
    assert not any(layer._forward_pre_hooks for layer in module.modules())
    torch.testing.assert_close(module(features)["token_embeddings"].whole(), expected)


def test_several_threads_may_run_one_model() -> None:
    module = transformer("bert")
    features = [module.preprocess([text]) for text in TEXTS]
    with torch.inference_mode():
        expected = [module(one)["token_embeddings"].whole() for one in features]

    def is_right(index: int) -> bool:
        with torch.inference_mode():
            return torch.allclose(module(features[index])["token_embeddings"].whole(), expected[index], atol=1e-5)

    with ThreadPoolExecutor(len(TEXTS)) as threads:
        assert all(threads.map(is_right, list(range(len(TEXTS))) * 30))


def test_another_model_in_its_place_is_tried_out_anew() -> None:
    module = transformer("bert")
    features = module.preprocess(TEXTS)
    module(features)
    layer = nn.Linear(24, 20)
    module.model.set_output_embeddings(layer)
    assert tuple(module(features)["token_embeddings"].shape) == (len(TEXTS), 24, 20)


def test_modules_that_read_all_logits_get_them() -> None:
    module = transformer("bert")
    features = module(module.preprocess(TEXTS))
    expected = features | {"token_embeddings": features["token_embeddings"].whole()}
    torch.testing.assert_close(Pooling(16)(features)["sentence_embedding"], Pooling(16)(expected)["sentence_embedding"])
    dense = Dense(16, 3, module_input_name="token_embeddings")
    torch.testing.assert_close(dense(features)["token_embeddings"], dense(expected)["token_embeddings"])
    normalize = Normalize("token_embeddings")
    torch.testing.assert_close(normalize(features)["token_embeddings"], normalize(expected)["token_embeddings"])


@pytest.mark.parametrize("key", ["embedding_dimension", "word_embedding_dimension"])
def test_reads_what_the_peer_saves_and_the_other_way_round(key: str, tmp_path: Any) -> None:
    theirs = peer.SpladePooling("sum", "log1p_relu", embedding_dimension=7)
    theirs.save(str(tmp_path))
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace("embedding_dimension", key))
    ours = SpladePooling.load(tmp_path, LoadOptions())
    assert ours.config() == theirs.get_config_dict()
    ours.save(tmp_path)
    assert peer.SpladePooling.load(str(tmp_path)).get_config_dict() == ours.config()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling_strategy": "mean"}, r"pooling_strategy must be one of \['max', 'sum'\], got 'mean'"),
        ({"activation_function": "gelu"}, r"activation_function must be one of \['relu', 'log1p_relu'\], got 'gelu'"),
    ],
)
def test_other_choices_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpladePooling(**options)
