"""How many workers a job has where nobody says, and with how many threads."""

from pathlib import Path
from typing import Any

import pytest
import ray

from actors.pool import PoolOptions
from jobs.cluster import pool_options
from jobs.embed import EmbedJob
from tests.jobs.toy import ToyJob

CPU_NODE = {"CPU": 8.0}
GPU_NODE = {"CPU": 26.0, "GPU": 4.0}
SMALL_GPU_NODE = {"CPU": 5.0, "GPU": 2.0}


def options_on(
    nodes: list[dict[str, float]], monkeypatch: pytest.MonkeyPatch, num_units: int = 100, **options: Any
) -> PoolOptions:
    """Return what a job would ask of a cluster of these nodes, and of another node that is gone."""
    total = {name: sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}
    monkeypatch.setattr(ray, "cluster_resources", lambda: {name: count for name, count in total.items() if count})
    listed = [{"Alive": True, "Resources": node} for node in nodes]
    monkeypatch.setattr(ray, "nodes", lambda: [*listed, {"Alive": False, "Resources": {"CPU": 1.0, "GPU": 8.0}}])
    job = ToyJob(input="/in", output="/out", notes="/notes", **options)
    return pool_options(job, num_units)


@pytest.mark.parametrize(
    ("nodes", "options", "expected"),
    [
        ([CPU_NODE], {}, (8, 1.0, 0.0, 1)),
        ([{"CPU": 2.0}], {}, (2, 1.0, 0.0, 1)),
        ([CPU_NODE, CPU_NODE], {"num_cpus_per_worker": 4}, (4, 4.0, 0.0, 4)),
        ([CPU_NODE], {"num_cpus_per_worker": 0.5}, (16, 0.5, 0.0, 1)),
        ([CPU_NODE], {"num_cpus_per_worker": 2.5}, (3, 2.5, 0.0, 2)),
        ([CPU_NODE], {"num_workers": 3}, (3, 1.0, 0.0, 1)),
        ([CPU_NODE], {"num_units": 5}, (5, 1.0, 0.0, 1)),
        ([GPU_NODE], {}, (4, 1.0, 1.0, 6)),
        ([CPU_NODE, GPU_NODE], {}, (4, 1.0, 1.0, 6)),
        ([GPU_NODE, SMALL_GPU_NODE], {}, (6, 1.0, 1.0, 2)),
        ([GPU_NODE], {"num_gpus_per_worker": 0.5}, (8, 1.0, 0.5, 3)),
        ([GPU_NODE], {"num_gpus_per_worker": 2, "num_cpus_per_worker": 3}, (2, 3.0, 2.0, 3)),
        ([{"CPU": 1.0, "GPU": 4.0}], {}, (4, 1.0, 1.0, 1)),
        ([GPU_NODE], {"num_gpus_per_worker": 0}, (26, 1.0, 0.0, 1)),
        ([CPU_NODE], {"num_gpus_per_worker": 1}, (1, 1.0, 1.0, 1)),  # a node with one may come
    ],
    ids=str,
)
def test_workers_fill_the_cluster_and_no_more(
    nodes: list[dict[str, float]],
    options: dict[str, Any],
    expected: tuple[int, float, float, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = options_on(nodes, monkeypatch, **options)
    assert (found.num_workers, found.num_cpus, found.num_gpus, found.threads) == expected


@pytest.mark.parametrize(("num_gpus", "device"), [(0.0, "cpu"), (0.5, None)])
def test_a_worker_with_a_model_has_the_threads_of_its_actor(
    tiny_checkpoint: Path, num_gpus: float, device: str | None
) -> None:
    job = EmbedJob(input="/in", output="/out", model=str(tiny_checkpoint))
    config = job.worker_config(PoolOptions(num_workers=1, num_cpus=3.5, num_gpus=num_gpus))
    assert (config["num_threads"], config["device"]) == (3, device)
