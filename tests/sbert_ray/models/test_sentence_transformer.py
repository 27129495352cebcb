"""The dense model: what `encode` returns, whatever the batches, and errors that say what is wrong."""

import copy
import pickle
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from sbert_ray import SentenceTransformer
from sbert_ray.modules import Normalize, Pooling

TEXTS = ["a cat", "", "the fast dog ran on the mat", "red", "zebra crossing", "a cat", "the " * 50]
WORDS = "a the cat dog sat ran on mat fast slow red blue".split()


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> SentenceTransformer:
    """The tiny checkpoint; tests leave it as it is."""
    return SentenceTransformer(str(tiny_checkpoint), device="cpu")


@pytest.fixture
def own_model(tiny_checkpoint: Path) -> SentenceTransformer:
    """The tiny checkpoint, freshly loaded, so that a test may change it."""
    return SentenceTransformer(str(tiny_checkpoint), device="cpu")


def random_texts(count: int) -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, rng.integers(0, 40))) for _ in range(count)]


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 3}, {"max_batch_tokens": 1}, {"batch_size": 99}])
def test_batching_changes_nothing(model: SentenceTransformer, options: dict[str, int]) -> None:
    one_by_one = np.stack([model.encode(text) for text in TEXTS])
    np.testing.assert_allclose(model.encode(TEXTS, **options), one_by_one, atol=1e-6)


def test_order_changes_nothing(model: SentenceTransformer) -> None:
    texts = random_texts(300)
    order = np.random.default_rng(1).permutation(len(texts))
    shuffled = model.encode([texts[row] for row in order])
    np.testing.assert_allclose(shuffled, model.encode(texts)[order], atol=1e-6)


def test_repeated_calls_give_the_same_bytes(model: SentenceTransformer) -> None:
    texts = random_texts(300)
    assert model.encode(texts).tobytes() == model.encode(texts).tobytes()


def test_returns_float32_rows_or_a_row(model: SentenceTransformer) -> None:
    embeddings = model.encode(TEXTS)
    assert (embeddings.shape, embeddings.dtype) == ((7, 16), np.float32)
    assert model.encode("a cat").shape == (16,)
    assert model.encode([]).shape == (0, 16)
    assert model.encode([], truncate_dim=4).shape == (0, 4)


class Series:
    """What pandas' Series has of interest here."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def tolist(self) -> list[Any]:
        return self.values


class Frame:
    """What pandas' DataFrame has of interest here: iterating one gives the names of its columns."""

    columns = ("text",)
    shape = (2, 1)

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


