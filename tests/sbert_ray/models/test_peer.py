"""The peer as the oracle: the same checkpoints, read and written on both sides, give the same embeddings."""

import importlib.metadata
import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sbert_ray import SentenceTransformer
from sbert_ray.modules import Dense, Dropout, LayerNorm, Normalize, Pooling

peer = pytest.importorskip("sentence_transformers")
peer_modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")

TEXTS = ["a cat", "the fast dog ran on the mat", "red", "zebra crossing", "the " * 50, "a cat", "the dog sat on a mat"]


def load_peer(folder: Path, **options: Any) -> Any:
    return peer.SentenceTransformer(str(folder), device="cpu", **options)


def load(folder: Path, **options: Any) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu", **options)


def real_texts(longest: int = 300) -> list[str]:
    """Summaries and paragraphs of descriptions of the installed packages, and texts that are odd."""
    texts = ["", " ", "\n\t", "a", "!" * 300, "\u4f60\u597d" * 40, "na\u00efve caf\u00e9 \U0001f642", "word " * 600]
    for package in importlib.metadata.distributions():
        texts.append(package.metadata["Summary"] or "")
        texts += [text[:longest] for text in (package.metadata.get_payload() or "").split("\n\n")[:4]]
    return texts[:300]


@pytest.fixture(scope="module")
def minilms(minilm: Path) -> tuple[SentenceTransformer, Any]:
    """MiniLM on our side and on the peer's."""
    return load(minilm), load_peer(minilm)


def test_minilm_agrees_on_real_texts(minilms: tuple[SentenceTransformer, Any]) -> None:
    texts = real_texts()
    assert len(texts) == 300
    ours, theirs = (model.encode(texts) for model in minilms)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_precisions_agree(precision: str, minilms: tuple[SentenceTransformer, Any]) -> None:
    texts = [text[:40] for text in real_texts()[8:110]]
    ours, theirs = (model.encode(texts, precision=precision) for model in minilms)
    assert ours.dtype == theirs.dtype
    # A value on the edge between two codes may fall to either side.
    assert (ours != theirs).mean() < 1e-3


@pytest.mark.parametrize("options", [{"truncate_dim": 32, "normalize_embeddings": True}, {"prompt": "query: "}])
def test_options_agree(options: dict[str, Any], minilms: tuple[SentenceTransformer, Any]) -> None:
    ours, theirs = (model.encode(real_texts()[:20], **options) for model in minilms)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


NOT_YET = {"model_card_data", "use_auth_token", "kwargs"}
METHODS = (
    "encode save_pretrained push_to_hub similarity similarity_pairwise truncate_embeddings set_pooling_include_prompt"
    " get_sentence_embedding_dimension get_embedding_dimension get_max_seq_length start_multi_process_pool"
    " stop_multi_process_pool"
).split()


@pytest.mark.parametrize("method", METHODS)
def test_arguments_have_the_peers_names_order_and_defaults(method: str) -> None:
    ours, theirs = (
        [(p.name, p.default) for p in inspect.signature(getattr(model, method)).parameters.values()]
        for model in (SentenceTransformer, peer.SentenceTransformer)
    )
    expected = [(name, default) for name, default in theirs if name not in NOT_YET]
    assert ours[: len(expected)] == expected


def test_the_constructor_takes_the_peers_arguments() -> None:
    ours, theirs = (inspect.signature(model).parameters for model in (SentenceTransformer, peer.SentenceTransformer))
    assert {name: p.default for name, p in theirs.items() if name not in NOT_YET} == {
        name: p.default for name, p in ours.items()
    }


def test_old_names_and_positions_of_arguments_hold(minilms: tuple[SentenceTransformer, Any], minilm: Path) -> None:
    ours, theirs = minilms
    with pytest.warns(FutureWarning, match="the argument sentences is called inputs now"):
        embeddings = ours.encode(sentences=TEXTS)
    np.testing.assert_allclose(embeddings, theirs.encode(TEXTS), atol=1e-5)
    by_position = (TEXTS, None, "query: ", 2, False, "sentence_embedding", "float32", True, False, None, True, 8)
    np.testing.assert_allclose(ours.encode(*by_position), theirs.encode(*by_position), atol=1e-5)
    np.testing.assert_allclose(ours.encode_query(*by_position), theirs.encode_query(*by_position), atol=1e-5)
    np.testing.assert_allclose(ours.encode_document(*by_position), theirs.encode_document(*by_position), atol=1e-5)
    np.testing.assert_allclose(ours.encode(TEXTS, precision=None), theirs.encode(TEXTS), atol=1e-5)
    with pytest.warns(FutureWarning, match="the argument tokenizer_kwargs is called processor_kwargs now"):
        assert load(minilm, tokenizer_kwargs={"model_max_length": 9}).max_seq_length == 9
    with pytest.raises(TypeError, match="give inputs or its old name sentences, not both"):
        ours.encode(inputs=TEXTS, sentences=TEXTS)


