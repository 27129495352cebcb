"""The evaluation job.

ray job submit --working-dir . -- python -m jobs.evaluate --config evaluate.yaml
"""

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, PositiveInt, model_validator
from pydantic.fields import FieldInfo

from actors.evaluator import CROSS_ENCODER, DENSE, SPARSE, Measures, ModelEvaluator, Subject
from actors.model_worker import ModelConfig
from actors.pool import PoolOptions
from actors.retrieval import RetrievalEvaluator
from jobs.cluster import Cpus, Gpus
from jobs.embed import EmbedJob
from jobs.evaluation import Evaluation, Findings, looked_through
from jobs.evaluation_tasks import KINDS, TASKS, Columns, check_options, chosen_columns, chosen_roles, saved_as
from jobs.job import Job, as_tuple
from jobs.model_job import ModelJob
from jobs.rerank import RerankJob
from jobs.retrieval import Retrieval, files_of
from jobs.unit_job import Location, UnitJob
from sbert_ray.data.errors import InputError
from sbert_ray.data.examples import Chosen, Examples
from sbert_ray.models.checkpoint import CheckpointInfo

OF_MODEL = ("revision", "dtype", "max_seq_length", "trust_remote_code", "local_files_only")
OF_WORK = (
    "num_workers",
    "num_gpus_per_worker",
    "num_cpus_per_worker",
    "rows_per_unit",
    "max_bad_rows",
    "hang_seconds",
    "max_attempts",
    "ray_address",
)
"""Options that the jobs which embed queries and corpus have too."""
EMBEDDING_ONLY = ("similarity", "truncate_dim", "max_active_dims", "query_prompt", "document_prompt")
"""Options for models that embed."""
TABLES = ("input", "duplicates", "queries", "corpus", "qrels", "query_embeddings", "corpus_embeddings")
Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]


def _same(fields: Mapping[str, FieldInfo], name: str) -> Any:
    """Return a field of another job, to have it too."""
    return fields[name]


def _several(value: object) -> object:
    return (value,) if isinstance(value, int) else as_tuple(value)


