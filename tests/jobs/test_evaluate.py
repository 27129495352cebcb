"""The evaluation job: metrics of a dataset, and what is said of one that is wrong."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from actors.pool import Done, PoolOptions
from jobs.cli import JOBS
from jobs.evaluate import EvaluateJob
from sbert_ray import SentenceTransformer, SparseEncoder
from sbert_ray.data.lease import Lease
from sbert_ray.data.storage import Storage
from sbert_ray.data.verify import verify
from sbert_ray.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator, InformationRetrievalEvaluator
from sbert_ray.sparse_encoder import evaluation as of_sparse
from tests.conftest import tiny_head
from tests.jobs.conftest import Command

WORDS = "a the cat dog sat ran on mat fast slow red blue".split()


def texts(count: int, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(2, 9))) for _ in range(count)]


CORPUS = {f"d{row}": text for row, text in enumerate(texts(120, 1))}
QUERIES = {f"q{row}": text for row, text in enumerate(texts(20, 2))}
RELEVANT = {f"q{row}": {f"d{row * 3}", f"d{row * 5 + 1}"} for row in range(8)}
PAIRS = {
    "sentence1": texts(30, 3),
    "sentence2": texts(30, 4),
    "score": np.random.default_rng(5).normal(size=30).tolist(),
}


class LocalPool:
    """What a pool does, in this process and without Ray."""

    speculations = 0
    rows_in_flight = 0

    def __init__(self, build: Callable[[], Any], options: PoolOptions) -> None:
        self.worker = build()

    def __enter__(self) -> "LocalPool":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def call(self, method: str, *args: Any, on_tick: Callable[[], None] = lambda: None) -> Any:
        on_tick()
        return getattr(self.worker, method)(args[0], lambda _: None, *args[1:])

    def run(self, units: Sequence[Any]) -> Iterator[Done]:
        for unit in units:
            yield Done(unit, self.worker.process(unit, lambda _: None), 1)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let jobs do their work in this process."""
    for module in ("jobs.unit_job", "jobs.evaluation"):
        monkeypatch.setattr(f"{module}.Pool", LocalPool)
        monkeypatch.setattr(f"{module}.start_ray", lambda _: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch, without_ray: None) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("Ray must not start")

    monkeypatch.setattr("jobs.evaluation.start_ray", refuse)
    monkeypatch.setattr("jobs.evaluation.Pool", refuse)


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """A corpus in several files, queries as JSON lines, judgements, and scored pairs."""
    (tmp_path / "corpus").mkdir()
    corpus = pa.table({"_id": list(CORPUS), "text": list(CORPUS.values()), "title": [None] * len(CORPUS)})
    pq.write_table(corpus[:70], tmp_path / "corpus/a.parquet", row_group_size=32)
    pq.write_table(corpus[70:], tmp_path / "corpus/b.parquet")
    lines = (json.dumps({"_id": name, "text": text}) + "\n" for name, text in QUERIES.items())
    (tmp_path / "queries.jsonl").write_text("".join(lines))
    write_qrels(tmp_path, [(query, document, 1) for query, found in RELEVANT.items() for document in sorted(found)])
    pq.write_table(pa.table(PAIRS), tmp_path / "pairs.parquet")
    return tmp_path


def write_qrels(folder: Path, rows: Sequence[tuple[str, str, int]]) -> None:
    names = ("query-id", "corpus-id", "score")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    pq.write_table(pa.table({name: list(values) for name, values in columns.items()}), folder / "qrels.parquet")


def of_retrieval(tables: Path, model: Path, output: str = "out", **options: Any) -> list[str]:
    places = {"queries": "queries.jsonl", "corpus": "corpus", "qrels": "qrels.parquet"}
    given = {"task": "retrieval", "output": tables / output, "model": model, "rows_per_unit": 25}
    given |= {name: tables / place for name, place in places.items()} | options
    return as_flags(given)


def of_pairs(tables: Path, model: Path, output: str = "out", **options: Any) -> list[str]:
    given = {"task": "similarity", "input": tables / "pairs.parquet", "output": tables / output, "model": model}
    return as_flags(given | options)


