"""Models with one vector per token: by their formula, by the peer, and in model2vec's format."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sbert_ray import SentenceTransformer
from sbert_ray.inference.cpu_trial import Trial
from sbert_ray.models.checkpoint import describe_checkpoint
from sbert_ray.modules import Normalize, StaticEmbedding

peer = pytest.importorskip("sentence_transformers")
peer_modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")

WORDS = "[UNK] a the cat dog sat ran on mat fast slow red blue".split()
TEXTS = ["a cat", "the fast dog ran on the mat", "", "zebra crossing", "the " * 500, "a cat", "red blue red"]


def word_tokenizer() -> Tokenizer:
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return core


def vectors(rows: int = len(WORDS), dim: int = 8) -> torch.Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(0))


def static_model(**options: Any) -> SentenceTransformer:
    modules = [StaticEmbedding(word_tokenizer(), vectors()), Normalize()]
    return SentenceTransformer(modules=modules, device="cpu", **options)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    static_model(prompts={"query": "red "}).save_pretrained(str(tmp_path / "ours"))
    return tmp_path / "ours"


def load(folder: Path, **options: Any) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu", **options)


def load_peer(folder: Path) -> Any:
    return peer.SentenceTransformer(str(folder), device="cpu")


def test_a_text_is_the_mean_of_its_tokens() -> None:
    weights = vectors()
    model = SentenceTransformer(modules=[StaticEmbedding(word_tokenizer(), weights.numpy())], device="cpu")
    rows = [[WORDS.index(word) if word in WORDS else 0 for word in text.split()] for text in TEXTS]
    expected = [weights[row].mean(0) if row else torch.zeros(8) for row in rows]
    np.testing.assert_allclose(model.encode(TEXTS), torch.stack(expected), atol=1e-5)


@pytest.mark.parametrize("kind", ["tokenizers", "transformers"])
def test_the_peer_agrees_on_real_texts(kind: str, minilm: Path) -> None:
    def tokenizer() -> Any:  # its file cuts texts to 128 tokens and pads them
        path = str(minilm / "tokenizer.json")
        return Tokenizer.from_file(path) if kind == "tokenizers" else PreTrainedTokenizerFast(tokenizer_file=path)

    texts = [
        "",
        " ",
        "\n",
        "a",
        "\u4f60\u597d",
        "na\u00efve caf\u00e9",
        "word " * 600,
        "The quick brown fox.",
        "[CLS] x",
    ]
    weights = vectors(30522, 32)
    ours = SentenceTransformer(modules=[StaticEmbedding(tokenizer(), weights)], device="cpu")
    theirs = peer.SentenceTransformer(
        modules=[peer_modules.StaticEmbedding(tokenizer(), embedding_weights=weights)], device="cpu"
    )
    for options in ({}, {"prompt": "query: "}, {"truncate_dim": 5, "normalize_embeddings": True}):
        np.testing.assert_allclose(ours.encode(texts, **options), theirs.encode(texts, **options), atol=1e-6)
    features, expected = ours.tokenize(texts), theirs.preprocess(texts)
    assert all(torch.equal(features[name], expected[name]) for name in ("input_ids", "offsets"))


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"max_batch_tokens": 1}, {"max_batch_tokens": 7}])
def test_batches_and_order_change_nothing(options: dict[str, int]) -> None:
    model = static_model()
    expected = model.encode(TEXTS)
    np.testing.assert_array_equal(model.encode(TEXTS, **options), expected)
    np.testing.assert_array_equal(model.encode(TEXTS[::-1], **options)[::-1], expected)


def test_conversions_hold() -> None:
    model = static_model()
    assert model.encode([]).shape == (0, 8)
    assert model.encode(TEXTS, convert_to_tensor=True).shape == (7, 8)
    assert [row.shape for row in model.encode(TEXTS[:2], convert_to_numpy=False)] == [(8,), (8,)]
    assert model.encode(TEXTS[0], convert_to_tensor=True).shape == (8,)
    assert model.encode(TEXTS, precision="binary").shape == (7, 1)
    assert model.max_seq_length is None
    assert model.get_embedding_dimension() == model[0].get_sentence_embedding_dimension() == 8


def test_all_features_come_by_row_without_padding() -> None:
    model = static_model()
    for text, row, embedding in zip(TEXTS, model.encode(TEXTS, output_value=None), model.encode(TEXTS), strict=True):
        assert row["input_ids"].shape == (len(text.split()),)
        np.testing.assert_array_equal(row["sentence_embedding"], embedding)


def test_there_are_no_token_embeddings() -> None:
    with pytest.raises(ValueError, match="output_value must not be 'token_embeddings' for a model that makes none"):
        static_model().encode(TEXTS, output_value="token_embeddings")


def test_random_vectors_are_those_of_the_peer() -> None:
    torch.manual_seed(1)
    ours = StaticEmbedding(word_tokenizer(), embedding_dim=6)
    torch.manual_seed(1)
    theirs = peer_modules.StaticEmbedding(word_tokenizer(), embedding_dim=6)
    assert torch.equal(ours.embedding.weight, theirs.embedding.weight)
    assert ours.embedding.weight.requires_grad


def test_checkpoints_go_both_ways(checkpoint: Path, tmp_path: Path) -> None:
    ours, theirs = load(checkpoint), load_peer(checkpoint)
    assert load_file(checkpoint / "model.safetensors").keys() == {"embedding.weight"}
    assert not (checkpoint / "config.json").exists()  # the peer writes none
    np.testing.assert_allclose(theirs.encode_query(TEXTS), ours.encode_query(TEXTS), atol=1e-6)
    theirs.save_pretrained(str(tmp_path / "theirs"))
    names = {path.name for path in (tmp_path / "theirs").iterdir()}
    assert names == {path.name for path in checkpoint.iterdir()}
    again = load(tmp_path / "theirs")
    np.testing.assert_array_equal(again.encode_query(TEXTS), ours.encode_query(TEXTS))
    assert again[0].tokenizer.to_str() == ours[0].tokenizer.to_str()


def test_describes_a_checkpoint(checkpoint: Path) -> None:
    info = describe_checkpoint(checkpoint)
    assert info.modules == ("StaticEmbedding", "Normalize")
    assert (info.embedding_dimension, info.max_seq_length, info.is_normalized) == (8, None, True)


MODEL2VEC = {
    "plain": {"embeddings": vectors()},
    "a mapping": {"embeddings": vectors(4), "mapping": torch.arange(13) % 4},
    "weights": {"embeddings": vectors(), "weights": torch.linspace(0.5, 2, 13, dtype=torch.float64)},
    "both, in half precision": {
        "embeddings": vectors(4).half(),
        "mapping": (torch.arange(13) % 4).int(),
        "weights": torch.linspace(0.5, 2, 13),
    },
    "in 8 bits with weights": {
        "embeddings": (vectors() * 50).to(torch.int8),
        "weights": torch.linspace(0.01, 0.02, 13),
    },
}


def model2vec_folder(folder: Path, weights: dict[str, torch.Tensor], with_modules: bool = True) -> Path:
    folder.mkdir(exist_ok=True)
    word_tokenizer().save(str(folder / "tokenizer.json"))
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "model2vec", "architectures": ["StaticModel"]}))
    kinds = {"StaticEmbedding": ".", "Normalize": "1_Normalize"}
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(kinds.items())
    ]
    if with_modules:
        (folder / "modules.json").write_text(json.dumps(modules))
    return folder


@pytest.mark.parametrize("name", MODEL2VEC)
def test_reads_folders_of_model2vec(name: str, tmp_path: Path) -> None:
    folder = model2vec_folder(tmp_path / "model2vec", MODEL2VEC[name])
    ours, theirs = load(folder), load_peer(folder)
    np.testing.assert_allclose(ours.encode(TEXTS), theirs.encode(TEXTS), atol=1e-6)
    assert describe_checkpoint(folder).embedding_dimension == 8
    direct = StaticEmbedding.from_model2vec(folder)
    torch.testing.assert_close(direct.embedding.weight, ours[0].embedding.weight)
    assert direct.base_model == str(folder)


def test_reads_models_of_model2vec_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model2vec_folder(tmp_path / "snapshot", MODEL2VEC["plain"])
    asked: list[Any] = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda name, **options: asked.append((name, options)) or str(folder)
    )
    module = StaticEmbedding.from_model2vec("minishlab/potion")
    assert asked == [("minishlab/potion", {"allow_patterns": ["config.json", "model.safetensors", "tokenizer.json"]})]
    assert module.base_model == "minishlab/potion"


def test_half_precision_runs_in_float32_on_a_cpu_unless_asked_for(tmp_path: Path) -> None:
    folder = model2vec_folder(tmp_path / "half", {"embedding.weight": vectors().half()})
    assert load(folder).dtype == torch.float32
    assert load(folder, model_kwargs={"dtype": "float16"}).dtype == torch.float16
    texts = [text for text in TEXTS if text]  # of an empty one the peer makes NaN in half precision
    np.testing.assert_allclose(load(folder).encode(texts), load_peer(folder).encode(texts), atol=2e-3)
    half = load(folder, model_kwargs={"dtype": "float16"})
    np.testing.assert_array_equal(half.encode(""), np.zeros(8))


def test_int8_needs_linear_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sbert_ray.inference.precision.trial", lambda *args: Trial(2.0))
    folder = model2vec_folder(tmp_path / "static", {"embedding.weight": vectors()})
    with pytest.raises(ValueError, match="dtype='int8' needs linear layers, of which a StaticEmbedding has none"):
        load(folder, model_kwargs={"dtype": "int8"})


def fake_model2vec(monkeypatch: pytest.MonkeyPatch, **attributes: Any) -> list[Any]:
    calls: list[Any] = []

    def distill(model_name: str, vocabulary: Any = None, device: Any = None, pca_dims: Any = None) -> Any:
        calls.append((model_name, vocabulary, device, pca_dims))
        return types.SimpleNamespace(tokenizer=word_tokenizer(), **attributes)

    package, inner = types.ModuleType("model2vec"), types.ModuleType("model2vec.distill")
    inner.distill = distill  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "model2vec", package)
    monkeypatch.setitem(sys.modules, "model2vec.distill", inner)
    return calls


def test_distills_by_model2vec(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    weights = np.linspace(0.5, 2, 13)
    calls = fake_model2vec(monkeypatch, embedding=vectors().numpy(), weights=weights, token_mapping=None)
    module = StaticEmbedding.from_distillation("bert", ["zebra"], pca_dims=8)
    assert calls == [("bert", ["zebra"], None, 8)]
    expected = vectors() * torch.from_numpy(weights).unsqueeze(1)
    torch.testing.assert_close(module.embedding.weight.detach(), expected.float())
    assert "ignoring ['apply_zipf', 'quantize_to'," in caplog.text
    assert module.base_model == "bert"
    theirs = peer_modules.StaticEmbedding.from_distillation("bert", ["zebra"], pca_dims=8)
    torch.testing.assert_close(module.embedding.weight, theirs.embedding.weight)


def test_an_old_model2vec_has_a_layer_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_model2vec(monkeypatch, embedding=torch.nn.Embedding.from_pretrained(vectors()))
    assert torch.equal(StaticEmbedding.from_distillation("bert").embedding.weight, vectors())


def test_distilling_needs_model2vec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "model2vec", None)
    monkeypatch.setitem(sys.modules, "model2vec.distill", None)
    with pytest.raises(ImportError, match=r"needs the package model2vec: pip install 'sbert-ray\[distill\]'"):
        StaticEmbedding.from_distillation("bert")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((word_tokenizer(),), "give either embedding_weights or embedding_dim"),
        ((word_tokenizer(), torch.ones(4)), r"must be a matrix \(V, D\), got the shape \(4,\)"),
        (("bert", torch.ones(4, 2)), "tokenizer must be of the tokenizers library, .* got str"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StaticEmbedding(*arguments)


def test_a_token_without_a_vector_is_named() -> None:
    model = SentenceTransformer(modules=[StaticEmbedding(word_tokenizer(), vectors(5))], device="cpu")
    with pytest.raises(ValueError, match="a vector for each token, got 5 and the token 'ran' with the id 6"):
        model.encode(["a cat", "a dog ran"])


def test_a_limit_of_length_is_refused() -> None:
    model = static_model()
    with pytest.raises(ValueError, match="texts of any length: max_seq_length must be None, got 128"):
        model.max_seq_length = 128


def test_a_lone_surrogate_is_named() -> None:
    with pytest.raises(ValueError, match="row 2 has a lone surrogate"):
        static_model().encode(["a", "cat", "\ud800"])


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named_before_anything_is_loaded(name: str, checkpoint: Path) -> None:
    (checkpoint / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"lacks {name}"):
        describe_checkpoint(checkpoint)
    with pytest.raises(FileNotFoundError, match=rf"lacks {name}"):
        load(checkpoint)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"linear.weight": vectors()}, r"must hold 'embedding\.weight', or 'embeddings' .* got \['linear\.weight'\]"),
        ({"embeddings": vectors(4), "mapping": torch.arange(13)}, r"parts of the weights in '.*' do not fit"),
        ({"embeddings": vectors(), "weights": torch.ones(4)}, r"parts of the weights in '.*' do not fit"),
    ],
)
def test_weights_of_another_model_are_named(weights: dict[str, torch.Tensor], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load(model2vec_folder(tmp_path / "wrong", weights))


def test_what_is_no_safetensors_file_is_named(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"model\.safetensors' must hold safetensors"):
        describe_checkpoint(checkpoint)


def test_can_be_copied_to_other_processes() -> None:
    model = static_model()
    expected = model.encode(TEXTS)
    pool = model.start_multi_process_pool(["cpu"])
    try:
        np.testing.assert_array_equal(model.encode(TEXTS, pool=pool, chunk_size=3), expected)
        rows = model.encode(TEXTS, pool=pool, output_value=None)
    finally:
        model.stop_multi_process_pool(pool)
    np.testing.assert_array_equal([row["sentence_embedding"] for row in rows], expected)


@pytest.mark.parametrize("prompt", [None, "the cat "])
def test_a_pair_is_the_bag_of_both_texts(prompt: str | None) -> None:
    pairs = [("red cat", "the dog"), ("mat", "a dog sat")]
    ours = SentenceTransformer(modules=[StaticEmbedding(word_tokenizer(), vectors())], device="cpu")
    theirs = peer.SentenceTransformer(modules=[peer_modules.StaticEmbedding(word_tokenizer(), vectors())], device="cpu")
    np.testing.assert_allclose(ours.encode(pairs, prompt=prompt), theirs.encode(pairs, prompt=prompt), atol=1e-6)
    texts = [f"{first} {second}" for first, second in pairs]
    np.testing.assert_allclose(ours.encode(pairs, prompt=prompt), ours.encode(texts, prompt=prompt), atol=1e-6)
