"""Models of words, older than transformers: by their formulas and by the peer, on files of both."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from sbert_ray import SentenceTransformer, models
from sbert_ray.models.checkpoint import describe_checkpoint
from sbert_ray.sentence_transformer.modules.tokenizer import PhraseTokenizer, WhitespaceTokenizer

peer = pytest.importorskip("sentence_transformers")
theirs = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
their_tokenizers = pytest.importorskip("sentence_transformers.sentence_transformer.modules.tokenizer")
pytest.importorskip("nltk")

VOCAB = ["PADDING_TOKEN", *"cat dog sat ran mat fast slow red blue New_York Zebra".split()]
WEIGHTS = {"cat": 2.5, "sat": 0.5, "zebra": 3.0, "unseen": 9.0}
TEXTS = [
    "The cat sat.",
    "fast dog ran, ran, ran on the red mat",
    "New York",
    "red",
    "slow blue zebra Zebra cat dog dog sat",
    "cat",
    "fast fast fast slow red blue mat",
]
EMPTY = ["", "nothing that is known"]


def vectors(dim: int = 6) -> np.ndarray[Any, Any]:
    """Vectors of the words; that of padding is not zero, so that padding which is read shows."""
    return np.random.default_rng(0).normal(size=(len(VOCAB), dim))


Kit = tuple[Any, Any]
"""Modules and tokenizers, ours or the peer's."""


def words(kit: Kit, phrases: bool = False) -> Any:
    tokenizer = kit[1].PhraseTokenizer(VOCAB) if phrases else kit[1].WhitespaceTokenizer(VOCAB)
    return kit[0].WordEmbeddings(tokenizer, vectors())