def as_flags(options: dict[str, Any]) -> list[str]:
    flags: list[str] = []
    for name, value in options.items():
        if value is not None:
            values = value if isinstance(value, list) else [] if value is True else [value]
            flags += [f"--{name.replace('_', '-')}", *map(str, values)]
    return flags


def metrics_in(folder: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / "metrics.json").read_text())["metrics"]
    return found


@pytest.mark.usefixtures("in_process")
def test_metrics_are_those_of_the_evaluator(tables: Path, tiny_checkpoint: Path, command: Command) -> None:
    outcome = command(EvaluateJob.main, of_pairs(tables, tiny_checkpoint))
    assert outcome.code == 0, outcome.err
    evaluator = EmbeddingSimilarityEvaluator(*PAIRS.values())
    model = SentenceTransformer(str(tiny_checkpoint), device="cpu")
    document = json.loads((tables / "out/metrics.json").read_text())
    assert document["metrics"] == pytest.approx(evaluator(model), rel=1e-5)
    assert json.loads(outcome.out) == document["metrics"]
    assert document["primary_metric"] == evaluator.primary_metric == "spearman_cosine"
    assert document["primary_value"] == document["metrics"]["spearman_cosine"]
    assert document["model"]["revision"].startswith("sha256:")
    assert document["counts"] == {"input": 30}
    assert document["dataset"] == {"input": f"{tables}/pairs.parquet"}
    assert {"total", "embed", "work", "read", "evaluate"} == set(document["seconds"])
    assert {"torch", "ray", "sbert-ray"} <= set(document["versions"])


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_retrieval_ranks_what_it_embeds(
    kind: str, tables: Path, tiny_checkpoint: Path, tiny_splade: Path, command: Command
) -> None:
    folder = tiny_checkpoint if kind == "dense" else tiny_splade
    prompts = {"query_prompt": "fast ", "document_prompt": "the red "}
    outcome = command(EvaluateJob.main, of_retrieval(tables, folder, kind=kind, **prompts))
    assert outcome.code == 0, outcome.err
    given = {"prompts": {"query": "fast ", "document": "the red "}}
    if kind == "dense":
        expected = InformationRetrievalEvaluator(QUERIES, CORPUS, RELEVANT)(SentenceTransformer(str(folder), **given))
    else:
        evaluator = of_sparse.SparseInformationRetrievalEvaluator(QUERIES, CORPUS, RELEVANT)
        expected = evaluator(SparseEncoder(str(folder), **given))
    assert metrics_in(tables / "out") == pytest.approx(expected, rel=1e-5)
    document = json.loads((tables / "out/metrics.json").read_text())
    assert document["counts"] == {"queries": 8, "relevant": 16, "documents": 120}
    assert document["prompts"] == {"query": "fast ", "document": "the red "}
    assert pq.read_metadata(tables / "out/queries/judged.parquet").num_rows == 8  # the others are not embedded
    for verdict in verify(str(tables / "out/corpus_embeddings")):
        assert not verdict.problems


@pytest.mark.usefixtures("in_process")
def test_a_rerun_embeds_nothing_again(tables: Path, tiny_checkpoint: Path, command: Command) -> None:
    arguments = of_retrieval(tables, tiny_checkpoint)
    assert command(EvaluateJob.main, arguments).code == 0
    first = metrics_in(tables / "out")
    outcome = command(EvaluateJob.main, arguments)
    assert json.loads(outcome.out) == first  # told again, and not computed

    (tables / "out/metrics.json").unlink()
    lost = tables / "out/corpus_embeddings/data/part-00000001.parquet"
    lost.unlink()
    assert command(EvaluateJob.main, arguments).code == 0
    assert metrics_in(tables / "out") == first
    lines = (tables / "out/corpus_embeddings/_manifest/records-000000.jsonl").read_text().splitlines()
    assert {record["unit"]: record["run"] for record in map(json.loads, lines)} == {
        0: 0,
        1: 1,
        **dict.fromkeys(range(2, 7), 0),
    }


