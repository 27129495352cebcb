"""The evaluation worker: a model and tables of examples to metrics."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from typing import Any

from actors.model_worker import VERSIONS, ModelConfig, load_model
from actors.stages import Beat
from actors.worker import peak_memory_bytes
from sbert_ray.data.examples import Examples

DENSE, SPARSE, CROSS_ENCODER = "dense", "sparse", "cross-encoder"
GIVEN = "given"
"""The name that the model gets to know a prompt of the user's by."""
PULSE_SECONDS = 2.0

_PACKAGES = {
    DENSE: "sbert_ray.sentence_transformer.evaluation",
    SPARSE: "sbert_ray.sparse_encoder.evaluation",
    CROSS_ENCODER: "sbert_ray.cross_encoder.evaluation",
}
_CLASSES = {
    "retrieval": "InformationRetrievalEvaluator",
    "similarity": "EmbeddingSimilarityEvaluator",
    "binary_classification": "BinaryClassificationEvaluator",
    "triplet": "TripletEvaluator",
    "reranking": "RerankingEvaluator",
    "translation": "TranslationEvaluator",
    "mse": "MSEEvaluator",
    "paraphrase_mining": "ParaphraseMiningEvaluator",
}
_CROSS_ENCODER_CLASSES = {
    "similarity": "CrossEncoderCorrelationEvaluator",
    "binary_classification": "CrossEncoderClassificationEvaluator",
    "reranking": "CrossEncoderRerankingEvaluator",
}


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What is asked for; every field has its meaning from the job of the same name.

    Args:
        task: name of the task.
        kind: ``dense``, ``sparse`` or ``cross-encoder``.
        name: what metrics' names begin with.
        similarity: names of similarities; none: the model's own.
        at_k: ranks at which metrics are taken; none: the evaluator's own.
        truncate_dim: keep so many leading dimensions.
        num_threads: CPU threads of this worker.
    """

    task: str
    kind: str
    name: str = ""
    similarity: tuple[str, ...] = ()
    at_k: tuple[int, ...] = ()
    truncate_dim: int | None = None
    num_threads: int | None = None


@dataclass(frozen=True)
class Measured:
    """What an evaluator found, and what it took; small enough to travel back."""

    metrics: dict[str, float]
    primary_metric: str
    greater_is_better: bool
    counts: dict[str, int]
    """How much was evaluated, where only the worker knows."""
    seconds: dict[str, float]
    """Of reading and of evaluating."""
    device: str
    versions: dict[str, str]
    peak_memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The model that is evaluated.

    Args:
        config: which one, and how it runs; its own ``prompt`` is put before whatever has none of another name.
        prompts: by name, in place of the model's own.
        max_active_dims: keep so many of the largest dimensions, of sparse embeddings.
        teacher: whose embeddings it should have, for the mean squared error.
    """

    config: ModelConfig
    prompts: Mapping[str, str] = field(default_factory=dict)
    max_active_dims: int | None = None
    teacher: ModelConfig | None = None


class ModelEvaluator:
    """Holds a model and evaluates it on tables of examples.

    Args:
        measures: what is asked for.
        subject: the model.
        tables: the examples, by the names of the job's options.
    """

    def __init__(self, measures: Measures, subject: Subject, tables: Mapping[str, Examples]) -> None:
        self.measures = measures
        self.tables = tables
        self.model = load_model(subject.config)
        self.teacher = load_model(subject.teacher) if subject.teacher else None
        given = {} if subject.config.prompt is None else {GIVEN: subject.config.prompt}
        self.model.prompts = {**self.model.prompts, **subject.prompts, **given}
        self.model.default_prompt_name = GIVEN if given else None
        for model in filter(None, (self.model, self.teacher)):
            if measures.truncate_dim is not None:
                model.truncate_dim = measures.truncate_dim
            if subject.max_active_dims is not None:
                model.max_active_dims = subject.max_active_dims

    def evaluate(self, _what: str, beat: Beat) -> Measured:
        """Return the metrics of the model."""

        def make() -> Any:
            rows = {name: table.read() for name, table in self.tables.items()}
            return make_evaluator(self.measures, arguments(self.measures, rows) | self._teacher)

        return measured(make, self.model, beat)

    @property
    def _teacher(self) -> dict[str, Any]:
        return {} if self.teacher is None else {"teacher_model": self.teacher}


