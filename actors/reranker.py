"""The reranking worker: candidates of queries to scores and ranks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actors.model_worker import VERSIONS, Inputs, ModelConfig, ModelWorker
from actors.stages import Beat, Stopwatch
from sbert_ray.data.candidates import Candidates
from sbert_ray.data.errors import InputError
from sbert_ray.data.rows import Rows
from sbert_ray.data.sink import with_metadata
from sbert_ray.data.units import Unit

if TYPE_CHECKING:
    from sbert_ray.inference.engine import EmbedRun
    from sbert_ray.inference.prepared import Prepared


@dataclass(frozen=True, kw_only=True)
class RerankerConfig(ModelConfig):
    """What to rerank, and how; every field has its meaning from the job of the same name.

    Args:
        candidates: where queries and documents are found.
        top_k: documents to keep of each query; None keeps all.
        activation: ``sigmoid`` or ``identity`` on the model's logits; None takes the model's own.
        facts: what the driver found out about the model, for the metadata of the output.
    """

    candidates: Candidates
    top_k: int | None = None
    activation: str | None = None
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class _Pairs:
    """N rows as M pairs, ready for the model."""

    inputs: Inputs
    owners: NDArray[np.int64]
    """(M,), the row of each pair"""


@dataclass(frozen=True)
class _Scores:
    run: "EmbedRun"
    owners: NDArray[np.int64]
    """(M,), the row of each score"""


class Reranker(ModelWorker):
    """Holds one cross-encoder and turns units of candidates into units of ranked ones.

    Args:
        reader: gives the rows of a unit, those of a query together.
        output: folder that units are committed to.
        config: what to rerank, and how.

    Raises:
        InputError: if the model gives several scores a pair.
    """

    config: RerankerConfig

    def __init__(self, reader: Any, output: str, config: RerankerConfig) -> None:
        super().__init__(config.candidates.grouped(reader), output, config)
        if self.model.num_labels != 1:
            raise InputError(f"{config.model} must give one score a pair, and gives {self.model.num_labels}")
        self._source = config.candidates.opened()

    @property
    def columns(self) -> Sequence[str]:
        """Input columns that are needed."""
        return self.config.candidates.columns

    def check(self, rows: Rows, excluded: Mapping[int, str], beat: Beat) -> Rows:
        """Drop rows without a query, a document or an id, and those at ``excluded`` positions."""
        rows, reasons = self._source.read(rows, beat)
        reasons |= {i: excluded[int(p)] for i, p in enumerate(rows.positions) if int(p) in excluded}
        return rows.without(reasons, self.config.candidates.key, {})

    def prepare(self, rows: Rows, beat: Beat, watch: Stopwatch) -> _Pairs:
        """Tokenize the pairs."""
        with watch.stage("tokenize"):
            pairs, owners = self._source.pairs(rows)
            return _Pairs(self.prepare_distinct(pairs, lambda found: self._prepare_pairs(found, beat)), owners)

    def _prepare_pairs(self, pairs: Sequence[Any], beat: Beat) -> "Prepared":
        prepared: Prepared = self.model.prepare(pairs, self.config.prompt, on_chunk=lambda: beat(0))
        return prepared

    def compute(self, prepared: _Pairs, beat: Beat) -> _Scores:
        """Score the pairs."""
        run = self.model.score_prepared(
            prepared.inputs.prepared,
            max_batch_tokens=self.config.max_batch_tokens,
            activation_fn=self._activation,
            on_batch=lambda _: beat(0),
        )
        beat(int(prepared.owners.max(initial=-1)) + 1)  # progress is told in rows, not in pairs
        return _Scores(replace(run, embeddings=prepared.inputs.spread(run.embeddings)), prepared.owners)

    def table(self, unit: Unit, rows: Rows, result: _Scores) -> pa.Table:
        """Return the candidates of each query by falling score; of equal scores the first one comes first."""
        scores = result.run.embeddings.reshape(-1)  # (M,)
        groups = self.config.candidates.groups(rows)[result.owners]  # (M,)
        order = np.lexsort((-scores, groups))  # which is stable
        groups = groups[order]
        starts = np.flatnonzero(np.diff(groups, prepend=-1))  # (Q,)
        ranks = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        kept = ranks < (self.config.top_k or len(order) + 1)
        order = order[kept]
        columns = {
            "query_id": self.config.candidates.query_ids(rows).take(pa.array(result.owners[order])),
            "doc_id": self.config.candidates.document_ids(rows).take(pa.array(order)),
            "score": pa.array(scores[order]),
            "rank": pa.array(ranks[kept].astype(np.int32) + 1),
        }
        return with_metadata(pa.table(columns), self.metadata | {"unit": {"file": unit.file, "start": unit.start}})

    def stats(self, rows: Rows, prepared: _Pairs, result: _Scores) -> dict[str, Any]:
        """Return tokens, their histogram, and the pairs."""
        return {
            **self.count_tokens(prepared.inputs, result.run),
            "pairs": len(prepared.inputs),
            "queries": len(np.unique(self.config.candidates.groups(rows))),
        }

    def invalid(self, result: _Scores) -> dict[int, str]:
        """Find rows with a score that is no finite number."""
        pairs = np.flatnonzero(~np.isfinite(result.run.embeddings).all(1))
        return dict.fromkeys(result.owners[pairs].tolist(), "a score is no finite number")

    def quarantine(self, rows: Rows, reasons: Mapping[int, str]) -> Rows:
        """Return ``rows`` less those at the given indices, which become bad rows."""
        return rows.without(reasons, self.config.candidates.key, {})

    def close(self) -> None:
        """Let go of the texts on this machine."""
        self._source.close()

    @cached_property
    def _activation(self) -> Any:
        from torch import nn

        return {"sigmoid": nn.Sigmoid(), "identity": nn.Identity(), None: None}[self.config.activation]

    @cached_property
    def metadata(self) -> dict[str, object]:
        """What made the scores, for the Parquet key-value metadata; equal in every file of an output."""
        return {
            **self.config.facts,
            "revision": self.config.revision,
            "prompt": self.config.prompt,
            "max_seq_length": self.model.max_seq_length,
            "dtype": self.model.precision,
            "versions": {name: version(name) for name in VERSIONS},
        }