@pytest.mark.usefixtures("in_process")
def test_other_queries_need_another_output(tables: Path, tiny_checkpoint: Path, command: Command) -> None:
    assert command(EvaluateJob.main, of_retrieval(tables, tiny_checkpoint)).code == 0
    (tables / "out/metrics.json").unlink()
    before = (tables / "out/queries/judged.parquet").read_bytes()
    outcome = command(EvaluateJob.main, of_retrieval(tables, tiny_checkpoint, limit=3))
    assert outcome.code == 2
    assert re.search("judged.parquet has other queries than are judged now; give a new output", outcome.err)
    assert (tables / "out/queries/judged.parquet").read_bytes() == before


@pytest.mark.usefixtures("in_process")
def test_embeddings_are_made_once_and_evaluated_often(tables: Path, tiny_checkpoint: Path, command: Command) -> None:
    assert command(EvaluateJob.main, of_retrieval(tables, tiny_checkpoint)).code == 0
    given = {name: tables / "out" / name for name in ("query_embeddings", "corpus_embeddings")}
    places = {"task": "retrieval", "qrels": tables / "qrels.parquet", "output": tables / "again"}
    outcome = command(EvaluateJob.main, as_flags({**places, **given, "at_k": [3, 10], "similarity": ["dot"]}))
    assert outcome.code == 0, outcome.err
    found, before = metrics_in(tables / "again"), metrics_in(tables / "out")
    assert found["dot_ndcg@10"] == pytest.approx(before["cosine_ndcg@10"])  # of embeddings of length 1
    assert "dot_map@3" in found
    document = json.loads((tables / "again/metrics.json").read_text())
    assert document["model"]["name"] == str(tiny_checkpoint)

    # The corpus alone is given, and queries are embedded by the same model, or not at all.
    mixed = of_retrieval(tables, tiny_checkpoint, "mixed", corpus=None, corpus_embeddings=given["corpus_embeddings"])
    assert command(EvaluateJob.main, mixed).code == 0
    assert metrics_in(tables / "mixed") == before
    other = tables / "other"
    SentenceTransformer(str(tiny_checkpoint), prompts={"query": "red"}).save_pretrained(str(other))
    mixed = of_retrieval(tables, other, "mixed2", corpus=None, corpus_embeddings=given["corpus_embeddings"])
    outcome = command(EvaluateJob.main, mixed)
    assert outcome.code == 2
    assert re.search("corpus_embeddings was embedded by .* at sha256:.*, and --model is at sha256:", outcome.err)


@pytest.mark.usefixtures("in_process")
def test_an_output_of_another_evaluation_is_refused(tables: Path, tiny_checkpoint: Path, command: Command) -> None:
    assert command(EvaluateJob.main, of_pairs(tables, tiny_checkpoint)).code == 0
    before = (tables / "out/metrics.json").read_bytes()
    outcome = command(EvaluateJob.main, of_pairs(tables, tiny_checkpoint, limit=7, similarity=["dot"]))
    assert outcome.code == 2
    assert "of an evaluation of another input or with other settings" in outcome.err
    assert "limit: null -> 7\n" in outcome.err
    assert 'similarity: [] -> ["dot"]\n' in outcome.err
    assert (tables / "out/metrics.json").read_bytes() == before
    (tables / "out/metrics.json").write_text("{}")
    outcome = command(EvaluateJob.main, of_pairs(tables, tiny_checkpoint))
    assert outcome.code == 2
    assert re.search(r"metrics.json is not of an evaluation: KeyError\('job'\); give a new output", outcome.err)


@pytest.mark.usefixtures("nothing_starts")
def test_a_second_run_on_one_output_is_fenced_off(tables: Path, tiny_checkpoint: Path, command: Command) -> None:
    with Lease(Storage(str(tables / "out"))):
        outcome = command(EvaluateJob.main, of_pairs(tables, tiny_checkpoint))
    assert outcome.code == 75


@pytest.mark.usefixtures("in_process")
def test_columns_are_chosen_by_role(tables: Path, tiny_checkpoint: Path, command: Command) -> None:
    names = {"sentence1": "premise", "sentence2": "hypothesis", "score": "gold"}
    pq.write_table(pa.table({names[name]: values for name, values in PAIRS.items()}), tables / "other.parquet")
    columns = [f"{role}={column}" for role, column in names.items()]
    assert command(EvaluateJob.main, of_pairs(tables, tiny_checkpoint)).code == 0
    arguments = of_pairs(tables, tiny_checkpoint, "other", input=tables / "other.parquet", columns=columns)
    assert command(EvaluateJob.main, arguments).code == 0
    assert metrics_in(tables / "other") == metrics_in(tables / "out")


