"""Texts put into the chat template of a tokenizer, as messages.

A text becomes the message of a user; a pair becomes two messages, of the roles ``query`` and ``document``; a prompt
becomes a message of the system before them. Transformers renders templates in a sandbox.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Literal, cast

from jinja2 import TemplateError

from sbert_ray.inference.tokenization import Text, TextTokenizer, text_chunks
from sbert_ray.inference.tokenized import TokenizedTexts

MessageFormat = Literal["flat", "structured"]
"""Whether the content of a message is a text, or a list of objects with a type."""

PAIR_ROLES = ("query", "document")

_FLAT = ("apertus", "deepseek_v3", "gpt_oss", "seed_oss")
"""Types of models whose templates read texts, though they look as if they read lists."""
_STRUCTURED_MARKS = ("content[0]", ".type", "'type'", '"type"', "message.content[")
"""What templates that read lists have in them."""

_FILLERS = ("0", "1 2 3 4")
"""Contents of which no token is the same."""

Message = dict[str, Any]


@dataclass(frozen=True)
class ChatTemplate:
    """How texts become messages."""

    message_format: MessageFormat
    variables: Mapping[str, Any] = field(default_factory=dict)
    """Further variables of the template."""
    restore_suffix: bool = True
    """Whether texts that are cut still end with what the template puts after them, which the model answers to."""

    def tokenize(
        self,
        tokenizer: TextTokenizer,
        texts: Sequence[Text],
        prompt: str | None = None,
        *,
        task: str | None = None,
        on_chunk: Callable[[], None] | None = None,
    ) -> TokenizedTexts:
        """Tokenize texts or pairs as the template renders them, cut to the tokenizer's ``model_max_length``.

        Args:
            tokenizer: Has the template.
            texts: N texts or pairs.
            prompt: Message of the system before each.
            task: The template's variable of this name.
            on_chunk: Called now and then, after some texts.

        Raises:
            ValueError: The template fails, or leaves one of a pair's texts out.
        """
        variables = dict(self.variables) | ({"task": task} if task is not None and "task" not in self.variables else {})
        if any(not isinstance(text, str) for text in texts):
            self._check_pairs(tokenizer, variables)
        rendered: list[str] = []
        for start, end in text_chunks(texts):
            rendered += _render(tokenizer, [self.messages(text, prompt) for text in texts[start:end]], variables)
            if on_chunk:
                on_chunk()
        tokens = tokenizer(rendered, on_chunk=on_chunk, add_special_tokens=False)
        if self.restore_suffix:
            self._restore(tokens, tokenizer, texts, prompt, variables)
        return tokens

    def settings(self) -> dict[str, Any]:
        """Return the variables and ``restore_suffix``, where they are not the usual ones."""
        return dict(self.variables) | ({} if self.restore_suffix else {"restore_suffix": False})

    def messages(self, text: Text, prompt: str | None = None) -> list[Message]:
        """Return a text or a pair as messages."""
        system = [self._message("system", prompt)] if prompt else []
        if isinstance(text, str):
            return [*system, self._message("user", text)]
        return [*system, *map(self._message, PAIR_ROLES, text)]

    def _message(self, role: str, text: str) -> Message:
        return {"role": role, "content": text if self.message_format == "flat" else [{"type": "text", "text": text}]}

    def _check_pairs(self, tokenizer: TextTokenizer, variables: Mapping[str, Any]) -> None:
        # Most templates render the roles that they know, and nothing for others: a score of nothing.
        probes = [("one", "two"), ("three", "two"), ("one", "three")]
        plain, *changed = _render(tokenizer, [self.messages(probe) for probe in probes], variables)
        if lost := [role for role, text in zip(PAIR_ROLES, changed, strict=True) if text == plain]:
            raise ValueError(
                f"the chat template must render messages of the roles 'query' and 'document' for pairs, but leaves out"
                f" {lost}. Give one that does: processor_kwargs={{'chat_template': ...}}"
            )

    def _restore(
        self,
        tokens: TokenizedTexts,
        tokenizer: TextTokenizer,
        texts: Sequence[Text],
        prompt: str | None,
        variables: Mapping[str, Any],
    ) -> None:
        limit = tokenizer.tokenizer.model_max_length
        if limit is None:
            return
        suffixes: dict[bool, list[int]] = {}  # of pairs and of texts
        for row in map(int, (tokens.lengths >= limit).nonzero()[0]):
            is_pair = not isinstance(texts[row], str)
            if is_pair not in suffixes:
                suffixes[is_pair] = self._suffix(tokenizer, is_pair, prompt, variables)
            kept = min(len(suffixes[is_pair]), int(tokens.lengths[row]))
            if kept:
                end = tokens.offsets[row + 1]
                tokens.ids[end - kept : end] = suffixes[is_pair][-kept:]

    def _suffix(
        self, tokenizer: TextTokenizer, is_pair: bool, prompt: str | None, variables: Mapping[str, Any]
    ) -> list[int]:
        """Return the tokens with which every text ends; none if the template shows no text."""
        fillers: list[Text] = [(filler, filler) if is_pair else filler for filler in _FILLERS]
        rendered = _render(tokenizer, [self.messages(filler, prompt) for filler in fillers], variables)
        tokens = tokenizer(rendered, add_special_tokens=False, truncate=False)
        first, second = (tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]].tolist() for row in (0, 1))
        equal = takewhile(lambda pair: pair[0] == pair[1], zip(reversed(first), reversed(second), strict=False))
        count = sum(1 for _ in equal)
        return first[len(first) - count :] if 0 < count < min(len(first), len(second)) else []


def chat_template(
    tokenizer: Any,
    model_type: str,
    modality_config: Mapping[str, Any] | None,
    variables: Mapping[str, Any] | None = None,
) -> ChatTemplate | None:
    """Return how a model's texts become messages; None where they stay as they are.

    Args:
        tokenizer: The model's tokenizer of transformers.
        model_type: The model's type in its config.
        modality_config: What the model takes by its own config: texts become messages if it names ``message``. None
            means that there is no such config, and texts become messages if the tokenizer has a template.
        variables: Further ones of the template, and ``restore_suffix``.
    """
    if not getattr(tokenizer, "chat_template", None) if modality_config is None else "message" not in modality_config:
        return None
    variables = dict(variables or {})
    restore_suffix = bool(variables.pop("restore_suffix", True))
    message_format = (modality_config or {}).get("message", {}).get("format", "auto")
    if message_format == "auto":
        message_format = _format(tokenizer, model_type)
    return ChatTemplate(message_format, variables, restore_suffix)


def _format(tokenizer: Any, model_type: str) -> MessageFormat:
    if model_type in _FLAT:
        return "flat"
    template = getattr(tokenizer, "chat_template", None)
    is_flat = isinstance(template, str) and template and not any(mark in template for mark in _STRUCTURED_MARKS)
    return "flat" if is_flat else "structured"


def _render(tokenizer: TextTokenizer, conversations: list[list[Message]], variables: Mapping[str, Any]) -> list[str]:
    try:
        rendered: Any = tokenizer.tokenizer.apply_chat_template(conversations, tokenize=False, **variables)
    except (TemplateError, TypeError) as error:
        roles = list(dict.fromkeys(message["role"] for message in conversations[0]))
        raise ValueError(f"the chat template does not take messages of the roles {roles}: {error}") from error
    return cast(list[str], rendered)
