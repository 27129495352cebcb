"""What workers with a model have in common: which one, on which device, and what decides its last bits.

Shapes: N inputs, M distinct ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from actors.threads import limit_torch
from actors.worker import LENGTH_EDGES, UnitWorker
from sbert_ray.data.errors import InputError
from sbert_ray.models.checkpoint import resolve_checkpoint

if TYPE_CHECKING:
    from sbert_ray.inference.prepared import Prepared

LIBRARIES = ("sbert-ray", "torch", "transformers", "tokenizers")
"""Those whose versions decide the last bits."""
VERSIONS = ("sbert-ray", "torch", "transformers", "tokenizers", "pyarrow", "numpy")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which model, and how it runs; every field has its meaning from the jobs.

    Args:
        model: folder or hub id.
        model_type: class of `sbert_ray` that loads it.
        revision: commit on the hub, or the digest of the folder as the driver saw it.
        is_local: whether ``model`` is a folder.
        prompt: put before each text.
        dtype: what the model computes in; None leaves it to the model.
        max_seq_length: cut texts to so many tokens; None leaves it to the model.
        max_batch_tokens: tokens per forward pass; None leaves it to the engine.
        deduplicate: compute equal texts of a unit once.
        device: torch device; None takes a GPU if the actor has one.
        num_threads: CPU threads of this worker; None leaves them as they are.
        trust_remote_code: run code from the checkpoint.
        local_files_only: never ask the hub.
    """

    model: str
    model_type: str = "SentenceTransformer"
    revision: str
    is_local: bool
    prompt: str | None = None
    dtype: str | None = None
    max_seq_length: int | None = None
    max_batch_tokens: int | None = None
    deduplicate: bool = True
    device: str | None = None
    num_threads: int | None = None
    trust_remote_code: bool = False
    local_files_only: bool = False


@dataclass(frozen=True)
class Inputs:
    """N inputs, of which equal ones are prepared once."""

    prepared: "Prepared"
    """M of them"""
    places: NDArray[np.int64] | None = None
    """(N,), where each is among those; None where each has its own place"""

    def __len__(self) -> int:
        return len(self.prepared) if self.places is None else len(self.places)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Positions that each input takes (N,)."""
        return self.spread(self.prepared.lengths)

    @property
    def num_repeated(self) -> int:
        """Inputs that are equal to an earlier one."""
        return len(self) - len(self.prepared)

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return values of the distinct inputs (M, ...) as those of all (N, ...)."""
        return values if self.places is None else values[self.places]


class ModelWorker(UnitWorker):
    """Holds one model.

    Args:
        reader: gives the rows of a unit.
        output: folder that units are committed to.
        config: which model, and how it runs.
    """

    def __init__(self, reader: Any, output: str, config: ModelConfig) -> None:
        super().__init__(reader, output)
        self.config = config
        self.model = load_model(config)

    def prepare_distinct(self, texts: Sequence[Any], prepare: Callable[[Sequence[Any]], "Prepared"]) -> Inputs:
        """Prepare N texts, or pairs of them, equal ones once if that is asked for."""
        from sbert_ray.inference.distinct import distinct_texts

        found = distinct_texts(texts) if self.config.deduplicate else None
        return Inputs(prepare(texts)) if found is None else Inputs(prepare(found.values), found.rows)

    def count_tokens(self, inputs: Inputs, run: Any) -> dict[str, Any]:
        """Return what the report tells of N texts or pairs, of which ``run`` computed the distinct ones."""
        longest = self.model.max_seq_length
        return {
            "tokens": int(inputs.lengths.sum()),
            "computed_tokens": run.num_tokens,
            "padded_tokens": run.num_padded_tokens,
            "token_lengths": np.histogram(inputs.lengths, LENGTH_EDGES)[0].tolist(),
            "truncated_texts": int((inputs.lengths >= longest).sum()) if longest else 0,
            "duplicate_texts": inputs.num_repeated,
            "halvings": run.num_halvings,
        }

    @property
    def environment(self) -> str:
        """Kind of device, type of weights, threads and libraries, which decide the last bits."""
        import torch

        from sbert_ray.inference.int8 import greatest_code

        precision = self.model.precision
        if precision == "int8":
            precision += f" up to {greatest_code()}"  # which depends on the CPU
        threads = f" with {torch.get_num_threads()} thread(s)" if self.model.device.type == "cpu" else ""
        libraries = ", ".join(
            f"{name} {version(name)}" for name in ("sbert-ray", "torch", "transformers", "tokenizers")
        )
        return f"{self.model.device.type} in {precision}{threads} by {libraries}"


def load_model(config: ModelConfig) -> Any:
    """Load the model, with the number of threads that this worker may use.

    Raises:
        InputError: if a folder on this machine is not the model that the run was planned with.
    """
    if config.is_local and (found := resolve_checkpoint(config.model).revision) != config.revision:
        raise InputError(
            f"the model folder {config.model} is {found} on this node, but the run began with {config.revision}"
        )
    if config.num_threads is not None:
        limit_torch(config.num_threads)
    model = getattr(import_module("sbert_ray"), config.model_type)(
        config.model,
        device=config.device,
        revision=None if config.is_local else config.revision,
        trust_remote_code=config.trust_remote_code,
        local_files_only=config.local_files_only,
        model_kwargs={"dtype": config.dtype} if config.dtype else None,
    )
    if model.untrained:
        raise InputError(f"the weights of {config.model} lack {model.untrained}, which would start at random")
    if config.max_seq_length is not None:
        model.max_seq_length = config.max_seq_length
    return model