def arguments(measures: Measures, tables: Mapping[str, Mapping[str, list[Any]]]) -> dict[str, Any]:
    """Return what the evaluator of a task is made of, from the rows of its tables."""
    rows = tables["input"]
    is_cross_encoder = measures.kind == CROSS_ENCODER
    match measures.task:
        case "similarity" | "binary_classification":
            gold = "scores" if measures.task == "similarity" else "labels"
            values = {gold: rows[gold[:-1]]}
            pairs = (rows["sentence1"], rows["sentence2"])
            if is_cross_encoder:
                return {"sentence_pairs": list(map(list, zip(*pairs, strict=True))), **values}
            return {"sentences1": pairs[0], "sentences2": pairs[1], **values}
        case "triplet":
            return {"anchors": rows["anchor"], "positives": rows["positive"], "negatives": rows["negative"]}
        case "reranking":
            samples = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
            return {"samples": samples}
        case "paraphrase_mining":
            sentences = dict(zip(rows["id"], rows["text"], strict=True))
            named = zip(tables["duplicates"]["id1"], tables["duplicates"]["id2"], strict=True)
            duplicate_pairs = [pair for pair in named if sentences.keys() >= set(pair)]
            return {"sentences_map": sentences, "duplicates_list": duplicate_pairs}
    return {"source_sentences": rows["source"], "target_sentences": rows["target"]}


def make_evaluator(measures: Measures, found: dict[str, Any]) -> Any:
    """Return the evaluator."""
    module = import_module(_PACKAGES[measures.kind])
    classes = _CROSS_ENCODER_CLASSES if measures.kind == CROSS_ENCODER else _CLASSES
    name = classes[measures.task]
    if measures.kind == SPARSE:
        name = f"Sparse{name}"
    return getattr(module, name)(**found, **_options(measures), name=measures.name, write_csv=False)


def _options(measures: Measures) -> dict[str, Any]:
    from sbert_ray.similarity import SimilarityFunction

    options: dict[str, Any] = {}
    if measures.task == "retrieval" and measures.at_k:
        names = ("mrr_at_k", "ndcg_at_k", "accuracy_at_k", "precision_recall_at_k", "map_at_k")
        options |= {name: list(measures.at_k) for name in names}
    if measures.task == "retrieval" and measures.kind == DENSE:
        options["truncate_dim"] = measures.truncate_dim
    if measures.task == "reranking":
        options |= {"at_k": measures.at_k[0]} if measures.at_k else {}
        if measures.similarity:
            options["similarity_fct"] = SimilarityFunction.to_similarity_fn(measures.similarity[0])
    if measures.task in ("similarity", "binary_classification", "triplet") and measures.similarity:
        options["similarity_fn_names"] = list(measures.similarity)
    return options


def measured(
    make: Callable[[], Any], model: Any, beat: Beat, counts: Callable[[Any], dict[str, int]] | None = None
) -> Measured:
    """Make an evaluator, run it on a model, and return what it found.

    Args:
        make: makes the evaluator.
        model: what it evaluates.
        beat: is told of the rows of each batch.
        counts: tells how much the evaluator has evaluated.
    """
    from sbert_ray.inference.progress import told_of_batches

    begun = time.monotonic()
    with _alive(beat), told_of_batches(beat):
        evaluator = make()
        made = time.monotonic()
        metrics = evaluator(model)
    return Measured(
        metrics=metrics,
        primary_metric=evaluator.primary_metric,
        greater_is_better=evaluator.greater_is_better,
        counts={} if counts is None else counts(evaluator),
        seconds={"read": made - begun, "evaluate": time.monotonic() - made},
        device=str(model.device),
        versions={name: version(name) for name in VERSIONS},
        peak_memory_bytes=peak_memory_bytes(),
    )


@contextmanager
def _alive(beat: Beat) -> Iterator[None]:
    """Give signs of life for as long as this process computes: metrics of many examples take long without a batch."""
    done = threading.Event()

    def watch() -> None:
        seconds = time.process_time()
        while not done.wait(PULSE_SECONDS):
            before, seconds = seconds, time.process_time()
            if seconds - before > PULSE_SECONDS / 10:
                beat(0)

    thread = threading.Thread(target=watch, name="signs of life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
