"""Fixtures: cross-encoders small enough to build in milliseconds."""

from pathlib import Path
from typing import Any

import pytest

from sbert_ray import CrossEncoder
from tests.sbert_ray.models.classifiers import load, load_peer, make_checkpoint


@pytest.fixture(scope="session")
def one_label(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with one label."""
    return make_checkpoint(tmp_path_factory.mktemp("cross"))


@pytest.fixture(scope="session")
def pair_of_models(one_label: Path) -> tuple[CrossEncoder, Any]:
    """It on our side and on the peer's."""
    return load(one_label), load_peer(one_label)


@pytest.fixture(scope="session")
def three_labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with three labels."""
    return make_checkpoint(tmp_path_factory.mktemp("labels"), num_labels=3)
