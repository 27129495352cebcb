"""Modules in a row, with what every kind of model shares: tokenizing, accessors, saving."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import torch
from torch import nn

from sbert_ray.inference.batching import cost_of
from sbert_ray.inference.engine import Budget, Encoder, max_tokens_for
from sbert_ray.inference.inputs import BadInputError
from sbert_ray.inference.mixed import Labeled, texts_of
from sbert_ray.inference.pipeline import prefetched
from sbert_ray.inference.prepared import Prepared
from sbert_ray.inference.processes import Pool, encode_in_pool, start_pool, stop_pool
from sbert_ray.inference.tokenization import refuse_surrogates
from sbert_ray.models.loading import Source, load_parts, match_dtype
from sbert_ray.models.saving import save_checkpoint, upload_folder
from sbert_ray.models.settings import Settings
from sbert_ray.modules import INPUT_MODULES, Features, InputModule, Module, Pooling, Router, Transformer
from sbert_ray.modules.int8_layers import has_int8_layers
from sbert_ray.modules.work import activation_bytes, attention_length

R = TypeVar("R")

PART_ROWS = 16384
"""Inputs that are prepared, and cut into batches, together: many enough that those of one length fill batches."""
PARTS_AHEAD = 2


class Model(nn.Sequential):
    """A chain of modules, the first of which takes inputs.

    Args:
        source: Where the modules come from.
        given: The settings that the user gives; they win over the checkpoint's.
    """

    model_type: ClassVar[str]
    """What ``config_sentence_transformers.json`` calls this kind of model."""

    def __init__(self, source: Source, given: Settings) -> None:
        parts = load_parts(source, self.model_type)
        modules = parts.modules
        if not modules or not _takes_inputs(modules[0]):
            kinds = [type(module).__name__ for module in modules]
            raise ValueError(f"the first module must be one of {sorted(INPUT_MODULES)}, got {kinds}")
        match_dtype(modules)
        super().__init__(*modules)
        self.settings = Settings.merged(parts.stored, given)
        self._budget = Budget()
        for module, names in zip(modules, parts.kwargs, strict=False):
            module.given_kwargs = names
        self.to(parts.device)
        self.eval()

    def forward(self, input: Features, **kwargs: Any) -> Features:  # noqa: A002 (torch's name)
        """Pass features through every module; the last one leaves its output in them.

        Args:
            input: What `preprocess` returns.
            kwargs: Further arguments; each goes to the modules that name it, and to those in a Router.
        """
        features = input
        for module in self:
            # A plain module of torch may be among them.
            named = {*getattr(module, "forward_kwargs", ()), *getattr(module, "given_kwargs", ())}
            wanted = kwargs.keys() if isinstance(module, Router) else named
            features = module(features, **{name: value for name, value in kwargs.items() if name in wanted})
        return features

    def prepare(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        *,
        task: str | None = None,
        on_chunk: Callable[[], None] | None = None,
    ) -> Prepared:
        """Tokenize texts, or do what else needs no device; safe while another thread runs the model.

        Args:
            inputs: N texts, pairs of texts or images, all of one kind.
            prompt: Put before each text.
            task: ``query``, ``document`` or another route, for models with a Router.
            on_chunk: Called now and then, as a sign of life.
        """
        return self._first.prepare(inputs, prompt, task=task, on_chunk=on_chunk)

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, *, task: str | None = None) -> Features:
        """Tokenize texts, each after ``prompt``, into one padded batch, as `forward` takes it."""
        return self._first.preprocess(inputs, prompt, task=task)

    def tokenize(self, texts: Sequence[str]) -> Features:
        """Tokenize texts into one padded batch: the old name of `preprocess`."""
        return self.preprocess(texts)

    @property
    def _first(self) -> InputModule:
        return cast(InputModule, self[0])

    def _first_module(self) -> InputModule:
        return self._first  # the name that older scripts use

    def _last_module(self) -> Module:
        return cast(Module, self[-1])  # likewise

    def _encoder(self, **kwargs: Any) -> Encoder:
        """Return what the engine needs; ``kwargs`` are those of `forward`."""
        forward = partial(self, **kwargs)
        return Encoder(forward, self.device, self._packed_features, attention_length(self.config), self._budget)

    def packed_features(self, labels: Features | None = None) -> Features | None:
        """Return what the features of packed texts hold besides their tokens; None if texts must be padded.

        Args:
            labels: What a Router routes by: ``task`` and ``modality`` of the batch.
        """
        first, *others = self._chain(labels or {})
        if not all(getattr(module, "takes_packed", False) for module in others):
            return None
        if not isinstance(first, Transformer) or not first.can_pack():
            return None
        return {"firsts_only": bool(others) and isinstance(others[0], Pooling) and others[0].reads_firsts_only}

    def _packed_features(self, inputs: Prepared) -> Features | None:
        if texts_of(inputs) is None:
            return None
        return self.packed_features(inputs.labels if isinstance(inputs, Labeled) else {})

    def _chain(self, labels: Features) -> list[nn.Module]:
        """Return the modules that a batch with these labels passes through."""
        chain = list(self)
        while isinstance(chain[0], Router) and "modality" in labels:
            route = chain[0].route(labels.get("task"), labels["modality"])
            chain[:1] = chain[0].routes[route]
        return chain

    def _runs(
        self, inputs: Sequence[Any], prompt: str | None, task: str | None, run: Callable[[Prepared], R]
    ) -> Iterator[tuple[slice, R]]:
        """Yield what is computed of some inputs, and which, while a thread prepares those that come next.

        Args:
            inputs: N inputs.
            prompt: Put before each text.
            task: What they are, for models with a Router.
            run: Computes what is prepared.
        """
        slices = [slice(start, start + PART_ROWS) for start in range(0, len(inputs), PART_ROWS)]
        if len(slices) <= 1:  # no thread for what comes at once
            yield slice(None), run(self.prepare(inputs, prompt, task=task))
            return

        def prepare(part: slice) -> Prepared:
            try:
                return self.prepare(inputs[part], prompt, task=task)
            except ValueError:
                refuse_surrogates([text if isinstance(text, (str, tuple)) else "" for text in inputs], 0)  # by its row
                raise

        with closing(prefetched(slices, prepare, PARTS_AHEAD)) as prepared:
            for part, ready in zip(slices, prepared, strict=True):
                try:
                    yield part, run(ready)
                except BadInputError as error:
                    raise BadInputError(part.start + error.row, error.reason) from error.__cause__

    def _max_tokens(self, max_batch_tokens: int | None, batch_size: int | None = None) -> int:
        """Return the most work of a batch, in positions of short texts: what is asked for, or what suits the device.

        Args:
            max_batch_tokens: What is asked for.
            batch_size: Rows of the longest possible inputs that must fit into memory.
        """
        if max_batch_tokens is None:
            suits = max_tokens_for(self.device, activation_bytes(self.config, self.dtype))
            longest = self._first.max_positions
            if batch_size is None or longest is None:
                return suits
            return min(batch_size * cost_of(longest, attention_length(self.config)), suits)
        if max_batch_tokens < 1:
            raise ValueError(f"max_batch_tokens must be positive, got {max_batch_tokens}")
        return max_batch_tokens

    def _elsewhere(
        self,
        method: str,
        inputs: Sequence[Any],
        device: Any,
        pool: Pool | None,
        chunk_size: int | None,
        on_batch: Callable[[int], None],
        options: Mapping[str, Any],
    ) -> list[Any]:
        """Return what a method gives for each chunk of inputs in the processes of ``pool``, or in some of their own."""
        own = self.start_multi_process_pool(device) if pool is None else None
        try:
            return encode_in_pool(own or cast(Pool, pool), inputs, chunk_size, options, on_batch, method)
        finally:
            if own is not None:
                self.stop_multi_process_pool(own)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of transformers."""
        return self._first.tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        self._first.tokenizer = tokenizer

    @property
    def processor(self) -> Any:
        """The processor of transformers, of texts and images, or else the tokenizer."""
        return getattr(self._first, "processor", None) or self.tokenizer

    @property
    def modalities(self) -> list[str]:
        """Kinds of input that the model takes: of ``text`` and ``image``."""
        return list(self._first.modalities)

    def supports(self, modality: str) -> bool:
        """Return whether the model takes a kind of input."""
        return modality in self.modalities

    @property
    def transformers_model(self) -> Any:
        """The model of transformers; the first one of several, None if there is none."""
        return next((module.model for module in self.modules() if isinstance(module, Transformer)), None)

    @property
    def config(self) -> Any:
        """The config of the model of transformers; None if there is none."""
        return getattr(self.transformers_model, "config", None)

    @property
    def untrained(self) -> list[str]:
        """Names of weights that the checkpoint lacked, so that they started at random."""
        found = [module for module in self.modules() if isinstance(module, Transformer)]
        return [name for transformer in found for name in transformer.untrained]

    def get_backend(self) -> str:
        """Return what computes: ``torch``."""
        return "torch"

    def evaluate(self, evaluator: Callable[..., Any], output_path: str | None = None) -> Any:
        """Return what an evaluator says of the model.

        Args:
            evaluator: Called with the model and ``output_path``.
            output_path: A folder for what it writes, if it does.
        """
        if output_path is not None:
            Path(output_path).mkdir(parents=True, exist_ok=True)
        return evaluator(self, output_path)

    @property
    def max_seq_length(self) -> int | None:
        """Tokens to which a text is cut, special tokens included."""
        return self._first.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        self._first.max_seq_length = value

    def get_max_seq_length(self) -> int | None:
        """Return `max_seq_length`."""
        return self.max_seq_length

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        weights = next(chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if weights is None else weights.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        weights = next(self.parameters(), None)
        return torch.float32 if weights is None else weights.dtype

    @property
    def precision(self) -> str:
        """What the model computes in: the name of a dtype, or ``int8``."""
        return "int8" if has_int8_layers(self) else str(self.dtype).removeprefix("torch.")

    @property
    def prompts(self) -> dict[str, str]:
        """Texts to put before inputs, by name."""
        return self.settings.prompts

    @prompts.setter
    def prompts(self, prompts: Mapping[str, str]) -> None:
        self.settings.prompts = dict(prompts)

    @property
    def default_prompt_name(self) -> str | None:
        """The name of the prompt that is used when none is given."""
        return self.settings.default_prompt_name

    @default_prompt_name.setter
    def default_prompt_name(self, name: str | None) -> None:
        self.settings.prompt(None, name)  # an unknown name fails here
        self.settings.default_prompt_name = name

    def get_embedding_dimension(self) -> int | None:
        """Return the dimension of what comes out, where a module tells it."""
        known = (module for module in reversed(list(self)) if isinstance(module, Module))
        dimensions = (module.get_embedding_dimension() for module in known)
        return next((dimension for dimension in dimensions if dimension is not None), None)

    def get_model_kwargs(self) -> list[str]:
        """Return the names of the further arguments that modules take from `forward`."""
        found = [module for module in self.modules() if isinstance(module, Module)]
        return sorted({name for module in found for name in (*module.forward_kwargs, *module.given_kwargs)})

    def start_multi_process_pool(self, target_devices: Sequence[str] | None = None) -> Pool:
        """Start a process for each device, to be passed to `encode` and stopped by `stop_multi_process_pool`.

        The model moves to the CPU. Processes are spawned, so a script needs ``if __name__ == "__main__":``. They hold
        the model as it is then: what its modules are told later, as ``max_seq_length``, does not reach them.

        Args:
            target_devices: Torch devices, one may come several times; every GPU if None, or else four times the CPU.

        Raises:
            ValueError: There are none.
        """
        return start_pool(self, target_devices)

    @staticmethod
    def stop_multi_process_pool(pool: Pool) -> None:
        """End the processes of a pool."""
        stop_pool(pool)

    def save_pretrained(
        self,
        path: str | os.PathLike[str],
        model_name: str | None = None,
        create_model_card: bool = True,
        train_datasets: Sequence[str] | None = None,
        safe_serialization: bool = True,
    ) -> None:
        """Write a checkpoint folder that sentence-transformers can load too.

        Args:
            path: The folder; files of the same names in it are replaced.
            model_name: The model's name on its card.
            create_model_card: Whether to write a ``README.md``.
            train_datasets: Names of datasets on the hub that the card says the model was trained on.
            safe_serialization: Must be True; pickles are not written.

        Raises:
            ValueError: ``safe_serialization`` is False.
        """
        if not safe_serialization:
            raise ValueError("safe_serialization must be True: weights are saved as safetensors only")
        folder = Path(path)
        modules = [cast(Module, module) for module in self]
        card = self._card(model_name or folder.resolve().name, train_datasets or ()) if create_model_card else None
        save_checkpoint(folder, modules, self.settings.to_json(), card)

    save = save_pretrained

    def _card(self, title: str, train_datasets: Sequence[str]) -> str:
        """Return the model card."""
        raise NotImplementedError

    def push_to_hub(  # noqa: PLR0913, PLR0917 (the public signature)
        self,
        repo_id: str,
        token: str | None = None,
        private: bool | None = None,
        safe_serialization: bool = True,
        commit_message: str | None = None,
        local_model_path: str | None = None,
        exist_ok: bool = False,
        replace_model_card: bool = False,
        train_datasets: Sequence[str] | None = None,
        revision: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Upload the model to a repository on the Hugging Face hub and return the commit's URL.

        Args:
            repo_id: The repository, with or without its owner.
            token: Token of the hub; the stored one if None.
            private: Whether a new repository is private.
            safe_serialization: Passed on to `save_pretrained`.
            commit_message: What the commit says.
            local_model_path: A checkpoint folder to upload instead of this model.
            exist_ok: Whether the repository may be there already.
            replace_model_card: Whether a ``README.md`` that is there already is replaced.
            train_datasets: Passed on to `save_pretrained`.
            revision: The branch to commit to, made where there is none.
            create_pr: Whether to open a pull request instead of committing.
        """
        commit = {
            "commit_message": commit_message or "Add a Sentence Transformer model",
            "revision": revision,
            "create_pr": create_pr,
        }
        with tempfile.TemporaryDirectory() as name:
            folder = Path(local_model_path or name)
            if local_model_path is None:
                self.save_pretrained(
                    folder, repo_id, train_datasets=train_datasets, safe_serialization=safe_serialization
                )
            replace_card = replace_model_card or local_model_path is not None  # a card that the user wrote
            return upload_folder(folder, repo_id, token, private, exist_ok, replace_card, **commit)


def _takes_inputs(module: Module) -> bool:
    if isinstance(module, Router):
        return all(_takes_inputs(route[0]) for route in module.routes.values())
    return isinstance(module, InputModule)