def seeded(make: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    torch.manual_seed(0)
    return make(*arguments, **options)


BUILDERS: dict[str, Callable[[Kit], list[Any]]] = {
    "mean of words": lambda kit: [words(kit), kit[0].Pooling(6)],
    "max and mean of words": lambda kit: [words(kit), kit[0].Pooling(6, ("max", "mean"))],
    "phrases": lambda kit: [words(kit, phrases=True), kit[0].Pooling(6)],
    "idf": lambda kit: [words(kit), kit[0].WordWeights(VOCAB, WEIGHTS, 0.7), kit[0].Pooling(6)],
    "lstm": lambda kit: [words(kit), seeded(kit[0].LSTM, 6, 4), kit[0].Pooling(8)],
    "lstm of two layers, one way": lambda kit: [
        words(kit),
        seeded(kit[0].LSTM, 6, 4, num_layers=2, bidirectional=False),
        kit[0].Pooling(4, "lasttoken"),
    ],
    "bag of words": lambda kit: [kit[0].BoW(VOCAB[1:], WEIGHTS, 0.5), kit[0].Normalize()],
    "bag of words that counts none twice": lambda kit: [
        kit[0].BoW([*VOCAB[1:], "cat"], WEIGHTS, cumulative_term_frequency=False),
        seeded(kit[0].Dense, 11, 4),
    ],
}
CNNS: dict[str, Callable[[Kit], list[Any]]] = {
    "cnn": lambda kit: [words(kit), seeded(kit[0].CNN, 6, 4), kit[0].Pooling(12)],
    "cnn with even kernels": lambda kit: [words(kit), seeded(kit[0].CNN, 6, 4, [2, 4]), kit[0].Pooling(8, "max")],
    "cnn with strides": lambda kit: [
        words(kit),
        seeded(kit[0].CNN, 6, 4, [1, 3], stride_sizes=[2, 2]),
        kit[0].Pooling(8),
    ],
}
OURS: Kit = (models, models)


@pytest.fixture(autouse=True)
def _kits(monkeypatch: pytest.MonkeyPatch) -> None:
    # One namespace for ours, as the peer has two.
    monkeypatch.setattr(models, "WhitespaceTokenizer", WhitespaceTokenizer, raising=False)
    monkeypatch.setattr(models, "PhraseTokenizer", PhraseTokenizer, raising=False)


def our_model(name: str) -> SentenceTransformer:
    return SentenceTransformer(modules=(BUILDERS | CNNS)[name](OURS), device="cpu")


def peer_model(name: str) -> Any:
    return peer.SentenceTransformer(modules=(BUILDERS | CNNS)[name]((theirs, their_tokenizers)), device="cpu")


def alone(model: Any, texts: list[str]) -> np.ndarray[Any, Any]:
    """Embeddings of texts that no padding comes near."""
    return np.stack([model.encode(text) for text in texts])


@pytest.mark.parametrize("name", BUILDERS)
def test_embeddings_are_the_peers(name: str) -> None:
    ours, other = our_model(name), peer_model(name)
    for options in ({}, {"prompt": "red cat "}):
        found, expected = (model.encode(TEXTS + EMPTY, **options) for model in (ours, other))
        expected[np.isinf(expected)] = 0  # the peer's maximum of no words at all
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", CNNS)
def test_convolutions_are_the_peers_without_padding(name: str) -> None:
    ours, expected = our_model(name), peer_model(name)
    texts = [text for text in TEXTS if len(text.split()) > 3]  # the peer's large kernels need as many words
    np.testing.assert_allclose(ours.encode(texts), alone(expected, texts), atol=1e-6)
    assert np.abs(expected.encode(TEXTS[:2]) - ours.encode(TEXTS[:2])).max() > 1e-3  # its padding is read


@pytest.mark.parametrize("name", [*BUILDERS, *CNNS])
def test_batches_and_order_change_nothing(name: str) -> None:
    model = our_model(name)
    texts = TEXTS + EMPTY
    expected = alone(model, texts)
    for order in (slice(None), slice(None, None, -1)):
        np.testing.assert_allclose(model.encode(texts[order]), expected[order], atol=1e-6)
    np.testing.assert_allclose(model.encode(texts, max_batch_tokens=16), expected, atol=1e-6)


@pytest.mark.parametrize("name", [*BUILDERS, *CNNS])
def test_checkpoints_go_both_ways(name: str, tmp_path: Path) -> None:
    ours = our_model(name)
    ours.save_pretrained(str(tmp_path / "ours"))
    expected = ours.encode(TEXTS)
    there = peer.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    texts = [text for text in TEXTS if len(text.split()) > 3]
    np.testing.assert_allclose(alone(there, texts), ours.encode(texts), atol=1e-6)
    there.save_pretrained(str(tmp_path / "theirs"))
    back = SentenceTransformer(str(tmp_path / "theirs"), device="cpu")
    np.testing.assert_allclose(back.encode(TEXTS), expected, atol=1e-6)
    files = [sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) for folder in tmp_path.iterdir()]
    assert files[0] == files[1]


@pytest.mark.parametrize("name", [*BUILDERS, *CNNS])
def test_describes_a_checkpoint(name: str, tmp_path: Path) -> None:
    ours = our_model(name)
    ours.save_pretrained(str(tmp_path))
    info = describe_checkpoint(tmp_path)
    assert info.embedding_dimension == ours.get_embedding_dimension() == ours.encode("cat").shape[0]
    assert info.max_seq_length == ours.max_seq_length == (None if "bag" in name else 1000000)
    if len(list(ours)) > 2:  # the dimension of what pooling gets
        assert list(ours)[-2].get_embedding_dimension() in (None, ours[-1].embedding_dimension)


def test_every_kind_of_token_level_module_tells_its_dimension(tmp_path: Path) -> None:
    for name, builder in {**BUILDERS, **CNNS}.items():
        if "bag" not in name:
            modules = builder(OURS)[:-1]
            SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(tmp_path / name))
            dimensions = [module.get_embedding_dimension() for module in modules]
            expected = next(dimension for dimension in dimensions[::-1] if dimension)
            assert describe_checkpoint(tmp_path / name).embedding_dimension == expected


