"""A step of training without the optimizer, in either library: embed a batch, its loss, and its gradients."""

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.child import Groups, Job, Shapes

PACKAGES = {
    "sbert_ray": ("sbert_ray", "sbert_ray.losses"),
    "torch": ("sentence_transformers", "sentence_transformers.sentence_transformer.losses"),
}
"""Where the model and its losses are, by the names of loaders of `benchmarks.loaders`."""


class TrainingStep:
    """A model and a loss of one of the libraries, which have the same names in both."""

    def __init__(self, job: Job, package: str, loss: str, dropout: bool, options: dict[str, Any] | None = None) -> None:
        import torch

        torch.set_num_threads(job.threads)
        models, self._losses = (importlib.import_module(name) for name in PACKAGES[package])
        self._model = models.SentenceTransformer(job.model, device="cpu").train()
        if not dropout:
            for module in self._model.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
        self._guide = models.SentenceTransformer(job.model, device="cpu") if "GIST" in loss else None
        self._loss = self._make(loss, dict(options or {}))
        self._columns: Groups = []
        self._positions = 0
        self._model[0].register_forward_pre_hook(self._observe)

    def _make(self, name: str, options: dict[str, Any]) -> Any:
        if inner := options.pop("loss", None):
            options["loss"] = self._make(inner, {})
        if self._guide is not None:
            options["guide"] = self._guide
        return getattr(self._losses, name)(self._model, **options)

    def _observe(self, _: Any, inputs: tuple[Any, ...]) -> None:
        features = inputs[0]
        tokens = features.get("attention_mask", features["input_ids"])  # packed texts have no mask
        self._positions += tokens.numel()

    def run(self, groups: Groups, batch_size: int | None) -> list[Any]:  # noqa: ARG002 (the loss has its own)
        """Return the loss and the norm of the gradient of each weight; groups are the columns."""
        import torch

        self._columns = groups if len(groups) > 1 else groups * 2
        self._positions = 0
        self._model.zero_grad(set_to_none=True)
        torch.manual_seed(0)
        features = [self._model.preprocess(column) for column in self._columns]
        size = len(self._columns[0])
        needs_scores = type(self._loss).__name__ == "CoSENTLoss"
        value = self._loss(features, torch.linspace(0, 1, size).roll(size // 3) if needs_scores else None)
        value.backward()
        norms = [weight.grad.norm() for weight in self._model.parameters() if weight.grad is not None]
        return [value.detach(), *norms]

    def shapes(self) -> Shapes:
        """Return what the model saw, both passes of caching included, and the tokens of the texts as often."""
        texts = [text for column in self._columns for text in column]
        mask = self._model.preprocess(texts)["attention_mask"]
        lengths = mask.sum(dim=1).tolist()
        return Shapes(lengths, self._positions)

    def array(self, outputs: list[Any]) -> NDArray[np.float32]:
        """Return the loss and the norms (1, n)."""
        return np.array([[float(output) for output in outputs]], np.float32)
