"""The reranking job.

ray job submit --working-dir . -- python -m jobs.rerank --config rerank.yaml
"""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, ClassVar, Literal, Self

import pyarrow as pa
from pydantic import Field, PositiveInt, PrivateAttr, model_validator

from actors.pool import PoolOptions
from actors.reranker import Reranker, RerankerConfig
from actors.worker import UnitWorker
from jobs.model_job import RUNNING, ModelJob
from jobs.unit_job import Location
from sbert_ray.data.candidates import Candidates
from sbert_ray.data.dataset import Dataset, RowReader
from sbert_ray.data.errors import InputError
from sbert_ray.data.kinds import are_comparable
from sbert_ray.data.lookup import LookupSource
from sbert_ray.models.checkpoint import CheckpointInfo

SHARED = ("top_k", "activation")
"""Settings that change results and that the worker knows by the same names."""
TABLES = ("queries", "documents")
LISTS_PER_UNIT = 256


class RerankJob(ModelJob):
    """Score candidates (query, document) with a cross-encoder, and rank the documents of each query.

    A row of the input is a query and a document, or a query and a list of documents, or the ids of both, whose texts
    are then in the tables `queries` and `documents`. Rows of one query must be consecutive, in one file. The output has
    `query_id`, `doc_id`, `score` and `rank`, from 1, in the order of the queries.
    """

    command: ClassVar[str] = "rerank"

    _layout: str = PrivateAttr("pairs")

    query_column: str = Field(default="query", description="text of the query")
    document_column: str = Field(default="document", description="text of the document, or list of documents")
    query_id_column: str | None = Field(
        default=None, description="id of the query; none: its text; with queries and documents: `query_id`"
    )
    doc_id_column: str | None = Field(
        default=None,
        description="id of the document, or list of ids; none: its row in the file, or its place in the list; with"
        " queries and documents: `doc_id`",
    )
    queries: Location | None = Field(
        default=None, description="table with query_id_column and query_column, if the input has ids alone"
    )
    documents: Location | None = Field(
        default=None,
        description="the same of documents; each node copies its texts to a local disk, see TMPDIR, while the job runs",
    )
    top_k: PositiveInt | None = Field(default=None, description="documents to keep of each query; none: all")
    activation: Literal["sigmoid", "identity"] | None = Field(
        default=None, description="function on the model's logits; none: the model's own"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.queries is None) != (self.documents is None):
            raise ValueError("give both queries and documents, or neither")
        return self

    @property
    def model_type(self) -> str:
        """The class of `sbert_ray` that loads the model."""
        return "CrossEncoder"

    @property
    def named_as(self) -> str:
        """The type of model whose organization on the hub a name without an owner belongs to."""
        return "CrossEncoder"

    def check_model(self, info: CheckpointInfo) -> None:
        """Make sure that the model gives one score a pair, where its files tell.

        Raises:
            InputError: if it does not.
        """
        if info.num_labels not in (None, 1):
            raise InputError(f"--model: {self.model} gives {info.num_labels} scores a pair; ranking needs one")

    @property
    def query_ids(self) -> str | None:
        """The column with the ids of queries."""
        return self.query_id_column or ("query_id" if self.queries else None)

    @property
    def document_ids(self) -> str | None:
        """The column with the ids of documents."""
        return self.doc_id_column or ("doc_id" if self.documents else None)

    def open_dataset(self) -> Dataset:
        """Open the input and check its columns, the tables and the model."""
        if self.queries:
            assert self.query_ids is not None
            assert self.document_ids is not None
            dataset = Dataset.open(self.input, [], [self.query_ids, self.document_ids])
        else:
            ids = [name for name in (self.query_ids, self.document_ids) if name]
            dataset = Dataset.open(self.input, [self.query_column], [self.document_column, *ids])
        self._layout = self._candidates_of(dataset.schema).layout
        self.settings()  # a bad model fails here, before anything starts
        return dataset

    @cached_property
    def _tables(self) -> tuple[LookupSource, LookupSource]:
        assert self.queries is not None
        assert self.documents is not None
        assert self.query_ids is not None
        assert self.document_ids is not None
        return (
            LookupSource.of(self.queries, self.query_ids, self.query_column),
            LookupSource.of(self.documents, self.document_ids, self.document_column),
        )

    def _candidates_of(self, schema: pa.Schema) -> Candidates:
        """Return where queries and documents are, by the types of the input's columns.

        Raises:
            InputError: if there are none.
        """
        if self.queries:
            assert self.query_ids is not None
            assert self.document_ids is not None
            queries, documents = self._tables
            for name, table in ((self.query_ids, queries), (self.document_ids, documents)):
                if not are_comparable(table.id_type, schema.field(name).type):
                    raise InputError(
                        f"{name!r} is {schema.field(name).type} in the input and {table.id_type} in {table.where};"
                        " ids must have one type"
                    )
            ids = (self.query_ids, self.document_ids)
            return Candidates("ids", *ids, *ids, queries=queries, documents=documents)
        names = (self.query_column, self.document_column, self.query_ids, self.document_ids)
        kind = schema.field(self.document_column).type
        if _is_text(kind):
            return Candidates("pairs", *names)
        if (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and _is_text(kind.value_type):
            if self.document_ids and not _is_list(schema.field(self.document_ids).type):
                raise InputError(f"--doc-id-column: {self.document_ids!r} must be a list, as the documents are")
            return Candidates("lists", *names)
        raise InputError(f"--document-column: {self.document_column!r} is {kind}; it must hold texts or lists of texts")

    def settings(self) -> dict[str, Any]:
        """Return the settings that change results."""
        names = {"query_column", "document_column", "query_id_column", "doc_id_column", *SHARED, *RUNNING}
        chosen = self.model_dump(mode="json", include=names)
        if self.queries:
            chosen |= {name: table.digest for name, table in zip(TABLES, self._tables, strict=True)}
        chosen |= {"query_id_column": self.query_ids, "doc_id_column": self.document_ids, "layout": self._layout}
        return {**chosen, "model_revision": self.checkpoint.revision, "prompt": self.resolved_prompt}

    @property
    def sources(self) -> Sequence[str]:
        """The input and the tables."""
        return [self.input, *filter(None, (self.queries, self.documents))]

    def default_rows(self, dataset: Dataset) -> int:
        """Return the rows of a unit where none are asked for; a row with a list is as much as many others."""
        rows = super().default_rows(dataset)
        return min(rows, LISTS_PER_UNIT) if self._layout == "lists" else rows

    def facts(self) -> dict[str, Any]:
        """Return what the model is called."""
        return {"model": self.model, "activation": self.activation}

    def worker(self, reader: RowReader, options: PoolOptions, facts: dict[str, Any]) -> Callable[[], UnitWorker]:
        """Return what builds a reranker."""
        config = RerankerConfig(
            **self.worker_config(options),
            candidates=self._candidates_of(reader.schema),
            facts=facts,
            **{name: getattr(self, name) for name in SHARED},
        )
        return partial(Reranker, reader, self.output, config)


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


if __name__ == "__main__":
    RerankJob.main()
