"""The worker that evaluates retrieval with embeddings that are there already."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from typing import Any

import numpy as np

from actors.evaluator import Measured, Measures, make_evaluator, measured
from actors.stages import Beat
from actors.threads import limit_torch
from sbert_ray.data.embedded import Embedded, SparseRange
from sbert_ray.data.errors import InputError
from sbert_ray.data.storage import redacted


class RetrievalEvaluator:
    """Ranks embeddings that are there already. The corpus's are read chunk by chunk, and each chunk is forgotten.

    Args:
        measures: what is asked for.
        queries: their embeddings; those without relevant documents are left out.
        corpus: its embeddings.
        relevant: ids of the relevant documents, by query id.
    """

    def __init__(
        self, measures: Measures, queries: Embedded, corpus: Embedded, relevant: Mapping[str, AbstractSet[str]]
    ) -> None:
        self.measures = measures
        self.queries, self.corpus, self.relevant = queries, corpus, relevant
        if measures.num_threads is not None:
            limit_torch(measures.num_threads)

    def evaluate(self, _what: str, beat: Beat) -> Measured:
        """Return the metrics of the ranking."""

        def make() -> Any:
            queries, corpus = (
                {name: row for row, name in enumerate(table.ids(beat))} for table in (self.queries, self.corpus)
            )
            relevant = self._found(corpus)
            found = {"queries": queries, "corpus": corpus, "relevant_docs": relevant}
            return make_evaluator(self.measures, found | self._functions)

        def counts(evaluator: Any) -> dict[str, int]:
            return {"queries": len(evaluator.queries_ids), "documents": len(evaluator.corpus_ids)}

        return measured(make, StoredEmbeddings(self.queries, self.corpus, beat), beat, counts)

    def _found(self, corpus: Mapping[str, int]) -> Mapping[str, AbstractSet[str]]:
        """Return the relevant documents, of which none may be among the bad rows of the corpus."""
        for documents in self.relevant.values():
            if lost := next((name for name in documents if name not in corpus), None):
                raise InputError(
                    f"{redacted(self.corpus.url)} has no embedding of {lost!r}, which is relevant; look among its bad"
                    " rows, in _quarantine"
                )
        return self.relevant

    @property
    def _functions(self) -> dict[str, Any]:
        from sbert_ray.similarity import SimilarityFunction

        names = self.measures.similarity
        functions = {name: SimilarityFunction.to_similarity_fn(name) for name in names}
        return {"score_functions": functions} if functions else {}


class StoredEmbeddings:
    """Stands in for a model whose inputs are row numbers of embeddings that are there already.

    Args:
        queries: their embeddings.
        corpus: its embeddings.
        beat: called with the rows of the corpus that were read.
    """

    def __init__(self, queries: Embedded, corpus: Embedded, beat: Beat) -> None:
        self.queries, self.corpus, self.beat = queries, corpus, beat
        self.similarity_fn_name = corpus.facts.get("similarity") or ("dot" if corpus.is_sparse else "cosine")

    def encode(self, rows: Sequence[int]) -> Any:
        """Return rows of the corpus."""
        return self.encode_document(rows)

    def encode_query(self, rows: Sequence[int]) -> Any:
        """Return rows of the queries."""
        return self._read(self.queries, rows)

    def encode_document(self, rows: Sequence[int]) -> Any:
        """Return rows of the corpus, which are among others in a range that is not much larger."""
        found = self._read(self.corpus, rows)
        self.beat(len(rows))
        return found

    def _read(self, table: Embedded, rows: Sequence[int]) -> Any:
        import torch

        wanted = np.asarray(rows, np.int64)
        first = int(wanted.min())
        found = table.read(first, int(wanted.max()) + 1)
        if not isinstance(found, SparseRange):
            return torch.from_numpy(found[wanted - first]).to(self._device)
        from sbert_ray.inference.sparse import SparseRows

        sparse = SparseRows(found.offsets, found.indices, found.values, table.dimension)
        return sparse.take(wanted - first).to_coo(self._device)

    @property
    def device(self) -> Any:
        """Where embeddings are compared."""
        return self._device

    @cached_property
    def _device(self) -> Any:
        import torch

        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
