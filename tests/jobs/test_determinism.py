"""A real model gives the same bytes, however many workers there are, and whoever of them or their driver dies."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from benchmarks.docstrings import docstrings
from sbert_ray.data.verify import verify
from tests.jobs.mortal import MortalJob
from tests.jobs.toy import digests

NUM_ROWS = 160
NUM_UNITS = 8
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """First lines of docstrings, every eighth of them twice in its unit."""
    folder = tmp_path_factory.mktemp("corpus")
    texts = [doc.text.splitlines()[0] for doc in docstrings(NUM_ROWS)]
    texts = [texts[row - 1] if row % 8 == 3 else text for row, text in enumerate(texts)]
    pq.write_table(pa.table({"id": range(NUM_ROWS), "text": texts}), folder / "a.parquet")
    return folder


def make_job(folder: Path, corpus: Path, model: Path, num_workers: int, num_cpus: float) -> MortalJob:
    return MortalJob(
        input=str(corpus), output=f"{folder}/out", marker=f"{folder}/marker", model=str(model), id_column="id",
        rows_per_unit=NUM_ROWS // NUM_UNITS, max_batch_tokens=128, num_workers=num_workers,
        num_cpus_per_worker=num_cpus,
    )  # fmt: skip


def driver(job: MortalJob, die: str) -> int:
    """Run the job in a process of its own, which dies as told, and return how it ended."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in job.model_dump(exclude_defaults=True).items()]
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-m", "tests.jobs.mortal", *flags, f"--ray-address={address}"]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"DIE": die}, capture_output=True, check=False).returncode


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_workers_and_deaths_change_nothing(tmp_path: Path, corpus: Path, minilm: Path) -> None:
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    calm.mkdir()
    killed.mkdir()
    undisturbed = make_job(calm, corpus, minilm, num_workers=1, num_cpus=1)
    assert undisturbed.run() == 0

    job = make_job(killed, corpus, minilm, num_workers=3, num_cpus=0.5)
    Path(job.marker).touch()
    assert driver(job, "before-append 3") == -signal.SIGKILL
    assert not Path(job.marker).exists()  # a worker has died in mid-unit
    Path(job.marker).touch()
    assert job.run() == 0
    assert not Path(job.marker).exists()  # another one, of this run or still of the one before

    assert len(digests(job.output)) == NUM_UNITS
    assert digests(job.output) == digests(undisturbed.output)
    *_, verdict = verify(job.output)
    assert verdict.problems == []
    report = json.loads(Path(job.output, "report.json").read_text())
    assert report["units"]["resumed"] >= 2
    assert report["duplicate_texts"] == NUM_ROWS // 8
