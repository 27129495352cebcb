"""The reranking job on a local Ray, from candidates to proven ranks."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import JOBS
from jobs.rerank import RerankJob
from jobs.verify import VerifyJob
from sbert_ray import CrossEncoder
from sbert_ray.data.verify import verify
from tests.conftest import tiny_head
from tests.jobs.conftest import Command
from tests.jobs.toy import digests

WORDS = "a the cat dog sat ran on mat fast slow red blue".split()


def texts(count: int, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(4, 12))) for _ in range(count)]


QUERIES = dict(zip(range(100, 130), texts(30, 0), strict=True))
DOCUMENTS = dict(zip((f"d{row}" for row in range(200)), texts(200, 1), strict=True))
CANDIDATES = [
    (query, document)
    for row, query in enumerate(QUERIES)
    for document in np.random.default_rng(row).choice(list(DOCUMENTS), row % 17 + 1, replace=False).tolist()
]


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Candidates by ids, in rows that a unit of work cuts anywhere, and the tables of texts."""
    columns = {"query_id": [q for q, _ in CANDIDATES], "doc_id": [d for _, d in CANDIDATES]}
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "in/a.parquet", row_group_size=20)
    pq.write_table(pa.table({"query_id": list(QUERIES), "query": list(QUERIES.values())}), tmp_path / "queries.parquet")
    with (tmp_path / "documents.jsonl").open("w") as file:
        for name, text in DOCUMENTS.items():
            file.write(json.dumps({"doc_id": name, "document": text}) + "\n")
    return tmp_path


def job_of(folder: Path, model: Path, **options: Any) -> RerankJob:
    return RerankJob(model=str(model), input=f"{folder}/in", output=f"{folder}/out", num_workers=2, **options)


def read_output(output: Path) -> list[dict[str, Any]]:
    paths = sorted((output / "data").iterdir())
    return pa.concat_tables([pq.read_table(path) for path in paths]).to_pylist()


def problems(output: Path) -> list[str]:
    *_, verdict = verify(str(output))
    return verdict.problems


@pytest.mark.usefixtures("ray_local")
def test_candidates_by_ids_become_ranks_resume_and_are_proven(tables: Path, tiny_cross_encoder: Path) -> None:
    sources = {"queries": f"{tables}/queries.parquet", "documents": f"{tables}/documents.jsonl"}
    job = job_of(tables, tiny_cross_encoder, top_k=5, rows_per_unit=7, **sources)
    assert job.run() == 0
    found = read_output(tables / "out")
    model = CrossEncoder(str(tiny_cross_encoder), device="cpu")
    for query, text in QUERIES.items():
        documents = [document for owner, document in CANDIDATES if owner == query]
        hits = model.rank(text, [DOCUMENTS[name] for name in documents], top_k=5)
        rows = [row for row in found if row["query_id"] == query]
        assert [row["rank"] for row in rows] == list(range(1, len(hits) + 1))
        assert [row["doc_id"] for row in rows] == [documents[hit["corpus_id"]] for hit in hits]
        assert [row["score"] for row in rows] == pytest.approx([hit["score"] for hit in hits], abs=1e-6)
    assert list(dict.fromkeys(row["query_id"] for row in found)) == list(QUERIES)
    assert problems(tables / "out") == []
    report = json.loads((tables / "out/report.json").read_text())
    assert report["rows"] == {"input": len(CANDIDATES), "output": len(found), "bad": 0, "resumed": 0}
    assert (report["pairs"], report["queries"]) == (len(CANDIDATES), len(QUERIES))
    assert f"{len(CANDIDATES)} pairs of 30 queries, 0 truncated" in (tables / "out/report.html").read_text()
    before = digests(tables / "out")
    lost = sorted((tables / "out/data").iterdir())[3]
    lost.unlink()
    assert f"data/{lost.name}: the file is missing; run the job again" in problems(tables / "out")
    records = tables / "out/_manifest/records-000000.jsonl"
    records.write_text(
        "".join(line for line in records.read_text().splitlines(True) if f"data/{lost.name}" not in line)
    )
    (tables / "out/_SUCCESS").unlink()
    assert job_of(tables, tiny_cross_encoder, top_k=5, rows_per_unit=7, **sources).run() == 0
    assert digests(tables / "out") == before
    assert problems(tables / "out") == []


@pytest.mark.usefixtures("ray_local")
def test_units_do_not_matter(tables: Path, tiny_cross_encoder: Path) -> None:
    columns = {
        "query": [QUERIES[q] for q, _ in CANDIDATES],
        "document": [DOCUMENTS[d] for _, d in CANDIDATES],
        "number": list(range(len(CANDIDATES))),
    }
    pq.write_table(pa.table(columns), tables / "in/a.parquet")
    outputs = []
    for rows_per_unit in (3, 1000):
        job = job_of(tables, tiny_cross_encoder, rows_per_unit=rows_per_unit, doc_id_column="number")
        job = job.model_copy(update={"output": f"{tables}/out-{rows_per_unit}"})
        assert job.run() == 0
        assert problems(Path(job.output)) == []
        outputs.append(read_output(Path(job.output)))
    few, one = outputs
    assert [row | {"score": 0} for row in few] == [row | {"score": 0} for row in one]
    assert [row["score"] for row in few] == pytest.approx([row["score"] for row in one], abs=1e-6)