KINDS = {
    "tuple": tuple,
    "array": np.array,
    "objects": lambda x: np.array(x, object),
    "Series": Series,
    "Arrow": pa.array,
    "chunks": lambda x: pa.chunked_array([x[:2], x[2:]]),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_takes_texts_in_any_container(model: SentenceTransformer, kind: Any) -> None:
    np.testing.assert_array_equal(model.encode(kind(TEXTS)), model.encode(TEXTS))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (None, "inputs must be a text or a list of texts, got NoneType"),
        (3, "inputs must be a text or a list of texts, got int"),
        (b"a cat", "inputs must be a text or a list of texts, got bytes"),
        ({"audio": "a cat"}, "inputs must be a text or a list of texts, got dict"),
        ({"text": "a cat", "image": "a dog"}, "inputs must be a text or a list of texts, got dict"),
        ({"a cat", "a dog"}, "inputs must be a text or a list of texts, got a set, which has no order"),
        (frozenset(["a cat"]), "got a frozenset, which has no order"),
        ([{"image": "a cat"}], "inputs must be texts; row 0 is of type dict with the key 'image'"),
        (["a cat", {"text": 3}], "inputs must be texts; row 1 is of type int"),
        ([{"text": ("a cat",)}], "inputs must be texts; row 0 is of type tuple"),
        ([("a cat", "a dog", "a mat")], "inputs must be texts; row 0 is of type tuple"),
        ([("a cat", None)], "inputs must be texts; row 0 is of type tuple"),
        (np.array([["a cat", "a dog"]]), r"got ndarray of shape \(1, 2\)"),
        (["a cat", None], "row 1 is of type NoneType"),
        (["a cat", "a dog", 3.5], "row 2 is of type float"),
        ([["a cat"]], "row 0 is of type list"),
        (np.array(["a cat", float("nan")], object), "row 1 is of type float"),
        (np.array("a cat"), r"got ndarray of shape \(\)"),
        (np.array([["a cat"]]), r"got ndarray of shape \(1, 1\)"),
        (Frame(), r"got Frame of shape \(2, 1\)"),
        (pa.table({"text": ["a cat", "a dog"]}), r"got Table of shape \(2, 1\)"),
    ],
)
def test_what_is_no_text_is_named(model: SentenceTransformer, inputs: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        model.encode(inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be positive, got 0"),
        ({"max_batch_tokens": -1}, "max_batch_tokens must be positive, got -1"),
        ({"truncate_dim": 0}, "truncate_dim must be positive, got 0"),
        ({"precision": "int4"}, "unknown precision 'int4'; known precisions are"),
        ({"device": []}, "target_devices must name at least one device, got none"),
        ({"output_value": "words"}, "output_value must be 'sentence_embedding', 'token_embeddings' or None"),
        ({"prompt_name": "poem"}, r"unknown prompt name 'poem'; known prompts are \['document', 'query'\]"),
    ],
)
def test_wrong_arguments_are_named(model: SentenceTransformer, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.encode(TEXTS, **options)


def test_a_lone_surrogate_is_named(model: SentenceTransformer) -> None:
    with pytest.raises(ValueError, match="row 1001 has a lone surrogate"):
        model.encode(["a cat"] * 1001 + ["a \ud800"])


def test_a_megabyte_of_text_is_cut(model: SentenceTransformer) -> None:
    long = "the cat " * 125_000
    np.testing.assert_allclose(model.encode([long, "red"]), model.encode(["the cat " * 40, "red"]), atol=1e-6)


def test_tensors_and_lists_of_tensors(model: SentenceTransformer) -> None:
    expected = torch.from_numpy(model.encode(TEXTS))
    assert torch.equal(model.encode(TEXTS, convert_to_tensor=True), expected)
    rows = model.encode(TEXTS, convert_to_numpy=False)
    assert isinstance(rows, list)
    assert torch.equal(torch.stack(rows), expected)


def test_token_embeddings_have_no_padding(model: SentenceTransformer) -> None:
    tokens = model.encode(TEXTS, output_value="token_embeddings")
    lengths = model.prepare(TEXTS).lengths
    assert [len(rows) for rows in tokens] == lengths.tolist() == [4, 2, 9, 3, 4, 4, 32]
    means = torch.nn.functional.normalize(torch.stack([rows.mean(0) for rows in tokens]), dim=-1)
    np.testing.assert_allclose(means, model.encode(TEXTS), atol=1e-6)


def test_all_features_come_by_row(model: SentenceTransformer) -> None:
    rows = model.encode(TEXTS, output_value=None, prompt="a ")
    assert {"input_ids", "attention_mask", "token_embeddings", "sentence_embedding", "prompt_length"} <= rows[0].keys()
    embeddings = np.stack([row["sentence_embedding"] for row in rows])
    np.testing.assert_allclose(embeddings, model.encode(TEXTS, prompt="a "), atol=1e-6)


def test_truncates_before_it_normalizes(model: SentenceTransformer) -> None:
    full = model.encode(TEXTS)
    np.testing.assert_array_equal(model.encode(TEXTS, truncate_dim=4), full[:, :4])
    short = full[:, :4] / np.linalg.norm(full[:, :4], axis=1, keepdims=True)
    np.testing.assert_allclose(model.encode(TEXTS, truncate_dim=4, normalize_embeddings=True), short, atol=1e-6)


def test_the_models_truncation_holds_until_it_is_overridden(own_model: SentenceTransformer) -> None:
    with own_model.truncate_embeddings(4):
        assert own_model.encode(TEXTS).shape == (7, 4)
        assert own_model.encode(TEXTS, truncate_dim=8).shape == (7, 8)
        assert own_model.get_sentence_embedding_dimension() == own_model.get_embedding_dimension() == 4
    assert own_model.encode(TEXTS).shape == (7, 16)


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_quantizes_all_rows_together(model: SentenceTransformer, precision: str) -> None:
    from sbert_ray.quantization import quantize_embeddings

    texts = random_texts(120)
    expected = quantize_embeddings(model.encode(texts), precision)
    np.testing.assert_array_equal(model.encode(texts, precision=precision, batch_size=2), expected)


def test_prompts_by_name_by_text_and_by_default(tiny_checkpoint: Path) -> None:
    prompts = {"query": "a red ", "passage": "the "}
    model = SentenceTransformer(str(tiny_checkpoint), device="cpu", prompts=prompts)
    query = model.encode(["a red cat"])
    np.testing.assert_array_equal(model.encode(["cat"], prompt_name="query"), query)
    np.testing.assert_array_equal(model.encode(["cat"], prompt="a red ", prompt_name="passage"), query)
    np.testing.assert_array_equal(model.encode_query(["cat"]), query)
    np.testing.assert_array_equal(model.encode_document(["cat"]), model.encode(["cat"]))  # "document" is there, empty
    np.testing.assert_array_equal(model.encode_document(["cat"], prompt_name="passage"), model.encode(["the cat"]))
    model.default_prompt_name = "query"
    np.testing.assert_array_equal(model.encode(["cat"]), query)
    np.testing.assert_array_equal(model.encode(["a red cat"], prompt=""), query)
    with pytest.raises(ValueError, match="unknown prompt name 'poem'"):
        model.default_prompt_name = "poem"


def test_pooling_can_leave_out_the_prompt(own_model: SentenceTransformer) -> None:
    own_model.set_pooling_include_prompt(False)
    [tokens] = own_model.encode(["cat"], prompt="a red ", output_value="token_embeddings")
    assert len(tokens) == 5  # [CLS] a red cat [SEP], of which the first three are the prompt's
    expected = torch.nn.functional.normalize(tokens[3:].mean(0), dim=-1)
    np.testing.assert_allclose(own_model.encode("cat", prompt="a red "), expected, atol=1e-6)


def test_similarity_follows_the_models_function(own_model: SentenceTransformer) -> None:
    a, b = np.array([[3.0, 4.0]]), np.array([[4.0, 3.0]])
    assert own_model.similarity_fn_name == "cosine"
    assert own_model.similarity(a, b).item() == pytest.approx(24 / 25)
    own_model.similarity_fn_name = "dot"
    assert own_model.similarity_pairwise(a, b).tolist() == [24.0]
    with pytest.raises(ValueError, match="unknown similarity function 'angle'"):
        own_model.similarity_fn_name = "angle"


def test_max_seq_length_can_be_set(own_model: SentenceTransformer) -> None:
    assert own_model.max_seq_length == own_model.get_max_seq_length() == 32
    own_model.max_seq_length = 5
    expected = own_model.encode("the cat sat")
    np.testing.assert_allclose(own_model.encode("the cat sat on the mat"), expected, atol=1e-6)


def test_is_a_sequence_of_modules(model: SentenceTransformer) -> None:
    assert len(model) == 3
    assert isinstance(model[1], Pooling)
    assert isinstance(model[-1], Normalize)
    features = model(model.tokenize(TEXTS))
    np.testing.assert_allclose(features["sentence_embedding"].detach(), model.encode(TEXTS), atol=1e-6)


def test_a_model_is_a_checkpoint_or_modules(tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="give either model_name_or_path or modules"):
        SentenceTransformer()
    with pytest.raises(ValueError, match=r"the first module must be one of .*'Transformer'.*, got \['Pooling'\]"):
        SentenceTransformer(modules=[Pooling(16)])
    with pytest.raises(ValueError, match="backend must be 'torch', got 'onnx'"):
        SentenceTransformer(str(tiny_checkpoint), backend="onnx")


def test_a_checkpoint_may_be_a_path(model: SentenceTransformer, tiny_checkpoint: Path) -> None:
    np.testing.assert_array_equal(SentenceTransformer(tiny_checkpoint, device="cpu").encode(TEXTS), model.encode(TEXTS))


def test_modules_may_have_names(model: SentenceTransformer) -> None:
    named = SentenceTransformer(modules=OrderedDict(zip("abc", model, strict=True)), device="cpu")
    np.testing.assert_array_equal(named.encode(TEXTS), model.encode(TEXTS))


def test_can_be_copied_and_pickled(model: SentenceTransformer) -> None:
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(copied.encode(TEXTS), model.encode(TEXTS))


def test_tokenizes_while_it_embeds(model: SentenceTransformer) -> None:
    chunks = [random_texts(200)[start : start + 50] for start in range(0, 200, 50)] * 5
    expected = [model.encode(chunk) for chunk in chunks]
    with ThreadPoolExecutor(2) as tokenizers:  # two tokenizing, this one embedding
        tokens = tokenizers.map(model.prepare, chunks)
        for ready, embeddings in zip(tokens, expected, strict=True):
            np.testing.assert_array_equal(model.embed_prepared(ready).embeddings, embeddings)


def test_a_run_counts_its_work(model: SentenceTransformer) -> None:
    tokens = model.prepare(TEXTS)
    batches: list[int] = []
    run = model.embed_prepared(tokens, on_batch=batches.append)
    assert sum(batches) == len(tokens) == 7
    assert run.num_tokens == tokens.lengths.sum() == 58
    assert run.num_padded_tokens >= run.num_tokens
    assert model.embed_prepared(model.prepare([])).embeddings.shape == (0, 16)


def test_a_batch_too_large_for_memory_is_halved(
    own_model: SentenceTransformer, caplog: pytest.LogCaptureFixture
) -> None:
    expected = own_model.encode(TEXTS)
    forward = own_model[0].forward

    def small_memory(features: dict[str, Any]) -> dict[str, Any]:
        if features["packing"].num_texts > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(features)

    own_model[0].forward = small_memory  # type: ignore[method-assign]
    np.testing.assert_allclose(own_model.encode(TEXTS), expected, atol=1e-6)
    assert "exceed the device's memory, halving" in caplog.text


def test_shows_progress_where_asked_for(model: SentenceTransformer, capfd: pytest.CaptureFixture[str]) -> None:
    model.encode(TEXTS)
    assert "Texts" not in capfd.readouterr().err
    model.encode(TEXTS, show_progress_bar=True)
    assert "7/7" in capfd.readouterr().err


def test_the_quickstart_gives_the_known_numbers(minilm: Path) -> None:
    model = SentenceTransformer(str(minilm), device="cpu")
    sentences = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    embeddings = model.encode(sentences)
    assert embeddings.shape == (3, 384)
    expected = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(model.similarity(embeddings, embeddings), expected, atol=5e-5)
