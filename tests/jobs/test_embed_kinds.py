"""The embedding job with sparse models and with images, on a local Ray, and what it refuses before that."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.embedder import Embedder, EmbedderConfig
from jobs.embed import EmbedJob
from sbert_ray import SentenceTransformer, SparseEncoder
from sbert_ray.data.dataset import Dataset
from sbert_ray.data.sparse import sparse_fault
from sbert_ray.data.verify import verify
from sbert_ray.models.checkpoint import resolve_checkpoint
from tests.jobs.conftest import Command

Image = pytest.importorskip("PIL.Image")
TEXTS = ["a cat sat", "the fast dog ran on the mat", "red", "the " * 30, "blue dog", "", "slow cat"] * 10


def read_output(output: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted((output / "data").iterdir())])


def assert_whole(output: Path) -> None:
    *_, verdict = verify(str(output))
    assert verdict.problems == []


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (20 + seed % 7, 30, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.usefixtures("ray_local")
def test_a_sparse_model_gives_indices_and_values(tmp_path: Path, tiny_splade: Path) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"id": range(70), "text": TEXTS}), tmp_path / "in/a.parquet", row_group_size=20)
    options = {"model": str(tiny_splade), "input": f"{tmp_path}/in", "output": f"{tmp_path}/out", "num_workers": 1}
    assert EmbedJob(kind="sparse", max_active_dims=4, id_column="id", rows_per_unit=32, **options).run() == 0
    table = read_output(tmp_path / "out")
    model = SparseEncoder(str(tiny_splade), device="cpu")
    expected = model.encode(TEXTS, max_active_dims=4).to_dense().numpy()
    found = np.zeros_like(expected)
    for row, (indices, values) in enumerate(zip(table["indices"], table["values"], strict=True)):
        found[row, indices.as_py()] = values.as_py()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert table["id"].to_pylist() == list(range(70))
    assert_whole(tmp_path / "out")
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["model"]["kind"] == "SparseEncoder"
    assert report["model"]["dimension"] == expected.shape[1]


@pytest.mark.usefixtures("ray_local")
def test_images_become_embeddings_and_bad_ones_go_to_quarantine(tmp_path: Path, tiny_clip: Path) -> None:
    (tmp_path / "in/pictures").mkdir(parents=True)
    for seed in range(12):
        (tmp_path / f"in/pictures/{seed}.png").write_bytes(png(seed))
    (tmp_path / "in/pictures/12.png").write_bytes(png(12)[:400])  # its head is whole
    (tmp_path / "in/pictures/13.png").write_text("no picture")
    names: list[Any] = [f"pictures/{seed}.png" for seed in range(15)]
    names[3] = f"{tmp_path}/in/pictures/3.png"
    pq.write_table(pa.table({"id": range(16), "image": [*names, None]}), tmp_path / "in/a.parquet")
    options = {"input": f"{tmp_path}/in", "output": f"{tmp_path}/out", "model": str(tiny_clip), "num_workers": 1}
    copied = {"id_column": "id", "keep_columns": ("image",)}
    assert EmbedJob(image_column="image", max_bad_rows=4, **copied, **options).run() == 0
    table = read_output(tmp_path / "out")
    assert table["id"].to_pylist() == list(range(12))
    assert table["image"].to_pylist() == names[:12]  # what the rows hold, not the pictures
    model = SentenceTransformer(str(tiny_clip), device="cpu")
    expected = model.encode([Image.open(tmp_path / f"in/pictures/{seed}.png") for seed in range(12)])
    column = table["embedding"].combine_chunks()
    np.testing.assert_allclose(column.flatten().to_numpy().reshape(12, -1), expected, rtol=1e-5, atol=1e-6)
    [quarantine] = (tmp_path / "out/_quarantine").iterdir()
    reasons = {row["id"]: row["reason"] for row in map(json.loads, quarantine.read_text().splitlines())}
    assert reasons.keys() == {12, 13, 14, 15}
    assert "cannot be decoded" in reasons[12]
    assert "is no image of the formats" in reasons[13]
    assert f"there is no readable file '{tmp_path}/in/pictures/14.png'" in reasons[14] or "14.png" in reasons[14]
    assert reasons[15] == "column 'image': the image is null"
    assert_whole(tmp_path / "out")


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": ["a"], "values": [1], "image": [2.0]}), tmp_path / "in/a.parquet")
    return ["--input", f"{tmp_path}/in", "--output", f"{tmp_path}/out"]


@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--kind sparse --normalize", "--normalize: not for sparse models"),
        ("--kind sparse --precision int8 --truncate-dim 3", "--truncate-dim, --precision: not for sparse models"),
        ("--kind sparse --keep-columns values", "--keep-columns: ['values'] would be in the output twice"),
        ("--kind dense --max-active-dims 3", "--max-active-dims is for sparse models"),
        ("--max-active-dims 3", "--max-active-dims is for sparse models"),
        ("--image-column values", "--image-column: 'values' is int64; it must hold bytes, paths or URLs"),
        ("--image-column image --text-column text", "image_column goes without text_column"),
        ("--image-column image --prompt x", "image_column goes without text_column, prompt and prompt_name"),
        ("--image-column text", "--image-column needs an image-text model"),
    ],
)
def test_what_does_not_fit_is_said_before_ray_starts(
    arguments: str, message: str, given: list[str], tiny_splade: Path, command: Command
) -> None:
    outcome = command(EmbedJob.main, [*given, "--model", str(tiny_splade), *arguments.split()])
    assert (outcome.code, message in outcome.err) == (2, True), outcome.err


@pytest.mark.usefixtures("without_ray")
def test_a_cross_encoder_gives_no_embeddings(
    given: list[str], tiny_cross_encoder: Path, tmp_path: Path, command: Command
) -> None:
    from sbert_ray import CrossEncoder

    CrossEncoder(str(tiny_cross_encoder), device="cpu").save_pretrained(str(tmp_path / "model"))
    outcome = command(EmbedJob.main, [*given, "--model", f"{tmp_path}/model"])
    assert (outcome.code, "is a CrossEncoder, which gives no embeddings" in outcome.err) == (2, True), outcome.err


@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize(
    ("arguments", "missing"), [(["--kind", "sparse"], "SparseAutoEncoder for a SparseEncoder"), ([], "")]
)
def test_a_model_that_would_start_at_random_is_refused(
    arguments: list[str], missing: str, given: list[str], tiny_checkpoint: Path, command: Command
) -> None:
    outcome = command(EmbedJob.main, [*given, "--model", str(tiny_checkpoint), "--dry-run", *arguments])
    assert outcome.code == (2 if missing else 0), outcome.err
    assert not missing or "has no trained SparseAutoEncoder, which would start at random" in outcome.err


def test_texts_that_name_images_stay_texts(tmp_path: Path, tiny_clip: Path) -> None:
    """A dataset must not make workers open files and ask servers."""
    (tmp_path / "in").mkdir()
    (tmp_path / "a.png").write_bytes(png(1))
    texts = ["a dog", f"{tmp_path}/a.png", "http://127.0.0.1:9/a.png", "data:image/png;base64,AAAA"]
    pq.write_table(pa.table({"text": texts}), tmp_path / "in/a.parquet")
    dataset = Dataset.open(f"{tmp_path}/in", ["text"])
    revision = resolve_checkpoint(tiny_clip).revision
    config = EmbedderConfig(
        model=str(tiny_clip), revision=revision, is_local=True, text_columns=("text",), device="cpu"
    )
    [unit] = dataset.units(9)
    report = Embedder(dataset.reader(9), f"{tmp_path}/out", config).process(unit, lambda _: None)
    assert (report.committed.rows, report.committed.bad_rows) == (4, 0)
    model = SentenceTransformer(str(tiny_clip), device="cpu")
    expected = model.encode([{"text": text} for text in texts])
    found = pq.read_table(tmp_path / "out" / report.committed.file)["embedding"].combine_chunks()
    np.testing.assert_allclose(found.flatten().to_numpy().reshape(4, -1), expected, rtol=1e-5, atol=1e-6)


FAULTS = {
    "some row has no indices or values": ([[1], None], [[0.5], [0.5]]),
    "some row has not as many values as indices": ([[1], [2, 3]], [[0.5], [0.5]]),
    "some index or value is null": ([[1], [None]], [[0.5], [0.5]]),
    "the indices of some row are negative, or do not ascend": ([[1], [9, 9]], [[0.5], [0.5, 0.5]]),
    "some value is no finite number": ([[1], [2]], [[0.5], [float("nan")]]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_with_sparse_embeddings_is_found(fault: str) -> None:
    kinds = (pa.list_(pa.int32()), pa.list_(pa.float32()))
    columns = [pa.chunked_array([column], kind) for column, kind in zip(FAULTS[fault], kinds, strict=True)]
    assert sparse_fault(*columns) == fault
    indices, values = (
        pa.chunked_array([[[4], [1, 3], []]], kinds[0]),
        pa.chunked_array([[[1.0], [2.0, 1.0], []]], kinds[1]),
    )
    assert sparse_fault(indices, values) is None