@pytest.mark.usefixtures("in_process")
def test_unknown_ids_are_left_out_if_that_is_asked_for(tables: Path, tiny_checkpoint: Path, command: Command) -> None:
    rows = [(query, document, 1) for query, found in RELEVANT.items() for document in sorted(found)]
    write_qrels(tables, [*rows, ("q1", "gone", 1), ("gone", "d1", 1), ("q9", "gone", 1), ("q10", "d1", 0)])
    assert command(EvaluateJob.main, of_retrieval(tables, tiny_checkpoint, allow_unknown_ids=True)).code == 0
    document = json.loads((tables / "out/metrics.json").read_text())
    assert document["counts"] == {"queries": 8, "relevant": 16, "documents": 120}


@pytest.mark.usefixtures("in_process")
def test_queries_are_limited(tables: Path, tiny_checkpoint: Path, command: Command) -> None:
    assert command(EvaluateJob.main, of_retrieval(tables, tiny_checkpoint, limit=3)).code == 0
    document = json.loads((tables / "out/metrics.json").read_text())
    assert document["counts"]["queries"] == 3


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qrels": "{t}/nowhere"}, "nowhere"),
        ({"qrels": "{t}/pairs.parquet"}, r"lacks column\(s\) \['query-id', 'corpus-id'\]"),
        (
            {"corpus": "{t}/queries.jsonl"},
            r"judges 14 documents that are not in .*queries.jsonl: 'd0', 'd1', 'd11', ...",
        ),
        ({"queries": "{t}/corpus"}, r"judges 8 queries that are not in .*/corpus: 'q0', 'q1', 'q2', ...; mend it, or"),
        ({"columns": ["corpus_text=body"]}, r"lacks column\(s\) \['body'\]"),
        ({"columns": ["body=text"]}, r"retrieval has no role 'body'; its roles are \['query_id', 'query_text', "),
        ({"columns": ["body"]}, "must be ROLE=COLUMN, got 'body'"),
        ({"columns": ["query_id=a", "query_id=b"]}, r"query_id must have one column, got \['a', 'b'\]"),
        ({"input": "{t}/pairs.parquet"}, "input is not for retrieval, which reads"),
        ({"queries": None}, "retrieval needs queries or query_embeddings"),
        ({"query_embeddings": "{t}/out"}, "retrieval needs queries or query_embeddings, not both"),
        ({"model": None}, "model is needed"),
        ({"prompt": "x"}, "retrieval has query_prompt and document_prompt instead of prompt and prompt_name"),
        ({"similarity": ["cos"]}, "--similarity.*: Input should be 'cosine', 'dot', 'euclidean' or 'manhattan'"),
        ({"at_k": [0]}, "--at-k.*: Input should be greater than 0"),
        ({"num_gpus_per_worker": 1.5}, "--num-gpus-per-worker.*: must be at most 1, or a whole number"),
        ({"num_cpus_per_worker": 0}, "--num-cpus-per-worker.*: Input should be greater than 0"),
        ({"max_bad_rows": -1}, "--max-bad-rows.*: Input should be greater than or equal to 0"),
        ({"teacher": "{t}"}, "teacher is needed for mse, and only there"),
        ({"kind": "cross-encoder"}, r"retrieval is for models of kind \['dense', 'sparse'\], and .* is cross-encoder"),
        ({"max_active_dims": 3}, "--max-active-dims is for sparse models"),
        ({"truncate_dim": 99}, "--truncate-dim must be at most the model's 16, got 99"),
        ({"model": "{t}/corpus"}, "--model: "),
        ({"output": "{t}/corpus/out"}, "lies in the input"),
        ({"task": "nonsense"}, "invalid choice: 'nonsense'"),
    ],
    ids=str,
)
def test_what_cannot_be_is_said_before_any_worker_starts(
    change: dict[str, Any], message: str, tables: Path, tiny_checkpoint: Path, command: Command
) -> None:
    made = {name: value.format(t=tables) if isinstance(value, str) else value for name, value in change.items()}
    outcome = command(
        EvaluateJob.main,
        of_retrieval(tables, tiny_checkpoint, **made) if "model" not in made else of_retrieval(tables, **made),
    )
    assert outcome.code == 2
    assert re.search(message, outcome.err), outcome.err
    assert not (tables / "out").exists()


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize(
    ("task", "columns", "options", "message"),
    [
        ("similarity", {"score": ["a"] * 30}, {}, "column 'score' is string; as score it must hold numbers"),
        ("similarity", {"score": [None] + [0.5] * 29}, {}, r"pairs.parquet, row 0, column 'score': must be a finite"),
        (
            "binary_classification",
            {"label": [0] * 9 + [3] * 21},
            {},
            "row 9, column 'label': a label must be 0 or 1, got 3",
        ),
        ("triplet", {}, {}, r"lacks column\(s\) \['anchor', 'positive', 'negative'\]"),
        (
            "similarity",
            {},
            {"query_prompt": "x"},
            "query_prompt and document_prompt are not for similarity; see prompt",
        ),
        ("similarity", {}, {"at_k": [3]}, r"at_k is for \['retrieval', 'reranking'\]"),
        ("similarity", {}, {"prompt": "x", "prompt_name": "y"}, "give prompt or prompt_name, not both"),
        ("similarity", {}, {"prompt_name": "y"}, r"--prompt-name: .* has no prompt 'y'; it has \["),
        ("similarity", {}, {"duplicates": "/x"}, r"duplicates is not for similarity, which reads \['input'\]"),
        ("similarity", {}, {"corpus_embeddings": "/x"}, "corpus is not for similarity"),
        ("reranking", {}, {"at_k": [3, 5]}, r"at_k must be one for reranking, got \[3, 5\]"),
        ("reranking", {}, {"columns": ["documents=x"]}, "documents is for cross-encoders, and the model is dense"),
        ("paraphrase_mining", {}, {}, "paraphrase_mining needs duplicates"),
        ("mse", {}, {}, "teacher is needed for mse, and only there"),
    ],
    ids=str,
)
def test_a_wrong_table_is_named_before_any_worker_starts(
    task: str,
    columns: dict[str, Any],
    options: dict[str, Any],
    message: str,
    tables: Path,
    tiny_checkpoint: Path,
    command: Command,
) -> None:
    pq.write_table(pa.table({**PAIRS, **columns}), tables / "pairs.parquet")
    outcome = command(EvaluateJob.main, of_pairs(tables, tiny_checkpoint, task=task, **options))
    assert outcome.code == 2
    assert re.search(message, outcome.err), outcome.err
    assert not (tables / "out").exists()


