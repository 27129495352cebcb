"""What an evaluation of retrieval reads, and how what it lacks is embedded."""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.embed import EmbedJob
from jobs.evaluation_tasks import TASKS
from sbert_ray.data.embedded import Embedded, check_same
from sbert_ray.data.errors import InputError, PlanChangedError
from sbert_ray.data.examples import Chosen, Examples
from sbert_ray.data.storage import Storage, redacted

JUDGED = "queries/judged.parquet"
"""The queries that have relevant documents, in the output."""
QUERY_EMBEDDINGS, CORPUS_EMBEDDINGS = "query_embeddings", "corpus_embeddings"
"""What the embed jobs write, in the output."""
SHOWN = 3


class RetrievalOptions(Protocol):
    """The options of the job that are about retrieval."""

    @property
    def output(self) -> str:
        """Where to write."""

    @property
    def queries(self) -> str | None:
        """Table of the queries."""

    @property
    def corpus(self) -> str | None:
        """Table of the documents."""

    @property
    def qrels(self) -> str | None:
        """Table of the judgements."""

    @property
    def query_embeddings(self) -> str | None:
        """Output of an embed job for the queries."""

    @property
    def corpus_embeddings(self) -> str | None:
        """Output of an embed job for the documents."""

    @property
    def query_prompt(self) -> str | None:
        """Put before each query."""

    @property
    def document_prompt(self) -> str | None:
        """Put before each document."""

    @property
    def limit(self) -> int | None:
        """Queries to keep."""

    @property
    def allow_unknown_ids(self) -> bool:
        """Whether to leave out judgements of what is not there."""


@dataclass(frozen=True)
class Retrieval:
    """Judged queries and a corpus, each as a table or as embeddings.

    Args:
        relevant: ids of the relevant documents, by query id.
        queries: texts by id, of those queries; None where there are embeddings.
        query_source: where they come from.
        corpus_source: where the documents come from.
        qrels: the judgements.
        query_id: the column of the queries' ids.
        corpus_id: that of the documents'.
    """

    relevant: Mapping[str, frozenset[str]]
    queries: Mapping[str, str] | None
    query_source: Examples | Embedded
    corpus_source: Examples | Embedded
    qrels: Examples
    query_id: str
    corpus_id: str

    @classmethod
    def open(cls, job: RetrievalOptions, chosen: Chosen) -> Self:
        """Read the judgements and the queries, and look for their ids in the corpus.

        Raises:
            InputError: if a table lacks columns, a row is wrong, or ids are not where they should be.
        """
        assert job.qrels is not None
        qrels = Examples.open(job.qrels, TASKS["retrieval"].tables["qrels"], chosen)
        wanted = _relevant(qrels)
        where = redacted(job.qrels)
        if not wanted:
            raise InputError(f"{where} has no judgement with a score above 0")
        query_source = _opened(job.queries, job.query_embeddings, "queries", chosen)
        corpus_source = _opened(job.corpus, job.corpus_embeddings, "corpus", chosen)
        queries = _judged(query_source, wanted)
        _check_known(where, "queries", wanted.keys() - queries.keys(), query_source.url, job.allow_unknown_ids)
        kept = dict(list(queries.items())[: job.limit])
        documents = {document for query in kept for document in wanted[query]}
        lost = _missing(corpus_source, documents)
        _check_known(where, "documents", lost, corpus_source.url, job.allow_unknown_ids)
        relevant = {query: frozenset(wanted[query] - lost) for query in kept if wanted[query] - lost}
        if not relevant:
            raise InputError(f"{where} has no judgement with a score above 0 of what is there")
        texts = {query: kept[query] for query in relevant} if isinstance(query_source, Examples) else None
        ids = [_id_column(table, chosen) for table in ("queries", "corpus")]
        return cls(relevant, texts, query_source, corpus_source, qrels, *ids)

    @property
    def _query_text(self) -> str:
        return f"text of {self.query_id}"  # which is another name, whatever that one is

    @property
    def num_documents(self) -> int:
        """Documents, as far as is known before they are read."""
        return sum(file.num_rows or 0 for file in self.corpus_source.files)

    def described(self) -> list[dict[str, Any]]:
        """Return name, size, identity and rows of each file that is read."""
        return files_of({"qrels": self.qrels, "queries": self.query_source, "corpus": self.corpus_source})

    def counts(self) -> dict[str, int]:
        """Return how many queries are judged, and how many documents are relevant to one."""
        return {"queries": len(self.relevant), "relevant": sum(map(len, self.relevant.values()))}

    def facts(self) -> dict[str, Any]:
        """Return what given embeddings tell of their model."""
        assert isinstance(self.corpus_source, Embedded)
        names = {"model": "name", "revision": "revision", "max_seq_length": "max_seq_length", "dtype": "dtype"}
        return {ours: self.corpus_source.facts.get(name) for name, ours in names.items()}

    def prompts(self, jobs: Sequence[EmbedJob]) -> dict[str, str | None]:
        """Return what is put before queries and documents, by the jobs that embed them or have embedded them."""
        found = {job.task: job.resolved_prompt for job in jobs}
        for name, source in (("query", self.query_source), ("document", self.corpus_source)):
            if isinstance(source, Embedded):
                found[name] = source.facts.get("prompt")
        return {str(name): prompt for name, prompt in found.items()}

    def check_made_by(self, revision: str) -> None:
        """Make sure that given embeddings are of the model that embeds the others.

        Raises:
            InputError: if they are of another one, or of another version.
        """
        for source in (self.query_source, self.corpus_source):
            made_by = source.facts.get("revision") if isinstance(source, Embedded) else None
            if isinstance(source, Embedded) and made_by not in (None, revision):
                raise InputError(
                    f"{redacted(source.url)} was embedded by {source.facts.get('model')} at {made_by}, and --model is"
                    f" at {revision}"
                )

    def write_queries(self, output: str) -> None:
        """Write the judged queries to the output, for the job that embeds them.

        Raises:
            PlanChangedError: if an earlier run has written others, which may be embedded already.
        """
        if self.queries is None:
            return
        columns = {self.query_id: list(self.queries), self._query_text: list(self.queries.values())}
        schema = pa.schema([(self.query_id, pa.string()), (self._query_text, pa.large_string())])
        table = pa.table(columns, schema=schema)
        storage = Storage(output)
        if storage.exists(JUDGED):
            if pq.read_table(io.BytesIO(storage.read(JUDGED))).equals(table):
                return
            raise PlanChangedError(
                f"{redacted(storage.locate(JUDGED))} has other queries than are judged now; give a new output, or run"
                " again as before"
            )
        stream = io.BytesIO()
        pq.write_table(table, stream)
        storage.write(JUDGED, stream.getvalue())

    def embedding_jobs(self, job: RetrievalOptions, make: Callable[..., EmbedJob]) -> list[EmbedJob]:
        """Return the jobs that embed what has no embeddings yet.

        Args:
            job: the options.
            make: makes one, given the options that it has of its own.
        """
        output = job.output.rstrip("/")
        jobs = []
        if isinstance(self.query_source, Examples):
            queries: dict[str, Any] = {
                "input": f"{output}/{JUDGED}",
                "output": f"{output}/{QUERY_EMBEDDINGS}",
                "id_column": self.query_id,
                "text_column": (self._query_text,),
                "task": "query",
                "prompt": job.query_prompt,
                "max_bad_rows": 0,
            }
            jobs.append(make(**queries))
        if isinstance(self.corpus_source, Examples):
            corpus: dict[str, Any] = {
                "input": job.corpus,
                "output": f"{output}/{CORPUS_EMBEDDINGS}",
                "id_column": self.corpus_id,
                "text_column": tuple(self.corpus_source.columns["corpus_text"]),
                "task": "document",
                "prompt": job.document_prompt,
            }
            jobs.append(make(**corpus))
        return jobs

    def embedded(self, output: str) -> tuple[Embedded, Embedded]:
        """Return the embeddings of queries and corpus, once they are there.

        Raises:
            InputError: if they do not fit together.
        """
        output = output.rstrip("/")
        queries, corpus = self.query_source, self.corpus_source
        if isinstance(queries, Examples):
            queries = Embedded.open(f"{output}/{QUERY_EMBEDDINGS}", self.query_id)
        if isinstance(corpus, Examples):
            corpus = Embedded.open(f"{output}/{CORPUS_EMBEDDINGS}", self.corpus_id)
        check_same(queries, corpus)
        return queries, corpus


