"""Every loss of the peer is here, under its name and with its arguments, and every one is documented and tested."""

import importlib
import inspect
import re
from pathlib import Path

import pytest
import torch

from sbert_ray import losses
from sbert_ray.losses import LOSSES, Loss
from tests.sbert_ray.losses.cases import CASES

FAMILIES = ["sentence_transformer", "sparse_encoder", "cross_encoder"]
TESTS = "\n".join(path.read_text() for path in Path(__file__).parent.rglob("*.py") if path.name != "test_names.py")


def peer_names(family: str) -> list[str]:
    return list(importlib.import_module(f"sentence_transformers.{family}.losses").__all__)


def both(family: str, name: str) -> tuple[type, type]:
    return tuple(
        getattr(importlib.import_module(f"{package}.{family}.losses"), name)
        for package in ("sbert_ray", "sentence_transformers")
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_public_names_are_those_of_the_peer(family: str) -> None:
    ours = importlib.import_module(f"sbert_ray.{family}.losses")
    assert sorted(ours.__all__) == sorted(peer_names(family))
    assert all(hasattr(ours, name) for name in ours.__all__)


def test_losses_at_the_old_import_path() -> None:
    assert set(peer_names("sentence_transformer")) | set(peer_names("sparse_encoder")) <= set(losses.__all__)


@pytest.mark.parametrize(("family", "name"), [(family, name) for family in FAMILIES for name in peer_names(family)])
def test_arguments_are_those_of_the_peer(family: str, name: str) -> None:
    mine, theirs = both(family, name)
    if not name.endswith(("Loss", "Scheme", "LambdaWeight")):
        assert {part for part in dir(theirs) if part.isupper() or part.endswith("_distance")} <= set(dir(mine))
        return
    expected, found = named_arguments(theirs), named_arguments(mine)
    assert list(found) == list(expected)
    for key, default in expected.items():
        if default != "<lambda>":  # which says nothing of what it does
            assert found[key] == default, key


def named_arguments(kind: type) -> dict[str, object]:
    _, *parameters = inspect.signature(kind.__init__).parameters.values()
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {one.name: described(one.default) for one in parameters if one.kind not in variable}


def described(default: object) -> object:
    """Compare functions and modules by what they are called."""
    if isinstance(default, torch.nn.Module):
        return repr(default)
    return getattr(default, "__name__", default) if callable(default) else default


CONFIG_OF = {
    "CachedMultipleNegativesRankingLoss": {"mini_batch_size": 7, "scale": 3.0},
    "CachedMultipleNegativesSymmetricRankingLoss": {"mini_batch_num_tokens": 90},
    "MegaBatchMarginLoss": {"mini_batch_size": 9},
    "MultipleNegativesRankingLoss": {"hardness_mode": "all_negatives", "hardness_strength": 2.0},
    "MultipleNegativesSymmetricRankingLoss": {},
}


@pytest.mark.filterwarnings("ignore:The .*SymmetricRankingLoss is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", CONFIG_OF)
def test_configs_hold_what_the_peers_hold(tiny_pair, name: str) -> None:
    kinds = both("sentence_transformer", name)
    losses_of_both = [kind(model, **CONFIG_OF[name]) for kind, model in zip(kinds, tiny_pair, strict=True)]
    ours, theirs = (loss.get_config_dict() for loss in losses_of_both)
    assert {key: ours[key] for key in theirs} == theirs


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_tested(name: str) -> None:
    without_imports = re.sub(r"^from \S+ import (\([^)]*\)|.*)$", "", TESTS, flags=re.MULTILINE)
    assert re.search(rf"\b{name}\b", without_imports)


def test_every_loss_over_embeddings_has_a_case() -> None:
    """Laws of caching and gathering are tested for all; what is left out is one of these by another name."""
    same = {
        "GatheredLoss",
        "FlopsLoss",
        "CSRReconstructionLoss",
        "CSRLoss",
        "AdaptiveLayerLoss",
        "Matryoshka2dLoss",
        "MatryoshkaLoss",
    }
    alone = {"ContrastiveTensionLoss", "ContrastiveTensionLossInBatchNegatives", "DenoisingAutoEncoderLoss"}
    dense = {name for name in LOSSES if not name.startswith(("Cached", "Sparse"))}
    assert dense - {case.name for case in CASES} == same | alone
    assert all(issubclass(LOSSES[name], Loss) for name in LOSSES)
