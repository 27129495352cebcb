"""The evaluation workers, in this process: their metrics are those of the evaluators with `model.encode`."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors import evaluator
from actors.evaluator import CROSS_ENCODER, DENSE, SPARSE, Measured, Measures, ModelEvaluator, Subject
from actors.model_worker import ModelConfig
from actors.retrieval import RetrievalEvaluator
from jobs.evaluation_tasks import TASKS
from sbert_ray import CrossEncoder, SentenceTransformer, SparseEncoder
from sbert_ray.cross_encoder import evaluation as of_cross_encoders
from sbert_ray.data.embedded import Embedded
from sbert_ray.data.errors import InputError
from sbert_ray.data.examples import Examples
from sbert_ray.data.sink import with_metadata
from sbert_ray.models.checkpoint import resolve_checkpoint
from sbert_ray.sentence_transformer import evaluation as of_dense
from sbert_ray.similarity import cos_sim, dot_score
from sbert_ray.sparse_encoder import evaluation as of_sparse

WORDS = "a the cat dog sat ran on mat fast slow red blue".split()
TYPES = {DENSE: SentenceTransformer, SPARSE: SparseEncoder, CROSS_ENCODER: CrossEncoder}
MODULES = {DENSE: of_dense, SPARSE: of_sparse, CROSS_ENCODER: of_cross_encoders}


def texts(count: int, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(2, 9))) for _ in range(count)]


FIRST, SECOND, THIRD = (texts(40, seed) for seed in range(3))
SCORES = np.random.default_rng(3).normal(size=40).tolist()
LABELS = np.random.default_rng(4).integers(0, 2, 40).tolist()
LISTS = [[FIRST[row], SECOND[row]] for row in range(40)]
DUPLICATES = [("0", "1"), ("2", "3"), ("5", "9"), ("0", "gone")]
TABLES: Mapping[str, Mapping[str, Any]] = {
    "similarity": {"sentence1": FIRST, "sentence2": SECOND, "score": SCORES},
    "binary_classification": {"sentence1": FIRST, "sentence2": SECOND, "label": LABELS},
    "triplet": {"anchor": FIRST, "positive": SECOND, "negative": THIRD},
    "reranking": {"query": THIRD, "positive": FIRST, "negative": LISTS},
    "translation": {"source": FIRST, "target": SECOND},
    "mse": {"source": FIRST, "target": SECOND},
    "paraphrase_mining": {"id": [str(row) for row in range(40)], "text": FIRST},
}
SAMPLES = [
    {"query": query, "positive": [positive], "negative": negative}
    for query, positive, negative in zip(THIRD, FIRST, LISTS, strict=True)
]
ARGUMENTS: Mapping[str, tuple[str, tuple[Any, ...]]] = {
    "similarity": ("EmbeddingSimilarityEvaluator", (FIRST, SECOND, SCORES)),
    "binary_classification": ("BinaryClassificationEvaluator", (FIRST, SECOND, LABELS)),
    "triplet": ("TripletEvaluator", (FIRST, SECOND, THIRD)),
    "reranking": ("RerankingEvaluator", (SAMPLES,)),
    "translation": ("TranslationEvaluator", (FIRST, SECOND)),
    "mse": ("MSEEvaluator", (FIRST, SECOND)),
    "paraphrase_mining": ("ParaphraseMiningEvaluator", ({str(r): t for r, t in enumerate(FIRST)}, DUPLICATES[:3])),
}
PAIRS = list(map(list, zip(FIRST, SECOND, strict=True)))
OF_PAIRS: Mapping[str, tuple[str, tuple[Any, ...]]] = {
    "similarity": ("CrossEncoderCorrelationEvaluator", (PAIRS, SCORES)),
    "binary_classification": ("CrossEncoderClassificationEvaluator", (PAIRS, LABELS)),
    "reranking": ("CrossEncoderRerankingEvaluator", (SAMPLES,)),
}
CASES = [(task, kind) for task in TABLES for kind in TASKS[task].kinds]


@pytest.fixture
def folders(tiny_checkpoint: Path, tiny_splade: Path, tiny_cross_encoder: Path) -> dict[str, Path]:
    return {DENSE: tiny_checkpoint, SPARSE: tiny_splade, CROSS_ENCODER: tiny_cross_encoder}


def config_of(folder: Path, kind: str, prompt: str | None = None) -> ModelConfig:
    revision = resolve_checkpoint(str(folder)).revision
    name = TYPES[kind].__name__
    return ModelConfig(
        model=str(folder), model_type=name, revision=revision, is_local=True, prompt=prompt, device="cpu"
    )


def opened(task: str, folder: Path, **columns: Any) -> dict[str, Examples]:
    """Write the tables of a task, and return them as the job does."""
    tables = {"input": TABLES[task] | columns}
    if task == "paraphrase_mining":
        tables["duplicates"] = {"id1": [one for one, _ in DUPLICATES], "id2": [other for _, other in DUPLICATES]}
    found = {}
    for name, table in tables.items():
        pq.write_table(pa.table(dict(table)), folder / f"{name}.parquet", row_group_size=7)
        roles = [role for role in TASKS[task].tables[name] if role.name in table]
        found[name] = Examples.open(str(folder / f"{name}.parquet"), roles, {"documents": ["documents"]})
    return found


def evaluated(measures: Measures, subject: Subject, tables: Mapping[str, Examples]) -> Measured:
    return ModelEvaluator(measures, subject, tables).evaluate(measures.task, lambda _: None)


@pytest.mark.parametrize(("task", "kind"), CASES)
def test_metrics_are_those_of_the_evaluator(task: str, kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    model = TYPES[kind](str(folders[kind]), device="cpu")
    name, given = ARGUMENTS[task] if kind != CROSS_ENCODER else OF_PAIRS[task]
    teacher = {"teacher_model": model} if task == "mse" else {}
    oracle = getattr(MODULES[kind], f"Sparse{name}" if kind == SPARSE else name)(*given, **teacher)
    expected = oracle(model)

    config = config_of(folders[kind], kind)
    subject = Subject(config=config, teacher=config if task == "mse" else None)
    found = evaluated(Measures(task=task, kind=kind), subject, opened(task, tmp_path))
    assert found.metrics == pytest.approx(expected, rel=1e-5, abs=1e-9)
    assert found.primary_metric == oracle.primary_metric
    assert found.primary_metric in found.metrics


def test_options_reach_the_evaluator(folders: dict[str, Path], tmp_path: Path) -> None:
    measures = Measures(task="triplet", kind=DENSE, name="dev", similarity=("dot", "euclidean"), truncate_dim=4)
    subject = Subject(config=config_of(folders[DENSE], DENSE), prompts={"query": "red ", "document": "blue "})
    found = evaluated(measures, subject, opened("triplet", tmp_path))
    model = SentenceTransformer(
        str(folders[DENSE]), device="cpu", truncate_dim=4, prompts={"query": "red ", "document": "blue "}
    )
    oracle = of_dense.TripletEvaluator(FIRST, SECOND, THIRD, name="dev", similarity_fn_names=["dot", "euclidean"])
    assert found.metrics == pytest.approx(oracle(model))
    assert found.primary_metric.startswith("dev_")


def test_prompts_and_active_dimensions_reach_the_model(folders: dict[str, Path], tmp_path: Path) -> None:
    subject = Subject(config=config_of(folders[SPARSE], SPARSE, prompt="slow red "), max_active_dims=3)
    found = evaluated(Measures(task="similarity", kind=SPARSE), subject, opened("similarity", tmp_path))
    model = SparseEncoder(str(folders[SPARSE]), device="cpu", prompts={"p": "slow red "}, default_prompt_name="p")
    oracle = of_sparse.SparseEmbeddingSimilarityEvaluator(FIRST, SECOND, SCORES, max_active_dims=3)
    assert found.metrics == pytest.approx(oracle(model))
    assert found.metrics["active_dims"] == 3


def test_a_teacher_has_the_dimensions_of_the_model(folders: dict[str, Path], tmp_path: Path) -> None:
    config = config_of(folders[DENSE], DENSE)
    measures, subject = Measures(task="mse", kind=DENSE, truncate_dim=4), Subject(config=config, teacher=config)
    found = evaluated(measures, subject, opened("mse", tmp_path))
    model = SentenceTransformer(str(folders[DENSE]), device="cpu")
    oracle = of_dense.MSEEvaluator(FIRST, SECOND, teacher_model=model, truncate_dim=4)
    assert found.metrics == pytest.approx(oracle(model))


def test_reranking_takes_a_rank_and_a_similarity(folders: dict[str, Path], tmp_path: Path) -> None:
    measures = Measures(task="reranking", kind=DENSE, at_k=(2,), similarity=("dot",))
    found = evaluated(measures, Subject(config=config_of(folders[DENSE], DENSE)), opened("reranking", tmp_path))
    oracle = of_dense.RerankingEvaluator(SAMPLES, at_k=2, similarity_fct=dot_score)
    model = SentenceTransformer(str(folders[DENSE]), device="cpu")
    assert found.metrics == pytest.approx(oracle(model))
    assert set(found.metrics) == {"map", "mrr@2", "ndcg@2"}


def test_a_cross_encoder_reranks_documents_in_their_order(folders: dict[str, Path], tmp_path: Path) -> None:
    tables = opened("reranking", tmp_path, documents=LISTS)
    tables["input"] = Examples.open(
        tables["input"].url,
        [role for role in TASKS["reranking"].tables["input"] if role.name != "negative"],
        {"documents": ["documents"]},
    )
    subject = Subject(config=config_of(folders[CROSS_ENCODER], CROSS_ENCODER))
    found = evaluated(Measures(task="reranking", kind=CROSS_ENCODER), subject, tables)
    samples = [
        {"query": sample["query"], "positive": sample["positive"], "documents": documents}
        for sample, documents in zip(SAMPLES, LISTS, strict=True)
    ]
    model = CrossEncoder(str(folders[CROSS_ENCODER]), device="cpu")
    assert found.metrics == pytest.approx(of_cross_encoders.CrossEncoderRerankingEvaluator(samples)(model))
    assert "base_map" in found.metrics


def test_rows_are_told_as_they_are_computed(folders: dict[str, Path], tmp_path: Path) -> None:
    beats: list[int] = []
    measures, subject = Measures(task="similarity", kind=DENSE), Subject(config=config_of(folders[DENSE], DENSE))
    ModelEvaluator(measures, subject, opened("similarity", tmp_path)).evaluate("similarity", beats.append)
    assert sum(beats) == 80


def test_long_metrics_are_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluator, "PULSE_SECONDS", 0.05)
    beats: list[int] = []
    begun = time.monotonic()
    with evaluator._alive(beats.append):
        while not beats and time.monotonic() - begun < 20:
            sum(range(10_000))
    assert beats


def test_a_process_that_waits_gives_no_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluator, "PULSE_SECONDS", 0.2)
    monkeypatch.setattr(time, "process_time", lambda: 1.0)
    beats: list[int] = []
    with evaluator._alive(beats.append):
        time.sleep(0.5)
    assert not beats


# Retrieval

CORPUS = {f"d{row}": text for row, text in enumerate(texts(150, 5))}
QUERIES = {f"q{row}": text for row, text in enumerate(texts(12, 6))}
RELEVANT = {f"q{row}": frozenset({f"d{row * 3}", f"d{row * 5 + 1}"}) for row in range(10)}


def stored(table: Mapping[str, str], folder: Path, model: Any, encode: Any) -> Embedded:
    """Write embeddings as the embed job does, to two files."""
    rows = encode(list(table.values()))
    facts = {"dimension": rows.shape[1], "similarity": model.similarity_fn_name}
    columns: dict[str, Any] = {"_id": list(table)}
    if isinstance(rows, np.ndarray):
        columns["embedding"] = pa.array(rows.tolist(), pa.list_(pa.float32(), rows.shape[1]))
    else:
        nonzero = [(row.nonzero()[:, 0], row[row != 0]) for row in rows.to_dense()]
        columns["indices"] = pa.array([places.tolist() for places, _ in nonzero], pa.list_(pa.int32()))
        columns["values"] = pa.array([values.tolist() for _, values in nonzero], pa.list_(pa.float32()))
    folder.mkdir()
    written = with_metadata(pa.table(columns), facts)
    half = len(table) // 2
    pq.write_table(written[:half], folder / "part-0.parquet", row_group_size=20)
    pq.write_table(written[half:], folder / "part-1.parquet", row_group_size=33)
    return Embedded.open(str(folder), "_id")


@pytest.fixture(params=[DENSE, SPARSE])
def retrieval(request: pytest.FixtureRequest, folders: dict[str, Path], tmp_path: Path) -> Any:
    kind = request.param
    model = TYPES[kind](str(folders[kind]), device="cpu")
    queries = stored(QUERIES, tmp_path / "queries", model, model.encode_query)
    return kind, model, queries, stored(CORPUS, tmp_path / "corpus", model, model.encode_document)


@pytest.mark.parametrize("similarity", [(), ("cosine", "dot")], ids=["the model's", "two"])
def test_stored_embeddings_rank_as_the_model_does(retrieval: Any, similarity: tuple[str, ...]) -> None:
    kind, model, queries, corpus = retrieval
    name = "InformationRetrievalEvaluator"
    make = getattr(MODULES[kind], f"Sparse{name}" if kind == SPARSE else name)
    functions = {"cosine": cos_sim, "dot": dot_score} if similarity else None
    oracle = make(QUERIES, CORPUS, RELEVANT, score_functions=functions)
    expected = oracle(model)
    measures = Measures(task="retrieval", kind=kind, similarity=similarity)
    found = RetrievalEvaluator(measures, queries, corpus, RELEVANT).evaluate("retrieval", lambda _: None)
    assert found.metrics == pytest.approx(expected, rel=1e-5)
    assert found.primary_metric == oracle.primary_metric
    assert found.counts == {"queries": 10, "documents": 150}


def test_a_corpus_is_read_chunk_by_chunk(retrieval: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, _, queries, corpus = retrieval
    measures = Measures(task="retrieval", kind=kind)
    whole = RetrievalEvaluator(measures, queries, corpus, RELEVANT).evaluate("retrieval", lambda _: None)
    begin = of_dense.InformationRetrievalEvaluator.__init__

    def in_chunks(self: Any, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        self.corpus_chunk_size = 32

    monkeypatch.setattr(of_dense.InformationRetrievalEvaluator, "__init__", in_chunks)
    ranges: list[int] = []
    read = Embedded.read
    monkeypatch.setattr(
        Embedded, "read", lambda self, start, stop: ranges.append(stop - start) or read(self, start, stop)
    )
    beats: list[int] = []
    found = RetrievalEvaluator(measures, queries, corpus, RELEVANT).evaluate("retrieval", beats.append)
    assert found.metrics == pytest.approx(whole.metrics)
    assert max(ranges[1:]) == 32
    assert sum(beats) == 150


def test_ranks_and_dimensions_are_chosen(retrieval: Any) -> None:
    kind, model, queries, corpus = retrieval
    measures = Measures(task="retrieval", kind=kind, at_k=(3,), truncate_dim=4, name="dev")
    found = RetrievalEvaluator(measures, queries, corpus, RELEVANT).evaluate("retrieval", lambda _: None)
    assert f"dev_{model.similarity_fn_name}_ndcg@3" in found.metrics
    if kind == DENSE:
        names = ("mrr_at_k", "ndcg_at_k", "accuracy_at_k", "precision_recall_at_k", "map_at_k")
        at_k: dict[str, Any] = {name: [3] for name in names}
        oracle = of_dense.InformationRetrievalEvaluator(QUERIES, CORPUS, RELEVANT, truncate_dim=4, name="dev", **at_k)
        assert found.metrics == pytest.approx(oracle(model), rel=1e-5)


def test_a_relevant_document_without_an_embedding_is_named(retrieval: Any) -> None:
    kind, _, queries, corpus = retrieval
    worker = RetrievalEvaluator(Measures(task="retrieval", kind=kind), queries, corpus, {"q1": frozenset({"d999"})})
    with pytest.raises(InputError, match="has no embedding of 'd999', which is relevant; look among its bad rows"):
        worker.evaluate("retrieval", lambda _: None)
