"""Texts as messages of a chat; what the peer makes of them is in `models/test_decoders.py`."""

from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sbert_ray.inference.chat import ChatTemplate, chat_template
from sbert_ray.inference.tokenization import TextTokenizer

TEMPLATE = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}{{ last or 'end' }}"
WORDS = "? system user query document end stop a b c be kind 0 1 2 3 4 one two three".split()


def word_tokenizer(limit: int = 100, template: str = TEMPLATE) -> TextTokenizer:
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="?", model_max_length=limit)
    tokenizer.chat_template = template
    return TextTokenizer(tokenizer)


def words(chat: ChatTemplate, tokenizer: TextTokenizer, texts: list[Any], prompt: str | None = None) -> list[str]:
    tokens = chat.tokenize(tokenizer, texts, prompt)
    rows = zip(tokens.offsets, tokens.offsets[1:], strict=False)
    return [" ".join(WORDS[index] for index in tokens.ids[start:end]) for start, end in rows]


def test_texts_and_pairs_become_messages() -> None:
    chat = ChatTemplate("flat")
    assert words(chat, word_tokenizer(), ["a b", ("a", "b c")]) == ["user a b end", "query a document b c end"]
    assert words(chat, word_tokenizer(), [("a", "b")], "be kind") == ["system be kind query a document b end"]


def test_structured_messages_hold_a_list() -> None:
    chat = ChatTemplate("structured")
    assert chat.messages("a", "b") == [
        {"role": "system", "content": [{"type": "text", "text": "b"}]},
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
    ]


def test_what_the_template_ends_with_survives_a_cut() -> None:
    texts = ["a", "a a a a", ("a a a a", "b")]
    assert words(ChatTemplate("flat"), word_tokenizer(4), texts) == ["user a end", "user a a end", "query a a end"]
    assert words(ChatTemplate("flat", restore_suffix=False), word_tokenizer(4), texts)[1] == "user a a a"


def test_a_template_without_a_text_has_no_end_to_restore() -> None:
    tokenizer = word_tokenizer(2, "a b c")
    assert words(ChatTemplate("flat"), tokenizer, ["a"]) == ["a b"]


def test_the_template_gets_its_variables() -> None:
    assert words(ChatTemplate("flat", {"last": "stop"}), word_tokenizer(), ["a"]) == ["user a stop"]


def test_a_sign_of_life_is_given() -> None:
    signs: list[None] = []
    ChatTemplate("flat").tokenize(word_tokenizer(), ["a"] * 2500, on_chunk=lambda: signs.append(None))
    assert len(signs) == 6  # to render them, and to tokenize them


@pytest.mark.parametrize(
    ("template", "model_type", "modality_config", "expected"),
    [
        (None, "llama", None, None),
        (TEMPLATE, "llama", None, "flat"),
        (TEMPLATE, "llama", {"text": {}}, None),
        (TEMPLATE, "llama", {"message": {}}, "flat"),
        (TEMPLATE, "llama", {"message": {"format": "structured"}}, "structured"),
        (TEMPLATE + "{{ messages[0].content[0].text }}", "llama", None, "structured"),
        (TEMPLATE + "{{ messages[0].content[0].text }}", "gpt_oss", None, "flat"),
        ({"default": TEMPLATE}, "llama", None, "structured"),
    ],
)
def test_the_format_is_found(template: Any, model_type: str, modality_config: Any, expected: str | None) -> None:
    chat = chat_template(SimpleNamespace(chat_template=template), model_type, modality_config)
    assert (chat and chat.message_format) == expected
