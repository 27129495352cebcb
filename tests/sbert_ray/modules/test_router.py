"""Chains of modules, and which of them an input takes."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sbert_ray.modules import Asym, Dense, LoadOptions, Module, Normalize, Router

PAIRS = [(None, None), (None, "text"), (None, "image"), ("query", None), ("query", "text"), ("query", "image")]
PAIRS += [("document", "text"), ("other", "text"), ("other", None), ("text", None), (None, ("text", "image"))]
PAIRS += [(None, ("image", "text")), ("query", ("text", "image"))]
MAPPINGS = {
    "none": None,
    "exact": {("query", "text"): "a", ("document", "text"): "b"},
    "task": {("query", None): "a", (None, "image"): "b"},
    "tuple": {(None, ("text", "image")): "b", ("query", ("image", "text")): "a"},
    "catch-all": {(None, None): "b", ("query", "image"): "a"},
}


def dense(size: int = 4, seed: int = 0, out: int = 3) -> Dense:
    torch.manual_seed(seed)
    return Dense(size, out, activation_function=nn.Identity())


def embeddings(rows: int = 2, size: int = 4) -> dict[str, Tensor]:
    return {"sentence_embedding": torch.arange(rows * size).reshape(rows, size).float()}


@pytest.mark.parametrize("default", [None, "b"])
@pytest.mark.parametrize("allow_empty_key", [True, False])
@pytest.mark.parametrize("mappings", MAPPINGS.values(), ids=MAPPINGS)
def test_routes_are_those_of_the_peer(mappings, allow_empty_key, default):
    peer_modules = pytest.importorskip("sentence_transformers.base.modules")
    names = ["a", "b", "query", "image"]
    ours = Router({name: [Normalize()] for name in names}, default, allow_empty_key, mappings)
    peer = peer_modules.Router({name: [peer_modules.Normalize()] for name in names}, default, allow_empty_key, mappings)
    for task, modality in PAIRS:
        try:
            expected = peer._resolve_route(task, modality)
        except ValueError:
            with pytest.raises(ValueError, match="no route for task"):
                ours.route(task, modality)
        else:
            assert ours.route(task, modality) == expected, (task, modality)


def test_an_input_takes_its_own_route_alone():
    query, document = dense(seed=0), dense(seed=1)
    router = Router.for_query_document([query], [document])
    features = embeddings()
    for task, module in [("query", query), ("document", document), (None, document)]:
        expected = module(features)["sentence_embedding"]
        assert torch.equal(router(features, task=task)["sentence_embedding"], expected)
    assert features.keys() == {"sentence_embedding"}


def test_features_may_tell_task_and_kind_where_no_argument_does():
    query, image = dense(seed=0), dense(seed=1)
    router = Router({"query": [query], "other": [dense(seed=2)], "image": [image]})
    told = router(embeddings() | {"task": "query"})["sentence_embedding"]
    assert torch.equal(told, query(embeddings())["sentence_embedding"])
    told = router(embeddings() | {"modality": "image"})["sentence_embedding"]
    assert torch.equal(told, image(embeddings())["sentence_embedding"])
    over = router(embeddings() | {"task": "other"}, task="query")["sentence_embedding"]
    assert torch.equal(over, query(embeddings())["sentence_embedding"])


class Scale(Module):
    """Multiplies by an argument of forward."""

    public_path = "sentence_transformers.Scale"
    forward_kwargs = frozenset({"factor", "task"})

    def forward(self, features, factor=1.0, task=None):
        assert task == "query"
        return features | {"sentence_embedding": features["sentence_embedding"] * factor}

    def config(self):
        return {}


def test_modules_of_a_route_get_the_arguments_that_they_name():
    router = Router({"query": [Scale(), Normalize()], "inner": [Normalize()]})
    features = embeddings()
    assert torch.equal(
        router(features, task="query", factor=-2.0, unknown=1)["sentence_embedding"],
        router(features, task="query")["sentence_embedding"] * -1,
    )
    nested = Router({"query": [Router({"query": [Scale()]})]})
    assert torch.equal(
        nested(features, task="query", factor=3.0)["sentence_embedding"], 3 * embeddings()["sentence_embedding"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({},), "sub_modules must have at least one route"),
        (({"a": [], "b": [Normalize()]},), r"every route must have a module, got none for \['a'\]"),
        (({"a": [Normalize()]}, "b"), r"default_route must be of the routes \['a'\], got 'b'"),
        (
            ({"a": [Normalize()]}, None, True, {("x", None): "c"}),
            r"route_mappings must be of the routes \['a'\], got 'c'",
        ),
    ],
    ids=["none", "empty", "default", "mapping"],
)
def test_routes_that_are_not_there_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Router(*arguments)


def test_a_missing_task_names_the_routes():
    router = Router.for_query_document([dense()], [dense()], default_route=None, allow_empty_key=False)
    with pytest.raises(ValueError, match=r"no route for task None.*\['query', 'document'\]; pass task"):
        router.route()
    with pytest.raises(ValueError, match=r"no route for task 'title'; routes are \['query', 'document'\]$"):
        router.route("title")


def test_the_old_name_is_the_same():
    assert Asym is Router


def test_a_route_that_takes_no_inputs_says_so():
    router = Router({"query": [Normalize()]})
    assert router.modalities == ()
    assert router.tokenizer is None
    assert router.max_seq_length is None
    with pytest.raises(ValueError, match="first module of route 'query' must take texts, which Normalize does not"):
        router._input_module("query", "text")


def test_the_dimension_is_that_of_a_route_that_tells_it():
    assert Router({"a": [Normalize()], "b": [dense(out=3), Normalize()]}).get_embedding_dimension() == 3
    assert Router({"a": [Normalize()]}).get_embedding_dimension() is None


def test_a_shared_module_is_saved_once_and_shared_again(tmp_path):
    shared = dense(seed=3, size=3)
    mappings = {("query", "text"): "query", (None, ("text", "image")): "document"}
    router = Router({"query": [dense(seed=1), shared], "document": [dense(seed=2), shared]}, None, False, mappings)
    router.save(tmp_path)
    folders = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert folders == ["document_0_Dense", "query_0_Dense", "query_1_Dense"]
    loaded = Router.load(tmp_path, LoadOptions())
    assert loaded.routes["query"][1] is loaded.routes["document"][1]
    assert loaded.config() == router.config()
    assert loaded.route_mappings == router.route_mappings
    for task in ("query", "document"):
        assert torch.equal(
            loaded(embeddings(), task=task)["sentence_embedding"], router(embeddings(), task=task)["sentence_embedding"]
        )


def test_the_peer_loads_what_we_save_and_we_what_it_saves(tmp_path):
    peer_modules = pytest.importorskip("sentence_transformers.base.modules")
    mappings = {("query", "text"): "b", (None, ("image", "text")): "a"}
    ours = Router({"a": [dense(seed=1)], "b": [dense(seed=2), dense(3, 3)]}, "a", True, mappings)
    ours.save(tmp_path / "ours")
    peer = peer_modules.Router.load(str(tmp_path / "ours"))
    peer.save(str(tmp_path / "peer"))
    again = Router.load(tmp_path / "peer", LoadOptions())
    assert peer.route_mappings == ours.route_mappings == again.route_mappings
    for route in ("a", "b"):
        expected = ours(embeddings(), task=route)["sentence_embedding"].detach().numpy()
        for other in (peer(embeddings(), task=route), again(embeddings(), task=route)):
            np.testing.assert_array_equal(other["sentence_embedding"].detach().numpy(), expected)
    files = [json.loads((tmp_path / name / "router_config.json").read_text()) for name in ("ours", "peer")]
    assert files[0]["structure"] == files[1]["structure"]
    assert files[0]["parameters"] == files[1]["parameters"]
    assert files[0]["types"] == files[1]["types"]


def test_the_config_of_an_old_asym_is_read(tmp_path):
    module = dense()
    module.save(tmp_path / "1_Dense")
    config = {
        "types": {"1_Dense": "sentence_transformers.models.Dense"},
        "structure": {"query": ["1_Dense"], "doc": ["1_Dense"]},
        "parameters": {"allow_empty_key": False},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = Router.load(tmp_path, LoadOptions())
    assert list(loaded.routes) == ["query", "doc"]
    assert loaded.default_route is None
    assert torch.equal(
        loaded(embeddings(), task="doc")["sentence_embedding"], module(embeddings())["sentence_embedding"]
    )


DENSE = "sentence_transformers.base.modules.dense.Dense"


def config(kind: str = DENSE, name: str = "a", route: tuple[str, ...] = ("a",), **parameters) -> dict:
    return {"types": {name: kind}, "structure": {"q": list(route)}, "parameters": parameters}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (config("evil.module.Dense"), r"custom module 'evil.module.Dense'.*Known modules are \["),
        (config("sentence_transformers.Magic"), r"unknown module.*router_config.json.*known modules are \["),
        (config(name="../a", route=["../a"]), r"path must stay within .*, got '../a'"),
        (config(name="/a", route=["/a"]), r"path must stay within .*, got '/a'"),
        (config(route=["b"]), r"routes in .* must be of the modules \['a'\], got \['b'\]"),
        (config(route=[]), r"every route in .* must have a module, got none for \['q'\]"),
        ({"types": {}, "structure": {}}, "must have a module, got none for any"),
        ({"types": {"a": DENSE}}, "must have the objects 'types' and 'structure'"),
        ([], "must have the objects 'types' and 'structure'"),
        (config(route_mappings={"exit()": "q"}), r"must go from '\(task, modality\)', got 'exit\(\)'"),
    ],
    ids=["custom", "unknown", "outside", "absolute", "stray", "empty", "none", "no-structure", "list", "mapping"],
)
def test_a_bad_config_is_refused(tmp_path, config, message):
    (tmp_path / "router_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        Router.load(tmp_path, LoadOptions())


def test_missing_files_name_themselves(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"lacks router_config\.json"):
        Router.load(tmp_path, LoadOptions())
    Router({"a": [dense()]}).save(tmp_path)
    (tmp_path / "a_0_Dense/model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="a_0_Dense"):
        Router.load(tmp_path, LoadOptions())
