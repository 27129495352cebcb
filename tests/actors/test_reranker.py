"""The reranking worker, in this process: three layouts of candidates, the same scores and ranks."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import transformers

from actors.reranker import Reranker, RerankerConfig
from actors.worker import UnitReport
from sbert_ray import CrossEncoder
from sbert_ray.data.candidates import Candidates
from sbert_ray.data.dataset import Dataset
from sbert_ray.data.errors import InputError
from sbert_ray.data.lookup import LookupSource
from sbert_ray.models.checkpoint import resolve_checkpoint
from tests.conftest import tiny_head

QUERIES = {"q1": "the cat", "q2": "a fast dog", "q3": "red"}
DOCUMENTS = {f"d{n}": text for n, text in enumerate(["a cat sat", "the dog ran fast", "red mat", "blue", "cat " * 40])}
CANDIDATES = {"q1": ["d0", "d1", "d4"], "q2": ["d1"], "q3": ["d3", "d2", "d0", "d1", "d2"]}
PAIRS = [(query, document) for query, documents in CANDIDATES.items() for document in documents]


def silent(num_rows: int) -> None:
    """Take a sign of life."""


def write(folder: Path, name: str, **columns: Any) -> str:
    (folder / name).mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / name / "a.parquet")
    return str(folder / name)


def layout_of(name: str, folder: Path) -> Candidates:
    """Write the candidates in a layout, and return where they are."""
    if name == "pairs":
        columns = {"qid": [q for q, _ in PAIRS], "did": [d for _, d in PAIRS]}
        write(folder, "in", **columns, query=[QUERIES[q] for q, _ in PAIRS], document=[DOCUMENTS[d] for _, d in PAIRS])
        return Candidates("pairs", "query", "document", "qid", "did")
    if name == "lists":
        texts = [[DOCUMENTS[d] for d in documents] for documents in CANDIDATES.values()]
        columns = {"qid": list(QUERIES), "query": list(QUERIES.values()), "did": list(CANDIDATES.values())}
        write(folder, "in", **columns, document=texts)
        return Candidates("lists", "query", "document", "qid", "did")
    write(folder, "in", qid=[q for q, _ in PAIRS], did=[d for _, d in PAIRS])
    queries = write(folder, "queries", qid=list(QUERIES), query=list(QUERIES.values()))
    documents = write(folder, "documents", did=list(DOCUMENTS), document=list(DOCUMENTS.values()))
    sources = (LookupSource.of(queries, "qid", "query"), LookupSource.of(documents, "did", "document"))
    return Candidates("ids", "qid", "did", "qid", "did", *sources)


def rerank(folder: Path, checkpoint: Path, candidates: Candidates, **options: Any) -> tuple[UnitReport, pa.Table]:
    dataset = Dataset.open(f"{folder}/in", [], candidates.columns)
    revision = resolve_checkpoint(checkpoint).revision
    config = RerankerConfig(
        model=str(checkpoint), model_type="CrossEncoder", revision=revision, is_local=True, device="cpu",
        candidates=candidates, **options,
    )  # fmt: skip
    worker = Reranker(dataset.reader(100), f"{folder}/out", config)
    [unit] = dataset.units(100)
    report = worker.process(unit, silent)
    worker.close()
    return report, pq.read_table(folder / "out" / report.committed.file)


def expected(checkpoint: Path, top_k: int | None = None, **options: Any) -> list[dict[str, Any]]:
    model = CrossEncoder(str(checkpoint), device="cpu")
    rows = []
    for query, documents in CANDIDATES.items():
        hits = model.rank(QUERIES[query], [DOCUMENTS[d] for d in documents], top_k=top_k, **options)
        for rank, hit in enumerate(hits, start=1):
            document = documents[hit["corpus_id"]]
            rows.append({"query_id": query, "doc_id": document, "score": pytest.approx(hit["score"]), "rank": rank})
    return rows


@pytest.mark.parametrize("layout", ["pairs", "lists", "ids"])
@pytest.mark.parametrize("top_k", [None, 2])
def test_ranks_as_the_model_does(
    layout: str, top_k: int | None, tmp_path: Path, tiny_cross_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "disk"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "disk").mkdir()
    report, table = rerank(tmp_path, tiny_cross_encoder, layout_of(layout, tmp_path), top_k=top_k)
    assert table.to_pylist() == expected(tiny_cross_encoder, top_k)
    assert table.schema.remove_metadata() == pa.schema(
        {"query_id": pa.string(), "doc_id": pa.string(), "score": pa.float32(), "rank": pa.int32()}
    )
    stats = report.stats
    assert (stats["pairs"], stats["queries"]) == (9, 3)
    assert stats["rows"] == (3 if layout == "lists" else 9)
    assert stats["truncated_texts"] == 1
    left = [path for path in (tmp_path / "disk").rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert not left  # the texts on this machine are gone with the worker


@pytest.mark.parametrize("layout", ["pairs", "lists"])
def test_ids_may_be_left_out(layout: str, tmp_path: Path, tiny_cross_encoder: Path) -> None:
    layout_of(layout, tmp_path)
    _, table = rerank(tmp_path, tiny_cross_encoder, Candidates(layout, "query", "document"))  # type: ignore[arg-type]
    assert table["query_id"].unique().to_pylist() == list(QUERIES.values())
    numbers = list(range(9)) if layout == "pairs" else [0, 1, 2, 0, 0, 1, 2, 3, 4]
    assert sorted(table["doc_id"].to_pylist()) == sorted(numbers)


def test_options_reach_the_model(tmp_path: Path, tiny_cross_encoder: Path) -> None:
    candidates = layout_of("pairs", tmp_path)
    _, table = rerank(tmp_path, tiny_cross_encoder, candidates, prompt="red ", activation="identity", max_seq_length=8)
    model = CrossEncoder(str(tiny_cross_encoder), device="cpu", max_length=8)
    pairs = [[QUERIES[q], DOCUMENTS[d]] for q, d in PAIRS]
    scores = model.predict(pairs, prompt="red ", activation_fn=lambda logits: logits)
    found = {(row["query_id"], row["doc_id"]): row["score"] for row in table.to_pylist()}
    assert found == {pair: pytest.approx(score) for pair, score in zip(PAIRS, scores, strict=True)}


def test_bad_rows_go_to_quarantine_and_the_others_are_ranked(tmp_path: Path, tiny_cross_encoder: Path) -> None:
    write(tmp_path, "in", qid=["q1", "q1", "q1", None, "q2"], query=["a cat"] * 4 + [None],
          document=["a dog", None, "the cat", "red", "blue"])  # fmt: skip
    report, table = rerank(tmp_path, tiny_cross_encoder, Candidates("pairs", "query", "document", "qid"))
    assert sorted(table["doc_id"].to_pylist()) == [0, 2]
    assert table["rank"].to_pylist() == [1, 2]
    assert [(row.position, row.id, row.reason) for row in report.bad] == [
        (1, "q1", "column 'document' is null"),
        (3, None, "column 'qid' is null"),
        (4, "q2", "column 'query' is null"),
    ]


def test_a_list_with_a_null_and_lists_that_do_not_fit_are_bad(tmp_path: Path, tiny_cross_encoder: Path) -> None:
    documents = [["a", None], ["a", "the"], [], ["red"]]
    write(tmp_path, "in", query=["a cat", "a dog", "red", "blue"], document=documents, did=[[1, 2], [1], [], [7]])
    report, table = rerank(tmp_path, tiny_cross_encoder, Candidates("lists", "query", "document", None, "did"))
    assert table.select(["query_id", "doc_id", "rank"]).to_pylist() == [{"query_id": "blue", "doc_id": 7, "rank": 1}]
    assert [row.reason for row in report.bad] == [
        "column 'document': item 1 of the list is null",
        "'document' and 'did' are lists of different lengths",
    ]


def test_an_id_without_a_text_is_bad(tmp_path: Path, tiny_cross_encoder: Path) -> None:
    candidates = layout_of("ids", tmp_path)
    write(tmp_path, "in", qid=["q1", "q1", "q9"], did=["d0", "d77", "d1"])
    report, table = rerank(tmp_path, tiny_cross_encoder, candidates)
    assert table["doc_id"].to_pylist() == ["d0"]
    assert [row.reason for row in report.bad] == [
        f"document 'd77' is not in column 'did' of {tmp_path}/documents, or its text is null",
        f"query 'q9' is not in column 'qid' of {tmp_path}/queries, or its text is null",
    ]


def test_equal_scores_keep_their_order(tmp_path: Path, tiny_cross_encoder: Path) -> None:
    write(tmp_path, "in", query=["a cat"] * 6, document=["red", "blue", "red", "blue", "red", "blue"])
    _, table = rerank(tmp_path, tiny_cross_encoder, Candidates("pairs", "query", "document"))
    assert table["doc_id"].to_pylist() in ([0, 2, 4, 1, 3, 5], [1, 3, 5, 0, 2, 4])


def test_a_model_with_several_scores_is_refused(tmp_path: Path, tiny_checkpoint: Path) -> None:
    model = tiny_head(tiny_checkpoint, tmp_path / "model", "BertForSequenceClassification", num_labels=3)
    with pytest.raises(InputError, match="must give one score a pair, and gives 3"):
        rerank(tmp_path, model, layout_of("pairs", tmp_path))


def test_a_score_that_is_no_number_takes_its_row_to_quarantine(
    tmp_path: Path, tiny_cross_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = CrossEncoder.score_prepared

    def spoiled(self: Any, prepared: Any, **options: Any) -> Any:
        run = score(self, prepared, **options)
        run.embeddings[prepared.lengths == 8] = np.nan
        return run

    monkeypatch.setattr(CrossEncoder, "score_prepared", spoiled)
    write(tmp_path, "in", query=["a", "a cat"], document=["a dog", "the cat ran"])  # 6 and 8 tokens
    report, table = rerank(tmp_path, tiny_cross_encoder, Candidates("pairs", "query", "document"))
    assert table["query_id"].to_pylist() == ["a"]
    assert [(row.position, row.reason) for row in report.bad] == [(1, "a score is no finite number")]


def test_a_model_whose_head_is_new_is_refused(tiny_cross_encoder: Path, tmp_path: Path) -> None:
    """Its files say that it is a cross-encoder, its weights do not."""
    CrossEncoder(str(tiny_cross_encoder), device="cpu").save_pretrained(str(tmp_path / "model"))
    transformers.BertModel.from_pretrained(tiny_cross_encoder).save_pretrained(tmp_path / "model")
    with pytest.raises(
        InputError, match=r"lack \[.*'classifier.bias', 'classifier.weight'\], which would start at random"
    ):
        rerank(tmp_path, tmp_path / "model", layout_of("pairs", tmp_path))
