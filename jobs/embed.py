"""The embedding job.

ray job submit --working-dir . -- python -m jobs.embed --config embed.yaml
"""

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, ClassVar, Literal, Self

import pyarrow as pa
from pydantic import Field, PositiveInt, model_validator

from actors.embedder import CALIBRATION, Embedder, EmbedderConfig, SparseEmbedder
from actors.pool import Pool, PoolOptions
from actors.worker import UnitWorker
from jobs.job import Names
from jobs.model_job import RUNNING, ModelJob
from jobs.unit_job import Run
from sbert_ray.data.dataset import Dataset, RowReader
from sbert_ray.data.errors import InputError
from sbert_ray.data.rows import strings
from sbert_ray.data.units import default_rows_per_unit
from sbert_ray.models.checkpoint import CheckpointInfo
from sbert_ray.models.layout import stored_type

CALIBRATION_UNITS = 16
SAMPLE_ROWS = 512
IMAGES_PER_UNIT = 512
"""Images are read as a whole, so a unit of them has fewer rows by default than one of texts."""
SHARED = (
    "image_column",
    "id_column",
    "keep_columns",
    "task",
    "normalize",
    "truncate_dim",
    "max_active_dims",
    "precision",
)
"""Settings that change results and that the worker knows by the same names."""
IMAGE_TYPES = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_null,
)
MODEL_TYPES = {"dense": "SentenceTransformer", "sparse": "SparseEncoder"}


