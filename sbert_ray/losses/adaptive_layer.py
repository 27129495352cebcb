"""Losses of what the layers below the last one give, so that a model can be cut short.

Shapes: B rows of a column, T tokens, H hidden dimensions, D dimensions of an embedding, L layers.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbert_ray.inference.prepared import Features
from sbert_ray.losses.columns import inner_model, read
from sbert_ray.losses.gathered import shared_draw
from sbert_ray.losses.loss import Loss
from sbert_ray.losses.matryoshka import MatryoshkaLoss
from sbert_ray.losses.values import Value, components, scaled, summed
from sbert_ray.losses.wrapper import WrapperLoss, check_embeds_with_model
from sbert_ray.modules import Transformer, WeightedLayerPooling

LayerWeighting = Literal["uniform", "log", "linear"] | Callable[[int], float]

WEIGHTINGS: dict[str, Callable[[int], float]] = {
    "uniform": lambda layer: 1.0,  # noqa: ARG005
    "log": lambda layer: 1.0 / (1.0 + math.log(1.0 + layer)),
    "linear": lambda layer: 1.0 / (1.0 + layer),
}


class AdaptiveLayerLoss(WrapperLoss):
    """Any loss, of the last layer and of some below it, which are also drawn towards the last one.

        loss = v loss(e) + sum_l ( w / n  g(l) loss(e_l)  +  kl T KL( softmax(e / T) || softmax(e_l / T) ) )

    with e the embeddings of the last layer, and e_l what pooling and all that follows make of the hidden states that
    layer l is given, of which n are drawn for each batch; l = 0 are the word embeddings.

    Columns: those of the wrapped loss. Labels: those of the wrapped loss.

    Args:
        model: A transformer, pooling, and what may follow.
        loss: A loss over embeddings that is not cached.
        n_layers_per_step: n; -1 takes all layers below the last.
        last_layer_weight: v.
        prior_layers_weight: w.
        kl_div_weight: kl.
        kl_temperature: T; 0 leaves the divergence out.
        layer_weighting: g(l): ``uniform`` 1, ``log`` 1 / (1 + ln(1 + l)), ``linear`` 1 / (1 + l), or a function.

    Raises:
        ValueError: The loss is cached, an argument is not among its choices, or the model has no layers to choose from.

    References:
        Li et al. 2024, 2D Matryoshka Sentence Embeddings, arXiv:2402.14776.
    """

    runs_model = True

    def __init__(
        self,
        model: nn.Module | None,
        loss: Loss,
        n_layers_per_step: int = 1,
        last_layer_weight: float = 1.0,
        prior_layers_weight: float = 1.0,
        kl_div_weight: float = 1.0,
        kl_temperature: float = 0.3,
        layer_weighting: LayerWeighting = "uniform",
    ) -> None:
        super().__init__(model, loss)
        check_embeds_with_model(self)
        if model is not None:
            _check_modules(model)
        if loss.mini_batches is not None:
            kind = type(loss).__name__
            raise ValueError(
                f"AdaptiveLayerLoss needs the layers of the whole batch, which a cached {kind} does not keep"
            )
        if not callable(layer_weighting) and layer_weighting not in WEIGHTINGS:
            raise ValueError(
                f"layer_weighting must be one of {list(WEIGHTINGS)} or a function, got {layer_weighting!r}"
            )
        if n_layers_per_step != -1 and n_layers_per_step < 1:
            raise ValueError(f"n_layers_per_step must be positive, or -1 for all, got {n_layers_per_step}")
        self.n_layers_per_step = n_layers_per_step
        self.last_layer_weight = last_layer_weight
        self.prior_layers_weight = prior_layers_weight
        self.kl_div_weight = kl_div_weight
        self.kl_temperature = kl_temperature
        self.layer_weighting = layer_weighting

    def run(self, model: nn.Module, features: Sequence[Features], labels: Tensor | None) -> Value:
        """Return the loss of features, layer by layer."""
        with _all_layers(model):
            outputs = [model(column) for column in features]
        last = [read(output) for output in outputs]
        values = [scaled(self.loss.value(last, labels), self.last_layer_weight)]
        divergences = []
        layers = self._layers(outputs[0])
        for layer in layers:
            embeddings = [_embedding_at(model, output, layer) for output in outputs]
            weight = self.prior_layers_weight * self._weight(layer) / len(layers)
            self.draw()
            values.append(scaled(self.loss.value(embeddings, labels), weight))
            divergences.append(self._divergence(embeddings, last))
        return self._with_divergence(summed(values), torch.stack(divergences).sum())

    def _layers(self, features: Features) -> Sequence[int]:
        states = features.get("all_layer_embeddings")
        if not states or len(states) < 2:
            raise ValueError("AdaptiveLayerLoss needs a model that begins with a transformer of several layers")
        prior = range(len(states) - 1)
        if not 0 < self.n_layers_per_step < len(prior):
            return prior
        return shared_draw(random.sample(prior, self.n_layers_per_step), gather=self.gather_across_devices)

    def _weight(self, layer: int) -> float:
        weighting = self.layer_weighting
        return WEIGHTINGS[weighting](layer) if isinstance(weighting, str) else weighting(layer)

    def _divergence(self, embeddings: Sequence[Tensor], last: Sequence[Tensor]) -> Tensor:
        temperature = self.kl_temperature
        if temperature <= 0 or not self.kl_div_weight:
            return embeddings[0].new_zeros(())
        ours, target = (torch.cat(list(part)) / temperature for part in (embeddings, last))
        found = F.kl_div(ours.log_softmax(-1), target.detach().softmax(-1), reduction="batchmean")
        return found * temperature * self.kl_div_weight

    @staticmethod
    def _with_divergence(value: Value, divergence: Tensor) -> Value:
        return {**components(value), "kl_div_loss": divergence} if isinstance(value, dict) else value + divergence


class Matryoshka2dLoss(AdaptiveLayerLoss):
    """Any loss, of several layers and of several numbers of dimensions: `AdaptiveLayerLoss` over `MatryoshkaLoss`.

    Columns: those of the wrapped loss. Labels: those of the wrapped loss.

    Args:
        model: A transformer, pooling, and what may follow.
        loss: A loss over embeddings that is not cached.
        matryoshka_dims: The numbers of dimensions.
        matryoshka_weights: The weight of each; 1 if None.
        n_layers_per_step: How many layers to draw for each batch; -1 takes all.
        n_dims_per_step: How many numbers of dimensions to draw each time; -1 takes all.
        last_layer_weight: As in `AdaptiveLayerLoss`, like all that follow.
        prior_layers_weight: The weight of the layers below.
        kl_div_weight: The weight of the divergence from the last layer.
        kl_temperature: Its temperature.
        layer_weighting: Weights by layer.

    References:
        Li et al. 2024, 2D Matryoshka Sentence Embeddings, arXiv:2402.14776.
    """

    def __init__(  # noqa: PLR0913, PLR0917 (the public signature)
        self,
        model: nn.Module | None,
        loss: Loss,
        matryoshka_dims: Sequence[int],
        matryoshka_weights: Sequence[float] | None = None,
        n_layers_per_step: int = 1,
        n_dims_per_step: int = 1,
        last_layer_weight: float = 1.0,
        prior_layers_weight: float = 1.0,
        kl_div_weight: float = 1.0,
        kl_temperature: float = 0.3,
        layer_weighting: LayerWeighting = "uniform",
    ) -> None:
        super().__init__(
            model,
            MatryoshkaLoss(model, loss, matryoshka_dims, matryoshka_weights, n_dims_per_step),
            n_layers_per_step,
            last_layer_weight,
            prior_layers_weight,
            kl_div_weight,
            kl_temperature,
            layer_weighting,
        )

    def get_config_dict(self) -> dict[str, Any]:
        """Return the constructor's arguments, for model cards."""
        inner = self.loss.get_config_dict()
        return super().get_config_dict() | inner


