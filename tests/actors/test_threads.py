"""A worker's process uses as many threads as it was given CPUs, whatever the machine has or its user has set."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from actors.pool import Pool, PoolOptions
from actors.threads import COUNTS, limit_torch, set_threads

ROOT = Path(__file__).parents[2]


class Counting:
    """Tells how many threads the libraries of its process use."""

    def __init__(self, num_threads: int) -> None:
        limit_torch(num_threads)  # as a worker with a model does when it loads it

    def count(self, name: str, beat: Callable[[int], None]) -> dict[str, Any]:
        import pyarrow as pa
        import torch
        from threadpoolctl import threadpool_info

        def num_threads() -> int:
            return len(os.listdir("/proc/self/task"))

        before, matrix = num_threads(), torch.ones(1000, 1000)
        matrix @ matrix  # in another thread than the one that has limited them
        return {
            "environment": {variable: os.environ.get(variable) for variable in COUNTS},
            "tokenizers": os.environ["TOKENIZERS_PARALLELISM"],
            "arrow": [pa.cpu_count(), pa.io_thread_count()],
            "torch": [torch.get_num_threads(), torch.get_num_interop_threads()],
            "pools": sorted({(pool["user_api"], pool["num_threads"]) for pool in threadpool_info()}),
            "started": num_threads() - before,
        }


def expected(count: int) -> dict[str, Any]:
    return {
        "environment": dict.fromkeys(COUNTS, str(count)),
        "tokenizers": "true" if count > 1 else "false",
        "arrow": [count, count],
        "torch": [count, count],
        "pools": [("blas", count), ("openmp", count)],
        "started": count - 1,
    }


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize(("num_cpus", "count"), [(0.4, 1), (2, 2)])
def test_an_actor_has_as_many_threads_as_cpus(num_cpus: float, count: int) -> None:
    pytest.importorskip("threadpoolctl")
    options = PoolOptions(num_workers=1, num_cpus=num_cpus)
    with Pool(partial(Counting, options.threads), options) as pool:
        assert pool.call("count", "all") == expected(count)


def test_what_the_user_has_set_does_not_count() -> None:
    """In a process of its own, as libraries read the variables once."""
    pytest.importorskip("threadpoolctl")
    code = (
        "import json; from actors.threads import set_threads; set_threads(2);"
        " from tests.actors.test_threads import Counting; print(json.dumps(Counting(2).count('all', print)))"
    )
    environment = os.environ | dict.fromkeys(COUNTS, "5") | {"TOKENIZERS_PARALLELISM": "false"}
    told = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, check=True)
    found = json.loads(told.stdout)
    assert found | {"pools": [tuple(pool) for pool in found["pools"]]} == expected(2)


def test_the_host_of_a_worker_loads_no_library_before_it_sets_their_threads() -> None:
    code = (
        "import sys, actors.host;"
        " sys.exit(str([name for name in ('numpy', 'pyarrow', 'torch', 'tokenizers') if name in sys.modules]))"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("options", "threads"),
    [
        ({"num_cpus": 0.25}, 1),
        ({"num_cpus": 1}, 1),
        ({"num_cpus": 2.9}, 2),
        ({"num_cpus": 4}, 4),
        ({"num_cpus": 1, "num_threads": 12}, 12),
    ],
    ids=str,
)
def test_threads_follow_from_cpus(options: dict[str, Any], threads: int) -> None:
    assert PoolOptions(num_workers=1, **options).threads == threads


def test_the_environment_is_set_for_processes_that_are_started_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*COUNTS, "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "9")
    set_threads(1)
    assert {os.environ[name] for name in COUNTS} == {"1"}
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
