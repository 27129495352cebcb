"""Models with routes: for queries and documents, for texts and images."""

import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from sbert_ray import SentenceTransformer
from sbert_ray.models.checkpoint import describe_checkpoint
from sbert_ray.modules import Dense, Normalize, Pooling, Router, StaticEmbedding, Transformer

TEXTS = ["a cat sat on the mat", "the dog", "red", "the fast dog ran on a blue mat on the red mat", ""]


def static(folder, size: int = 16) -> StaticEmbedding:
    tokenizer = Transformer(str(folder)).tokenizer
    torch.manual_seed(1)
    return StaticEmbedding(tokenizer.backend_tokenizer, embedding_weights=torch.randn(len(tokenizer), size).numpy())


def dense(size: int = 16, out: int = 16, seed: int = 0) -> Dense:
    torch.manual_seed(seed)
    return Dense(size, out, activation_function=nn.Tanh())


@pytest.fixture(scope="module")
def asymmetric(tiny_checkpoint) -> SentenceTransformer:
    """Queries by an embedding per token, documents by a transformer."""
    documents = [Transformer(str(tiny_checkpoint)), Pooling(16), dense()]
    router = Router.for_query_document([static(tiny_checkpoint)], documents)
    prompts = {"query": "the ", "document": "a red "}
    return SentenceTransformer(modules=[router, Normalize()], device="cpu", prompts=prompts)


def assert_equal(ours, theirs) -> None:
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=0, atol=1e-5)


def test_queries_and_documents_take_their_routes(asymmetric):
    queries, documents = asymmetric.encode_query(TEXTS[:4]), asymmetric.encode_document(TEXTS[:4])
    assert np.abs(queries - documents).max() > 0.1
    [router, normalize] = asymmetric
    for name, prompt, embeddings in [("query", "the ", queries), ("document", "a red ", documents)]:
        alone = SentenceTransformer(modules=[*router.routes[name], normalize], device="cpu")
        assert_equal(embeddings, alone.encode([prompt + text for text in TEXTS[:4]]))
        assert_equal(embeddings, asymmetric.encode(TEXTS[:4], task=name, prompt=prompt))
    assert_equal(asymmetric.encode(TEXTS), asymmetric.encode(TEXTS, task="document"))


def test_the_peer_loads_our_routes_and_we_its(asymmetric, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    asymmetric.save_pretrained(tmp_path / "ours")
    peer = sentence_transformers.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    peer.save_pretrained(str(tmp_path / "peer"))
    again = SentenceTransformer(tmp_path / "peer", device="cpu")
    for text in (TEXTS, TEXTS[0]):
        for method in ("encode", "encode_query", "encode_document"):
            expected = getattr(asymmetric, method)(text)
            assert_equal(getattr(peer, method)(text), expected)
            assert_equal(getattr(again, method)(text), expected)
    ours, theirs = (json.loads((tmp_path / name / "router_config.json").read_text()) for name in ("ours", "peer"))
    assert ours == theirs
    folders = {path.name for path in (tmp_path / "ours").iterdir() if path.is_dir()}
    assert {"query_0_StaticEmbedding", "document_0_Transformer", "document_2_Dense"} <= folders
    assert peer.get_embedding_dimension() == again.get_embedding_dimension() == 16
    assert again.max_seq_length == asymmetric.max_seq_length == 32  # the peer's static embeddings say infinity


def test_the_files_tell_of_a_router_without_loading_it(asymmetric, tmp_path):
    asymmetric.save_pretrained(tmp_path)
    info = describe_checkpoint(tmp_path)
    assert info.modules == ("Router", "Normalize")
    assert info.embedding_dimension == 16
    assert info.pooling_modes == ("mean",)
    assert info.is_normalized
    assert info.max_seq_length == 32
    assert info.modalities == ("text",)


def broken_weights(folder) -> None:
    (folder / "document_2_Dense/model.safetensors").unlink()


def broken_transformer(folder) -> None:
    (folder / "document_0_Transformer/config.json").unlink()


def broken_config(folder) -> None:
    path = folder / "document_0_Transformer/sentence_bert_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"query_length": 3}))


def broken_type(folder) -> None:
    path = folder / "router_config.json"
    path.write_text(path.read_text().replace("sentence_transformers.base.modules.dense", "mine"))


def broken_first(folder) -> None:
    path = folder / "router_config.json"
    config = json.loads(path.read_text())
    config["structure"]["query"] = ["document_2_Dense"]
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("breaks", "kind", "message"),
    [
        (broken_weights, FileNotFoundError, "document_2_Dense' has no weights"),
        (broken_transformer, FileNotFoundError, "document_0_Transformer' lacks config.json"),
        (broken_config, ValueError, r"document_0_Transformer' has \['query_length'\]"),
        (broken_type, ValueError, r"custom module 'mine.Dense'.*Known modules are \["),
        (broken_first, ValueError, r"the first module in .* must be one of .*, got \['Router', 'Normalize'\]"),
    ],
)
def test_what_is_wrong_within_a_router_is_named_before_anything_is_loaded(asymmetric, tmp_path, breaks, kind, message):
    asymmetric.save_pretrained(tmp_path)
    breaks(tmp_path)
    with pytest.raises(kind, match=message):
        describe_checkpoint(tmp_path)
    with pytest.raises(kind, match=message):
        SentenceTransformer(tmp_path, device="cpu")


