"""The embedding workers, dense and sparse."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actors.images import read_images
from actors.model_worker import VERSIONS, Inputs, ModelConfig, ModelWorker
from actors.stages import Beat, Stopwatch
from sbert_ray.data.errors import InputError
from sbert_ray.data.kinds import num_repeated
from sbert_ray.data.rows import Rows, strings
from sbert_ray.data.sink import with_metadata
from sbert_ray.data.units import Unit
from sbert_ray.quantization import calibration_ranges, quantize_embeddings

if TYPE_CHECKING:
    from sbert_ray.inference.prepared import Prepared
    from sbert_ray.inference.sparse import SparseRun

MAX_OFFSET = 2**31 - 1
IMAGES = "bytes of the images"
"""The column that they are in within the worker."""
CALIBRATION = "calibration"
"""Fact of the manifest that holds the ranges for int8 and uint8."""


@dataclass(frozen=True, kw_only=True)
class EmbedderConfig(ModelConfig):
    """What to embed, and how; every field has its meaning from the job of the same name.

    Args:
        text_columns: joined by a line feed, in this order; nulls among them are left out.
        image_column: embedded instead: images as bytes, paths or URLs.
        id_column: copied to the output; without one the output tells file and position.
        keep_columns: copied to the output.
        task: route of a model with a Router.
        normalize: scale embeddings to length 1.
        truncate_dim: keep so many leading dimensions.
        max_active_dims: keep so many of the largest dimensions, of sparse embeddings.
        precision: float32, float16, int8, uint8, binary or ubinary.
        facts: what the driver found out about the model, for the metadata of the output.
    """

    text_columns: tuple[str, ...] = ()
    image_column: str | None = None
    id_column: str | None = None
    keep_columns: tuple[str, ...] = ()
    task: str | None = None
    normalize: bool = False
    truncate_dim: int | None = None
    max_active_dims: int | None = None
    precision: str = "float32"
    facts: Mapping[str, object] = field(default_factory=dict)


class Embedder(ModelWorker):
    """Holds one dense model and turns units of texts or images into units of embeddings.

    Args:
        reader: gives the rows of a unit.
        output: folder that units are committed to.
        config: what to embed, and how.
    """

    config: EmbedderConfig

    @property
    def columns(self) -> Sequence[str]:
        """Input columns that are needed."""
        ids = [self.config.id_column] if self.config.id_column else []
        images = [self.config.image_column] if self.config.image_column else []
        return list(dict.fromkeys([*ids, *self.config.text_columns, *images, *self.config.keep_columns]))

    def check(self, rows: Rows, excluded: Mapping[int, str], beat: Beat) -> Rows:
        """Drop rows without a text, with a text that is no valid UTF-8, and those at ``excluded`` positions.

        Of images, rows without one that looks like an image; those that rows name take their place.
        """
        reasons = {i: excluded[int(p)] for i, p in enumerate(rows.positions) if int(p) in excluded}
        if self.config.image_column:
            rows, faults = self._with_images(rows, self.config.image_column, reasons, beat)
            return rows.without(faults | reasons, self.config.id_column, {})
        present = np.zeros(len(rows), dtype=bool)
        for column in self.config.text_columns:
            values, invalid = strings(rows.table[column])
            present |= np.array([value is not None for value in values], dtype=bool)
            reasons |= {index: f"column {column!r}: {reason}" for index, reason in invalid.items()}
        names = " and ".join(repr(column) for column in self.config.text_columns)
        missing = {int(i): f"the text is null (column {names})" for i in np.flatnonzero(~present)}
        return rows.without(missing | reasons, self.config.id_column, {})

    def _with_images(self, rows: Rows, name: str, excluded: Collection[int], beat: Beat) -> tuple[Rows, dict[int, str]]:
        """Return rows with the bytes of their images, and why some have none, by index."""
        values, invalid = strings(rows.table[name])
        wanted = [None if index in excluded else value for index, value in enumerate(values)]
        images, faults = read_images(wanted, self.reader.url, beat)
        faults = {index: f"column {name!r}: {reason}" for index, reason in (faults | invalid).items()}
        # Beside what the rows name, which may be copied to the output.
        table = rows.table.append_column(IMAGES, pa.array(images, pa.large_binary()))
        return replace(rows, table=table), faults

    def blame(self, rows: Rows, error: Exception, beat: Beat) -> dict[int, str]:
        """Find the images that cannot be decoded, if ``error`` is that one cannot be."""
        from sbert_ray.inference.images import ImageError, open_image
        from sbert_ray.inference.inputs import BadInputError

        if not self.config.image_column or not isinstance(error, BadInputError):
            return {}
        faults = {error.row: error.reason}
        for index, image in enumerate(self._images(rows)):
            try:
                open_image(image)
            except ImageError as fault:
                faults[index] = str(fault)
            beat(0)
        return faults

    def prepare(self, rows: Rows, beat: Beat, watch: Stopwatch) -> Inputs:
        """Tokenize the texts."""
        with watch.stage("tokenize"):
            if self.config.image_column:
                return Inputs(self._prepare_inputs(self._images(rows), beat))
            return self.prepare_distinct(self._texts(rows), lambda texts: self._prepare_texts(texts, beat))

    def _prepare_texts(self, texts: Sequence[str], beat: Beat) -> "Prepared":
        if "image" in self.model.modalities:
            # So that the name or address of an image stays a text.
            return self._prepare_inputs([{"text": text} for text in texts], beat)
        return self._prepare_inputs(texts, beat)

    def _prepare_inputs(self, inputs: Sequence[Any], beat: Beat) -> "Prepared":
        config = self.config
        prepared: Prepared = self.model.prepare(inputs, config.prompt, task=config.task, on_chunk=lambda: beat(0))
        return prepared

    def compute(self, prepared: Inputs, beat: Beat) -> Any:
        """Embed the texts."""
        run = self.model.embed_prepared(
            prepared.prepared,
            max_batch_tokens=self.config.max_batch_tokens,
            normalize_embeddings=self.config.normalize,
            truncate_dim=self.config.truncate_dim,
            on_batch=beat,
            task=self.config.task,
        )
        beat(prepared.num_repeated)
        return replace(run, embeddings=prepared.spread(run.embeddings))

    def table(self, unit: Unit, rows: Rows, result: Any) -> pa.Table:
        """Return ids, kept columns and embeddings."""
        if self.config.id_column:
            columns = {self.config.id_column: rows.table[self.config.id_column]}
        else:
            files = pa.array([unit.file], pa.string())
            columns = {
                "source_file": pa.DictionaryArray.from_arrays(np.zeros(len(rows), np.int32), files),
                "source_position": pa.array(rows.positions),
            }
        columns |= {name: rows.table[name] for name in self.config.keep_columns}
        columns |= self.embedding_columns(result)
        return with_metadata(pa.table(columns), self.metadata | {"unit": {"file": unit.file, "start": unit.start}})

    def embedding_columns(self, result: Any) -> dict[str, pa.Array]:
        """Return the columns that hold the embeddings."""
        return {"embedding": embedding_column(self.quantize(result.embeddings))}

    def stats(self, rows: Rows, prepared: Inputs, result: Any) -> dict[str, Any]:
        """Return tokens, their histogram, and what is odd about the texts and ids."""
        id_column = self.config.id_column
        counts = self.count_tokens(prepared, result)
        if self.config.image_column:
            counts["truncated_texts"] = 0
        return {
            **counts,
            "empty_texts": sum(not text.strip() for text in self._texts(rows)),
            "duplicate_ids": num_repeated(rows.table[id_column]) if id_column else 0,
        }

    def invalid(self, result: Any) -> dict[int, str]:
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
        excerpts = {index: texts[index] for index in reasons if texts}
        return rows.without(reasons, self.config.id_column, excerpts)

    def calibrate(self, units: Sequence[Unit], beat: Beat, rows_per_unit: int) -> dict[str, Any]:
        """Return the range of each dimension over the first rows of ``units``, which int8 and uint8 are scaled by.

        Raises:
            InputError: if there is not a good row among them.
        """
        sample: list[NDArray[np.float32]] = []
        for unit in units:
            rows = self.check(next(iter(self.reader.read(unit, self.columns))), {}, beat)
            rows = rows.take(range(min(rows_per_unit, len(rows))))
            if len(rows):
                sample.append(self.result_of(rows, beat).embeddings)
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
            "dtype": self.model.precision,
            "versions": {name: version(name) for name in VERSIONS},
        }

    def _images(self, rows: Rows) -> list[bytes]:
        return list(rows.table[IMAGES].to_pylist())

    def _texts(self, rows: Rows) -> list[str]:
        columns = [strings(rows.table[column])[0] for column in self.config.text_columns]
        return ["\n".join(value for value in values if value is not None) for values in zip(*columns, strict=True)]


class SparseEmbedder(Embedder):
    """Holds one sparse model and turns units of texts into units of indices and values."""

    def compute(self, prepared: Inputs, beat: Beat) -> "SparseRun":
        """Embed the texts."""
        run: SparseRun = self.model.embed_prepared(
            prepared.prepared,
            max_batch_tokens=self.config.max_batch_tokens,
            max_active_dims=self.config.max_active_dims,
            on_batch=beat,
            task=self.config.task,
        )
        beat(prepared.num_repeated)
        return run if prepared.places is None else replace(run, rows=run.rows.take(prepared.places))

    def embedding_columns(self, result: "SparseRun") -> dict[str, pa.Array]:
        """Return a list of dimensions and a list of their values for each row, without a copy of either."""
        rows = result.rows
        if rows.offsets[-1] > MAX_OFFSET:
            raise InputError(
                f"{len(rows)} rows have {rows.offsets[-1]} values, too many for a column; lower rows_per_unit"
                " or max_active_dims"
            )
        offsets = pa.array(rows.offsets.astype(np.int32))
        return {
            "indices": pa.ListArray.from_arrays(offsets, pa.array(rows.indices)),
            "values": pa.ListArray.from_arrays(offsets, pa.array(rows.values)),
        }

    def invalid(self, result: "SparseRun") -> dict[int, str]:
        """Find embeddings that are no finite numbers."""
        places = np.flatnonzero(~np.isfinite(result.rows.values))
        found = np.searchsorted(result.rows.offsets, places, side="right") - 1
        return dict.fromkeys(found.tolist(), "the embedding has a value that is no finite number")


def embedding_column(embeddings: NDArray[Any]) -> pa.FixedSizeListArray:
    """View embeddings (N, D) as an Arrow column of N lists of D numbers, without a copy."""
    flat = pa.array(np.ascontiguousarray(embeddings).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, embeddings.shape[1])
