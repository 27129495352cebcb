"""The embedding job.

ray job submit --working-dir . -- python -m jobs.embed --config embed.yaml
"""

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator
from tokenizers import Tokenizer

from actors.embedder import CALIBRATION, Embedder, EmbedderConfig
from actors.pool import Pool, PoolOptions
from actors.worker import UnitWorker
from jobs.job import Names
from jobs.unit_job import Run, UnitJob
from sbert_ray.data.dataset import Dataset, RowReader
from sbert_ray.data.errors import InputError
from sbert_ray.data.rows import strings
from sbert_ray.models.checkpoint import Checkpoint, CheckpointInfo, describe_checkpoint, resolve_checkpoint

CALIBRATION_UNITS = 16
SAMPLE_ROWS = 512
SHARED = (
    "id_column",
    "keep_columns",
    "normalize",
    "truncate_dim",
    "precision",
    "dtype",
    "max_seq_length",
    "max_batch_tokens",
)
"""Settings that change results and that the worker knows by the same names."""


class EmbedJob(UnitJob):
    """Embed the texts of a dataset with a dense model.

    The output has a Parquet file per unit of work in its folder `data`: ids, kept columns and `embedding`, a list of
    fixed size, in the order of the input.
    """

    command: ClassVar[str] = "embed"

    model: str = Field(description="checkpoint folder, on a path that every node sees, or id of a model on the hub")
    revision: str | None = Field(default=None, description="branch, tag or commit on the hub")
    text_column: Names = Field(
        default=("text",), min_length=1, description="column(s) to embed; several are joined by a line feed"
    )
    id_column: str | None = Field(
        default=None, description="column to copy; none: source_file and source_position tell rows apart"
    )
    keep_columns: Names = Field(default=(), description="further columns to copy")
    prompt: str | None = Field(default=None, description="text to put before each text")
    prompt_name: str | None = Field(default=None, description="the same, by its name in the model's config")
    normalize: bool = Field(default=False, description="scale embeddings to length 1")
    truncate_dim: PositiveInt | None = Field(default=None, description="keep so many leading dimensions")
    precision: Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"] = Field(
        default="float32", description="type of the embeddings in the output"
    )
    calibration_rows: PositiveInt = Field(
        default=4096, description="rows whose embeddings set the ranges of int8 and uint8, for all units alike"
    )
    dtype: Literal["float32", "float16", "bfloat16"] | None = Field(
        default=None, description="type of the weights; none: float32 on CPUs, as stored on GPUs"
    )
    max_seq_length: PositiveInt | None = Field(
        default=None, description="cut texts to so many tokens; none: the model's"
    )
    max_batch_tokens: PositiveInt | None = Field(
        default=None, description="tokens, padding included, per forward pass; none: what suits the device"
    )
    trust_remote_code: bool = Field(default=False, description="run Python code that comes with the model")
    local_files_only: bool = Field(default=False, description="use only what was downloaded before, on each node")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.prompt is not None and self.prompt_name is not None:
            raise ValueError("give prompt or prompt_name, not both")
        names = [*([self.id_column] if self.id_column else ["source_file", "source_position"]), *self.keep_columns]
        if repeated := {name for name in [*names, "embedding"] if [*names, "embedding"].count(name) > 1}:
            raise ValueError(
                f"column(s) {sorted(repeated)} would be in the output twice; see id_column and keep_columns"
            )
        return self

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The model on the driver's machine.

        Raises:
            InputError: if there is none.
        """
        try:
            return resolve_checkpoint(
                self.model, revision=self.revision, local_files_only=self.local_files_only, allow_pickle=False
            )
        except ConnectionError:
            raise  # which may pass
        except (OSError, ValueError) as error:
            raise InputError(f"--model: {error}") from error

    @cached_property
    def checkpoint_info(self) -> CheckpointInfo:
        """What the model's files tell.

        Raises:
            InputError: if something is wrong with them, or they do not fit the options.
        """
        try:
            info = describe_checkpoint(self.checkpoint.folder)
        except (OSError, ValueError, ImportError) as error:
            raise InputError(f"--model: {error}") from error
        dimension = info.embedding_dimension
        if dimension and self.truncate_dim and self.truncate_dim > dimension:
            raise InputError(f"--truncate-dim must be at most the model's {dimension}, got {self.truncate_dim}")
        width = self._dimension_of(info)
        if width and width % 8 and self.precision in ("binary", "ubinary"):
            raise InputError(f"--precision {self.precision} needs a dimension that 8 divides, got {width}")
        return info

    def _dimension_of(self, info: CheckpointInfo) -> int | None:
        """Return the dimension of the embeddings, where the model's files tell it."""
        wanted = self.truncate_dim or info.truncate_dim
        known = [size for size in (wanted, info.embedding_dimension) if size]
        return min(known, default=None)

    @property
    def resolved_prompt(self) -> str | None:
        """The prompt itself.

        Raises:
            InputError: if the model has none of that name.
        """
        if self.prompt is not None:
            return self.prompt or None
        prompts = self.checkpoint_info.prompts
        name = self.prompt_name or self.checkpoint_info.default_prompt_name
        if name is None:
            return None
        if name not in prompts:
            raise InputError(f"--prompt-name: {self.model} has no prompt {name!r}; it has {sorted(prompts)}")
        return prompts[name] or None

    def open_dataset(self) -> Dataset:
        """Open the input and check its columns and the model."""
        ids = [self.id_column] if self.id_column else []
        dataset = Dataset.open(self.input, self.text_column, ids, self.keep_columns)
        self.settings()  # a bad model fails here, before anything starts
        return dataset

    def settings(self) -> dict[str, Any]:
        """Return the settings that change results."""
        chosen = self.model_dump(mode="json", include={"text_column", *SHARED})
        if self.precision in ("int8", "uint8"):
            chosen["calibration_rows"] = self.calibration_rows
        return {**chosen, "model_revision": self.checkpoint.revision, "prompt": self.resolved_prompt}

    def facts(self) -> dict[str, Any]:
        """Return what the model's files tell, and what it is called."""
        return {
            "model": self.model,
            "pooling": list(self.checkpoint_info.pooling_modes),
            "normalized": self.normalize or self.checkpoint_info.is_normalized,
            "similarity": self.checkpoint_info.similarity_fn_name or "cosine",
        }

    def worker(self, reader: RowReader, options: PoolOptions, facts: dict[str, Any]) -> Callable[[], UnitWorker]:
        """Return what builds an embedder."""
        is_local = Path(self.model).is_dir()
        config = EmbedderConfig(
            model=str(Path(self.model).resolve()) if is_local else self.model,
            revision=self.checkpoint.revision,
            is_local=is_local,
            text_columns=self.text_column,
            prompt=self.resolved_prompt,
            device=None if options.num_gpus else "cpu",
            num_threads=None if options.num_gpus else max(int(options.num_cpus), 1),
            trust_remote_code=self.trust_remote_code,
            local_files_only=self.local_files_only,
            facts=facts,
            **{name: getattr(self, name) for name in SHARED},
        )
        return partial(Embedder, reader, self.output, config)

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
        file = self.checkpoint.folder / "tokenizer.json"
        if not file.exists():
            return {}
        tokenizer = _read_tokenizer(file)
        longest = self.max_seq_length or self.checkpoint_info.max_seq_length or 2**30
        lengths: list[int] = []
        for sample in dataset.sample(self.text_column[0], SAMPLE_ROWS):
            texts = [text or "" for text in strings(sample.table[self.text_column[0]])[0]]
            lengths += [min(len(encoding), longest) for encoding in tokenizer.encode_batch(texts)]
        if not lengths:
            return {}
        mean = sum(lengths) / len(lengths)
        return {"tokens": f"about {mean * rows:,.0f}, from {len(lengths)} texts with {mean:.0f} on average"}

    def describe_model(self) -> dict[str, Any]:
        """Return what the report tells of the model."""
        return {
            "name": self.model,
            "revision": self.checkpoint.revision,
            "dimension": self._dimension_of(self.checkpoint_info),
            "pooling": ", ".join(self.checkpoint_info.pooling_modes),
            "normalize": self.normalize or self.checkpoint_info.is_normalized,
            "precision": self.precision,
            "prompt": self.resolved_prompt,
            "max_seq_length": self.max_seq_length or self.checkpoint_info.max_seq_length,
        }


def _read_tokenizer(file: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # what tokenizers raises has no class of its own
        raise InputError(f"--model: {file} is no tokenizer: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()  # the file may hold another limit than the model's
    return tokenizer


if __name__ == "__main__":
    EmbedJob.main()
