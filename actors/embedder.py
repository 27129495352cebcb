"""The dense embedding worker."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import sbert_ray
from actors.worker import LENGTH_EDGES, Beat, Stopwatch, UnitWorker
from sbert_ray.data.dataset import RowReader
from sbert_ray.data.errors import InputError
from sbert_ray.data.kinds import num_repeated
from sbert_ray.data.rows import Rows, strings
from sbert_ray.data.sink import with_metadata
from sbert_ray.data.units import Unit
from sbert_ray.models.checkpoint import resolve_checkpoint
from sbert_ray.quantization import calibration_ranges, quantize_embeddings

if TYPE_CHECKING:
    from sbert_ray.inference.engine import EmbedRun
    from sbert_ray.inference.prepared import Prepared
    from sbert_ray.models.sentence_transformer import SentenceTransformer

CALIBRATION = "calibration"
"""Fact of the manifest that holds the ranges for int8 and uint8."""
VERSIONS = ("sbert-ray", "torch", "transformers", "tokenizers", "pyarrow", "numpy")


@dataclass(frozen=True)
class EmbedderConfig:
    """What to embed, and how; every field has its meaning from the job of the same name.

    Args:
        model: folder or hub id.
        revision: commit on the hub, or the digest of the folder as the driver saw it.
        is_local: whether ``model`` is a folder.
        text_columns: joined by a line feed, in this order; nulls among them are left out.
        id_column: copied to the output; without one the output tells file and position.
        keep_columns: copied to the output.
        prompt: put before each text.
        normalize: scale embeddings to length 1.
        truncate_dim: keep so many leading dimensions.
        precision: float32, float16, int8, uint8, binary or ubinary.
        dtype: float type of the model's weights; None leaves it to the model.
        max_seq_length: cut texts to so many tokens; None leaves it to the model.
        max_batch_tokens: tokens per forward pass; None leaves it to the engine.
        device: torch device; None takes a GPU if the actor has one.
        num_threads: CPU threads of this worker; None leaves them as they are.
        trust_remote_code: run code from the checkpoint.
        local_files_only: never ask the hub.
        facts: what the driver found out about the model, for the metadata of the output.
    """

    model: str
    revision: str
    is_local: bool
    text_columns: tuple[str, ...]
    id_column: str | None = None
    keep_columns: tuple[str, ...] = ()
    prompt: str | None = None
    normalize: bool = False
    truncate_dim: int | None = None
    precision: str = "float32"
    dtype: str | None = None
    max_seq_length: int | None = None
    max_batch_tokens: int | None = None
    device: str | None = None
    num_threads: int | None = None
    trust_remote_code: bool = False
    local_files_only: bool = False
    facts: Mapping[str, object] = field(default_factory=dict)


class Embedder(UnitWorker):
    """Holds one dense model and turns units of text into units of embeddings.

    Args:
        reader: gives the rows of a unit.
        output: folder that units are committed to.
        config: what to embed, and how.
    """

    def __init__(self, reader: RowReader, output: str, config: EmbedderConfig) -> None:
        super().__init__(reader, output)
        self.config = config
        self.model = load_model(config)

    @property
    def columns(self) -> Sequence[str]:
        """Input columns that are needed."""
        ids = [self.config.id_column] if self.config.id_column else []
        return list(dict.fromkeys([*ids, *self.config.text_columns, *self.config.keep_columns]))

    def check(self, rows: Rows, excluded: Mapping[int, str]) -> Rows:
        """Drop rows without a text, with a text that is no valid UTF-8, and those at ``excluded`` positions."""
        reasons = {i: excluded[int(p)] for i, p in enumerate(rows.positions) if int(p) in excluded}
        present = np.zeros(len(rows), dtype=bool)
        for column in self.config.text_columns:
            values, invalid = strings(rows.table[column])
            present |= np.array([value is not None for value in values], dtype=bool)
            reasons |= {index: f"column {column!r}: {reason}" for index, reason in invalid.items()}
        names = " and ".join(repr(column) for column in self.config.text_columns)
        missing = {int(i): f"the text is null (column {names})" for i in np.flatnonzero(~present)}
        return rows.without(missing | reasons, self.config.id_column, {})

    def prepare(self, rows: Rows, beat: Beat, watch: Stopwatch) -> "Prepared":
        """Tokenize the texts."""
        with watch.stage("tokenize"):
            return self.model.prepare(self._texts(rows), self.config.prompt, on_chunk=lambda: beat(0))

    def compute(self, prepared: "Prepared", beat: Beat) -> "EmbedRun":
        """Embed the texts."""
        return self.model.embed_prepared(
            prepared,
            max_batch_tokens=self.config.max_batch_tokens,
            normalize_embeddings=self.config.normalize,
            truncate_dim=self.config.truncate_dim,
            on_batch=beat,
        )

    def table(self, unit: Unit, rows: Rows, result: "EmbedRun") -> pa.Table:
        """Return ids, kept columns and embeddings."""
        embeddings = self.quantize(result.embeddings)
        if self.config.id_column:
            columns = {self.config.id_column: rows.table[self.config.id_column]}
        else:
            files = pa.array([unit.file], pa.string())
            columns = {
                "source_file": pa.DictionaryArray.from_arrays(np.zeros(len(rows), np.int32), files),
                "source_position": pa.array(rows.positions),
            }
        columns |= {name: rows.table[name] for name in self.config.keep_columns}
        columns["embedding"] = embedding_column(embeddings)
        return with_metadata(pa.table(columns), self.metadata | {"unit": {"file": unit.file, "start": unit.start}})

    def stats(self, rows: Rows, prepared: "Prepared", result: "EmbedRun") -> dict[str, Any]:
        """Return tokens, their histogram, and what is odd about the texts and ids."""
        lengths = prepared.lengths
        id_column = self.config.id_column
        longest = self.model.max_seq_length
        return {
            "tokens": result.num_tokens,
            "padded_tokens": result.num_padded_tokens,
            "token_lengths": np.histogram(lengths, LENGTH_EDGES)[0].tolist(),
            "empty_texts": sum(not text.strip() for text in self._texts(rows)),
            "truncated_texts": int((lengths >= longest).sum()) if longest else 0,
            "duplicate_ids": num_repeated(rows.table[id_column]) if id_column else 0,
        }

    @property
    def environment(self) -> str:
        """Kind of device, type of weights, threads and libraries, which decide the last bits."""
        import torch

        threads = f" with {torch.get_num_threads()} thread(s)" if self.model.device.type == "cpu" else ""
        libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "tokenizers"))
        return f"{self.model.device.type} in {str(self.model.dtype).removeprefix('torch.')}{threads} by {libraries}"

    def invalid(self, result: "EmbedRun") -> dict[int, str]:
        """Find embeddings that are no finite numbers in the output's precision."""
        stored = result.embeddings
        if self.config.precision == "float16":
            with np.errstate(over="ignore"):
                stored = stored.astype(np.float16)
        rows = np.flatnonzero(~np.isfinite(stored).all(1))
        return {int(row): "the embedding has a value that is no finite number" for row in rows}

    def quarantine(self, rows: Rows, reasons: Mapping[int, str]) -> Rows:
        """Return ``rows`` less those at the given indices, which become bad rows."""
        texts = self._texts(rows)
        return rows.without(reasons, self.config.id_column, {index: texts[index] for index in reasons})

    def calibrate(self, units: Sequence[Unit], beat: Beat, rows_per_unit: int) -> dict[str, Any]:
        """Return the range of each dimension over the first rows of ``units``, which int8 and uint8 are scaled by.

        Raises:
            InputError: if there is not a good row among them.
        """
        sample: list[NDArray[np.float32]] = []
        for unit in units:
            rows = self.check(next(iter(self.reader.read(unit, self.columns))), {})
            rows = rows.take(range(min(rows_per_unit, len(rows))))
            if len(rows):
                _, _, run = self._transform(rows, beat, Stopwatch())
                sample.append(run.embeddings)
        if not sample:
            raise InputError(
                f"none of the rows that int8 and uint8 would be scaled by can be embedded: {units[0]}, ..."
            )
        ranges = calibration_ranges(np.concatenate(sample))
        return {"rows": sum(len(part) for part in sample), "min": ranges[0].tolist(), "max": ranges[1].tolist()}

    def quantize(self, embeddings: NDArray[np.float32]) -> NDArray[Any]:
        """Return embeddings (N, D) in the output's precision; binary ones are (N, D / 8)."""
        match self.config.precision:
            case "float32":
                return embeddings
            case "float16":
                return embeddings.astype(np.float16)
            case "int8" | "uint8":
                return np.asarray(quantize_embeddings(embeddings, self.config.precision, ranges=self._ranges))
        return np.asarray(quantize_embeddings(embeddings, self.config.precision))

    @cached_property
    def _ranges(self) -> NDArray[np.float32]:
        found = json.loads(self.storage.read(f"_manifest/{CALIBRATION}.json"))
        return np.array([found["min"], found["max"]], dtype=np.float32)

    @cached_property
    def metadata(self) -> dict[str, object]:
        """What made the embeddings, for the Parquet key-value metadata; equal in every file of an output."""
        return {
            **self.config.facts,
            "revision": self.config.revision,
            "prompt": self.config.prompt,
            "dimension": self.config.truncate_dim or self.model.get_embedding_dimension(),
            "max_seq_length": self.model.max_seq_length,
            "precision": self.config.precision,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "versions": {name: version(name) for name in VERSIONS},
        }

    def _texts(self, rows: Rows) -> list[str]:
        columns = [strings(rows.table[column])[0] for column in self.config.text_columns]
        return ["\n".join(value for value in values if value is not None) for values in zip(*columns, strict=True)]


def load_model(config: EmbedderConfig) -> "SentenceTransformer":
    """Load the model, with the number of threads that this worker may use.

    Raises:
        InputError: if a folder on this machine is not the model that the run was planned with.
    """
    from sbert_ray.inference.threads import limit_threads

    if config.is_local and (found := resolve_checkpoint(config.model).revision) != config.revision:
        raise InputError(
            f"the model folder {config.model} is {found} on this node, but the run began with {config.revision}"
        )
    if config.num_threads is not None:
        limit_threads(config.num_threads)
    model = sbert_ray.SentenceTransformer(
        config.model,
        device=config.device,
        revision=None if config.is_local else config.revision,
        trust_remote_code=config.trust_remote_code,
        local_files_only=config.local_files_only,
        model_kwargs={"dtype": config.dtype} if config.dtype else None,
    )
    if config.max_seq_length is not None:
        model.max_seq_length = config.max_seq_length
    return model


def embedding_column(embeddings: NDArray[Any]) -> pa.FixedSizeListArray:
    """View embeddings (N, D) as an Arrow column of N lists of D numbers, without a copy."""
    flat = pa.array(np.ascontiguousarray(embeddings).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, embeddings.shape[1])