def files_of(tables: Mapping[str, Examples | Embedded]) -> list[dict[str, Any]]:
    """Return name, size, identity and rows of each file of some tables, named by its table."""
    return [{**file, "name": f"{name}/{file['name']}"} for name, t in tables.items() for file in t.described()]


def _id_column(table: str, chosen: Chosen) -> str:
    role = TASKS["retrieval"].tables[table][0]
    return chosen.get(role.name, (role.column,))[0]


def _opened(table: str | None, embeddings: str | None, name: str, chosen: Chosen) -> Examples | Embedded:
    if embeddings is not None:
        return Embedded.open(embeddings, _id_column(name, chosen))
    assert table is not None
    return Examples.open(table, TASKS["retrieval"].tables[name], chosen)


def _relevant(qrels: Examples) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for batch in qrels.batches():
        queries, documents = batch["judged_query"], batch["judged_document"]
        scores = batch.get("relevance", [1.0] * len(queries))
        for query, document, score in zip(queries, documents, scores, strict=True):
            if score > 0:
                found.setdefault(query, set()).add(document)
    return found


def _judged(source: Examples | Embedded, wanted: Mapping[str, set[str]]) -> dict[str, str]:
    """Return the texts of the queries that are judged, by id, and empty ones where there are embeddings."""
    if isinstance(source, Embedded):
        return {name: "" for batch in source.id_batches() for name in batch if name in wanted}
    found: dict[str, str] = {}
    for batch in source.batches():
        for name, text in zip(batch["query_id"], batch["query_text"], strict=True):
            if name in found:
                raise InputError(f"{redacted(source.url)}: each id must be there once, got {name!r} again")
            if name in wanted:
                found[name] = text
    return found


def _missing(source: Examples | Embedded, wanted: set[str]) -> set[str]:
    """Return the ids that are not among those of the corpus, which is read until all are found."""
    batches: Iterable[list[str]] = (
        source.id_batches()
        if isinstance(source, Embedded)
        else (batch["corpus_id"] for batch in source.only("corpus_id").batches())
    )
    missing = set(wanted)
    for ids in batches:
        missing.difference_update(ids)
        if not missing:
            break
    return missing


def _check_known(qrels: str, what: str, unknown: set[str], where: str, is_allowed: bool) -> None:
    if unknown and not is_allowed:
        shown = ", ".join(map(repr, sorted(unknown)[:SHOWN])) + (", ..." if len(unknown) > SHOWN else "")
        raise InputError(
            f"{qrels} judges {len(unknown)} {what} that are not in {redacted(where)}: {shown}; mend it, or leave such"
            " judgements out with --allow-unknown-ids"
        )
