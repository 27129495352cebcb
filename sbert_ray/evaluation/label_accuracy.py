"""Accuracy of a classifier on top of embeddings, such as the one of a softmax loss."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sbert_ray.embeddings import batch_to_device
from sbert_ray.evaluation.evaluator import Evaluator, Result, file_name


class LabelAccuracyEvaluator(Evaluator):
    """The share of examples whose label gets the greatest logit.

    Args:
        dataloader: Yields batches: features by column and labels, or examples with ``texts`` and ``label``, which are
            put together by the model's ``smart_batching_collate`` if it has one, else by its ``preprocess``. A
            DataLoader of such examples gets the ``collate_fn`` for it.
        name: Prefix of the metric's name.
        softmax_model: Called with features and ``labels=None``; returns embeddings and logits.
        write_csv: Whether to write a CSV file where a call gives a folder.

    Raises:
        ValueError: There is no ``softmax_model``.
    """

    def __init__(
        self, dataloader: Iterable[Any], name: str = "", softmax_model: Any = None, write_csv: bool = True
    ) -> None:
        if softmax_model is None:
            raise ValueError("softmax_model must be a module that returns embeddings and logits, got None")
        self.dataloader = dataloader
        self.name = name
        self.softmax_model = softmax_model
        self.write_csv = write_csv
        self.csv_file = file_name("accuracy_evaluation", name)
        self.primary_metric = "accuracy"

    @torch.no_grad()
    def evaluate(self, model: Any) -> Result:
        """Return the accuracy.

        Raises:
            ValueError: The dataloader yields nothing.
        """
        if _is_of_examples(self.dataloader):
            # torch's own cannot put examples into a batch
            setattr(self.dataloader, "collate_fn", getattr(model, "smart_batching_collate", list))  # noqa: B010
        is_training = getattr(model, "training", False)
        if is_training:
            model.eval()
        try:
            accuracy = self._accuracy(model)
        finally:
            if is_training:
                model.train()
        return Result({"accuracy": accuracy}, {"accuracy": accuracy}, "accuracy")

    def _accuracy(self, model: Any) -> float:
        total = correct = 0
        for batch in self.dataloader:
            features, labels = _features(model, batch)
            _, logits = self.softmax_model(features, labels=None)
            correct += int((logits.argmax(dim=1) == labels.to(logits.device)).sum())
            total += len(labels)
        if not total:
            raise ValueError("dataloader must yield at least one batch, got none")
        return correct / total


def _is_of_examples(dataloader: Any) -> bool:
    dataset = getattr(dataloader, "dataset", None)
    return isinstance(dataset, Sequence) and len(dataset) > 0 and hasattr(dataset[0], "texts")


def _features(model: Any, batch: Any) -> tuple[list[Mapping[str, Any]], Tensor]:
    """Return the features of each column on the model's device, and the labels."""
    if hasattr(batch[0], "texts"):
        columns = zip(*(example.texts for example in batch), strict=True)
        features: Any = [model.preprocess(list(column)) for column in columns]
        labels: Any = [example.label for example in batch]
    else:
        features, labels = batch
    device = getattr(model, "device", "cpu")
    return [batch_to_device(dict(column), device) for column in features], torch.as_tensor(labels)