FAULTS = {
    "scores are not finite, or do not fall": lambda t: t.set_column(2, "score", pa.array(-t["score"].to_numpy())),
    "ranks do not count from 1": lambda t: t.set_column(3, "rank", pa.array(t["rank"].to_numpy() + 1)),
    "query_id is not that of the queries": lambda t: t.set_column(0, "query_id", pa.array([7] * len(t))),
    "doc_id is not among the candidates": lambda t: t.set_column(1, "doc_id", pa.array(["d0"] * len(t))),
    "rows, and the candidates of its queries make": lambda t: t.slice(1),
    r"there are no columns \['rank'\]": lambda t: t.drop_columns(["rank"]),
}


@pytest.mark.usefixtures("ray_local")
def test_verify_finds_what_is_wrong(tables: Path, tiny_cross_encoder: Path, command: Command) -> None:
    sources = {"queries": f"{tables}/queries.parquet", "documents": f"{tables}/documents.jsonl"}
    assert job_of(tables, tiny_cross_encoder, rows_per_unit=100, **sources).run() == 0
    assert command(VerifyJob.main, [f"{tables}/out"]).code == 0
    path = sorted((tables / "out/data").iterdir())[0]
    table, data = pq.read_table(path), path.read_bytes()
    records = tables / "out/_manifest/records-000000.jsonl"
    lines = records.read_text().splitlines()
    for expected, spoil in FAULTS.items():
        pq.write_table(spoil(table), path)
        changed = [json.loads(line) for line in lines]
        for record in changed:
            if record["file"] == f"data/{path.name}":
                spoiled = path.read_bytes()
                record |= {"num_bytes": len(spoiled), "sha256": hashlib.sha256(spoiled).hexdigest()}
                record["rows"] = pq.read_metadata(path).num_rows
        records.write_text("".join(json.dumps(record) + "\n" for record in changed))
        assert any(re.search(expected, problem) for problem in problems(tables / "out")), expected
    path.write_bytes(data)


def test_it_is_a_command() -> None:
    assert JOBS["rerank"][:2] == ("jobs.rerank", "RerankJob")


@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--queries {t}/queries.parquet", "give both queries and documents, or neither"),
        ("", r"lacks column\(s\) \['query', 'document'\]; it has \['query_id', 'doc_id'\]"),
        ("--document-column query_id --query-column doc_id", "'query_id' is int64; it must hold texts or lists of tex"),
        (
            "--queries {t}/queries.parquet --documents {t}/queries.parquet --document-column query",
            r"lacks column\(s\) \['doc_id'\]",
        ),
        ("--queries {t}/queries.parquet --documents {t}/nowhere", "nowhere"),
        ("--queries {t}/queries.parquet --documents {t}", r"--output .*/out lies in the input"),
    ],
)
def test_what_cannot_be_is_said_before_ray_starts(
    arguments: str, message: str, tables: Path, tiny_cross_encoder: Path, command: Command
) -> None:
    given = ["--input", f"{tables}/in", "--output", f"{tables}/out", "--model", str(tiny_cross_encoder)]
    outcome = command(RerankJob.main, [*given, *arguments.format(t=tables).split()])
    assert outcome.code == 2
    assert re.search(message, outcome.err), outcome.err
    assert not (tables / "out").exists()


@pytest.mark.usefixtures("without_ray")
def test_ids_must_have_one_type(tables: Path, tiny_cross_encoder: Path, command: Command) -> None:
    (tables / "documents.jsonl").write_text('{"doc_id": 7, "document": "red"}\n')
    sources = ["--queries", f"{tables}/queries.parquet", "--documents", f"{tables}/documents.jsonl"]
    given = ["--input", f"{tables}/in", "--output", f"{tables}/out", "--model", str(tiny_cross_encoder)]
    outcome = command(RerankJob.main, [*given, *sources])
    assert outcome.code == 2
    assert "'doc_id' is string in the input and int64 in" in outcome.err


@pytest.mark.usefixtures("without_ray")
def test_a_model_with_several_scores_is_refused(tables: Path, tiny_checkpoint: Path, command: Command) -> None:
    model = tiny_head(tiny_checkpoint, tables / "model", "BertForSequenceClassification", num_labels=3)
    sources = ["--queries", f"{tables}/queries.parquet", "--documents", f"{tables}/documents.jsonl"]
    given = ["--input", f"{tables}/in", "--output", f"{tables}/out", "--model", str(model)]
    outcome = command(RerankJob.main, [*given, *sources])
    assert outcome.code == 2
    assert "gives 3 scores a pair; ranking needs one" in outcome.err
