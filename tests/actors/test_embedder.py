"""The embedding worker in one process: what it writes for a unit, and which rows it refuses."""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from actors.device import BrokenDeviceError
from actors.embedder import Embedder, EmbedderConfig
from actors.worker import UnitReport
from sbert_ray import SentenceTransformer
from sbert_ray.data.dataset import Dataset
from sbert_ray.data.errors import InputError
from sbert_ray.data.kinds import comparable, read_as
from sbert_ray.data.units import Unit
from sbert_ray.inference.tokenization import CHUNK_ROWS
from sbert_ray.models.checkpoint import resolve_checkpoint
from sbert_ray.quantization import quantize_embeddings
from tests.sbert_ray.data.ids import IDS

TEXTS = ["the cat sat on the mat", "a dog", "", "   ", "the slow red cat ran", "a dog", "fast " * 40, "blue"]
Table = dict[str, list[Any]]
Embed = Callable[..., tuple[UnitReport, pa.Table]]


def silent(num_rows: int) -> None:
    """Take a sign of life."""


@pytest.fixture
def embed(tmp_path: Path, tiny_checkpoint: Path) -> Embed:
    """Write columns as a dataset, embed it as one unit, and return the report and what was written."""

    def run(columns: pa.Table | Table, **options: Any) -> tuple[UnitReport, pa.Table]:
        worker = make_embedder(tmp_path, tiny_checkpoint, columns, **options)
        num_rows = len(pq.read_table(tmp_path / "in/a.parquet"))
        report = worker.process(Unit(0, "a.parquet", 0, num_rows), silent)
        return report, pq.read_table(tmp_path / "out" / report.committed.file)

    return run


def make_embedder(folder: Path, checkpoint: Path, columns: pa.Table | Table, **options: Any) -> Embedder:
    (folder / "in").mkdir(exist_ok=True)
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), folder / "in/a.parquet")
    settings = {"text_columns": ("text",), "id_column": "id", **options}
    copied = [settings["id_column"]] if settings["id_column"] else []
    dataset = Dataset.open(f"{folder}/in", settings["text_columns"], [*copied, *settings.get("keep_columns", ())])
    config = EmbedderConfig(
        model=str(checkpoint), revision=resolve_checkpoint(checkpoint).revision, is_local=True, **settings
    )
    return Embedder(dataset.reader(100), f"{folder}/out", config)


def vectors(table: pa.Table) -> np.ndarray:
    column = table["embedding"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), -1)


def dataset(texts: list[str | None] = TEXTS) -> Table:
    return {"id": list(range(100, 100 + len(texts))), "text": texts, "kind": ["x"] * len(texts)}


def test_writes_ids_kept_columns_and_embeddings_in_input_order(embed: Embed, tiny_checkpoint: Path) -> None:
    report, table = embed(dataset(), keep_columns=("kind",))
    assert table.schema.remove_metadata() == pa.schema(
        {"id": pa.int64(), "kind": pa.string(), "embedding": pa.list_(pa.float32(), 16)}
    )
    assert table["id"].to_pylist() == list(range(100, 108))
    assert_array_equal(vectors(table), SentenceTransformer(str(tiny_checkpoint)).encode(TEXTS))
    assert report.committed.rows == 8
    libraries = ", ".join(f"{name} {version(name)}" for name in ("sbert-ray", "torch", "transformers", "tokenizers"))
    assert report.environment == f"cpu in float32 with {torch.get_num_threads()} thread(s) by {libraries}"


def test_another_number_of_threads_is_another_environment(tmp_path: Path, tiny_checkpoint: Path) -> None:
    embedder, before = make_embedder(tmp_path, tiny_checkpoint, dataset()), torch.get_num_threads()
    seen = set()
    for num_threads in (1, 2):
        torch.set_num_threads(num_threads)
        seen.add(embedder.environment)
    torch.set_num_threads(before)
    assert len(seen) == 2


