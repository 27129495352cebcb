"""Fixtures of the tests of losses."""

from collections.abc import Iterator

import pytest
import torch

from tests.sbert_ray.losses.oracle import Models


@pytest.fixture(scope="session")
def models(tiny_checkpoint) -> Models:
    """The tiny BERT on our side and on the peer's."""
    return Models.load(tiny_checkpoint)


@pytest.fixture(autouse=True)
def seeded_thread() -> Iterator[None]:
    """One thread, as tensors are so small here that more would wait for each other, and the same random numbers."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
