"""The score of a decoder that is asked a question with two answers."""

from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

from sbert_ray.inference.prepared import Features
from sbert_ray.modules.module import InputModule, Module

TRUE_TOKEN, FALSE_TOKEN = "yes", "no"
"""The answers of checkpoints that do not name theirs."""


class LogitScore(Module):
    """Computes ``scores`` (B, 1) of the logits of what follows each text: ``z[true] - z[false]``.

    That is the log-odds of the one answer against the other. Without a false answer it is ``z[true]``.

    Args:
        true_token_id: The token that means relevant.
        false_token_id: The token that means irrelevant.
        module_input_name: The feature to read, logits of shape (B, T, V), of which the last position counts.
    """

    public_path = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"

    def __init__(
        self, true_token_id: int, false_token_id: int | None = None, module_input_name: str = "causal_logits"
    ) -> None:
        super().__init__()
        self.true_token_id, self.false_token_id = true_token_id, false_token_id
        self.module_input_name = module_input_name

    def forward(self, features: Features) -> Features:
        """Add the scores."""
        logits = features[self.module_input_name][:, -1]  # (B, V)
        scores = logits[:, self.true_token_id]
        if self.false_token_id is not None:
            scores = scores - logits[:, self.false_token_id]
        return features | {"scores": scores[:, None]}

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "true_token_id": self.true_token_id,
            "false_token_id": self.false_token_id,
            "module_input_name": self.module_input_name,
        }

    @classmethod
    def default(cls, config: Mapping[str, Any], before: Sequence[Module]) -> Self:
        """Build the module whose answers are ``yes`` and ``no``, by the tokenizer of the module before it.

        Raises:
            ValueError: The tokenizer has no such tokens.
        """
        vocabulary = cast(InputModule, before[0]).tokenizer.get_vocab()
        if missing := [token for token in (TRUE_TOKEN, FALSE_TOKEN) if token not in vocabulary]:
            raise ValueError(
                f"the tokenizer has no token {missing[0]!r}; a causal model without a LogitScore is scored by its"
                f" logits of {TRUE_TOKEN!r} and {FALSE_TOKEN!r}. Build the model from modules to name other tokens:"
                " CrossEncoder(modules=[Transformer(...), LogitScore(true_token_id, false_token_id)])"
            )
        return cls(
            **{"true_token_id": vocabulary[TRUE_TOKEN], "false_token_id": vocabulary[FALSE_TOKEN]} | dict(config)
        )