def test_tells_rows_apart_without_an_id_column(embed: Embed) -> None:
    _, table = embed(dataset(["a dog", None, "the cat"]), id_column=None)
    assert table["source_file"].to_pylist() == ["a.parquet", "a.parquet"]
    assert table["source_position"].to_pylist() == [0, 2]


def test_counts_what_it_saw(embed: Embed) -> None:
    columns = dataset()
    columns["id"][5] = 101
    stats = embed(columns)[0].stats
    assert stats["rows"] == 8
    assert stats["tokens"] == 8 + 4 + 2 + 2 + 7 + 4 + 32 + 3
    assert sum(stats["token_lengths"]) == 8
    assert stats["padded_tokens"] == stats["computed_tokens"] == stats["tokens"] - 4  # a text is there twice
    assert (stats["empty_texts"], stats["truncated_texts"], stats["duplicate_ids"]) == (2, 1, 1)
    assert set(stats["seconds"]) == {"read", "tokenize", "wait", "compute", "write"}


@pytest.mark.parametrize("name", IDS)
def test_ids_of_any_type_are_copied_and_their_repeats_counted(embed: Embed, name: str) -> None:
    ids = pa.concat_arrays([IDS[name]] * 2)
    report, table = embed(pa.table({"id": ids, "text": ["a dog", None, "the cat", "blue", "red", "a dog"]}))
    assert (report.committed.rows, report.committed.bad_rows) == (5, 1)
    assert report.stats["duplicate_ids"] == 2
    expected = pa.chunked_array([pa.concat_arrays([ids.slice(0, 1), ids.slice(2)])])
    assert comparable(table["id"]).equals(comparable(expected.cast(read_as(ids.type))))


def test_rows_without_a_text_go_to_quarantine(embed: Embed, tmp_path: Path) -> None:
    report, table = embed(dataset(["a dog", None, "the cat"]))
    assert table["id"].to_pylist() == [100, 102]
    assert report.committed.bad_rows == 1
    [row] = [json.loads(line) for line in (tmp_path / "out/_quarantine/part-00000000.jsonl").read_text().splitlines()]
    assert row == {
        "file": "a.parquet",
        "position": 1,
        "reason": "the text is null (column 'text')",
        "id": 101,
        "text": None,
    }


def test_a_text_that_is_no_utf8_goes_to_quarantine(embed: Embed) -> None:
    raw = pa.array([b"a dog", b"caf\xe9", b"the cat"], pa.binary())
    texts = pa.Array.from_buffers(pa.string(), 3, raw.buffers())  # Arrow does not look inside
    report, table = embed(pa.table({"id": ["a", "b", "c"], "text": texts}))
    assert table["id"].to_pylist() == ["a", "c"]
    assert [row.reason for row in report.bad] == ["column 'text': invalid UTF-8 at byte 3 of the text"]


def test_a_line_without_an_id_goes_to_quarantine(tmp_path: Path, tiny_checkpoint: Path) -> None:
    worker = make_embedder(tmp_path, tiny_checkpoint, dataset())
    lines = ['{"id": 1, "text": "a dog"}', '{"ID": 2, "text": "blue"}', '{"id": null, "text": "red"}']
    (tmp_path / "in/a.jsonl").write_text("\n".join(lines))
    report = worker.process(Unit(0, "a.jsonl", 0, None), silent)
    assert pq.read_table(tmp_path / "out" / report.committed.file)["id"].to_pylist() == [1, None]
    assert [(row.position, row.reason) for row in report.bad] == [(27, "the line lacks column 'id'")]