@pytest.fixture(scope="module")
def two_tokenizers(tiny_checkpoint, minilm) -> SentenceTransformer:
    """Queries and documents by transformers that share neither vocabulary nor padding nor length."""
    query = [Transformer(str(tiny_checkpoint)), Pooling(16), dense(16, 8)]
    document = [Transformer(str(minilm), max_seq_length=64), Pooling(384), dense(384, 8)]
    query[0].tokenizer.pad_token = "[UNK]"
    return SentenceTransformer(modules=[Router.for_query_document(query, document)], device="cpu")


def test_routes_with_different_tokenizers_batch_on_their_own_terms(two_tokenizers):
    texts = TEXTS * 4
    for task in ("query", "document"):
        alone = SentenceTransformer(modules=two_tokenizers[0].routes[task], device="cpu")
        expected = np.stack([alone.encode(text) for text in texts])
        for max_batch_tokens in (1, 40, 10_000):
            assert_equal(two_tokenizers.encode(texts, task=task, max_batch_tokens=max_batch_tokens), expected)
    assert two_tokenizers.max_seq_length == 64
    assert two_tokenizers.tokenizer is two_tokenizers[0].routes["query"][0].tokenizer


def test_old_inputs_name_their_route_themselves(asymmetric):
    for route in ("query", "document"):
        expected = asymmetric.encode(TEXTS, task=route)
        assert_equal(asymmetric.encode([{route: text} for text in TEXTS]), expected)
        assert_equal(asymmetric.encode({route: TEXTS[0]}), expected[0])
    with pytest.raises(ValueError, match=r"must all have the same route as their key, got \['document', 'query'\]"):
        asymmetric.encode([{"query": "a"}, {"document": "b"}])
    with pytest.raises(TypeError, match="inputs must be texts; row 0 is of type int"):
        asymmetric.encode([{"query": 3}])
    assert_equal(asymmetric.encode([{"text": text} for text in TEXTS]), asymmetric.encode(TEXTS))


def test_pairs_take_a_route_as_tuples_and_lists(asymmetric):
    pairs = [("a cat", "the dog ran"), ("red", "a mat")]
    expected = asymmetric.encode(pairs)
    assert np.abs(expected - asymmetric.encode([first for first, _ in pairs])).max() > 1e-3
    assert_equal(asymmetric.encode([list(pair) for pair in pairs]), expected)
    assert_equal(asymmetric.encode([{"text": list(pair)} for pair in pairs]), expected)


def test_a_task_without_a_route_is_told_the_routes(asymmetric, tiny_checkpoint):
    with pytest.raises(ValueError, match=r"no route for task 'title' and modality 'text'; routes are \['query', "):
        asymmetric.encode(TEXTS, task="title")
    router = Router.for_query_document(
        [static(tiny_checkpoint)], [static(tiny_checkpoint)], default_route=None, allow_empty_key=False
    )
    model = SentenceTransformer(modules=[router], device="cpu")
    with pytest.raises(ValueError, match=r"no route for task None .*; pass task, or give the Router a default_route"):
        model.encode(TEXTS)
    assert model.encode_query(TEXTS).shape == (5, 16)


