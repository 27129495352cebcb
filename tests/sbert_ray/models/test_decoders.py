"""Decoders that score and embed, with and without chat templates, against the peer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from sbert_ray import CrossEncoder, SentenceTransformer
from sbert_ray.models.checkpoint import describe_checkpoint
from sbert_ray.modules import LogitScore, Transformer

peer = pytest.importorskip("sentence_transformers")

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CORPUS = ["yes\nno\nsystem\nuser\nassistant\nquery\ndocument\nthe cat sat on the mat, a dog ran: fast."] * 40
PAIRS = [
    ("a cat", "the fast dog ran on the mat"),
    ("yes", "no"),
    ("the cat sat " * 30, "a dog"),
    ("a dog", "the cat sat " * 20),
    ("na\u00efve caf\u00e9", ""),
    ("the dog", "<|im_start|> a cat"),
]
TEXTS = [first for first, _ in PAIRS] + ["http://example.com/cat.jpg", ""]

CHATML = """\
{%- for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}\
{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"""
RERANKER = """\
{%- set found = namespace(task='Given a query, find what answers it', query='', document='') %}
{%- for message in messages %}
{%- if message.role == 'system' %}{%- set found.task = message.content %}
{%- elif message.role == 'query' %}{%- set found.query = message.content %}
{%- elif message.role == 'document' %}{%- set found.document = message.content %}
{%- endif %}{%- endfor -%}
<|im_start|>system
The answer can only be yes or no.<|im_end|>
<|im_start|>user
<Instruct>: {{ found.task }}
<Query>: {{ found.query }}
<Document>: {{ found.document }}<|im_end|>
<|im_start|>assistant
"""
STRUCTURED = RERANKER.replace("message.content", "message.content[0].text")
TAIL = RERANKER.replace("assistant\n", "assistant\n{{ found.task }}: ")
KNOWN_ROLES = """\
{%- for message in messages %}{%- if message['role'] in ('system', 'user') %}\
{{ '<|im_start|>' + message['content'] }}{%- endif %}{%- endfor %}"""
STRICT = "{{ raise_exception('System role not supported') if messages[0].role == 'system' }}" + CHATML

SIZES = {
    "vocab_size": 400,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 32,
    "max_position_embeddings": 512,
}
CONFIGS: dict[str, Any] = {
    "Llama": transformers.LlamaConfig(**SIZES, pad_token_id=0),
    "Qwen3": transformers.Qwen3Config(**SIZES, head_dim=8, pad_token_id=0),
}


def byte_tokenizer(template: str | None, limit: int = 400) -> Any:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(CORPUS, trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<|endoftext|>", eos_token="<|im_end|>", model_max_length=limit
    )
    tokenizer.chat_template = template
    return tokenizer


def make_checkpoint(
    folder: Path, template: str | None = RERANKER, name: str = "Qwen3", head: str = "ForCausalLM", limit: int = 400
) -> Path:
    """Write a decoder with random weights, as transformers writes it."""
    torch.manual_seed(0)
    config = type(CONFIGS[name]).from_dict(CONFIGS[name].to_dict() | {"num_labels": 1})
    model = getattr(transformers, f"{name}{head}")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    byte_tokenizer(template, limit).save_pretrained(folder)
    return folder


def load(folder: Path, **options: Any) -> CrossEncoder:
    return CrossEncoder(str(folder), device="cpu", **options)


def load_peer(folder: Path, **options: Any) -> Any:
    return peer.CrossEncoder(str(folder), device="cpu", **options)


def assert_close(ours: Any, theirs: Any, differ: bool = True) -> None:
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert not differ or np.ptp(ours) > 1e-3


@pytest.mark.parametrize("prompt", [None, "find the cat"])
@pytest.mark.parametrize("limit", [400, 120, 20])
@pytest.mark.parametrize("template", [None, RERANKER, STRUCTURED, TAIL, CHATML])
@pytest.mark.parametrize("name", CONFIGS)
def test_decoders_score_as_the_peer_does(
    name: str, template: str | None, limit: int, prompt: str | None, tmp_path: Path
) -> None:
    make_checkpoint(tmp_path, template, name)
    ours, theirs = load(tmp_path, max_length=limit), load_peer(tmp_path, max_length=limit)
    assert [type(module).__name__ for module in ours] == ["Transformer", "LogitScore"]
    assert ours[1].config() == {name: getattr(theirs[1], name) for name in theirs[1].config_keys}
    assert ours.num_labels == describe_checkpoint(tmp_path, model_type="CrossEncoder").num_labels == 1
    scores = ours.predict(PAIRS, prompt=prompt, activation_fn=torch.nn.Identity())
    expected = theirs.predict(PAIRS, prompt=prompt, batch_size=1, activation_fn=torch.nn.Identity())
    assert_close(scores, expected, differ=limit > 20)  # within 20 tokens there is nothing but the template
    alone = ours.predict(PAIRS[::-1], prompt=prompt, max_batch_tokens=1, activation_fn=torch.nn.Identity())[::-1]
    np.testing.assert_allclose(scores, alone, atol=1e-5)


def test_token_ids_are_the_peers(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, RERANKER, limit=120)
    ours, theirs = load(tmp_path), load_peer(tmp_path)
    mine, yours = ours.preprocess(PAIRS, "a task"), theirs.preprocess(PAIRS, prompt="a task")
    for feature in ("input_ids", "attention_mask"):
        torch.testing.assert_close(mine[feature], yours[feature])
    suffix = ours.tokenizer("<|im_end|>\n<|im_start|>assistant")["input_ids"]
    assert all(row.tolist()[-len(suffix) :] == suffix for row in mine["input_ids"])  # those that were cut, too


@pytest.mark.parametrize("template", [CHATML, STRUCTURED])
def test_each_library_loads_what_the_other_saves(template: str, tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "plain", template)
    ours, theirs = load(tmp_path / "plain", max_length=120), load_peer(tmp_path / "plain", max_length=120)
    for model in (ours, theirs):
        model.prompts["task"] = "find the cat"
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(str(tmp_path / "theirs"))
    for name in ("sentence_bert_config.json", "1_LogitScore/config.json", "modules.json"):
        mine, yours = (json.loads((tmp_path / side / name).read_text()) for side in ("ours", "theirs"))
        assert mine == yours
    expected = ours.predict(PAIRS, prompt_name="task")
    assert_close(load_peer(tmp_path / "ours").predict(PAIRS, prompt_name="task"), expected)
    assert_close(load(tmp_path / "theirs").predict(PAIRS, prompt_name="task"), expected)


@pytest.mark.parametrize("variables", [{"add_generation_prompt": True}, {"restore_suffix": False}])
def test_variables_of_the_template_are_kept(variables: dict[str, Any], tmp_path: Path) -> None:
    make_checkpoint(tmp_path, CHATML, limit=40)
    theirs = load_peer(tmp_path)
    theirs[0].processing_kwargs = {"chat_template": variables}
    theirs.save_pretrained(str(tmp_path / "theirs"))
    ours = load(tmp_path / "theirs")
    expected = theirs.predict(PAIRS)
    assert_close(ours.predict(PAIRS), expected)
    assert not np.allclose(load(tmp_path).predict(PAIRS), expected)
    ours.save_pretrained(tmp_path / "ours")
    assert_close(load_peer(tmp_path / "ours").predict(PAIRS), expected)


def test_a_saved_model_that_knows_no_messages_reads_texts_as_they_are(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, CHATML)
    theirs = load_peer(tmp_path)
    theirs.save_pretrained(str(tmp_path))
    config = json.loads((tmp_path / "sentence_bert_config.json").read_text())
    del config["modality_config"], config["module_output_name"]
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps(config))
    ours, again = load(tmp_path), load_peer(tmp_path)
    assert_close(ours.predict(PAIRS), again.predict(PAIRS))
    assert not np.allclose(ours.predict(PAIRS), theirs.predict(PAIRS))


@pytest.mark.parametrize("head", ["ForSequenceClassification", "Model"])
def test_heads_on_decoders_read_pairs_through_the_template(head: str, tmp_path: Path) -> None:
    make_checkpoint(tmp_path, RERANKER, head=head)
    theirs = load_peer(tmp_path)
    theirs.save_pretrained(str(tmp_path / "saved"))  # with the head, which is a new one without a classifier
    ours = load(tmp_path / "saved", max_length=120)
    theirs.max_seq_length = 120
    assert_close(ours.predict(PAIRS, prompt="a task"), theirs.predict(PAIRS, prompt="a task"))
    if head == "ForSequenceClassification":
        assert_close(load(tmp_path, max_length=120).predict(PAIRS), theirs.predict(PAIRS))


@pytest.mark.parametrize("template", [CHATML, KNOWN_ROLES, STRUCTURED])
@pytest.mark.parametrize("prompt", [None, "find the cat"])
def test_dense_models_embed_texts_through_the_template(template: str, prompt: str | None, tmp_path: Path) -> None:
    make_checkpoint(tmp_path, template, "Llama", limit=40)
    ours = SentenceTransformer(str(tmp_path), device="cpu")
    theirs = peer.SentenceTransformer(str(tmp_path), device="cpu")
    expected = theirs.encode(TEXTS, prompt=prompt)
    np.testing.assert_allclose(ours.encode(TEXTS, prompt=prompt), expected, atol=1e-5)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(str(tmp_path / "theirs"))
    again = peer.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    np.testing.assert_allclose(again.encode(TEXTS, prompt=prompt), expected, atol=1e-5)
    back = SentenceTransformer(str(tmp_path / "theirs"), device="cpu")
    np.testing.assert_allclose(back.encode(TEXTS, prompt=prompt), expected, atol=1e-5)


def test_templates_may_ask_what_a_text_is(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, CHATML + "{{ task if task is defined else 'nothing' }}", "Llama")
    ours = SentenceTransformer(str(tmp_path), device="cpu")
    theirs = peer.SentenceTransformer(str(tmp_path), device="cpu")
    for method in ("encode", "encode_query", "encode_document"):
        np.testing.assert_allclose(getattr(ours, method)(TEXTS), getattr(theirs, method)(TEXTS), atol=1e-5)


@pytest.mark.parametrize(
    ("template", "prompt", "message"),
    [
        (KNOWN_ROLES, None, r"must render messages of the roles 'query' and 'document' .* leaves out \['query', 'doc"),
        (RERANKER.replace("{{ found.document }}", ""), None, r"leaves out \['document'\]"),
        (STRICT, "a task", r"does not take messages of the roles \['system', 'query', 'document'\]: System role not"),
    ],
)
def test_templates_that_leave_something_out_are_refused(
    template: str, prompt: str | None, message: str, tmp_path: Path
) -> None:
    make_checkpoint(tmp_path, template)
    with pytest.raises(ValueError, match=message):
        load(tmp_path).predict(PAIRS, prompt=prompt)


def test_another_template_may_be_given(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, KNOWN_ROLES)
    options = {"processor_kwargs": {"chat_template": RERANKER}}
    assert_close(load(tmp_path, **options).predict(PAIRS), load_peer(tmp_path, **options).predict(PAIRS))


def test_only_the_last_positions_logits_are_computed(tmp_path: Path) -> None:
    model = load(make_checkpoint(tmp_path, None))
    features = model[0](model.preprocess(PAIRS))
    assert features["causal_logits"].shape == (len(PAIRS), 1, 400)


def test_padding_moves_no_position(tmp_path: Path) -> None:
    """GPT-Neo's positions are learned, so that the peer's scores depend on what else is in a batch."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 400, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "max_position_embeddings": 400}
    config = transformers.GPTNeoConfig(**sizes, attention_types=[[["global"], 2]])
    transformers.GPTNeoForCausalLM(config).save_pretrained(tmp_path)
    byte_tokenizer(None).save_pretrained(tmp_path)
    ours, theirs = load(tmp_path), load_peer(tmp_path)
    assert_close(ours.predict(PAIRS), theirs.predict(PAIRS, batch_size=1))


def test_other_answers_may_be_named(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, RERANKER)
    transformer = Transformer(str(tmp_path), transformer_task="text-generation")
    ours = CrossEncoder(modules=[transformer, LogitScore(5)], device="cpu")
    theirs = peer.CrossEncoder(
        modules=[
            peer.cross_encoder.modules.Transformer(str(tmp_path), transformer_task="text-generation"),
            peer.cross_encoder.modules.LogitScore(5),
        ],
        device="cpu",
    )
    assert_close(ours.predict(PAIRS), theirs.predict(PAIRS))
    with pytest.raises(ValueError, match="num_labels must be 1, which the modules give, got 2"):
        load(tmp_path, num_labels=2)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"chat_template": {"max_length": 5}}, r"processing_kwargs of .* have \['max_length'\]"),
        ({"text": {"max_length": 5}}, r"have \['text'\], which are not supported"),
    ],
)
def test_settings_of_the_tokenizer_are_refused_in_a_config(kwargs: Any, message: str, tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    model = load(tmp_path)
    model.save_pretrained(tmp_path)
    path = tmp_path / "sentence_bert_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"processing_kwargs": kwargs}))
    with pytest.raises(ValueError, match=message):
        load(tmp_path)
