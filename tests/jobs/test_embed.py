"""The embedding job on a local Ray, from input files to a proven output."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from benchmarks.docstrings import docstrings
from jobs.embed import EmbedJob
from sbert_ray import SentenceTransformer
from sbert_ray.data.verify import verify
from sbert_ray.quantization import quantize_embeddings
from tests.jobs.toy import digests

ROOT = Path(__file__).parents[2]
WORDS = "a the cat dog sat ran on mat fast slow red blue".split()


def sentences(count: int) -> list[str]:
    generator = np.random.default_rng(0)
    return [" ".join(generator.choice(WORDS, generator.integers(1, 20))) for _ in range(count)]


def write_parquet(folder: Path, texts: list[str], num_files: int = 2) -> Path:
    folder.mkdir()
    for index, part in enumerate(np.array_split(np.arange(len(texts)), num_files)):
        table = pa.table({"id": part, "text": [texts[row] for row in part]})
        pq.write_table(table, folder / f"{index:02d}.parquet", row_group_size=64)
    return folder


def read_output(output: Path) -> tuple[pa.Table, NDArray[Any]]:
    table = pa.concat_tables([pq.read_table(path) for path in sorted((output / "data").iterdir())])
    column = table["embedding"].combine_chunks()
    return table, column.flatten().to_numpy().reshape(len(table), -1)


def assert_whole(output: Path) -> None:
    *_, verdict = verify(str(output))
    assert verdict.problems == []


@pytest.mark.usefixtures("ray_local")
def test_embeds_a_dataset_in_its_order_and_reports(tmp_path: Path, tiny_checkpoint: Path) -> None:
    texts = sentences(300)
    corpus = write_parquet(tmp_path / "in", texts)
    job = EmbedJob(
        input=str(corpus), output=f"{tmp_path}/out", model=str(tiny_checkpoint), id_column="id", num_workers=2,
        rows_per_unit=50, prompt="the ", normalize=True,
    )  # fmt: skip
    assert job.run() == 0
    table, embeddings = read_output(tmp_path / "out")
    assert table["id"].to_pylist() == list(range(300))
    expected = SentenceTransformer(str(tiny_checkpoint)).encode(texts, prompt="the ", normalize_embeddings=True)
    assert_allclose(embeddings, expected, atol=1e-6)
    assert_whole(tmp_path / "out")

    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["state"] == "complete"
    assert report["rows"] == {"input": 300, "output": 300, "bad": 0, "resumed": 0}
    assert report["units"]["done"] == report["units"]["total"] == 10  # row groups of 64, halved
    assert sum(report["token_lengths"]["counts"]) == 300
    assert report["tokens"]["real"] == sum(len(text.split()) + 3 for text in texts)
    assert report["model"]["revision"].startswith("sha256:")
    assert report["seconds"]["compute"] > 0
    assert len(report["workers"]) in (1, 2)
    page = (tmp_path / "out/report.html").read_text()
    assert "300" in page
    assert "<script" not in page


@pytest.mark.usefixtures("ray_local")
def test_embeds_json_lines_without_ids_and_keeps_the_bad_ones_apart(tmp_path: Path, tiny_checkpoint: Path) -> None:
    texts = sentences(60)
    lines = [json.dumps({"text": text, "n": row}).encode() for row, text in enumerate(texts)]
    lines[7], lines[30] = b'{"text": "caf\xe9"}', b'{"text": '
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    job = EmbedJob(
        input=f"{tmp_path}/in.jsonl", output=f"{tmp_path}/out", model=str(tiny_checkpoint), num_workers=1,
        keep_columns="n", max_bad_rows=2, rows_per_unit=20,
    )  # fmt: skip
    assert job.run() == 0
    table, embeddings = read_output(tmp_path / "out")
    assert table["n"].to_pylist() == [row for row in range(60) if row not in (7, 30)]
    expected = SentenceTransformer(str(tiny_checkpoint)).encode([texts[n] for n in table["n"].to_pylist()])
    assert_allclose(embeddings, expected, atol=1e-6)
    starts = np.cumsum([0, *(len(line) + 1 for line in lines)])[:-1]
    assert_array_equal(table["source_position"], np.delete(starts, [7, 30]))
    assert_whole(tmp_path / "out")


@pytest.mark.usefixtures("ray_local")
def test_all_units_are_quantized_with_the_same_ranges(tmp_path: Path, tiny_checkpoint: Path) -> None:
    texts = sentences(200)
    corpus = write_parquet(tmp_path / "in", texts)
    options = {"input": str(corpus), "model": str(tiny_checkpoint), "id_column": "id", "precision": "int8"}
    job = EmbedJob(**options, output=f"{tmp_path}/out", rows_per_unit=40, num_workers=1, calibration_rows=50)
    assert job.run() == 0
    before = digests(job.output)
    found = json.loads((tmp_path / "out/_manifest/calibration.json").read_text())
    assert 50 <= found["rows"] <= 60
    exact = SentenceTransformer(str(tiny_checkpoint)).encode(texts)
    expected = quantize_embeddings(exact, "int8", ranges=np.array([found["min"], found["max"]], np.float32))
    _, embeddings = read_output(tmp_path / "out")
    # Another batch moves a value by 1e-7, which may carry it over the edge between two codes.
    assert (embeddings == expected).mean() > 0.999
    (tmp_path / "out/data/part-00000002.parquet").unlink()
    assert job.run() == 0
    assert digests(job.output) == before


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("ray_local")
def test_a_real_model_gives_the_same_bytes_though_its_workers_are_killed(tmp_path: Path, minilm: Path) -> None:
    texts = [doc.text for doc in docstrings(400)]
    corpus = write_parquet(tmp_path / "in", texts)
    options = {"input": str(corpus), "model": str(minilm), "id_column": "id", "rows_per_unit": 25}
    calm = EmbedJob(**options, output=f"{tmp_path}/calm", num_workers=1)
    assert calm.run() == 0

    job = EmbedJob(**options, output=f"{tmp_path}/killed", num_workers=2)
    killed: list[int] = []

    def kill_workers() -> None:
        deadline = time.monotonic() + 300
        while len(killed) < 3 and time.monotonic() < deadline:
            if len(list(tmp_path.glob("killed/data/part-*.parquet"))) > 2 * len(killed):
                hosts = [process for process in psutil.Process().children(recursive=True) if _is_worker(process)]
                if hosts:
                    killed.append(hosts[-1].pid)
                    os.kill(hosts[-1].pid, signal.SIGKILL)
            time.sleep(0.2)

    killer = threading.Thread(target=kill_workers)
    killer.start()
    assert job.run() == 0
    killer.join()
    assert len(killed) == 3
    assert digests(job.output) == digests(calm.output)
    assert_whole(tmp_path / "killed")


def _is_worker(process: psutil.Process) -> bool:
    try:
        return any("ray::Host" in part for part in process.cmdline())
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_twenty_thousand_texts_have_the_peers_embeddings(tmp_path: Path, minilm: Path) -> None:
    from sentence_transformers import SentenceTransformer as Peer

    lines = (line.strip() for doc in docstrings(12_000) for line in doc.text.splitlines())
    texts = list(dict.fromkeys(line for line in lines if len(line) > 10))[:20_000]
    assert len(texts) == 20_000
    corpus = write_parquet(tmp_path / "in", texts, num_files=4)
    command = [
        str(Path(sys.executable).with_name("sbert-ray")),
        "embed",
        f"--input={corpus}",
        f"--output={tmp_path}/out",
    ]
    subprocess.run([*command, f"--model={minilm}", "--id-column=id"], check=True, cwd=tmp_path)
    table, embeddings = read_output(tmp_path / "out")
    assert table["id"].to_pylist() == list(range(20_000))
    expected = Peer(str(minilm), device="cpu").encode(texts, show_progress_bar=False)
    assert np.abs(embeddings - expected).max() <= 1e-5
    assert subprocess.run([command[0], "verify", f"{tmp_path}/out"], check=False).returncode == 0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """Address of the dashboard of a Ray cluster of one machine, started as on a real one."""
    names = (
        "port",
        "dashboard-port",
        "dashboard-agent-listen-port",
        "dashboard-agent-grpc-port",
        "metrics-export-port",
    )
    ports = {name: _free_port(20_000 + 1000 * index) for index, name in enumerate(names)}  # another Ray may run here
    dashboard = ports["dashboard-port"]
    bin_folder = Path(sys.executable).parent
    options = [f"--{name}={port}" for name, port in ports.items()]
    process = subprocess.Popen(
        [str(bin_folder / "ray"), "start", "--head", "--block", "--num-cpus=2", *options,
         f"--temp-dir=/tmp/sr{os.getpid()}", "--disable-usage-stats"],
        env=os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}"}, cwd=tmp_path, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not _answers(dashboard):
            assert process.poll() is None, "ray start failed"
            assert time.monotonic() < deadline
            time.sleep(0.5)
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(f"/tmp/sr{os.getpid()}", ignore_errors=True)


def _free_port(first: int) -> int:
    return next(port for port in range(first, first + 900) if not _answers(port))


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_submitted_job_runs_on_a_cluster(tmp_path: Path, cluster: str, tiny_checkpoint: Path) -> None:
    texts = sentences(100)
    config = {
        "input": str(write_parquet(tmp_path / "in", texts)),
        "output": f"{tmp_path}/out",
        "model": str(tiny_checkpoint),
        "id-column": "id",
    }
    (tmp_path / "embed.yaml").write_text(yaml.safe_dump(config))
    submit = [str(Path(sys.executable).with_name("ray")), "job", "submit", f"--address={cluster}", "--working-dir", "."]
    command = [*submit, "--", "python", "-m", "jobs.embed", "--config", f"{tmp_path}/embed.yaml"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    for _ in range(30):
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if "No available agent" not in done.stderr:
            break
        time.sleep(1)  # the cluster is up, and does not take jobs yet
    assert done.returncode == 0, done.stdout + done.stderr
    table, embeddings = read_output(tmp_path / "out")
    assert table["id"].to_pylist() == list(range(100))
    assert_allclose(embeddings, SentenceTransformer(str(tiny_checkpoint)).encode(texts), atol=1e-6)