class EmbedJob(ModelJob):
    """Embed the texts or images of a dataset with a dense or a sparse model.

    The output has a Parquet file per unit of work in its folder `data`, in the order of the input: ids, kept columns
    and `embedding`, a list of fixed size; of a sparse model `indices` and `values`, lists of the dimensions that are
    not zero and of their values.
    """

    command: ClassVar[str] = "embed"

    kind: Literal["dense", "sparse"] | None = Field(
        default=None, description="type of embeddings; none: what the model was saved as, a plain transformer as dense"
    )
    text_column: Names = Field(
        default=("text",), min_length=1, description="column(s) to embed; several are joined by a line feed"
    )
    image_column: str | None = Field(
        default=None, description="column of images to embed instead: bytes, paths or URLs; needs an image-text model"
    )
    id_column: str | None = Field(
        default=None, description="column to copy; none: source_file and source_position tell rows apart"
    )
    keep_columns: Names = Field(default=(), description="further columns to copy")
    task: str | None = Field(
        default=None, description="`query` or `document`: takes the model's prompt and route for those"
    )
    normalize: bool = Field(default=False, description="scale embeddings to length 1")
    truncate_dim: PositiveInt | None = Field(default=None, description="keep so many leading dimensions")
    max_active_dims: PositiveInt | None = Field(
        default=None, description="keep so many of the largest values of each sparse embedding"
    )
    precision: Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"] = Field(
        default="float32", description="type of the embeddings in the output"
    )
    calibration_rows: PositiveInt = Field(
        default=4096, description="rows whose embeddings set the ranges of int8 and uint8, for all units alike"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.image_column and self.model_fields_set & {"text_column", "prompt", "prompt_name"}:
            raise ValueError("image_column goes without text_column, prompt and prompt_name, which are for texts")
        if repeated := self._repeated("embedding"):
            raise ValueError(f"column(s) {repeated} would be in the output twice; see id_column and keep_columns")
        return self

    def _repeated(self, *added: str) -> list[str]:
        """Return the columns of the output that would be in it twice, given those that the job adds."""
        ids = [self.id_column] if self.id_column else ["source_file", "source_position"]
        names = [*ids, *self.keep_columns, *added]
        return sorted({name for name in names if names.count(name) > 1})

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns of texts that are embedded."""
        return () if self.image_column else self.text_column

    @cached_property
    def model_type(self) -> str:
        """The class of `sbert_ray` that loads the model."""
        if self.kind is not None:
            return MODEL_TYPES[self.kind]
        folder = self.checkpoint.folder
        is_saved = (folder / "modules.json").exists()
        stored = stored_type(folder) if is_saved else "SentenceTransformer"
        if stored not in MODEL_TYPES.values():
            raise InputError(f"--model: {self.model} is a {stored}, which gives no embeddings; see --kind")
        return stored

    @property
    def named_as(self) -> str:
        """The type of model whose organization on the hub a name without an owner belongs to."""
        return MODEL_TYPES[self.kind or "dense"]

    @property
    def is_sparse(self) -> bool:
        """Whether the embeddings are."""
        return self.model_type == "SparseEncoder"

    def check_model(self, info: CheckpointInfo) -> None:
        """Make sure that the model fits the options.

        Raises:
            InputError: if it does not.
        """
        dense_only = {"normalize": self.normalize, "truncate_dim": self.truncate_dim, "image_column": self.image_column}
        dense_only["precision"] = self.precision != "float32"
        flags = [f"--{name.replace('_', '-')}" for name, value in dense_only.items() if value]
        if self.is_sparse and flags:
            raise InputError(f"{', '.join(flags)}: not for sparse models such as {self.model}")
        if self.is_sparse and (repeated := self._repeated("indices", "values")):
            raise InputError(f"--keep-columns: {repeated} would be in the output twice")
        if self.max_active_dims and not self.is_sparse:
            raise InputError(f"--max-active-dims is for sparse models, and {self.model} is dense; see --kind")
        if self.image_column and "image" not in info.modalities:
            kinds = list(info.modalities)
            raise InputError(f"--image-column needs an image-text model, and {self.model} takes {kinds}")
        dimension = info.embedding_dimension
        if dimension and self.truncate_dim and self.truncate_dim > dimension:
            raise InputError(f"--truncate-dim must be at most the model's {dimension}, got {self.truncate_dim}")
        width = self._dimension_of(info)
        if width and width % 8 and self.precision in ("binary", "ubinary"):
            raise InputError(f"--precision {self.precision} needs a dimension that 8 divides, got {width}")

    def _dimension_of(self, info: CheckpointInfo) -> int | None:
        """Return the dimension of the embeddings, where the model's files tell it."""
        wanted = self.truncate_dim or info.truncate_dim
        known = [size for size in (wanted, info.embedding_dimension) if size]
        return min(known, default=None)

    @property
    def default_prompt_name(self) -> str | None:
        """The name of the prompt that is used when none is given."""
        if self.image_column:
            return None
        wanted = {"query": ("query",), "document": ("document", "passage", "corpus")}.get(self.task or "", ())
        named = next((name for name in wanted if name in self.checkpoint_info.prompts), None)
        return named or self.checkpoint_info.default_prompt_name

    def open_dataset(self) -> Dataset:
        """Open the input and check its columns and the model."""
        ids = [self.id_column] if self.id_column else []
        images = [self.image_column] if self.image_column else []
        dataset = Dataset.open(self.input, self.text_columns, [*ids, *images], self.keep_columns)
        for name in images:
            kind = dataset.schema.field(name).type
            if not any(is_kind(kind) for is_kind in IMAGE_TYPES):
                raise InputError(f"--image-column: {name!r} is {kind}; it must hold bytes, paths or URLs")
        self.settings()  # a bad model fails here, before anything starts
        return dataset

    def default_rows(self, dataset: Dataset) -> int:
        """Return the rows of a unit where none are asked for."""
        rows = default_rows_per_unit(dataset.estimated_rows)
        return min(rows, IMAGES_PER_UNIT) if self.image_column else rows

    def settings(self) -> dict[str, Any]:
        """Return the settings that change results."""
        chosen = self.model_dump(mode="json", include={*SHARED, *RUNNING})
        chosen["text_column"] = list(self.text_columns)
        if self.precision in ("int8", "uint8"):
            chosen["calibration_rows"] = self.calibration_rows
        prompt = self.resolved_prompt
        return {**chosen, "kind": self.model_type, "model_revision": self.checkpoint.revision, "prompt": prompt}

    def facts(self) -> dict[str, Any]:
        """Return what the model's files tell, and what it is called."""
        info = self.checkpoint_info
        return {
            "model": self.model,
            "pooling": list(info.pooling_modes),
            "normalized": self.normalize or info.is_normalized,
            "similarity": info.similarity_fn_name or ("dot" if self.is_sparse else "cosine"),
        }

    def worker(self, reader: RowReader, options: PoolOptions, facts: dict[str, Any]) -> Callable[[], UnitWorker]:
        """Return what builds an embedder."""
        config = EmbedderConfig(
            **self.worker_config(options),
            text_columns=self.text_columns,
            facts=facts,
            **{name: getattr(self, name) for name in SHARED},
        )
        return partial(SparseEmbedder if self.is_sparse else Embedder, reader, self.output, config)

    def before(self, pool: Pool, run: Run) -> None:
        """Find the ranges of int8 and uint8 once, over rows from all over the input."""
        if self.precision not in ("int8", "uint8"):
            return
        plan = run.manifest.plan
        step = max(plan.num_units // CALIBRATION_UNITS, 1)
        units = [unit for unit in run.dataset.units(run.rows_per_unit, self.limit) if unit.index % step == 0]
        rows_per_unit = -(-self.calibration_rows // len(units))
        run.manifest.remember(CALIBRATION, lambda: pool.call("calibrate", units, rows_per_unit))

    def estimates(self, dataset: Dataset, rows: int) -> dict[str, str]:
        """Return the tokens of the input, estimated from a sample."""
        tokenizer = self.tokenizer() if self.text_columns else None
        if tokenizer is None:
            return {}
        longest = self.max_seq_length or self.checkpoint_info.max_seq_length or 2**30
        lengths: list[int] = []
        for sample in dataset.sample(self.text_columns[0], SAMPLE_ROWS):
            texts = [text or "" for text in strings(sample.table[self.text_columns[0]])[0]]
            lengths += [min(len(encoding), longest) for encoding in tokenizer.encode_batch(texts)]
        if not lengths:
            return {}
        mean = sum(lengths) / len(lengths)
        return {"tokens": f"about {mean * rows:,.0f}, from {len(lengths)} texts with {mean:.0f} on average"}

    def describe_model(self) -> dict[str, Any]:
        """Return what the report tells of the model."""
        return super().describe_model() | {
            "kind": self.model_type,
            "dimension": self._dimension_of(self.checkpoint_info),
            "pooling": ", ".join(self.checkpoint_info.pooling_modes),
            "normalize": self.normalize or self.checkpoint_info.is_normalized,
            "precision": self.precision,
        }


if __name__ == "__main__":
    EmbedJob.main()