@pytest.mark.parametrize("name", ["mean of words", "lstm", "cnn", "cnn with even kernels", "cnn with strides", "idf"])
def test_token_embeddings_have_no_padding(name: str) -> None:
    model = our_model(name)
    together = model.encode(TEXTS, output_value="token_embeddings")
    for text, tokens in zip(TEXTS, together, strict=True):
        torch.testing.assert_close(tokens, model.encode(text, output_value="token_embeddings"), atol=1e-6, rtol=0)
    expected = alone(model, TEXTS)
    rows = model.encode(TEXTS, output_value=None)
    np.testing.assert_allclose(np.stack([row["sentence_embedding"] for row in rows]), expected, atol=1e-6)


def test_word_features_are_the_peers() -> None:
    ours, expected = our_model("mean of words").tokenize(TEXTS), peer_model("mean of words").preprocess(TEXTS)
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in ours)


def test_a_text_is_cut_to_max_seq_length(tmp_path: Path) -> None:
    model = our_model("mean of words")
    model.max_seq_length = 2
    expected = peer_model("mean of words")
    expected.max_seq_length = 2
    np.testing.assert_allclose(model.encode(TEXTS), expected.encode(TEXTS), atol=1e-6)
    model.save_pretrained(str(tmp_path))
    assert describe_checkpoint(tmp_path).max_seq_length == 2
    assert SentenceTransformer(str(tmp_path), device="cpu").max_seq_length == 2


def test_words_by_a_tokenizer_of_transformers(tiny_checkpoint: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    weights = torch.randn(len(tokenizer), 5)
    ours = SentenceTransformer(modules=[models.WordEmbeddings(tokenizer, weights), models.Pooling(5)], device="cpu")
    expected = peer.SentenceTransformer(
        modules=[theirs.WordEmbeddings(tokenizer, weights), theirs.Pooling(5)], device="cpu"
    )
    np.testing.assert_allclose(ours.encode(TEXTS), expected.encode(TEXTS), atol=1e-6)
    ours.save_pretrained(str(tmp_path))
    for kind in (SentenceTransformer, peer.SentenceTransformer):
        np.testing.assert_allclose(kind(str(tmp_path), device="cpu").encode(TEXTS), ours.encode(TEXTS), atol=1e-6)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("name", ["lstm", "cnn", "cnn with strides", "cnn with even kernels"])
def test_padding_on_either_side_changes_nothing(name: str, flip: bool) -> None:
    module, pooling = list(our_model(name))[1:]
    tokens, padding = torch.randn(1, 5, 6), torch.full((1, 3, 6), 7.0)
    parts = [tokens, padding][:: -1 if flip else 1]
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0]])
    features = {"token_embeddings": torch.cat(parts, 1), "attention_mask": mask.flip(1) if flip else mask}
    before = {key: value.clone() for key, value in features.items()}
    found = pooling(module(features))["sentence_embedding"]
    torch.testing.assert_close(found, pooling(module({"token_embeddings": tokens}))["sentence_embedding"])
    assert all(torch.equal(features[key], before[key]) for key in before)


def text_file(folder: Path, lines: list[str], name: str = "vectors.txt") -> Path:
    path = folder / name
    data = "\n".join(lines).encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


LINES = ["cat 1 2 3", "dog 4 5 6", "bad 1 2", "r\u00e9d -1 0.5 1e-3", "cat 7 8 9"]