class EvaluateJob(Job):
    """Evaluate a model, or embeddings that are there already, on a dataset.

    The metrics are written to `metrics.json` in the output, and printed. For retrieval, queries and corpus are embedded
    on all workers first, into `query_embeddings` and `corpus_embeddings` in the output, which a rerun goes on with.
    """

    command: ClassVar[str] = "evaluate"

    task: Literal[
        "retrieval",
        "similarity",
        "binary_classification",
        "triplet",
        "reranking",
        "paraphrase_mining",
        "translation",
        "mse",
    ] = Field(description="what to evaluate")
    output: Location = Field(description="folder or URL for `metrics.json` and, of retrieval, embeddings")
    model: str | None = Field(
        default=None,
        description="checkpoint folder, on a path that every node sees, or id of a model on the hub; none: retrieval"
        " with query_embeddings and corpus_embeddings",
    )
    kind: Literal["dense", "sparse", "cross-encoder"] | None = Field(
        default=None,
        description="type of model; none: what it was saved as, a plain transformer as dense, one that classifies as"
        " cross-encoder",
    )
    input: Location | None = Field(
        default=None, description="Parquet or JSONL with the examples of all tasks but retrieval"
    )
    duplicates: Location | None = Field(
        default=None, description="pairs of ids of the input that are duplicates, for paraphrase_mining"
    )
    queries: Location | None = Field(default=None, description="queries of retrieval, with ids and texts")
    corpus: Location | None = Field(default=None, description="documents of retrieval, the same")
    qrels: Location | None = Field(
        default=None, description="judgements of retrieval: ids of query and document, and a score, relevant above 0"
    )
    query_embeddings: Location | None = Field(
        default=None, description="output of an embed job for the queries, instead of queries"
    )
    corpus_embeddings: Location | None = Field(
        default=None, description="the same for the corpus, which is then embedded once and evaluated often"
    )
    teacher: str | None = Field(
        default=None, description="model of the same kind whose embeddings are to be met, for mse"
    )
    columns: Columns = Field(
        default=(), description="columns that are not called as the task has them, as ROLE=COLUMN, or a mapping"
    )
    name: str = Field(default="", description="what the metrics' names begin with")
    similarity: Annotated[tuple[Similarity, ...], BeforeValidator(as_tuple)] = Field(
        default=(), description="how embeddings are compared; none: as the model says"
    )
    at_k: Annotated[tuple[PositiveInt, ...], BeforeValidator(_several)] = Field(
        default=(), description="ranks for the metrics of retrieval, or the one of reranking; none: the evaluator's"
    )
    query_prompt: str | None = Field(default=None, description="text to put before each query; none: the model's")
    document_prompt: str | None = Field(default=None, description="the same for documents")
    prompt: str | None = Field(default=None, description="the same for tasks without queries and documents")
    prompt_name: str | None = Field(default=None, description="the same, by its name in the model's config")
    truncate_dim: PositiveInt | None = _same(EmbedJob.model_fields, "truncate_dim")
    max_active_dims: PositiveInt | None = _same(EmbedJob.model_fields, "max_active_dims")
    limit: PositiveInt | None = Field(default=None, description="stop after so many rows of the input, or queries")
    allow_unknown_ids: bool = Field(
        default=False, description="leave out judgements and duplicates whose ids are not there, instead of failing"
    )
    revision: str | None = _same(ModelJob.model_fields, "revision")
    dtype: Literal["float32", "float16", "bfloat16", "int8"] | None = _same(ModelJob.model_fields, "dtype")
    max_seq_length: PositiveInt | None = _same(ModelJob.model_fields, "max_seq_length")
    trust_remote_code: bool = _same(ModelJob.model_fields, "trust_remote_code")
    local_files_only: bool = _same(ModelJob.model_fields, "local_files_only")
    num_workers: PositiveInt | None = _same(UnitJob.model_fields, "num_workers")
    num_gpus_per_worker: Gpus | None = _same(UnitJob.model_fields, "num_gpus_per_worker")
    num_cpus_per_worker: Cpus | None = _same(UnitJob.model_fields, "num_cpus_per_worker")
    rows_per_unit: PositiveInt | None = _same(UnitJob.model_fields, "rows_per_unit")
    max_bad_rows: int = _same(UnitJob.model_fields, "max_bad_rows")
    hang_seconds: float = _same(UnitJob.model_fields, "hang_seconds")
    max_attempts: PositiveInt = _same(UnitJob.model_fields, "max_attempts")
    ray_address: str | None = _same(UnitJob.model_fields, "ray_address")
    dry_run: bool = _same(UnitJob.model_fields, "dry_run")

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_options(self)
        chosen_columns(self.columns, self.task)
        return self

    def run(self) -> int:
        """Evaluate, unless an earlier run has, and print the metrics."""
        return Evaluation(self, {name: url for name in TABLES if (url := getattr(self, name))}).run(self._prepare)

    def _prepare(self) -> Findings:
        """Look into everything that is read; whatever is wrong is found here, before any worker starts."""
        settings = self._settings()
        if self.task == "retrieval":
            return self._retrieval(settings)
        tables = {name: self._table(name) for name in TASKS[self.task].tables}
        num_texts, counts = looked_through(tables, self.allow_unknown_ids)
        return Findings(
            settings=settings,
            files=files_of(tables),
            counts=counts,
            num_rows=num_texts,
            model=self._side.describe_model() | {"kind": self._kind},
            prompts={**self._prompts, "other": self._side.resolved_prompt},
            evaluator=partial(self._model_evaluator, tables),
        )

    def _retrieval(self, settings: dict[str, Any]) -> Findings:
        found = Retrieval.open(self, self.chosen)
        jobs = found.embedding_jobs(self, self._embed_job)
        if self.model:
            found.check_made_by(self._side.checkpoint.revision)
        return Findings(
            settings=settings,
            files=found.described(),
            counts=found.counts(),
            num_rows=found.num_documents,
            model=self._side.describe_model() if self.model else found.facts(),
            prompts=found.prompts(jobs),
            evaluator=partial(self._retrieval_evaluator, found),
            embed=jobs,
            before=partial(found.write_queries, self.output),
        )

    # The model

    @property
    def chosen(self) -> Chosen:
        """The columns that are chosen, by role."""
        return chosen_columns(self.columns, self.task)

    @cached_property
    def _kind(self) -> str:
        """The type of model."""
        if self.kind is not None:
            return self.kind
        stored = saved_as(self._embed_job(kind=DENSE).checkpoint.folder)
        if stored not in KINDS:
            raise InputError(f"--model: {self.model} is a {stored}, which is not evaluated here; see --kind")
        return KINDS[stored]

    @cached_property
    def _side(self) -> ModelJob:
        """What jobs know of the model."""
        if self._kind == CROSS_ENCODER:
            return _Pairs(**self._side_options, prompt=self.prompt, prompt_name=self.prompt_name)
        return self._embed_job(kind=self._kind, prompt=self.prompt, prompt_name=self.prompt_name)

    @property
    def _side_options(self) -> dict[str, Any]:
        assert self.model is not None
        shared = {name: getattr(self, name) for name in (*OF_MODEL, *OF_WORK)}
        return {"model": self.model, "input": self.output, "output": self.output, **shared}

    def _embed_job(self, **options: Any) -> EmbedJob:
        """Return the job that embeds with the model."""
        of_embeddings = {"truncate_dim": self.truncate_dim, "max_active_dims": self.max_active_dims}
        kind = options.pop("kind", None) or self._kind
        return EmbedJob(**{**self._side_options, **of_embeddings, "kind": kind, **options})

    def _settings(self) -> dict[str, Any]:
        """Return what changes results; a bad model fails here."""
        names = ("task", "name", "similarity", "at_k", "limit", "allow_unknown_ids", "query_prompt", "document_prompt")
        chosen = self.model_dump(mode="json", include={*names, "truncate_dim", "max_active_dims"})
        chosen["columns"] = {role: list(columns) for role, columns in self.chosen.items()}
        if self.model is None:
            return chosen
        if self._kind not in TASKS[self.task].kinds:
            raise InputError(
                f"--task: {self.task} is for models of kind {list(TASKS[self.task].kinds)}, and {self.model} is"
                f" {self._kind}"
            )
        side = self._side
        flags = [f"--{name.replace('_', '-')}" for name in EMBEDDING_ONLY if getattr(self, name)]
        if self._kind == CROSS_ENCODER and flags:
            raise InputError(f"{', '.join(flags)}: not for cross-encoders such as {self.model}")
        num_labels = side.checkpoint_info.num_labels
        if self.task != "binary_classification" and num_labels not in (None, 1):
            raise InputError(f"--model: {self.model} gives {num_labels} scores a pair; {self.task} needs one")
        chosen |= {"kind": self._kind, "model_revision": side.checkpoint.revision, "prompt": side.resolved_prompt}
        chosen |= {name: getattr(self, name) for name in ("dtype", "max_seq_length")}
        if self.teacher:
            _ = self._teacher_side.checkpoint_info  # a bad one fails here
            chosen["teacher_revision"] = self._teacher_side.checkpoint.revision
        return chosen

    @cached_property
    def _teacher_side(self) -> EmbedJob:
        return EmbedJob(**{**self._side_options, "model": self.teacher, "revision": None, "kind": self._kind})

    # The workers

    @property
    def _prompts(self) -> dict[str, str]:
        given = {"query": self.query_prompt, "document": self.document_prompt}
        return {name: prompt for name, prompt in given.items() if prompt is not None}

    def _table(self, name: str) -> Examples:
        roles = chosen_roles(self.task, name, self.chosen, self._kind)
        labels = self._side.checkpoint_info.num_labels if self._kind == CROSS_ENCODER else None
        limit = self.limit if name == "input" else None
        return Examples.open(getattr(self, name), roles, self.chosen, max(labels or 2, 2), limit)

    def _measures(self, kind: str, options: PoolOptions) -> Measures:
        chosen = {name: getattr(self, name) for name in ("task", "name", "similarity", "at_k", "truncate_dim")}
        return Measures(**chosen, kind=kind, num_threads=options.threads)

    def _retrieval_evaluator(self, found: Retrieval, options: PoolOptions) -> Callable[[], Any]:
        queries, corpus = found.embedded(self.output)
        measures = self._measures(SPARSE if corpus.is_sparse else DENSE, options)
        return partial(RetrievalEvaluator, measures, queries, corpus, found.relevant)

    def _model_evaluator(self, tables: Mapping[str, Examples], options: PoolOptions) -> Callable[[], Any]:
        subject = Subject(
            config=ModelConfig(**self._side.worker_config(options)),
            prompts=self._prompts,
            max_active_dims=self.max_active_dims,
            teacher=ModelConfig(**self._teacher_side.worker_config(options)) if self.teacher else None,
        )
        return partial(ModelEvaluator, self._measures(self._kind, options), subject, tables)


class _Pairs(RerankJob):
    """A cross-encoder, whatever it scores pairs with."""

    def check_model(self, info: CheckpointInfo) -> None:
        """Take a classifier too."""


if __name__ == "__main__":
    EvaluateJob.main()
