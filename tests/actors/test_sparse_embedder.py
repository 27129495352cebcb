"""The sparse embedding worker, in this process: what is written is what the model gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.embedder import EmbedderConfig, SparseEmbedder
from actors.worker import UnitReport
from sbert_ray import SparseEncoder
from sbert_ray.data.dataset import Dataset
from sbert_ray.models.checkpoint import resolve_checkpoint

TEXTS = ["a cat sat", "", "the fast dog ran on the mat", "red", None, "the " * 50, "blue dog"]


def silent(num_rows: int) -> None:
    """Take a sign of life."""


def embed(folder: Path, checkpoint: Path, **options: Any) -> tuple[UnitReport, pa.Table]:
    (folder / "in").mkdir()
    pq.write_table(pa.table({"id": range(len(TEXTS)), "text": TEXTS}), folder / "in/a.parquet")
    dataset = Dataset.open(f"{folder}/in", ["text"], ["id"])
    revision = resolve_checkpoint(checkpoint).revision
    config = EmbedderConfig(
        model=str(checkpoint), model_type="SparseEncoder", revision=revision, is_local=True, text_columns=("text",),
        id_column="id", device="cpu", **options,
    )  # fmt: skip
    [unit] = dataset.units(100)
    report = SparseEmbedder(dataset.reader(100), f"{folder}/out", config).process(unit, silent)
    return report, pq.read_table(folder / "out" / report.committed.file)


def dense(table: pa.Table, width: int) -> np.ndarray:
    rows = np.zeros((len(table), width), np.float32)
    for row, (indices, values) in enumerate(
        zip(table["indices"].to_pylist(), table["values"].to_pylist(), strict=True)
    ):
        assert indices == sorted(indices)
        rows[row, indices] = values
    return rows


@pytest.mark.parametrize("max_active_dims", [None, 3])
def test_writes_the_dimensions_that_are_not_zero(
    max_active_dims: int | None, tmp_path: Path, tiny_splade: Path
) -> None:
    report, table = embed(tmp_path, tiny_splade, max_active_dims=max_active_dims)
    assert table.schema.remove_metadata() == pa.schema(
        {"id": pa.int64(), "indices": pa.list_(pa.int32()), "values": pa.list_(pa.float32())}
    )
    assert table["id"].to_pylist() == [0, 1, 2, 3, 5, 6]
    model = SparseEncoder(str(tiny_splade), device="cpu")
    texts = [text for text in TEXTS if text is not None]
    expected = model.encode(texts, max_active_dims=max_active_dims).to_dense().numpy()
    np.testing.assert_allclose(dense(table, expected.shape[1]), expected, atol=1e-6)
    assert (expected > 0).any(1).all()
    assert (report.committed.rows, report.committed.bad_rows) == (6, 1)
    assert report.stats["tokens"] > 0


def test_a_value_that_is_no_number_takes_its_row_to_quarantine(
    tmp_path: Path, tiny_splade: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed_prepared = SparseEncoder.embed_prepared

    def spoiled(self: Any, prepared: Any, **options: Any) -> Any:
        run = embed_prepared(self, prepared, **options)
        if len(prepared) == 6:
            run.rows.values[run.rows.offsets[3]] = np.inf
        return run

    monkeypatch.setattr(SparseEncoder, "embed_prepared", spoiled)
    report, table = embed(tmp_path, tiny_splade)
    assert table["id"].to_pylist() == [0, 1, 2, 5, 6]
    assert {(row.id, row.reason) for row in report.bad} == {
        (3, "the embedding has a value that is no finite number"),
        (4, "the text is null (column 'text')"),
    }