@pytest.mark.usefixtures("nothing_starts")
def test_ids_are_looked_through(tables: Path, tiny_checkpoint: Path, command: Command) -> None:
    pq.write_table(pa.table({"id": [1, 2, 1], "text": ["a", "the", "cat"]}), tables / "pairs.parquet")
    pq.write_table(pa.table({"id1": [1, 2], "id2": [2, 5]}), tables / "duplicates.parquet")
    given = {"task": "paraphrase_mining", "duplicates": tables / "duplicates.parquet"}
    outcome = command(EvaluateJob.main, of_pairs(tables, tiny_checkpoint, **given))
    assert re.search(r"pairs.parquet: each id must be there once, got '1' again", outcome.err), outcome.err
    pq.write_table(pa.table({"id": [1, 2, 3], "text": ["a", "the", "cat"]}), tables / "pairs.parquet")
    outcome = command(EvaluateJob.main, of_pairs(tables, tiny_checkpoint, **given))
    assert re.search(r"duplicates.parquet names 1 ids that are not in .*pairs.parquet: '5'; mend it", outcome.err)
    with (tables / "queries.jsonl").open("a") as file:
        file.write(json.dumps({"_id": "q1", "text": "a"}) + "\n")
    outcome = command(EvaluateJob.main, of_retrieval(tables, tiny_checkpoint))
    assert re.search(r"queries.jsonl: each id must be there once, got 'q1' again", outcome.err)


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize(("option", "value"), [("similarity", ["dot"]), ("truncate_dim", 4)])
def test_what_is_for_embeddings_is_refused_of_a_cross_encoder(
    option: str, value: Any, tables: Path, tiny_cross_encoder: Path, command: Command
) -> None:
    outcome = command(EvaluateJob.main, of_pairs(tables, tiny_cross_encoder, **{option: value}))
    assert outcome.code == 2
    assert re.search(rf"--{option.replace('_', '-')}: not for cross-encoders such as", outcome.err), outcome.err


