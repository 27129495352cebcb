"""The steps that a model is made of, and how they are kept on disk."""

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sbert_ray.inference.prepared import Features, Prepared
from sbert_ray.modules.configs import read_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadOptions:
    """How modules are loaded; the three mappings go to the ``from_pretrained`` of model, tokenizer and config."""

    device: str = "cpu"
    trust_remote_code: bool = False
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    processor_kwargs: Mapping[str, Any] = field(default_factory=dict)
    config_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def allow_pickle(self) -> bool:
        """Whether the user asked for pickled weights; they are read by ``torch.load(weights_only=True)`` even then."""
        return self.model_kwargs.get("use_safetensors") is False


class Module(nn.Module, ABC):
    """One step of a model: reads features, returns them with its own added, and never changes its input.

    A module's folder in a checkpoint holds its constructor arguments as JSON and, if it has weights,
    ``model.safetensors``.
    """

    public_path: ClassVar[str]
    """The module's import path in sentence-transformers 6.2, which is its type in ``modules.json``."""

    config_name: ClassVar[str] = "config.json"

    forward_kwargs: ClassVar[frozenset[str]] = frozenset()
    """Names of the further arguments that ``forward`` takes from the model's."""

    given_kwargs: tuple[str, ...] = ()
    """The same, as the checkpoint names them."""

    @property
    def takes_packed(self) -> bool:
        """Whether the module can follow a transformer whose texts are packed: a `Packing` in the features' ``packing``.

        Its token embeddings are (L, D) then, those of all texts one after the other, and there is no mask.
        """
        return False

    @abstractmethod
    def forward(self, features: Features) -> Features:
        """Return ``features`` with this module's output added."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, as JSON values."""

    def get_embedding_dimension(self) -> int | None:
        """Return D of the embeddings that come out, or None where the module leaves D as it is."""
        return None

    def get_sentence_embedding_dimension(self) -> int | None:
        """Return D: an old name of `get_embedding_dimension`."""
        return self.get_embedding_dimension()

    def get_word_embedding_dimension(self) -> int | None:
        """Return D: an old name of `get_embedding_dimension`."""
        return self.get_embedding_dimension()

    @classmethod
    def default(cls, config: Mapping[str, Any], before: Sequence["Module"]) -> Self:  # noqa: ARG003 (for those that ask)
        """Build the module that a checkpoint without it gets.

        Args:
            config: The constructor's arguments.
            before: The modules before it.
        """
        return cls(**config)

    @classmethod
    def load(cls, folder: Path, options: LoadOptions) -> Self:
        """Build the module from its folder in a checkpoint.

        Raises:
            FileNotFoundError: The module has weights and ``folder`` lacks them.
            ValueError: The config does not fit the module.
        """
        module = cls._from_config(cls.read_config(folder), folder)
        if module.state_dict():
            _load_weights(module, folder, options)
        return module

    @classmethod
    def _from_config(cls, config: dict[str, Any], folder: Path) -> Self:
        try:
            return cls(**config)
        except TypeError as error:
            raise ValueError(f"the config in {str(folder)!r} does not fit {cls.__name__}: {error}") from error

    def save(self, folder: Path) -> None:
        """Write the module to its folder in a checkpoint."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / self.config_name).write_text(json.dumps(self.config(), indent=4), encoding="utf-8")
        if weights := self.state_dict():
            weights = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    @classmethod
    def read_config(cls, folder: Path) -> dict[str, Any]:
        """Return the JSON config in ``folder``; modules without one (old ``Normalize``) need no arguments."""
        path = folder / cls.config_name
        config: dict[str, Any] = read_json(path) if path.exists() else {}
        return config


class InputModule(Module):
    """A module that may come first in a model: it makes features of what users give."""

    save_in_root: ClassVar[bool] = False
    """Whether its files lie at the root of the checkpoint when it comes first."""

    modalities: tuple[str, ...] = ("text",)
    """Kinds of input that it takes: of ``text`` and ``image``."""

    tokenizer: Any
    max_seq_length: int | None

    @property
    def max_positions(self) -> int | None:
        """Positions that the costliest possible input takes; None where there is no limit."""
        return self.max_seq_length

    @abstractmethod
    def prepare(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        *,
        task: str | None = None,
        on_chunk: Callable[[], None] | None = None,
    ) -> Prepared:
        """Do what needs no device, such as tokenizing; safe while another thread runs the model.

        Args:
            inputs: N texts, pairs of texts or images, all of one kind.
            prompt: Put before each text.
            task: What the inputs are: ``query``, ``document`` or another route of a Router.
            on_chunk: Called now and then, as a sign of life.
        """

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, *, task: str | None = None) -> Features:
        """Return the features of all inputs as one batch."""
        prepared = self.prepare(inputs, prompt, task=task)
        return prepared.batch(np.arange(len(prepared)))


class UnlimitedModule(InputModule):
    """An input module that reads texts of any length."""

    @property
    def max_seq_length(self) -> int | None:
        """None: a text may be of any length."""
        return None

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        if value is not None:
            kind = type(self).__name__
            raise ValueError(f"a {kind} reads texts of any length: max_seq_length must be None, got {value}")


def check_width(module: Module, values: Tensor, width: int) -> None:
    """Make sure that the last axis of what a module reads is as wide as the module was made for.

    Raises:
        ValueError: It is not.
    """
    if values.shape[-1] != width:
        kind = type(module).__name__
        raise ValueError(f"{kind} takes {width} dimensions, and the modules before it give {values.shape[-1]}")


def known_keys(config: Mapping[str, Any], names: set[str], folder: Path) -> dict[str, Any]:
    """Return the items of ``config`` whose keys are in ``names``; warn of the others, which a newer version wrote."""
    if unknown := sorted(config.keys() - names):
        logger.warning("ignoring unknown keys %s of the config in %s", unknown, folder)
    return {key: value for key, value in config.items() if key in names}


def weights_file(folder: Path, options: LoadOptions) -> Path:
    """Return the file with a module's weights.

    Raises:
        FileNotFoundError: There is none, or a pickle only and the user did not ask for pickles.
    """
    if (path := folder / "model.safetensors").exists():
        return path
    if (path := folder / "pytorch_model.bin").exists() and options.allow_pickle:
        return path
    raise FileNotFoundError(f"{str(folder)!r} must hold model.safetensors")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights in a file.

    Raises:
        ValueError: It is damaged.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"the weights in {str(path)!r} cannot be read: {error}") from error
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


def _load_weights(module: nn.Module, folder: Path, options: LoadOptions) -> None:
    path = weights_file(folder, options)
    try:
        module.load_state_dict(read_weights(path))
    except RuntimeError as error:
        raise ValueError(f"the weights in {str(path)!r} do not fit: {error}") from error