@pytest.mark.parametrize("name", ["vectors.txt", "vectors.txt.gz"])
@pytest.mark.parametrize("header", [[], ["4 3"]])
@pytest.mark.parametrize("max_vocab_size", [None, 2])
def test_reads_text_files_as_the_peer(
    name: str, header: list[str], max_vocab_size: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = text_file(tmp_path, header + LINES, name)
    ours = models.WordEmbeddings.from_text_file(path, max_vocab_size=max_vocab_size)
    expected = theirs.WordEmbeddings.from_text_file(str(path), max_vocab_size=max_vocab_size)
    assert ours.tokenizer.word2idx == dict(expected.tokenizer.word2idx)
    if max_vocab_size:
        assert torch.equal(ours.emb_layer.weight, expected.emb_layer.weight)
    else:  # of a word that comes twice, both have the last vector
        index = ours.tokenizer.word2idx["cat"]
        assert ours.emb_layer.weight[index].tolist() == expected.emb_layer.weight[index].tolist() == [7, 8, 9]
        assert "left out 1 lines of" in caplog.text
    assert ours.emb_layer.weight[0].tolist() == [0, 0, 0]
    assert not ours.emb_layer.weight.requires_grad


def test_text_files_may_have_other_separators_and_tokenizers(tmp_path: Path) -> None:
    path = text_file(tmp_path, ["New_York\t1\t2", "red\t3\t4"])
    ours = models.WordEmbeddings.from_text_file(path, True, "\t", PhraseTokenizer())
    assert ours.tokenizer.tokenize("red New York") == [2, 1]
    assert ours.emb_layer.weight.requires_grad


@pytest.mark.parametrize(
    ("lines", "message"),
    [([], "on each line, got none"), (["cat 1 2", "dog 3 x"], r"line 2 of '.*' must be a word and its numbers: .*'x'")],
)
def test_text_files_without_vectors_are_named(lines: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        models.WordEmbeddings.from_text_file(text_file(tmp_path, lines))


def test_text_files_are_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"glove\.txt"):
        models.WordEmbeddings.from_text_file(tmp_path / "glove.txt")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.WordEmbeddings("a", vectors()), "tokenizer must be a WordTokenizer .* got str"),
        (
            lambda: models.WordEmbeddings(WhitespaceTokenizer(VOCAB), vectors()[:5]),
            r"a row for each of 12 words, got the shape \(5, 6\)",
        ),
        (lambda: models.CNN(6, 4, [1, 2]), r"all odd or all even, .* got the kernel_sizes \[1, 2\]"),
        (lambda: models.CNN(6, 4, [1, 3], [1, 2]), r"the same stride for each, got .* stride_sizes \[1, 2\]"),
        (lambda: models.CNN(6, 4, [1, 3], [1]), r"stride_sizes \[1\]"),
        (lambda: models.CNN(6, 4, []), r"kernel_sizes \[\]"),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("name", "kind"), [("bag of words", "BoW"), ("mean of words", "WordEmbeddings")])
def test_words_are_read_in_texts_and_not_in_pairs(name: str, kind: str) -> None:
    model = our_model(name)
    np.testing.assert_array_equal(model.encode([{"text": "cat"}]), model.encode(["cat"]))
    with pytest.raises(TypeError, match=f"{kind} reads texts and no pairs; row 1 is a tuple"):
        model.encode(["cat", ("cat", "dog")])


def test_a_bag_of_words_has_no_limit_of_length() -> None:
    model = our_model("bag of words")
    assert model.max_seq_length is None
    with pytest.raises(ValueError, match="a BoW reads texts of any length: max_seq_length must be None, got 9"):
        model.max_seq_length = 9


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    our_model("lstm").save_pretrained(str(tmp_path / "checkpoint"))
    return tmp_path / "checkpoint"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wordembedding_config.json", r"lacks wordembedding_config\.json"),
        ("model.safetensors", r"lacks model\.safetensors"),
        ("1_LSTM/model.safetensors", r"1_LSTM' has no weights: it lacks model\.safetensors"),
    ],
)
def test_a_missing_file_is_named_before_anything_is_loaded(name: str, message: str, checkpoint: Path) -> None:
    (checkpoint / name).unlink()
    with pytest.raises(FileNotFoundError, match=message):
        describe_checkpoint(checkpoint)


def test_a_missing_tokenizer_is_named(checkpoint: Path) -> None:
    (checkpoint / "whitespacetokenizer_config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks whitespacetokenizer_config\.json"):
        SentenceTransformer(str(checkpoint), device="cpu")