def test_features_remember_their_task(asymmetric):
    features = asymmetric.preprocess(TEXTS, task="query")
    assert features["task"] == "query"
    assert_equal(asymmetric(features)["sentence_embedding"].detach(), asymmetric.encode(TEXTS, task="query"))
    prepared = asymmetric.prepare(TEXTS, task="query")
    assert_equal(asymmetric.embed_prepared(prepared).embeddings, asymmetric.encode(TEXTS, task="query"))
    rows = asymmetric.encode(TEXTS, task="document", output_value=None)
    assert [row["task"] for row in rows] == ["document"] * 5


def test_a_router_may_come_later(tiny_checkpoint, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    query, document = dense(16, 8, seed=1), dense(16, 8, seed=2)
    router = Router({"query": [query, Normalize()], "document": [document]}, default_route="document")
    model = SentenceTransformer(modules=[Transformer(str(tiny_checkpoint)), Pooling(16), router], device="cpu")
    before = SentenceTransformer(modules=list(model)[:2], device="cpu").encode(TEXTS, convert_to_tensor=True)
    expected = query({"sentence_embedding": before})["sentence_embedding"].detach()
    assert_equal(model.encode_query(TEXTS), nn.functional.normalize(expected))
    model.save_pretrained(tmp_path)
    assert (tmp_path / "2_Router/query_0_Dense").is_dir()
    info = describe_checkpoint(tmp_path)
    assert (info.embedding_dimension, info.is_normalized, info.max_seq_length) == (8, False, 32)
    peer = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu")
    again = SentenceTransformer(tmp_path, device="cpu")
    for method in ("encode", "encode_query", "encode_document"):
        expected = getattr(peer, method)(TEXTS)
        assert_equal(getattr(model, method)(TEXTS), expected)
        assert_equal(getattr(again, method)(TEXTS), expected)
    (tmp_path / "2_Router/document_0_Dense/model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="document_0_Dense"):
        describe_checkpoint(tmp_path)


def test_a_shared_transformer_is_saved_once(tiny_checkpoint, tmp_path):
    shared = Transformer(str(tiny_checkpoint))
    router = Router.for_query_document([shared, Pooling(16, "cls")], [shared, Pooling(16, "mean")])
    model = SentenceTransformer(modules=[router], device="cpu")
    model.save_pretrained(tmp_path)
    assert [path.parent.name for path in tmp_path.rglob("model.safetensors")] == ["query_0_Transformer"]
    again = SentenceTransformer(tmp_path, device="cpu")
    assert sum(weight.numel() for weight in again.parameters()) == sum(weight.numel() for weight in model.parameters())
    assert_equal(again.encode_query(TEXTS), model.encode_query(TEXTS))
    assert_equal(again.encode_document(TEXTS), model.encode_document(TEXTS))


def test_each_route_computes_in_the_dtype_of_its_first_module(tiny_checkpoint, asymmetric):
    half = Transformer(str(tiny_checkpoint), model_kwargs={"dtype": "bfloat16"})
    router = Router.for_query_document([static(tiny_checkpoint)], [half, Pooling(16), dense()])
    model = SentenceTransformer(modules=[router, Normalize()], device="cpu", prompts=asymmetric.prompts)
    dtypes = {name: {weight.dtype for weight in route.parameters()} for name, route in router.sub_modules.items()}
    assert dtypes == {"query": {torch.float32}, "document": {torch.bfloat16}}
    assert_equal(model.encode_query(TEXTS), asymmetric.encode_query(TEXTS))
    assert np.abs(model.encode_document(TEXTS) - asymmetric.encode_document(TEXTS)).max() < 0.05


def test_max_seq_length_is_set_for_every_route(two_tokenizers):
    try:
        two_tokenizers.max_seq_length = 4
        assert {len(two_tokenizers.prepare([TEXTS[3]], task=task).lengths) for task in ("query", "document")} == {1}
        assert {int(two_tokenizers.prepare([TEXTS[3]], task=task).lengths[0]) for task in ("query", "document")} == {4}
    finally:
        two_tokenizers[0].routes["query"][0].max_seq_length = 32
        two_tokenizers[0].routes["document"][0].max_seq_length = 64


def test_routes_must_begin_with_what_takes_inputs():
    with pytest.raises(ValueError, match=r"the first module must be one of .*'Router'.*, got \['Router'\]"):
        SentenceTransformer(modules=[Router({"query": [dense()]})], device="cpu")


def test_other_processes_are_told_the_task(asymmetric):
    pool = asymmetric.start_multi_process_pool(["cpu"])
    try:
        for method in ("encode_query", "encode_document"):
            assert_equal(
                getattr(asymmetric, method)(TEXTS, pool=pool, chunk_size=2), getattr(asymmetric, method)(TEXTS)
            )
        assert_equal(asymmetric.encode(TEXTS, task="query", pool=pool), asymmetric.encode(TEXTS, task="query"))
    finally:
        asymmetric.stop_multi_process_pool(pool)


def test_texts_and_images_may_take_routes_of_their_own(tiny_checkpoint, tiny_clip, tmp_path):
    image = pytest.importorskip("PIL.Image")
    sentence_transformers = pytest.importorskip("sentence_transformers")
    pictures = [image.fromarray(np.full((40, 30, 3), value, np.uint8)) for value in (0, 90, 200)]
    clip, text = Transformer(str(tiny_clip)), [Transformer(str(tiny_checkpoint)), Pooling(16), dense(16, 8)]
    mappings = {(None, "text"): "words", (None, "image"): "pictures", ("query", "text"): "pictures"}
    router = Router({"words": text, "pictures": [clip]}, route_mappings=mappings)
    model = SentenceTransformer(modules=[router, Normalize()], device="cpu")
    assert model.modalities == ["image", "text"]
    model.save_pretrained(tmp_path)
    peer = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu")
    again = SentenceTransformer(tmp_path, device="cpu")
    assert describe_checkpoint(tmp_path).modalities == ("image", "text")
    for inputs in (TEXTS, pictures):
        for options in ({}, {"task": "query"}):
            expected = peer.encode(inputs, **options)
            assert_equal(model.encode(inputs, **options), expected)
            assert_equal(again.encode(inputs, **options), expected)
    mixed = [pictures[0], TEXTS[0], TEXTS[1], pictures[1]]
    embeddings = model.encode(mixed)
    assert_equal(embeddings[[0, 3]], peer.encode(pictures[:2]))
    assert_equal(embeddings[[1, 2]], peer.encode(TEXTS[:2]))
    alone = SentenceTransformer(modules=[Router({"words": text, "pictures": [clip]})], device="cpu")
    with pytest.raises(ValueError, match="first module of route 'words' must take images, which Transformer does not"):
        alone.encode(pictures, task="words")


def test_an_old_asym_is_read(asymmetric, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    asymmetric.save_pretrained(tmp_path / "new")
    shutil.copytree(tmp_path / "new", tmp_path / "old/0_Asym")
    for path in (tmp_path / "old/0_Asym").glob("*.json"):
        if path.name != "router_config.json":
            path.unlink()
    config = json.loads((tmp_path / "old/0_Asym/router_config.json").read_text())
    config["parameters"] = {"allow_empty_key": True}
    (tmp_path / "old/0_Asym/router_config.json").unlink()
    (tmp_path / "old/0_Asym/config.json").write_text(json.dumps(config))
    modules = [{"idx": 0, "name": "0", "path": "0_Asym", "type": "sentence_transformers.models.Asym"}]
    (tmp_path / "old/modules.json").write_text(json.dumps(modules))
    old = SentenceTransformer(tmp_path / "old", device="cpu")
    peer = sentence_transformers.SentenceTransformer(str(tmp_path / "old"), device="cpu")
    for route in ("query", "document"):
        inputs = [{route: text} for text in TEXTS]
        assert_equal(old.encode(inputs), peer.encode(inputs))
    assert_equal(old.encode(TEXTS), old.encode(TEXTS, task="query"))
