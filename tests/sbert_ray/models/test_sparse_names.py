"""Sparse models under the peer's names: import paths, methods, arguments."""

import inspect
import warnings
from importlib import import_module
from typing import Any

import pytest

import sbert_ray
from sbert_ray import SparseEncoder

peer = pytest.importorskip("sentence_transformers")
peer_modules = pytest.importorskip("sentence_transformers.sparse_encoder.modules")

NOT_YET = {"model_card_data", "kwargs"}
METHODS = (
    "encode save_pretrained push_to_hub similarity similarity_pairwise set_pooling_include_prompt sparsity decode"
    " intersection get_sentence_embedding_dimension get_embedding_dimension get_max_seq_length"
    " start_multi_process_pool stop_multi_process_pool"
).split()


@pytest.mark.parametrize("method", METHODS)
def test_arguments_have_the_peers_names_order_and_defaults(method: str) -> None:
    ours, theirs = (
        [(p.name, p.default) for p in inspect.signature(getattr(model, method)).parameters.values()]
        for model in (SparseEncoder, peer.SparseEncoder)
    )
    expected = [(name, default) for name, default in theirs if name not in NOT_YET]
    assert ours[: len(expected)] == expected


def test_the_constructors_take_the_peers_arguments() -> None:
    pairs: list[tuple[Any, Any]] = [(SparseEncoder, peer.SparseEncoder)]
    names = ("SpladePooling", "SparseAutoEncoder", "SparseStaticEmbedding")
    pairs += [(getattr(sbert_ray.modules, name), getattr(peer_modules, name)) for name in names]
    for pair in pairs:
        ours, theirs = (inspect.signature(kind).parameters for kind in pair)
        assert {name: p.default for name, p in theirs.items() if name not in NOT_YET} == {
            name: p.default for name, p in ours.items()
        }


def test_the_peer_has_no_other_methods() -> None:
    """Those of training, of adapters and of merging aside, which come with them."""
    missing = {name for name in vars(peer.SparseEncoder) if not name.startswith("_")} - set(dir(SparseEncoder))
    assert missing <= {"model_card_data_class", "default_huggingface_organization", "SUPPORTED_SIMILARITY_FN_NAMES"}


@pytest.mark.parametrize("path", ["sparse_encoder", "sparse_encoder.modules", "sparse_encoder.models"])
def test_public_import_paths_are_the_peers(path: str) -> None:
    face = import_module(f"sbert_ray.{path}")
    with warnings.catch_warnings(action="ignore"):  # of names that are old
        theirs = import_module(f"sentence_transformers.{path}")
    names = {name for name in getattr(theirs, "__all__", face.__all__) if "Train" not in name}
    names -= {"SparseEncoderDataCollator", "SparseEncoderModelCardData"}
    assert set(face.__all__) == names
    for name in names:
        assert hasattr(theirs, name)
        assert getattr(face, name).__name__ == ("Router" if name == "Asym" else name)