def test_another_tokenizer_class_is_refused_before_anything_is_loaded(checkpoint: Path) -> None:
    (checkpoint / "wordembedding_config.json").write_text(json.dumps({"tokenizer_class": "os.path"}))
    with pytest.raises(ValueError, match=r"tokenizer_class in '.*' must be one of .* got 'os\.path'"):
        describe_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("1_LSTM/lstm_config.json", {"hidden_dim": 4}, "does not fit LSTM: .*embedding_dimension"),
        ("1_LSTM/lstm_config.json", {"embedding_dimension": 6, "hidden_dim": 5}, "do not fit: "),
        (
            "wordembedding_config.json",
            {"tokenizer_class": WhitespaceTokenizer.public_path, "x": 1},
            "WordEmbeddings: .*'x'",
        ),
    ],
)
def test_a_config_that_does_not_fit_is_named(name: str, config: dict[str, Any], message: str, checkpoint: Path) -> None:
    (checkpoint / name).write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        SentenceTransformer(str(checkpoint), device="cpu")


def test_reads_what_old_versions_wrote(tmp_path: Path) -> None:
    """Types at ``models``, every module in a folder of its own, old keys, and pickles where they are asked for."""
    expected = SentenceTransformer(
        modules=[*CNNS["cnn"](OURS)[:-1], seeded(models.LSTM, 12, 3), models.Pooling(6)], device="cpu"
    )
    expected.save_pretrained(str(tmp_path))
    first = tmp_path / "0_WordEmbeddings"
    first.mkdir()
    for name in ("wordembedding_config.json", "whitespacetokenizer_config.json", "model.safetensors"):
        shutil.move(tmp_path / name, first / name)
    config = json.loads((first / "wordembedding_config.json").read_text())
    config["tokenizer_class"] = "sentence_transformers.models.tokenizer.WhitespaceTokenizer.WhitespaceTokenizer"
    (first / "wordembedding_config.json").write_text(json.dumps(config))
    for name, renamed in {
        "1_CNN/cnn_config.json": ("in_embedding_dimension", "in_word_embedding_dimension"),
        "2_LSTM/lstm_config.json": ("embedding_dimension", "word_embedding_dimension"),
        "3_Pooling/config.json": ("embedding_dimension", "word_embedding_dimension"),
    }.items():
        config = json.loads((tmp_path / name).read_text())
        config[renamed[1]] = config.pop(renamed[0])
        (tmp_path / name).write_text(json.dumps(config))
    kinds = ["WordEmbeddings", "CNN", "LSTM", "Pooling"]
    entries = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (tmp_path / "modules.json").write_text(json.dumps(entries))
    torch.save(expected[0].state_dict(), first / "pytorch_model.bin")
    (first / "model.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"0_WordEmbeddings' lacks model\.safetensors and has pytorch_model\.bin"
    ):
        SentenceTransformer(str(tmp_path), device="cpu")
    ours = SentenceTransformer(str(tmp_path), device="cpu", model_kwargs={"use_safetensors": False})
    np.testing.assert_allclose(ours.encode(TEXTS), expected.encode(TEXTS), atol=1e-6)
    texts = [text for text in TEXTS if len(text.split()) > 3]
    there = peer.SentenceTransformer(str(tmp_path), device="cpu")
    np.testing.assert_allclose(alone(there, texts), expected.encode(texts), atol=1e-6)


@pytest.mark.parametrize("kind", [models.CNN, models.LSTM, models.WeightedLayerPooling, models.Pooling])
def test_old_names_of_the_dimension_hold(kind: Any) -> None:
    old = "in_word_embedding_dimension" if kind is models.CNN else "word_embedding_dimension"
    options = {"hidden_dim": 3} if kind is models.LSTM else {}
    with pytest.warns(FutureWarning, match=f"the argument {old} is called {old.replace('word_', '')} now"):
        module = kind(**{old: 6}, **options)
    assert module.config()[old.replace("word_", "")] == 6
