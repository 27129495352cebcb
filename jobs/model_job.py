"""What jobs with a model share: which one it is, what its files tell, and how it runs."""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator
from tokenizers import Tokenizer

from actors.pool import PoolOptions
from jobs.unit_job import UnitJob
from sbert_ray.data.errors import InputError
from sbert_ray.models.checkpoint import (
    UNLIMITED,
    Checkpoint,
    CheckpointInfo,
    describe_checkpoint,
    resolve_checkpoint,
)

RUNNING = ("dtype", "max_seq_length", "max_batch_tokens", "deduplicate")
"""Settings that change results and that workers know by the same names."""


class ModelJob(UnitJob):
    """A job whose workers hold a model each."""

    model: str = Field(description="checkpoint folder, on a path that every node sees, or id of a model on the hub")
    revision: str | None = Field(default=None, description="branch, tag or commit on the hub")
    prompt: str | None = Field(default=None, description="text to put before each text")
    prompt_name: str | None = Field(default=None, description="the same, by its name in the model's config")
    dtype: Literal["float32", "float16", "bfloat16", "int8"] | None = Field(
        default=None, description="what the model computes in; none: float32 on CPUs, as stored on GPUs"
    )
    max_seq_length: PositiveInt | None = Field(
        default=None, description="cut texts to so many tokens; none: the model's"
    )
    max_batch_tokens: PositiveInt | None = Field(
        default=None, description="tokens, padding included, per forward pass; none: what suits the device"
    )
    deduplicate: bool = Field(
        default=True, description="compute equal texts of a unit of work once; the output has all rows all the same"
    )
    trust_remote_code: bool = Field(default=False, description="run Python code that comes with the model")
    local_files_only: bool = Field(default=False, description="use only what was downloaded before, on each node")

    @model_validator(mode="after")
    def _check_prompt(self) -> Self:
        if self.prompt is not None and self.prompt_name is not None:
            raise ValueError("give prompt or prompt_name, not both")
        return self

    @property
    def model_type(self) -> str:
        """The class of `sbert_ray` that loads the model."""
        return "SentenceTransformer"

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The model on the driver's machine.

        Raises:
            InputError: if there is none.
        """
        try:
            return resolve_checkpoint(
                self.model,
                revision=self.revision,
                local_files_only=self.local_files_only,
                allow_pickle=False,
                model_type=self.named_as,
            )
        except ConnectionError:
            raise  # which may pass
        except (OSError, ValueError) as error:
            raise InputError(f"--model: {error}") from error

    @property
    def named_as(self) -> str:
        """The type of model whose organization on the hub a name without an owner belongs to."""
        return "SentenceTransformer"

    @cached_property
    def checkpoint_info(self) -> CheckpointInfo:
        """What the model's files tell.

        Raises:
            InputError: if something is wrong with them, or they do not fit the options.
        """
        folder, model_type = self.checkpoint.folder, self.model_type
        try:
            info = describe_checkpoint(folder, model_type=model_type)
        except (OSError, ValueError, ImportError) as error:
            raise InputError(f"--model: {error}") from error
        if self.max_seq_length and info.modules[0] in UNLIMITED:
            raise InputError(f"--max-seq-length: the model's {info.modules[0]} reads texts of any length")
        if info.untrained:
            missing = " and ".join(info.untrained)
            raise InputError(
                f"--model: as a {self.model_type}, {self.model} has no trained {missing}, which would start at random"
                " in each worker; train it, save it, and give that"
            )
        self.check_model(info)
        return info

    def check_model(self, info: CheckpointInfo) -> None:
        """Make sure that the model fits the options.

        Raises:
            InputError: if it does not.
        """

    @property
    def resolved_prompt(self) -> str | None:
        """The prompt itself.

        Raises:
            InputError: if the model has none of that name.
        """
        if self.prompt is not None:
            return self.prompt or None
        prompts = self.checkpoint_info.prompts
        name = self.prompt_name or self.default_prompt_name
        if name is None:
            return None
        if name not in prompts:
            raise InputError(f"--prompt-name: {self.model} has no prompt {name!r}; it has {sorted(prompts)}")
        return prompts[name] or None

    @property
    def default_prompt_name(self) -> str | None:
        """The name of the prompt that is used when none is given."""
        return self.checkpoint_info.default_prompt_name

    def worker_config(self, options: PoolOptions) -> dict[str, Any]:
        """Return the arguments that the configs of all workers with a model have in common.

        Args:
            options: what the worker's actor has.
        """
        is_local = Path(self.model).is_dir()
        return {
            "model": str(Path(self.model).resolve()) if is_local else self.checkpoint.repository or self.model,
            "model_type": self.model_type,
            "revision": self.checkpoint.revision,
            "is_local": is_local,
            "prompt": self.resolved_prompt,
            "device": None if options.num_gpus else "cpu",
            "num_threads": options.threads,
            "trust_remote_code": self.trust_remote_code,
            "local_files_only": self.local_files_only,
            **{name: getattr(self, name) for name in RUNNING},
        }

    def describe_model(self) -> dict[str, Any]:
        """Return what the report tells of the model."""
        return {
            "name": self.model,
            "revision": self.checkpoint.revision,
            "prompt": self.resolved_prompt,
            "max_seq_length": self.max_seq_length or self.checkpoint_info.max_seq_length,
        }

    def tokenizer(self) -> Tokenizer | None:
        """Return the model's tokenizer without limits, where its files have one.

        Raises:
            InputError: if the file is none.
        """
        file = self.checkpoint.folder / "tokenizer.json"
        if not file.exists():
            return None
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # what tokenizers raises has no class of its own
            raise InputError(f"--model: {file} is no tokenizer: {error}") from error
        tokenizer.no_padding()
        tokenizer.no_truncation()  # the file may hold another limit than the model's
        return tokenizer