def test_all_features_agree(minilms: tuple[SentenceTransformer, Any]) -> None:
    options = {"output_value": None, "truncate_dim": 8, "normalize_embeddings": True}
    for mine, yours in zip(*(model.encode(TEXTS, **options) for model in minilms), strict=True):
        np.testing.assert_allclose(mine["sentence_embedding"], yours["sentence_embedding"], atol=1e-5)
        assert mine["sentence_embedding"].shape == (8,)


@pytest.mark.parametrize("name", ["hkunlp/instructor-large", "me/my-instructor", "instructors/plain"])
def test_instructor_models_leave_the_prompt_out(
    name: str, tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    repository = tmp_path / f"models--{name.replace('/', '--')}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(tiny_checkpoint, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    options = {"device": "cpu", "cache_folder": str(tmp_path), "local_files_only": True}
    ours, theirs = SentenceTransformer(name, **options), peer.SentenceTransformer(name, **options)
    assert ours[1].include_prompt == theirs[1].include_prompt == (name != "hkunlp/instructor-large")
    told = [record for record in caplog.records if record.name.startswith("sbert_ray")]
    assert [record.getMessage()[:40] for record in told] == (
        ["me/my-instructor pools the tokens of pro"] if name == "me/my-instructor" else []
    )
    np.testing.assert_allclose(ours.encode(TEXTS, prompt="a red "), theirs.encode(TEXTS, prompt="a red "), atol=1e-6)


def test_a_dense_layer_may_be_a_pickle_where_asked_for(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Version 2.2 with later transformers wrote the transformer's weights safely, and those of its own modules not."""
    SentenceTransformer(modules=chain(tiny_checkpoint), device="cpu").save_pretrained(tmp_path)
    dense = tmp_path / "2_Dense" / "model.safetensors"
    torch.save(load_file(dense), dense.with_name("pytorch_model.bin"))
    dense.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"2_Dense' lacks model\.safetensors and has pytorch_model\.bin, a pickle"
    ):
        load(tmp_path)
    model = load(tmp_path, model_kwargs={"use_safetensors": False})
    np.testing.assert_allclose(model.encode(TEXTS), load_peer(tmp_path).encode(TEXTS), atol=1e-6)
    model.save_pretrained(tmp_path / "converted")
    np.testing.assert_array_equal(load(tmp_path / "converted").encode(TEXTS), model.encode(TEXTS))


def chain(tiny_checkpoint: Path) -> list[Any]:
    [transformer, *_] = load(tiny_checkpoint)
    return [
        transformer,
        Pooling(16, ["cls", "mean"], include_prompt=False),
        Dense(32, 12, activation_function=nn.GELU(), use_residual=True),
        LayerNorm(12),
        Dropout(0.3),
        Dense(12, 8, bias=False, module_output_name="sentence_embedding"),
        Normalize(),
    ]


SETTINGS = {"prompts": {"query": "a red ", "poem": "the "}, "default_prompt_name": "poem", "similarity_fn_name": "dot"}


def test_the_peer_loads_what_we_save(tiny_checkpoint: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    ours = SentenceTransformer(modules=chain(tiny_checkpoint), device="cpu", truncate_dim=6, **SETTINGS)
    ours.save_pretrained(str(tmp_path))
    theirs = load_peer(tmp_path)
    assert [type(module).__name__ for module in theirs] == [type(module).__name__ for module in ours]
    assert theirs.prompts == ours.prompts == {"query": "a red ", "document": "", "poem": "the "}
    for name in ("default_prompt_name", "similarity_fn_name", "truncate_dim", "max_seq_length"):
        assert getattr(theirs, name) == getattr(ours, name)
    for options in ({}, {"prompt_name": "query"}, {"prompt": ""}):
        np.testing.assert_allclose(ours.encode(TEXTS, **options), theirs.encode(TEXTS, **options), atol=1e-6)
    np.testing.assert_array_equal(load(tmp_path).encode(TEXTS), ours.encode(TEXTS))


def test_we_load_what_the_peer_saves(tiny_checkpoint: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    modules = [
        load_peer(tiny_checkpoint)[0],
        peer_modules.Pooling(16, ("max", "weightedmean"), include_prompt=False),
        peer_modules.Dense(32, 12, use_residual=True),
        peer_modules.LayerNorm(12),
        peer_modules.Dropout(0.3),
        peer_modules.Dense(12, 12, activation_function=None, use_residual=True),
        peer_modules.Normalize(),
    ]
    theirs = peer.SentenceTransformer(modules=modules, device="cpu", truncate_dim=6, **SETTINGS)
    theirs.max_seq_length = 20
    theirs.save_pretrained(str(tmp_path))
    ours = load(tmp_path)
    assert [type(module).__name__ for module in ours] == [type(module).__name__ for module in theirs]
    for name in ("prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim", "max_seq_length"):
        assert getattr(ours, name) == getattr(theirs, name)
    for options in ({}, {"prompt_name": "query"}, {"prompt": ""}):
        np.testing.assert_allclose(ours.encode(TEXTS, **options), theirs.encode(TEXTS, **options), atol=1e-6)


def test_minilm_survives_both_ways(minilms: tuple[SentenceTransformer, Any], tmp_path: Path) -> None:
    ours, theirs = minilms
    texts = real_texts()[:10]
    expected = theirs.encode(texts)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(str(tmp_path / "theirs"))
    for saved in (load_peer(tmp_path / "ours"), load(tmp_path / "ours"), load(tmp_path / "theirs")):
        assert saved.max_seq_length == 256
        np.testing.assert_allclose(saved.encode(texts), expected, atol=1e-6)
    names = {
        name: {p.relative_to(tmp_path / name).as_posix() for p in (tmp_path / name).rglob("*.json")}
        for name in ("ours", "theirs")
    }
    assert names["ours"] == names["theirs"]
    for name in ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json", "2_Normalize/config.json"):
        assert json.loads((tmp_path / "ours" / name).read_text()) == json.loads(
            (tmp_path / "theirs" / name).read_text()
        )


@pytest.mark.parametrize("config_name", ["sentence_bert_config.json", "sentence_roberta_config.json"])
def test_legacy_checkpoints_agree(config_name: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_checkpoint, tmp_path, dirs_exist_ok=True)
    entries = json.loads((tmp_path / "modules.json").read_text())
    for entry in entries:
        entry["type"] = f"sentence_transformers.models.{entry['type'].rpartition('.')[2]}"
    (tmp_path / "modules.json").write_text(json.dumps(entries))
    (tmp_path / "sentence_bert_config.json").unlink()
    (tmp_path / config_name).write_text('{"max_seq_length": 7, "do_lower_case": true}')
    shutil.rmtree(tmp_path / "2_Normalize")  # old checkpoints lack it
    flags = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16} | flags))
    assert load(tmp_path).max_seq_length == 7
    texts = [*TEXTS, "THE CAT"]
    np.testing.assert_allclose(load(tmp_path).encode(texts), load_peer(tmp_path).encode(texts), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_checkpoints_run_in_float32_on_a_cpu(
    dtype: torch.dtype, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    model = load(tiny_checkpoint).to(dtype)
    model.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert loaded.dtype == torch.float32
    theirs = load_peer(tmp_path, model_kwargs={"dtype": "float32"})
    np.testing.assert_allclose(loaded.encode(TEXTS), theirs.encode(TEXTS), atol=1e-6)


def test_a_dtype_that_is_asked_for_holds_for_all_modules(tiny_checkpoint: Path, tmp_path: Path) -> None:
    SentenceTransformer(modules=chain(tiny_checkpoint), device="cpu").save_pretrained(tmp_path)
    ours = load(tmp_path, model_kwargs={"dtype": "float16"})
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float16}
    embeddings = ours.encode(TEXTS)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, load_peer(tmp_path).encode(TEXTS), atol=5e-3)
