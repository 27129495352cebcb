"""The sparse model: what `encode` and its companions return, and errors that say what is wrong."""

import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from torch import Tensor

from sbert_ray import SparseEncoder
from sbert_ray.inference.processes import Pool
from sbert_ray.models.checkpoint import describe_checkpoint
from sbert_ray.modules import Normalize, Pooling, SparseAutoEncoder, SparseStaticEmbedding, SpladePooling, Transformer
from tests.sbert_ray.masked_models import TEXTS, VOCABULARY, WORDS, save_masked, word_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain BERT with a head for masked words."""
    return save_masked("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def model(folder: Path) -> SparseEncoder:
    """A tiny SPLADE; tests leave it as it is."""
    return SparseEncoder(folder, device="cpu")


@pytest.fixture
def own_model(folder: Path) -> SparseEncoder:
    """A tiny SPLADE that a test may change."""
    return SparseEncoder(folder, device="cpu")


def random_texts(count: int) -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, rng.integers(0, 40))) for _ in range(count)]


def assert_rows_equal(first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(first.to_dense(), second.to_dense(), atol=1e-5, rtol=1e-5)


def test_returns_coalesced_float32_rows_or_a_row(model: SparseEncoder) -> None:
    embeddings = model.encode(TEXTS)
    assert (embeddings.layout, embeddings.dtype, embeddings.shape) == (torch.sparse_coo, torch.float32, (8, 16))
    assert embeddings.is_coalesced()
    row = model.encode("a cat")
    assert (row.layout, row.shape) == (torch.sparse_coo, (16,))
    assert_rows_equal(row, embeddings[0])
    assert model.encode([]).shape == (0, 16)
    assert model.encode([]).layout == torch.sparse_coo
    assert model.encode([], convert_to_tensor=False) == []


def test_returns_what_is_asked_for(model: SparseEncoder) -> None:
    embeddings = model.encode(TEXTS)
    dense = model.encode(TEXTS, convert_to_sparse_tensor=False)
    assert dense.layout == torch.strided
    assert_rows_equal(dense, embeddings)
    for to_sparse in (True, False):
        rows = model.encode(TEXTS, convert_to_tensor=False, convert_to_sparse_tensor=to_sparse, save_to_cpu=True)
        assert isinstance(rows, list)
        assert {(row.layout, tuple(row.shape)) for row in rows} == {
            (torch.sparse_coo if to_sparse else torch.strided, (16,))
        }
        assert_rows_equal(torch.stack(rows), embeddings)
    assert model.encode("a cat", convert_to_sparse_tensor=False, convert_to_tensor=False).shape == (16,)


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 3}, {"max_batch_tokens": 1}, {"batch_size": 99}])
def test_batching_changes_nothing(model: SparseEncoder, options: dict[str, int]) -> None:
    one_by_one = torch.stack([model.encode(text) for text in TEXTS])
    assert_rows_equal(model.encode(TEXTS, **options), one_by_one)


def test_order_changes_nothing(model: SparseEncoder) -> None:
    texts = random_texts(300)
    order = np.random.default_rng(1).permutation(len(texts))
    shuffled = model.encode([texts[row] for row in order])
    assert_rows_equal(shuffled, model.encode(texts).to_dense()[torch.from_numpy(order)])


def test_the_dimension_is_known_before_the_first_text(folder: Path) -> None:
    fresh = SparseEncoder(folder, device="cpu")
    assert fresh.get_embedding_dimension() == fresh.get_sentence_embedding_dimension() == 16
    [transformer, _] = fresh
    unaware = SparseEncoder(modules=[transformer, SpladePooling()], device="cpu")
    assert unaware.get_embedding_dimension() == 16


@pytest.mark.parametrize("limit", [1, 3, 99])
def test_active_dimensions_may_be_limited(own_model: SparseEncoder, limit: int) -> None:
    full = own_model.encode(TEXTS).to_dense()
    kept = full.topk(min(limit, 16)).indices
    expected = torch.zeros_like(full).scatter(1, kept, full.gather(1, kept))
    assert_rows_equal(own_model.encode(TEXTS, max_active_dims=limit), expected)
    own_model.max_active_dims = limit
    assert_rows_equal(own_model.encode(TEXTS), expected)
    prepared = own_model.prepare(TEXTS)
    assert_rows_equal(own_model.embed_prepared(prepared).rows.to_coo(), expected)
    assert_rows_equal(own_model.embed_prepared(prepared, max_active_dims=16).rows.to_coo(), full)


def test_a_run_counts_its_work(model: SparseEncoder) -> None:
    prepared = model.prepare(TEXTS)
    batches: list[int] = []
    run = model.embed_prepared(prepared, on_batch=batches.append)
    assert sum(batches) == len(run.rows) == 8
    assert run.num_tokens == prepared.lengths.sum()
    assert run.num_padded_tokens >= run.num_tokens
    empty = model.embed_prepared(model.prepare([]))
    assert (len(empty.rows), empty.rows.dimension, empty.num_tokens) == (0, 16, 0)


@pytest.fixture(scope="module")
def pool(model: SparseEncoder) -> Iterator[Pool]:
    pool = model.start_multi_process_pool(["cpu", "cpu"])
    yield pool
    model.stop_multi_process_pool(pool)


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_several_processes_give_what_one_gives(model: SparseEncoder, pool: Pool, chunk_size: int | None) -> None:
    texts = random_texts(40)
    for options in ({}, {"prompt": "red "}, {"max_active_dims": 2}, {"convert_to_sparse_tensor": False}):
        embeddings = model.encode(texts, pool=pool, chunk_size=chunk_size, **options)
        expected = model.encode(texts, **options)
        assert embeddings.layout == expected.layout
        assert_rows_equal(embeddings, expected)
    assert model.encode("a cat", pool=pool).shape == (16,)
    assert model.encode([], pool=pool).shape == (0, 16)
    with pytest.raises(RuntimeError, match="max_batch_tokens must be positive"):
        model._elsewhere(
            "_encode_rows", texts, None, pool, 9, lambda _: None, {"prompt": "", "task": None, "max_batch_tokens": -1}
        )


def test_several_devices_are_a_pool_for_one_call(
    own_model: SparseEncoder, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(own_model, "start_multi_process_pool", lambda devices: calls.append(devices) or pool)
    monkeypatch.setattr(own_model, "stop_multi_process_pool", calls.append)
    assert_rows_equal(own_model.encode_query(TEXTS, device=["cpu", "cpu"]), own_model.encode_query(TEXTS))
    assert calls == [["cpu", "cpu"], pool]


def test_prompts_go_before_texts(folder: Path) -> None:
    prompts = {"query": "red ", "passage": "the slow "}
    model = SparseEncoder(folder, device="cpu", prompts=prompts, default_prompt_name="query")
    assert_rows_equal(model.encode(["cat"]), model.encode(["red cat"], prompt=""))
    assert_rows_equal(model.encode_query(["cat"]), model.encode(["red cat"], prompt=""))
    assert_rows_equal(model.encode_document(["cat"]), model.encode(["cat"], prompt=""))  # `document` is there, empty
    assert_rows_equal(model.encode(["cat"], prompt_name="passage"), model.encode(["the slow cat"], prompt=""))
    with pytest.raises(ValueError, match="unknown prompt name 'poem'"):
        model.encode(TEXTS, prompt_name="poem")


def test_similarity_is_the_dot_product_unless_told_otherwise(own_model: SparseEncoder) -> None:
    embeddings = own_model.encode(TEXTS)
    dense = embeddings.to_dense()
    assert own_model.similarity_fn_name == "dot"
    torch.testing.assert_close(own_model.similarity(embeddings, embeddings), dense @ dense.T)
    torch.testing.assert_close(own_model.similarity_pairwise(embeddings, embeddings), (dense * dense).sum(1))
    own_model.similarity_fn_name = "cosine"
    expected = torch.nn.functional.cosine_similarity(dense.unsqueeze(1), dense.unsqueeze(0), dim=-1)
    torch.testing.assert_close(own_model.similarity(embeddings, embeddings), expected)


SOME = torch.tensor([[0, 0.5, 0, 0, 2.0], [0, 0, 0, 0, 0], [1.0, -3.0, 0, 4.0, 0]])


@pytest.mark.parametrize("kind", [Tensor.clone, Tensor.to_sparse, Tensor.to_sparse_csr], ids=["dense", "coo", "csr"])
def test_sparsity_counts(kind: Any) -> None:
    stats = SparseEncoder.sparsity(kind(SOME))
    assert stats == pytest.approx({"active_dims": 5 / 3, "sparsity_ratio": 1 - 1 / 3})


def test_sparsity_of_one_and_of_none() -> None:
    assert SparseEncoder.sparsity(SOME[0].to_sparse()) == pytest.approx({"active_dims": 2, "sparsity_ratio": 0.6})
    assert SparseEncoder.sparsity(torch.zeros(0, 5)) == {"active_dims": 0.0, "sparsity_ratio": 1.0}
    explicit = torch.sparse_coo_tensor([[1, 2]], [0.0, 1.0], (4,), check_invariants=True)
    assert SparseEncoder.sparsity(explicit)["active_dims"] == 1  # a zero that is stored is a zero


@pytest.mark.parametrize("kind", [Tensor.clone, Tensor.to_sparse], ids=["dense", "coo"])
def test_intersection_keeps_what_both_have(kind: Any) -> None:
    one = torch.tensor([1.0, -2.0, 3.0, -1.0, 0.5])
    shared = SparseEncoder.intersection(kind(one), kind(SOME))
    assert shared.layout == torch.sparse_coo
    products = one * SOME
    assert torch.equal(shared.to_dense(), products * (products > 0))
    assert (shared.values() > 0).all()
    assert torch.equal(SparseEncoder.intersection(kind(one), kind(SOME[2])).to_dense(), shared.to_dense()[2])


def test_decodes_to_tokens_of_most_weight(model: SparseEncoder) -> None:
    embedding = torch.zeros(16)
    for word, weight in {"cat": 0.5, "dog": 2.0, "red": 0.5, "mat": 1.0}.items():
        embedding[VOCABULARY.index(word)] = weight
    expected = [("dog", 2.0), ("mat", 1.0), ("cat", 0.5), ("red", 0.5)]  # of equal ones the smaller id first
    assert model.decode(embedding) == model.decode(embedding.to_sparse()) == expected
    batch = torch.stack([embedding, torch.zeros(16), embedding]).to_sparse()
    assert model.decode(batch, top_k=2) == [expected[:2], [], expected[:2]]
    assert model.decode(batch.to_dense().to_sparse_csr(), top_k=99) == [expected, [], expected]
    assert model.decode(torch.zeros(0, 16)) == []


def test_pooling_may_be_in_chunks(own_model: SparseEncoder, caplog: pytest.LogCaptureFixture) -> None:
    expected = own_model.encode(TEXTS)
    assert own_model.splade_pooling_chunk_size is None
    own_model.splade_pooling_chunk_size = 3
    assert own_model[1].chunk_size == own_model.splade_pooling_chunk_size == 3
    assert_rows_equal(own_model.encode(TEXTS), expected)
    assert not caplog.text
    static = SparseEncoder(modules=[SparseStaticEmbedding(word_tokenizer())], device="cpu")
    static.splade_pooling_chunk_size = 3
    assert static.splade_pooling_chunk_size is None
    assert "the model has no SpladePooling" in caplog.text


def test_the_prompt_may_be_left_out_of_pooling(tiny_checkpoint: Path) -> None:
    model = SparseEncoder(tiny_checkpoint, device="cpu")
    assert [type(module) for module in model] == [Transformer, Pooling, Normalize, SparseAutoEncoder]
    with_prompt = model.encode(["cat"], prompt="red ")
    model.set_pooling_include_prompt(False)
    assert model[1].include_prompt is False
    assert not torch.equal(model.encode(["cat"], prompt="red ").to_dense(), with_prompt.to_dense())


def test_settings_survive_saving(folder: Path, tmp_path: Path) -> None:
    options = {"max_active_dims": 3, "similarity_fn_name": "cosine", "prompts": {"query": "red "}}
    model = SparseEncoder(folder, device="cpu", **options)
    model.max_seq_length = 9
    model.save_pretrained(tmp_path, model_name="me/mine", train_datasets=["me/pairs"])
    loaded = SparseEncoder(tmp_path, device="cpu")
    assert (loaded.max_active_dims, loaded.similarity_fn_name, loaded.max_seq_length) == (3, "cosine", 9)
    assert loaded.prompts == {"query": "red ", "document": ""}
    assert_rows_equal(loaded.encode(TEXTS), model.encode(TEXTS))
    assert SparseEncoder(tmp_path, device="cpu", max_active_dims=5).max_active_dims == 5
    card = (tmp_path / "README.md").read_text()
    assert card.startswith(
        "---\ntags:\n- sentence-transformers\n- sparse-encoder\n- sparse\n- splade\npipeline_tag: feat"
    )
    assert 'model = SparseEncoder("me/mine")' in card
    assert "16 dimensions, at most 3 of them not zero, compared by cosine similarity" in card
    assert '\ndatasets:\n- "me/pairs"\n---\n' in card


def test_pushes_to_the_hub(model: SparseEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    files: set[str] = set()

    class Hub:
        def __init__(self, token: str | None) -> None:
            assert token is None

        def create_repo(self, repo_id: str, **_: Any) -> Any:
            return type("Repository", (), {"repo_id": repo_id})

        def file_exists(self, *_: Any, **__: Any) -> bool:
            return False

        def upload_folder(self, folder_path: Path, **_: Any) -> Any:
            files.update(path.name for path in folder_path.iterdir())
            return type("Commit", (), {"pr_url": None, "commit_url": "https://hub/commit"})

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    assert model.push_to_hub("me/mine") == "https://hub/commit"
    assert {"README.md", "model.safetensors", "modules.json", "1_SpladePooling"} <= files


def test_can_be_copied_and_pickled(model: SparseEncoder) -> None:
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_rows_equal(copied.encode(TEXTS), model.encode(TEXTS))


def test_tokens_are_at_hand(own_model: SparseEncoder) -> None:
    assert own_model.tokenizer.convert_tokens_to_ids("cat") == VOCABULARY.index("cat")
    assert type(own_model.transformers_model).__name__ == "BertForMaskedLM"
    own_model.max_seq_length = 5
    assert_rows_equal(own_model.encode(["the cat sat on the mat"]), own_model.encode(["the cat sat"]))


def test_shows_progress_where_asked_for(model: SparseEncoder, capfd: pytest.CaptureFixture[str]) -> None:
    model.encode(TEXTS, show_progress_bar=True)
    assert "8/8" in capfd.readouterr().err


def test_counts_of_tokens_are_a_model_too() -> None:
    model = SparseEncoder(modules=[SparseStaticEmbedding(word_tokenizer())], device="cpu")
    assert model.get_embedding_dimension() == 16
    assert model.decode(model.encode(["the cat the", ""])) == [[("the", 1.0), ("cat", 1.0)], []]


def test_a_checkpoint_is_described_without_loading_it(folder: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    info = describe_checkpoint(folder, model_type="SparseEncoder")
    assert (info.modules, info.embedding_dimension) == (("Transformer", "SpladePooling"), 16)
    SparseEncoder(tiny_checkpoint, device="cpu").save_pretrained(tmp_path)
    info = describe_checkpoint(tmp_path, model_type="SparseEncoder")
    assert (info.modules[-1], info.embedding_dimension) == ("SparseAutoEncoder", 64)
    (tmp_path / "3_SparseAutoEncoder" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="3_SparseAutoEncoder' has no weights"):
        describe_checkpoint(tmp_path, model_type="SparseEncoder")


def test_weights_of_tokens_are_looked_for_before_loading(tmp_path: Path) -> None:
    SparseEncoder(modules=[SparseStaticEmbedding(word_tokenizer())], device="cpu").save_pretrained(tmp_path)
    assert describe_checkpoint(tmp_path, model_type="SparseEncoder").modules == ("SparseStaticEmbedding",)
    assert SparseEncoder(tmp_path, device="cpu").encode("a cat").values().tolist() == [1, 1]
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="has no weights"):
        describe_checkpoint(tmp_path, model_type="SparseEncoder")
    (tmp_path / "config.json").write_text('{"path": "idf.json"}')
    (tmp_path / "idf.json").write_text('{"cat": 2.5}')
    describe_checkpoint(tmp_path, model_type="SparseEncoder")
    assert SparseEncoder(tmp_path, device="cpu").encode("a cat").values().tolist() == [2.5]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (None, "inputs must be a text or a list of texts, got NoneType"),
        (3, "inputs must be a text or a list of texts, got int"),
        (["a cat", None], "row 1 is of type NoneType"),
        (["a cat", 3.5], "row 1 is of type float"),
    ],
)
def test_what_is_no_text_is_named(model: SparseEncoder, inputs: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        model.encode(inputs)


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "8"])
def test_a_limit_is_a_positive_integer(own_model: SparseEncoder, folder: Path, value: Any) -> None:
    for call in (
        lambda: own_model.encode(TEXTS, max_active_dims=value),
        lambda: own_model.embed_prepared(own_model.prepare(TEXTS), max_active_dims=value),
        lambda: setattr(own_model, "max_active_dims", value),
        lambda: SparseEncoder(folder, device="cpu", max_active_dims=value),
    ):
        with pytest.raises(ValueError, match=f"max_active_dims must be a positive integer, got {value!r}"):
            call()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be positive, got 0"),
        ({"max_batch_tokens": -1}, "max_batch_tokens must be positive, got -1"),
        ({"device": []}, "target_devices must name at least one device, got none"),
    ],
)
def test_other_arguments_are_checked(model: SparseEncoder, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.encode(TEXTS, **options)


@pytest.mark.parametrize(
    ("method", "arguments", "error", "message"),
    [
        ("sparsity", ([1.0],), TypeError, "embeddings must be a tensor, got list"),
        ("sparsity", (torch.zeros(1, 2, 3),), ValueError, r"must have 1 or 2 dimension\(s\), got shape \(1, 2, 3\)"),
        ("intersection", (np.zeros(3), torch.zeros(3)), TypeError, "embeddings_1 must be a tensor, got ndarray"),
        ("intersection", (torch.zeros(3), None), TypeError, "embeddings_2 must be a tensor, got NoneType"),
        ("intersection", (torch.zeros(2, 3), torch.zeros(3)), ValueError, r"embeddings_1 must have 1 dimension\(s\)"),
        ("intersection", (torch.zeros(3), torch.zeros(4)), ValueError, "as each other, got 3 and 4"),
        ("decode", ([0.5] * 16,), TypeError, "embeddings must be a tensor, got list"),
        ("decode", (torch.zeros(()),), ValueError, r"must have 1 or 2 dimension\(s\), got shape \(\)"),
        ("decode", (torch.zeros(3, 9),), ValueError, "must have the model's 16 dimensions, got 9"),
        ("decode", (torch.zeros(16), 0), ValueError, "top_k must be positive, got 0"),
    ],
)
def test_wrong_tensors_are_named(
    model: SparseEncoder, method: str, arguments: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        getattr(model, method)(*arguments)


def test_latents_are_no_tokens(tiny_checkpoint: Path) -> None:
    model = SparseEncoder(tiny_checkpoint, device="cpu")
    with pytest.raises(ValueError, match="decode needs dimensions that are tokens"):
        model.decode(model.encode(TEXTS))


def test_a_setting_changed_after_the_start_of_a_pool_holds_there_too(folder: Path) -> None:
    model = SparseEncoder(str(folder), device="cpu")
    pool = model.start_multi_process_pool(["cpu"])
    try:
        model.max_active_dims = 2
        texts = random_texts(6)
        assert_rows_equal(model.encode(texts, pool=pool), model.encode(texts))
    finally:
        model.stop_multi_process_pool(pool)


def test_decoding_does_not_make_sparse_rows_dense(model: SparseEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    places, weights = torch.tensor([[0, 0, 2], [5, 4, 7]]), torch.tensor([1.0, 2.0, 0.0])
    few = torch.sparse_coo_tensor(places, weights, (3, 16), check_invariants=True)
    tokens = model.tokenizer.convert_ids_to_tokens([4, 5])
    assert model.decode(few.to_dense()) == [[(tokens[0], 2.0), (tokens[1], 1.0)], [], []]
    monkeypatch.setattr("sbert_ray.inference.sparse.SparseRows.of", None)  # which takes a dense matrix
    assert model.decode(few) == [[(tokens[0], 2.0), (tokens[1], 1.0)], [], []]
    assert model.decode(few[0]) == [(tokens[0], 2.0), (tokens[1], 1.0)]


def test_what_a_config_says_of_the_dimension_is_not_believed(folder: Path, tmp_path: Path) -> None:
    SparseEncoder(str(folder), device="cpu").save_pretrained(str(tmp_path))
    path = tmp_path / "1_SpladePooling/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"embedding_dimension": 99}))
    model = SparseEncoder(str(tmp_path), device="cpu")
    assert model.get_embedding_dimension() == 16
    assert model.encode([]).shape == (0, 16)


def test_a_module_that_does_not_fit_the_one_before_it_is_named(tiny_checkpoint: Path) -> None:
    transformer = Transformer(str(tiny_checkpoint))
    modules = [transformer, Pooling(16), SparseAutoEncoder(30, 60, 4, 8)]
    with pytest.raises(ValueError, match="SparseAutoEncoder takes 30 dimensions, and the modules before it give 16"):
        SparseEncoder(modules=modules, device="cpu").encode("a cat")
    with pytest.raises(ValueError, match=r"must write 'sentence_embedding', got \[.*'input_ids'"):
        SparseEncoder(modules=[transformer], device="cpu").encode("a cat")


def test_a_checkpoint_without_its_tokenizer_is_refused(folder: Path, tmp_path: Path) -> None:
    """Transformers would make an empty one, to which every word is unknown."""
    SparseEncoder(str(folder), device="cpu").save_pretrained(str(tmp_path))
    for path in tmp_path.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks the tokenizer: tokenizer\.json"):
        SparseEncoder(str(tmp_path), device="cpu")