def _check_modules(model: nn.Module) -> None:
    """Make sure that the modules after the transformer can be run for each layer.

    Raises:
        ValueError: They read all layers at once, or come after routes, or the first is no transformer that embeds.
    """
    modules = list(inner_model(model).children())
    first = modules[0] if modules else None
    if not isinstance(first, Transformer) or first.transformer_task != "feature-extraction":
        task = f" for {first.transformer_task}" if isinstance(first, Transformer) else ""
        raise ValueError(
            "AdaptiveLayerLoss needs a model that begins with a transformer of several layers for feature-extraction,"
            f" got {type(first).__name__}{task}"
        )
    if any(isinstance(module, WeightedLayerPooling) for module in modules):
        raise ValueError("AdaptiveLayerLoss takes layer by layer, which a WeightedLayerPooling reads all at once")


@contextmanager
def _all_layers(model: nn.Module) -> Iterator[None]:
    """Let a model's transformer give the hidden states of all layers within a ``with`` block."""
    config = getattr(inner_model(model), "config", None)
    if config is None:
        raise ValueError("AdaptiveLayerLoss needs a model that begins with a transformer of several layers")
    before = getattr(config, "output_hidden_states", False)
    config.output_hidden_states = True
    try:
        yield
    finally:
        config.output_hidden_states = before


def _embedding_at(model: Any, features: Features, layer: int) -> Tensor:
    """Return what the modules after the transformer make of the hidden states that a layer is given (B, D)."""
    _, *others = inner_model(model)
    given = {name: features[name] for name in _GIVEN if name in features}
    found = given | {"token_embeddings": features["all_layer_embeddings"][layer]}
    for module in others:
        found = module(found)
    return read(found)


_GIVEN = ("input_ids", "attention_mask", "token_type_ids", "prompt_length")