def test_a_row_that_the_model_refuses_goes_to_quarantine_alone(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make_embedder(tmp_path, tiny_checkpoint, dataset())
    tokenize = worker.model.prepare

    def picky(texts: list[str], prompt: str | None, **options: Any) -> Any:
        if "blue" in texts:
            raise RuntimeError("no blue, please")
        return tokenize(texts, prompt, **options)

    monkeypatch.setattr(worker.model, "prepare", picky)
    report = worker.process(Unit(0, "a.parquet", 0, 8), silent)
    assert [(row.id, row.reason, row.text) for row in report.bad] == [(107, "RuntimeError: no blue, please", "blue")]
    assert report.committed.rows == 7


def test_a_model_that_refuses_all_rows_is_at_fault_itself(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make_embedder(tmp_path, tiny_checkpoint, dataset())

    def broken(texts: list[str], prompt: str | None, **options: Any) -> Any:
        raise RuntimeError("no device")

    monkeypatch.setattr(worker.model, "prepare", broken)
    with pytest.raises(RuntimeError, match="no device"):
        worker.process(Unit(0, "a.parquet", 0, 8), silent)
    assert list((tmp_path / "out/data").iterdir()) == []


def test_an_embedding_that_is_not_finite_goes_to_quarantine(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make_embedder(tmp_path, tiny_checkpoint, dataset(), precision="float16")
    embed_prepared = worker.model.embed_prepared

    def spoiled(tokens: Any, **options: Any) -> Any:
        run = embed_prepared(tokens, **options)
        run.embeddings[tokens.lengths == 7] *= 1e6  # too large for float16
        return run

    monkeypatch.setattr(worker.model, "embed_prepared", spoiled)
    report = worker.process(Unit(0, "a.parquet", 0, 8), silent)
    assert [(row.id, row.text) for row in report.bad] == [(104, "the slow red cat ran")]
    assert report.committed.rows == 7


def test_a_broken_device_is_no_rows_fault(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make_embedder(tmp_path, tiny_checkpoint, dataset())

    def broken(tokens: Any, **options: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(worker.model, "embed_prepared", broken)
    with pytest.raises(BrokenDeviceError, match="illegal memory access"):
        worker.process(Unit(0, "a.parquet", 0, 8), silent)


def test_joins_several_text_columns(embed: Embed, tiny_checkpoint: Path) -> None:
    columns = {"id": [1, 2, 3], "title": ["a dog", None, None], "text": ["ran fast", "the cat", None]}
    report, table = embed(columns, text_columns=("title", "text"))
    expected = SentenceTransformer(str(tiny_checkpoint)).encode(["a dog\nran fast", "the cat"])
    assert_array_equal(vectors(table), expected)
    assert [row.reason for row in report.bad] == ["the text is null (column 'title' and 'text')"]


def test_a_unit_of_bad_rows_only_still_has_a_file(embed: Embed) -> None:
    report, table = embed(dataset([None, None]))
    assert (report.committed.rows, report.committed.bad_rows) == (0, 2)
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 16)


@pytest.mark.parametrize(
    ("precision", "kind", "width"),
    [
        ("float16", pa.float16(), 16),
        ("int8", pa.int8(), 16),
        ("uint8", pa.uint8(), 16),
        ("binary", pa.int8(), 2),
        ("ubinary", pa.uint8(), 2),
    ],
)
def test_quantizes(tmp_path: Path, tiny_checkpoint: Path, precision: str, kind: pa.DataType, width: int) -> None:
    worker = make_embedder(tmp_path, tiny_checkpoint, dataset(), precision=precision)
    exact = SentenceTransformer(str(tiny_checkpoint)).encode(TEXTS)
    ranges = None
    if precision in ("int8", "uint8"):
        found = worker.calibrate([Unit(0, "a.parquet", 0, 8)], silent, 5)
        assert found["rows"] == 5
        ranges = np.array([found["min"], found["max"]])
        assert_allclose(ranges, [exact[:5].min(0), exact[:5].max(0)], atol=1e-6)
        (tmp_path / "out/_manifest").mkdir(parents=True)
        (tmp_path / "out/_manifest/calibration.json").write_text(json.dumps(found))
    report = worker.process(Unit(0, "a.parquet", 0, 8), silent)
    table = pq.read_table(tmp_path / "out" / report.committed.file)
    assert table.schema.field("embedding").type == pa.list_(kind, width)
    if precision == "float16":
        assert_array_equal(vectors(table), exact.astype(np.float16))
    else:
        assert_array_equal(vectors(table), quantize_embeddings(exact, precision, ranges=ranges))


def test_prompt_truncation_and_normalization_are_those_of_encode(embed: Embed, tiny_checkpoint: Path) -> None:
    _, table = embed(dataset(), prompt="the red ", truncate_dim=8, normalize=True)
    model = SentenceTransformer(str(tiny_checkpoint))
    expected = model.encode(TEXTS, prompt="the red ", truncate_dim=8, normalize_embeddings=True)
    assert_array_equal(vectors(table), expected)


def test_the_metadata_says_what_made_the_embeddings(embed: Embed, tiny_checkpoint: Path) -> None:
    _, table = embed(dataset(), facts={"model": "tiny", "pooling": ["mean"]}, max_seq_length=8)
    facts = json.loads(table.schema.metadata[b"sbert_ray"])
    assert facts["revision"] == resolve_checkpoint(tiny_checkpoint).revision
    assert {
        name: facts[name] for name in ("model", "pooling", "dimension", "max_seq_length", "precision", "dtype")
    } == {
        "model": "tiny",
        "pooling": ["mean"],
        "dimension": 16,
        "max_seq_length": 8,
        "precision": "float32",
        "dtype": "float32",
    }
    assert set(facts["versions"]) >= {"sbert-ray", "torch", "transformers"}


def test_the_same_unit_gives_the_same_bytes(tmp_path: Path, tiny_checkpoint: Path) -> None:
    digests = set()
    for turn in range(2):
        folder = tmp_path / str(turn)
        folder.mkdir()
        worker = make_embedder(folder, tiny_checkpoint, dataset())
        digests.add(worker.process(Unit(0, "a.parquet", 0, 8), silent).committed.sha256)
    assert len(digests) == 1


def test_another_model_on_this_node_is_refused(tmp_path: Path, tiny_checkpoint: Path) -> None:
    config = EmbedderConfig(model=str(tiny_checkpoint), revision="sha256:other", is_local=True, text_columns=("text",))
    reader = make_embedder(tmp_path, tiny_checkpoint, dataset()).reader
    with pytest.raises(InputError, match=r"is sha256:.* on this node, but the run began with sha256:other"):
        Embedder(reader, f"{tmp_path}/out", config)


def test_tokenizing_gives_signs_of_life(tmp_path: Path, tiny_checkpoint: Path) -> None:
    worker = make_embedder(
        tmp_path, tiny_checkpoint, dataset([f"the cat {number}" for number in range(2 * CHUNK_ROWS + 1)])
    )
    beats: list[int] = []
    worker.process(Unit(0, "a.parquet", 0, 2 * CHUNK_ROWS + 1), beats.append)
    assert (beats[:3], sum(beats)) == ([0, 0, 0], 2 * CHUNK_ROWS + 1)


def test_a_megabyte_of_text_is_cut_like_any_other(embed: Embed) -> None:
    report, table = embed(dataset(["the cat " * 131072, "a dog"]))
    assert report.stats["truncated_texts"] == 1
    assert np.isfinite(vectors(table)).all()


def test_probing_writes_nothing(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = make_embedder(tmp_path, tiny_checkpoint, dataset())
    unit = Unit(0, "a.parquet", 2, 6)
    assert worker.positions(unit, silent) == [2, 3, 4, 5]
    worker.probe(unit, silent, [3, 4])
    monkeypatch.setattr(worker, "prepare", lambda rows, beat, watch: 1 / 0)
    worker.probe(unit, silent, [3, 4])  # an exception is no death
    assert not (tmp_path / "out").exists()
