"""The loss of the batches of several workers is that of their joint batch in one process, for every loss."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sbert_ray.losses import MultipleNegativesRankingLoss
from sbert_ray.losses.gathered import join_batches
from tests.sbert_ray.losses.cases import CASES, Case, Routed, Toy
from tests.sbert_ray.losses.workers import FLAGGED, ROUTED, SIZE, routed, value_and_gradients

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module", params=[2, 3])
def workers(request, tmp_path_factory) -> list[dict[Any, dict[str, torch.Tensor]]]:
    """What each of several processes found."""
    folder, number = tmp_path_factory.mktemp("workers"), request.param
    command = [sys.executable, "-m", "tests.sbert_ray.losses.workers"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen([*command, str(rank), str(number), str(folder)], cwd=ROOT, env=environment)
        for rank in range(number)
    ]
    assert [process.wait(240) for process in processes] == [0] * number
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(number)]


@pytest.mark.parametrize("is_cached", [False, True], ids=["plain", "cached"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_workers_have_the_loss_of_the_joint_batch(workers, case: Case, is_cached: bool) -> None:
    model = Toy()
    expected = value_and_gradients(case.loss(model), model, case.features(SIZE), case.targets(SIZE))
    found = [worker[case.name, is_cached] for worker in workers]
    # Each tells its share, and the mean is the loss; DistributedDataParallel has averaged the gradients already.
    torch.testing.assert_close(torch.stack([one[""] for one in found]).mean(), expected.pop(""))
    for one in found:
        del one[""]
        torch.testing.assert_close(one, expected)


@pytest.mark.parametrize("name", ROUTED)
def test_columns_with_weights_of_their_own_are_averaged(workers, name: str) -> None:
    """Which the last mini-batch alone does not do, as it passes through the weights of one column only."""
    expected = routed(Routed(ROUTED[name].get("frozen", "")))
    assert len(expected) == (9 if name == "all" else 5)
    torch.testing.assert_close(torch.stack([one["routed", name][""] for one in workers]).mean(), expected.pop(""))
    for worker in workers:
        found = {weight: gradient for weight, gradient in worker["routed", name].items() if weight}
        torch.testing.assert_close(found, expected)


def test_a_static_graph_is_averaged(workers) -> None:
    model, case = Toy(), next(case for case in CASES if case.name == "MultipleNegativesRankingLoss")
    expected = value_and_gradients(case.loss(model), model, case.features(SIZE), None)
    del expected[""]
    for worker in workers:
        torch.testing.assert_close({name: found for name, found in worker["static graph"].items() if name}, expected)


def test_workers_that_gather_see_more_negatives(workers) -> None:
    """Without gathering, the mean of the workers' losses is another one."""
    case = next(case for case in CASES if case.name == "MultipleNegativesRankingLoss")
    share = SIZE // len(workers)
    alone = [case.loss(Toy())(case.features(SIZE, first, first + share)).item() for first in range(0, SIZE, share)]
    whole = case.loss(Toy())(case.features(SIZE)).item()
    assert abs(sum(alone) / len(alone) - whole) > 0.1


def test_each_worker_has_the_share_that_the_peer_gives_it(workers) -> None:
    for worker in workers:
        ours, theirs = worker["compared"][::2], worker["compared"][1::2]
        assert len(ours) == len(FLAGGED)
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other)


def test_what_is_drawn_is_the_first_workers(workers) -> None:
    drawn = [worker["draws"]["drawn"] for worker in workers]
    assert all(other == drawn[0] for other in drawn)
    assert len({tuple(dims) for dims in drawn[0]}) > 1


def test_labels_of_other_shapes_are_refused_by_all_workers(workers) -> None:
    for worker in workers:
        assert "gathering needs labels of one shape per row on all workers, got [(1,), (2,)" in worker["draws"]["error"]


def test_one_process_gathers_nothing() -> None:
    columns = [torch.randn(3, 4), torch.randn(3, 4)]
    batch = join_batches(columns, None, gather=True)
    assert batch.is_whole
    assert batch.rows == slice(0, 3)
    assert all(found is column for found, column in zip(batch.embeddings, columns, strict=True))
    loss = MultipleNegativesRankingLoss(None, gather_across_devices=True)
    torch.testing.assert_close(
        loss.compute_loss_from_embeddings(columns),
        MultipleNegativesRankingLoss(None).compute_loss_from_embeddings(columns),
    )