@pytest.mark.usefixtures("in_process")
def test_a_classifier_is_told_by_its_checkpoint(tables: Path, tiny_checkpoint: Path, command: Command) -> None:
    """It may have several classes, and labels are of them."""
    model = tiny_head(tiny_checkpoint, tables / "model", "BertForSequenceClassification", num_labels=3)
    labels = [row % 3 for row in range(30)]
    pq.write_table(pa.table({**PAIRS, "label": labels}), tables / "pairs.parquet")
    outcome = command(EvaluateJob.main, of_pairs(tables, model))
    assert outcome.code == 2
    assert "gives 3 scores a pair; similarity needs one" in outcome.err
    outcome = command(EvaluateJob.main, of_pairs(tables, model, task="binary_classification"))
    assert outcome.code == 0, outcome.err
    assert set(metrics_in(tables / "out")) == {"f1_macro", "f1_micro", "f1_weighted"}


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize("make", [of_pairs, of_retrieval])
def test_a_dry_run_says_what_would_be_done(make: Any, tables: Path, tiny_checkpoint: Path, command: Command) -> None:
    outcome = command(EvaluateJob.main, make(tables, tiny_checkpoint, dry_run=True))
    assert outcome.code == 0, outcome.err
    assert '"model_revision": "sha256:' in outcome.out
    assert not (tables / "out").exists()


def test_a_config_file_has_columns_as_a_mapping(tmp_path: Path) -> None:
    config = tmp_path / "evaluate.yaml"
    config.write_text(
        "task: retrieval\nmodel: m\noutput: /o\nqueries: /q\ncorpus: /c\nqrels: /r\n"
        "columns:\n  corpus_text: [title, text]\n  query_id: id\n  relevance:\nat_k: 10\n"
    )
    job = EvaluateJob.from_argv(["--config", str(config)])
    assert job.chosen == {"corpus_text": ["title", "text"], "query_id": ["id"], "relevance": [""]}
    assert job.at_k == (10,)


def test_it_is_a_command() -> None:
    assert JOBS["evaluate"][:2] == ("jobs.evaluate", "EvaluateJob")


@pytest.mark.usefixtures("ray_local")
def test_an_actor_on_ray_finds_what_one_process_finds(tables: Path, tiny_checkpoint: Path, command: Command) -> None:
    outcome = command(EvaluateJob.main, of_pairs(tables, tiny_checkpoint))
    assert outcome.code == 0, outcome.err
    expected = EmbeddingSimilarityEvaluator(*PAIRS.values())(SentenceTransformer(str(tiny_checkpoint)))
    assert metrics_in(tables / "out") == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_the_number_of_workers_changes_nothing(tables: Path, tiny_checkpoint: Path, command: Command) -> None:
    for num_workers in (2, 1):
        output = f"out{num_workers}"
        outcome = command(EvaluateJob.main, of_retrieval(tables, tiny_checkpoint, output, num_workers=num_workers))
        assert outcome.code == 0, outcome.err
    expected = InformationRetrievalEvaluator(QUERIES, CORPUS, RELEVANT)(SentenceTransformer(str(tiny_checkpoint)))
    assert metrics_in(tables / "out1") == pytest.approx(expected, rel=1e-5)
    assert metrics_in(tables / "out2") == metrics_in(tables / "out1")
    (tables / "out2/metrics.json").unlink()
    (tables / "out2/corpus_embeddings/data/part-00000003.parquet").unlink()
    assert command(EvaluateJob.main, of_retrieval(tables, tiny_checkpoint, "out2", num_workers=1)).code == 0
    assert metrics_in(tables / "out2") == metrics_in(tables / "out1")
