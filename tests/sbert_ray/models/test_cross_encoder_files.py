"""The files of cross-encoders, of any age, read and written on our side and on the peer's."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from sbert_ray import CrossEncoder, SentenceTransformer
from sbert_ray.models.checkpoint import describe_checkpoint
from sbert_ray.modules import Dense, Pooling, Transformer
from tests.sbert_ray.models.classifiers import LONG, PAIRS, assert_close, edit, load, load_peer, word_tokenizer

pytest.importorskip("sentence_transformers")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, nn.Sigmoid),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh", "version": "4.1"}}, nn.Tanh),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, nn.Identity),
        (
            {
                "sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"},
                "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity",
            },
            nn.Tanh,
        ),
    ],
)
def test_old_checkpoints_say_their_activation(
    config: dict[str, Any], expected: type[nn.Module], one_label: Path, tmp_path: Path
) -> None:
    shutil.copytree(one_label, tmp_path, dirs_exist_ok=True)
    edit(tmp_path / "config.json", **config)
    ours, theirs = load(tmp_path), load_peer(tmp_path)
    assert type(ours.activation_fn) is type(theirs.activation_fn) is expected
    assert_close(ours.predict(PAIRS), theirs.predict(PAIRS))
    assert type(load(tmp_path, activation_fn=nn.ReLU()).activation_fn) is nn.ReLU
    assert ours.default_activation_function is ours.activation_fn


@pytest.mark.parametrize(
    "path", ["os.getcwd", "torch.load", "torch.nn.Linear", "torch.nn.functional.relu", "mine.Activation", "Sigmoid"]
)
def test_an_activation_that_is_not_torchs_is_refused_unless_given(path: str, one_label: Path, tmp_path: Path) -> None:
    load(one_label).save_pretrained(tmp_path)
    edit(tmp_path / "config_sentence_transformers.json", activation_fn=path)
    with pytest.raises(ValueError, match=f"activation_fn must be a module of torch.nn, got '{path}'"):
        load(tmp_path)
    assert load(tmp_path, activation_fn=nn.Identity()).predict(PAIRS).shape == (len(PAIRS),)


def test_the_head_of_a_checkpoint_is_never_made_anew_unasked(
    three_labels: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match=r"have another shape .*'classifier.weight \(3, 16\), not \(1, 16\)"):
        load(three_labels, num_labels=1)
    model = load(three_labels, num_labels=1, model_kwargs={"ignore_mismatched_sizes": True})
    assert model.num_labels == 1
    assert "they start at random, to be trained" in caplog.text
    transformer = Transformer(str(three_labels), transformer_task="sequence-classification")
    with pytest.raises(ValueError, match="num_labels must be 3, which the modules give, got 1"):
        CrossEncoder(modules=[transformer], device="cpu", num_labels=1)


def test_a_classifier_without_its_head_is_refused(one_label: Path, tmp_path: Path) -> None:
    transformers.BertModel.from_pretrained(one_label).save_pretrained(tmp_path)
    word_tokenizer(types=True).save_pretrained(tmp_path)
    edit(tmp_path / "config.json", architectures=["BertForSequenceClassification"])
    with pytest.raises(ValueError, match=r"must hold \['classifier.bias', 'classifier.weight'\]"):
        load(tmp_path)


@pytest.mark.parametrize("num_labels", [None, 1, 4])
def test_a_plain_encoder_gets_a_head(num_labels: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    transformers.BertForMaskedLM(transformers.BertConfig(**LONG)).save_pretrained(tmp_path)
    word_tokenizer(types=True).save_pretrained(tmp_path)
    ours, theirs = load(tmp_path, num_labels=num_labels), load_peer(tmp_path, num_labels=num_labels)
    assert ours.num_labels == theirs.num_labels == (num_labels or 1)
    assert "'bert.pooler.dense.weight', 'classifier.bias'" in caplog.text  # neither is in the checkpoint


def test_a_dense_model_becomes_a_cross_encoder_without_its_settings(
    tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(tiny_checkpoint, tmp_path, dirs_exist_ok=True)
    edit(tmp_path / "sentence_bert_config.json", max_seq_length=7)
    edit(tmp_path / "config_sentence_transformers.json", prompts={"red": "red "}, default_prompt_name="red")
    ours, theirs = load(tmp_path), load_peer(tmp_path)
    assert [type(module).__name__ for module in ours] == ["Transformer"]
    info = describe_checkpoint(tmp_path, model_type="CrossEncoder")
    assert (info.num_labels, info.max_seq_length) == (1, 32)
    assert ours.max_length == theirs.max_seq_length == 32  # not the dense model's limit
    assert ours.prompts == theirs.prompts == {}
    assert ours.default_prompt_name is None
    assert "loading the SentenceTransformer" in caplog.text
    ours.save_pretrained(tmp_path / "saved")
    assert_close(load_peer(tmp_path / "saved").predict(PAIRS), ours.predict(PAIRS))


SETTINGS = {"prompts": {"red": "red "}, "default_prompt_name": "red", "max_length": 20}


@pytest.mark.parametrize("num_labels", [1, 3])
def test_each_library_loads_what_the_other_saves(
    num_labels: int, one_label: Path, three_labels: Path, tmp_path: Path
) -> None:
    folder = one_label if num_labels == 1 else three_labels
    ours, theirs = (side(folder, activation_fn=nn.Softplus(), **SETTINGS) for side in (load, load_peer))
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(str(tmp_path / "theirs"))
    for name in ("config_sentence_transformers.json", "sentence_bert_config.json", "modules.json"):
        mine, yours = (json.loads((tmp_path / side / name).read_text()) for side in ("ours", "theirs"))
        if isinstance(mine, dict):
            mine.pop("__version__", None)
            yours.pop("__version__", None)
        assert mine == yours
    expected = ours.predict(PAIRS)
    assert_close(load_peer(tmp_path / "ours").predict(PAIRS), expected)
    again = load(tmp_path / "theirs")
    assert_close(again.predict(PAIRS), expected)
    assert (again.prompts, again.default_prompt_name, again.max_length) == ({"red": "red "}, "red", 20)
    assert type(again.activation_fn) is nn.Softplus


@pytest.mark.parametrize(("num_labels", "task"), [(1, "text-ranking"), (3, "text-classification")])
def test_the_card_says_what_the_model_is_for(
    num_labels: int, task: str, one_label: Path, three_labels: Path, tmp_path: Path
) -> None:
    from huggingface_hub import ModelCard

    model = load(one_label if num_labels == 1 else three_labels)
    model.save_pretrained(tmp_path, "me/model", train_datasets=["me/pairs"])
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.pipeline_tag == task
    assert card.data.tags == ["sentence-transformers", "cross-encoder", "reranker"]
    assert card.data.datasets == ["me/pairs"]
    assert 'CrossEncoder("me/model")' in card.text
    assert ("model.rank(" in card.text) == (num_labels == 1)


def test_a_model_of_pooling_and_a_dense_head_scores(tiny_checkpoint: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    transformer = SentenceTransformer(str(tiny_checkpoint), device="cpu")[0]
    head = Dense(16, 2, activation_function=nn.Identity(), module_output_name="scores")
    ours = CrossEncoder(modules=[transformer, Pooling(16), head], device="cpu", max_length=12)
    assert (ours.num_labels, ours.max_length) == (2, 12)
    ours.save_pretrained(tmp_path)
    theirs = load_peer(tmp_path)
    assert theirs.num_labels == describe_checkpoint(tmp_path, model_type="CrossEncoder").num_labels == 2
    assert_close(ours.predict(PAIRS), theirs.predict(PAIRS))
    with pytest.raises(ValueError, match="modules must write 'scores', got"):
        CrossEncoder(modules=[transformer, Pooling(16)], device="cpu").predict(PAIRS)


def test_chosen_layers_compute_in_float32(one_label: Path, tmp_path: Path) -> None:
    names = ["0.model.classifier"]
    options: dict[str, Any] = {"model_kwargs": {"dtype": "bfloat16"}, "activation_fn": nn.Identity()}
    ours, theirs = (side(one_label, keep_in_fp32_modules=names, **options) for side in (load, load_peer))
    plain = load(one_label, **options)
    scores = ours.predict(PAIRS)
    np.testing.assert_allclose(scores, theirs.predict(PAIRS), atol=0.02)
    assert (scores != torch.from_numpy(scores).bfloat16().float().numpy()).any()
    np.testing.assert_array_equal(copy.deepcopy(ours).predict(PAIRS), scores)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(str(tmp_path / "theirs"))
    for folder in (tmp_path / "ours", tmp_path / "theirs"):
        again = load(folder, model_kwargs={"dtype": "bfloat16"})
        assert again.keep_in_fp32_modules == load_peer(folder).keep_in_fp32_modules == names
        np.testing.assert_array_equal(again.predict(PAIRS), scores)
        assert load(folder, keep_in_fp32_modules=[]).keep_in_fp32_modules == []
    ours.set_keep_in_fp32_modules([])
    np.testing.assert_array_equal(ours.predict(PAIRS), plain.predict(PAIRS))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0.model.bert"], "'0.model.bert' is BertModel"),
        (["0.no"], "'0.no' is nothing"),
        ("0.model.classifier", "must be a list of paths"),
    ],
)
def test_layers_that_cannot_compute_in_float32_are_named(names: Any, message: str, one_label: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load(one_label, keep_in_fp32_modules=names)


def test_an_activation_can_be_changed(one_label: Path, tmp_path: Path) -> None:
    model = load(one_label)
    model.activation_fn = nn.Tanh()
    assert [type(module).__name__ for module in model] == ["Transformer"]
    model.save_pretrained(tmp_path)
    for again in (load(tmp_path), load_peer(tmp_path)):
        assert type(again.activation_fn) is nn.Tanh


@pytest.mark.parametrize("function", [torch.sigmoid, lambda logits: logits * 2, nn.functional.relu])
def test_an_activation_without_a_class_is_not_saved(
    function: Any, one_label: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = load(one_label, activation_fn=function)
    assert "a saved model will not know its activation" in caplog.text
    model.save_pretrained(tmp_path)
    assert type(load(tmp_path).activation_fn) is type(load_peer(tmp_path).activation_fn) is nn.Sigmoid


def test_what_the_peer_says_of_a_function_is_passed_over(
    one_label: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = load_peer(one_label)
    theirs.activation_fn = torch.sigmoid
    theirs.save_pretrained(str(tmp_path))
    assert_close(load(tmp_path).predict(PAIRS), load_peer(tmp_path).predict(PAIRS))
    assert "does not say which function its activation_fn is" in caplog.text


def test_a_module_of_torch_that_is_not_there_is_named(one_label: Path, tmp_path: Path) -> None:
    load(one_label).save_pretrained(tmp_path)
    edit(tmp_path / "config_sentence_transformers.json", activation_fn="torch.nn.modules.nope.X")
    with pytest.raises(ValueError, match=r"module of torch.nn, got 'torch.nn.modules.nope.X'; where you know"):
        load(tmp_path)


def test_no_activation_is_none(one_label: Path) -> None:
    model, theirs = load(one_label), load_peer(one_label)
    model.activation_fn = theirs.activation_fn = None
    assert_close(model.predict(PAIRS), theirs.predict(PAIRS))


def test_an_activation_changed_after_the_start_of_a_pool_holds_there_too(one_label: Path) -> None:
    model = load(one_label)
    pool = model.start_multi_process_pool(["cpu"])
    try:
        model.activation_fn = nn.Identity()
        assert_close(model.predict(PAIRS, pool=pool), model.predict(PAIRS))
    finally:
        model.stop_multi_process_pool(pool)


def test_a_decoder_that_classifies_learns_its_padding_from_the_tokenizer(tmp_path: Path) -> None:
    sizes = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.LlamaConfig(**sizes, intermediate_size=32, pad_token_id=None, num_labels=1)
    transformers.LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    theirs = load_peer(tmp_path)
    assert_close(load(tmp_path).predict(PAIRS), [theirs.predict(pair) for pair in PAIRS])
