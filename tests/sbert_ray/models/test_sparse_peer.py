"""The peer as the oracle of sparse models: the same checkpoints, read and written on both sides."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sbert_ray
from sbert_ray import SparseEncoder
from sbert_ray.modules import Router, SparseAutoEncoder, SparseStaticEmbedding, SpladePooling, Transformer
from sbert_ray.sparse_encoder.models import MLMTransformer
from tests.sbert_ray.masked_models import CONFIGS, TEXTS, VOCABULARY, masked_model, save_masked, word_tokenizer

peer = pytest.importorskip("sentence_transformers")
peer_modules = pytest.importorskip("sentence_transformers.sparse_encoder.modules")

IDF = torch.linspace(0, 2, len(VOCABULARY))


def load(folder: Path, **options: Any) -> SparseEncoder:
    return SparseEncoder(folder, device="cpu", **options)


def load_peer(folder: Path, **options: Any) -> Any:
    return peer.SparseEncoder(str(folder), device="cpu", **options)


def assert_agree(ours: Any, theirs: Any, **options: Any) -> None:
    """Make sure that two models embed texts, queries and documents alike."""
    for method in ("encode", "encode_query", "encode_document"):
        mine, yours = (getattr(model, method)(TEXTS, **options) for model in (ours, theirs))
        assert (mine.shape, mine.layout) == (yours.shape, yours.layout)
        torch.testing.assert_close(mine.to_dense(), yours.to_dense(), atol=1e-5, rtol=1e-5)
        assert (mine.to_dense() != 0).any()


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "xlm"])
def test_plain_masked_models_agree(name: str, tmp_path: Path) -> None:
    save_masked(name, tmp_path)
    ours, theirs = load(tmp_path), load_peer(tmp_path)
    kinds = [[type(module).__name__ for module in model] for model in (ours, theirs)]
    assert kinds == [["Transformer", "SpladePooling"]] * 2
    assert ours.max_seq_length == theirs.max_seq_length == 24
    assert ours.get_embedding_dimension() == 16  # the peer says so after a first text only
    assert_agree(ours, theirs)
    assert theirs.get_embedding_dimension() == 16
    assert_agree(ours, theirs, max_active_dims=3)
    for model in (ours, theirs):
        model[1].pooling_strategy = "sum"
    expected = theirs.encode(TEXTS).to_dense()
    for batching in ({}, {"max_batch_tokens": 7}):
        torch.testing.assert_close(ours.encode(TEXTS, **batching).to_dense(), expected, atol=1e-4, rtol=1e-5)


SETTINGS = {
    "prompts": {"query": "a red ", "poem": "the "},
    "default_prompt_name": "poem",
    "similarity_fn_name": "cosine",
    "max_active_dims": 5,
}


def splade(ours: bool) -> list[Any]:
    options = {"pooling_strategy": "sum", "activation_function": "log1p_relu"}
    if ours:
        return [
            Transformer(masked_model("roberta"), word_tokenizer(), transformer_task="fill-mask"),
            SpladePooling(**options),
        ]
    return [peer_modules.SpladePooling(**options)]


def assert_settings_agree(ours: Any, theirs: Any) -> None:
    names = "prompts default_prompt_name similarity_fn_name max_active_dims max_seq_length".split()
    assert {name: getattr(ours, name) for name in names} == {name: getattr(theirs, name) for name in names}


def test_the_peer_loads_what_we_save(tmp_path: Path) -> None:
    ours = SparseEncoder(modules=splade(ours=True), device="cpu", **SETTINGS)
    ours.save_pretrained(tmp_path)
    theirs = load_peer(tmp_path)
    assert theirs.prompts == {"query": "a red ", "document": "", "poem": "the "}
    for loaded in (theirs, load(tmp_path)):
        assert [type(module).__name__ for module in loaded] == ["Transformer", "SpladePooling"]
        assert loaded[1].activation_function == "log1p_relu"
        assert_settings_agree(ours, loaded)
        assert_agree(ours, loaded)


def test_we_load_what_the_peer_saves(tmp_path: Path) -> None:
    save_masked("roberta", tmp_path / "plain")
    transformer = peer_modules.Transformer(str(tmp_path / "plain"), transformer_task="fill-mask")
    theirs = peer.SparseEncoder(modules=[transformer, *splade(ours=False)], device="cpu", **SETTINGS)
    theirs.save_pretrained(str(tmp_path / "saved"))
    ours = load(tmp_path / "saved")
    assert ours[1].embedding_dimension == 16  # the file says null, since the peer has not seen a text
    assert ours.get_embedding_dimension() == 16
    assert_settings_agree(ours, theirs)
    assert_agree(ours, theirs)


def test_both_write_the_same_files(tmp_path: Path) -> None:
    save_masked("bert", tmp_path / "plain")
    theirs = load_peer(tmp_path / "plain")
    theirs.encode("a cat")
    theirs.save_pretrained(str(tmp_path / "theirs"))
    load(tmp_path / "plain").save_pretrained(tmp_path / "ours")
    names = {
        side: {path.relative_to(tmp_path / side).as_posix() for path in (tmp_path / side).rglob("*.*")}
        for side in ("ours", "theirs")
    }
    assert names["ours"] == names["theirs"]
    for name in ("modules.json", "sentence_bert_config.json", "1_SpladePooling/config.json"):
        contents = [json.loads((tmp_path / side / name).read_text()) for side in ("ours", "theirs")]
        assert contents[0] == contents[1]
    settings = [
        json.loads((tmp_path / side / "config_sentence_transformers.json").read_text()) for side in ("ours", "theirs")
    ]
    for one in settings:
        del one["__version__"]
    assert settings[0] == settings[1] | {"similarity_fn_name": "dot"}  # which the peer finds out when it is asked


@pytest.mark.parametrize("path", ["sentence_transformers.sparse_encoder.models", "sentence_transformers.models"])
def test_checkpoints_of_earlier_versions_agree(path: str, tmp_path: Path) -> None:
    """Before 5.4 the transformer was an MLMTransformer, whose config said little, and the sizes had other names."""
    load(save_masked("bert", tmp_path)).save_pretrained(tmp_path)
    entries = json.loads((tmp_path / "modules.json").read_text())
    entries[0]["type"] = "sentence_transformers.sparse_encoder.models.MLMTransformer"
    entries[1]["type"] = "sentence_transformers.sparse_encoder.models.SpladePooling"
    (tmp_path / "modules.json").write_text(json.dumps(entries))
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 7, "do_lower_case": false}')
    config = {"pooling_strategy": "max", "activation_function": "relu", "word_embedding_dimension": 16}
    (tmp_path / "1_SpladePooling" / "config.json").write_text(json.dumps(config))
    ours, theirs = load(tmp_path), load_peer(tmp_path)
    assert ours.max_seq_length == theirs.max_seq_length == 7
    assert_agree(ours, theirs)


def copy_autoencoder(source: Any, target: Any) -> None:
    """Give new weights, which are random, to the other library's model too."""
    target.load_state_dict(source.state_dict(), strict=True)


@pytest.mark.parametrize("kind", ["plain", "SentenceTransformer"])
def test_other_checkpoints_get_an_autoencoder(kind: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = tiny_checkpoint
    if kind == "plain":
        sbert_ray.SentenceTransformer(tiny_checkpoint, device="cpu")[0].model.save_pretrained(tmp_path)
        sbert_ray.SentenceTransformer(tiny_checkpoint, device="cpu").tokenizer.save_pretrained(tmp_path)
        folder = tmp_path
    ours, theirs = load(folder), load_peer(folder)
    assert [type(module).__name__ for module in ours] == [type(module).__name__ for module in theirs]
    assert ours[-1].config() == theirs[-1].get_config_dict()
    assert ours.max_active_dims == theirs.max_active_dims == (256 if kind == "plain" else 4)
    assert ours.get_embedding_dimension() == theirs.get_embedding_dimension() == 64
    assert ours.similarity_fn_name == theirs.similarity_fn_name == ("dot" if kind == "plain" else "cosine")
    copy_autoencoder(theirs[-1], ours[-1])
    for limit in (1, 3, 64):
        assert_agree(ours, theirs, max_active_dims=limit)
    if kind == "plain":
        assert ours.encode(TEXTS).shape == (8, 64)  # where the peer fails, since k is more than there is
    else:
        assert_agree(ours, theirs)


def test_a_converted_model_keeps_prompts_and_similarity(tiny_checkpoint: Path, tmp_path: Path) -> None:
    settings = {"prompts": {"query": "a red "}, "default_prompt_name": "query", "similarity_fn_name": "manhattan"}
    sbert_ray.SentenceTransformer(tiny_checkpoint, device="cpu", **settings).save_pretrained(tmp_path)
    ours, theirs = load(tmp_path), load_peer(tmp_path)
    assert_settings_agree(ours, theirs)
    assert ours.prompts == {"query": "a red ", "document": ""}
    theirs[-1].load_state_dict(ours[-1].state_dict() | {"decoder.linear.weight": ours[-1].encoder.weight})
    assert_agree(ours, theirs)


def test_a_model_for_masked_words_by_another_name_gets_an_autoencoder(tmp_path: Path) -> None:
    """XLM's head is for masked words and for the next one."""
    save_masked("xlm", tmp_path)
    for model in (load(tmp_path), load_peer(tmp_path)):
        assert [type(module).__name__ for module in model] == ["Transformer", "Pooling", "SparseAutoEncoder"]


def test_an_autoencoder_survives_both_ways(tiny_checkpoint: Path, tmp_path: Path) -> None:
    ours, theirs = load(tiny_checkpoint), load_peer(tiny_checkpoint)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(str(tmp_path / "theirs"))
    for original, folder in ((ours, tmp_path / "ours"), (theirs, tmp_path / "theirs")):
        for loaded in (load(folder), load_peer(folder)):
            assert loaded.max_active_dims == 4
            assert isinstance(loaded[-1], (SparseAutoEncoder, peer_modules.SparseAutoEncoder))
            assert_agree(loaded, original)


def inference_free(ours: bool, folder: Path) -> Any:
    """Queries as token weights, documents as SPLADE."""
    if ours:
        static = SparseStaticEmbedding(word_tokenizer(), IDF)
        transformer = Transformer(masked_model("distilbert"), word_tokenizer(), transformer_task="fill-mask")
        router = Router.for_query_document([static], [transformer, SpladePooling()])
        return SparseEncoder(modules=[router], device="cpu")
    save_masked("distilbert", folder)
    router = peer_modules.Router.for_query_document(
        [peer_modules.SparseStaticEmbedding(word_tokenizer(), IDF)],
        [peer_modules.Transformer(str(folder), transformer_task="fill-mask"), peer_modules.SpladePooling()],
    )
    return peer.SparseEncoder(modules=[router], device="cpu", similarity_fn_name="dot")


@pytest.mark.parametrize("by_us", [True, False])
def test_inference_free_models_agree(by_us: bool, tmp_path: Path) -> None:
    saved = inference_free(by_us, tmp_path / "plain")
    saved.save_pretrained(str(tmp_path / "saved"))
    ours, theirs = load(tmp_path / "saved"), load_peer(tmp_path / "saved")
    assert ours.get_embedding_dimension() == 16
    for options in ({}, {"max_active_dims": 2}):
        texts = [text for text in TEXTS if text]  # of none at all the peer makes no batch of token weights
        for method in ("encode_query", "encode_document", "encode"):
            mine, yours, expected = (getattr(model, method)(texts, **options) for model in (ours, theirs, saved))
            torch.testing.assert_close(mine.to_dense(), yours.to_dense(), atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(mine.to_dense(), expected.to_dense(), atol=1e-5, rtol=1e-5)
    query, documents = ours.encode_query("the red cat"), ours.encode_document(TEXTS)
    torch.testing.assert_close(
        ours.similarity(query, documents), theirs.similarity(theirs.encode_query("the red cat"), documents)
    )
    assert ours.decode(query) == theirs.decode(query)
    ours.splade_pooling_chunk_size = 2
    torch.testing.assert_close(ours.encode_document(TEXTS).to_dense(), documents.to_dense(), atol=1e-5, rtol=1e-5)


def test_an_autoencoder_may_be_in_a_router(tmp_path: Path) -> None:
    """What limits its latents reaches it there."""
    transformer = Transformer(masked_model("bert"), word_tokenizer(), transformer_task="fill-mask")
    router = Router({"document": [transformer, SpladePooling(), SparseAutoEncoder(16, 40, k=9)]})
    SparseEncoder(modules=[router], device="cpu").save_pretrained(tmp_path)
    ours, theirs = load(tmp_path), load_peer(tmp_path)
    for limit in (None, 2):
        mine, yours = (model.encode_document(TEXTS, max_active_dims=limit) for model in (ours, theirs))
        torch.testing.assert_close(mine.to_dense(), yours.to_dense(), atol=1e-5, rtol=1e-5)


def test_a_dense_model_may_have_them_too(tmp_path: Path) -> None:
    """Then its embeddings are dense, and all logits of a text may be asked for."""
    load(save_masked("bert", tmp_path)).save_pretrained(tmp_path / "saved", create_model_card=False)
    path = tmp_path / "saved" / "config_sentence_transformers.json"
    path.write_text(path.read_text().replace("SparseEncoder", "SentenceTransformer"))
    folder = str(tmp_path / "saved")
    ours, theirs = (kind(folder, device="cpu") for kind in (sbert_ray.SentenceTransformer, peer.SentenceTransformer))
    torch.testing.assert_close(ours.encode(TEXTS), theirs.encode(TEXTS), atol=1e-5, rtol=1e-5)
    tokens = [model.encode(TEXTS, output_value="token_embeddings") for model in (ours, theirs)]
    for mine, yours in zip(*tokens, strict=True):
        torch.testing.assert_close(mine, yours[: len(mine)], atol=1e-5, rtol=1e-5)
    features = ours.encode(TEXTS, output_value=None)
    assert [tuple(row["token_embeddings"].shape)[1:] for row in features] == [(16,)] * len(TEXTS)


def test_old_names_and_positions_of_arguments_hold(tmp_path: Path) -> None:
    save_masked("bert", tmp_path)
    ours, theirs = load(tmp_path), load_peer(tmp_path)
    by_position = (TEXTS, None, "red ", 2, False, True, False, True, None, 3)
    for method in ("encode", "encode_query", "encode_document"):
        mine, yours = (getattr(model, method)(*by_position) for model in (ours, theirs))
        torch.testing.assert_close(mine, yours, atol=1e-5, rtol=1e-5)
    with pytest.warns(FutureWarning, match="the argument sentences is called inputs now"):
        ours.encode(sentences=TEXTS)
    with pytest.warns(FutureWarning, match="the argument tokenizer_kwargs is called processor_kwargs now"):
        assert load(tmp_path, tokenizer_kwargs={"model_max_length": 9}).max_seq_length == 9


def test_companions_agree(tmp_path: Path) -> None:
    save_masked("electra", tmp_path)
    ours, theirs = load(tmp_path), load_peer(tmp_path)
    embeddings: Tensor = theirs.encode(TEXTS)
    assert ours.sparsity(embeddings) == pytest.approx(theirs.sparsity(embeddings))
    assert ours.sparsity(embeddings[0]) == pytest.approx(theirs.sparsity(embeddings[0]))
    for top_k in (None, 1, 4):
        assert ours.decode(embeddings, top_k=top_k) == theirs.decode(embeddings, top_k=top_k)
        assert ours.decode(embeddings[2], top_k=top_k) == theirs.decode(embeddings[2], top_k=top_k)
    for others in (embeddings, embeddings[1]):
        shared = [model.intersection(embeddings[0], others) for model in (ours, theirs)]
        assert torch.equal(shared[0].to_dense(), shared[1].to_dense())
        assert ours.decode(shared[0]) == theirs.decode(shared[1])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_gives_float32_rows(dtype: str, tmp_path: Path) -> None:
    save_masked("bert", tmp_path)
    ours = load(tmp_path, model_kwargs={"dtype": dtype})
    assert ours.dtype == getattr(torch, dtype)
    embeddings = ours.encode(TEXTS)
    assert embeddings.dtype == torch.float32
    theirs = load_peer(tmp_path, model_kwargs={"dtype": dtype}).encode(TEXTS)
    torch.testing.assert_close(embeddings.to_dense(), theirs.to_dense().float(), atol=5e-2, rtol=2e-2)


def test_a_transformer_has_its_old_name(tmp_path: Path) -> None:
    save_masked("bert", tmp_path / "plain")
    model = SparseEncoder(modules=[MLMTransformer(str(tmp_path / "plain")), SpladePooling()], device="cpu")
    model.save_pretrained(tmp_path / "saved")
    assert_agree(model, load_peer(tmp_path / "saved"))
    assert_agree(model, load(tmp_path / "saved"))


QUICKSTART = """
from {package} import SparseEncoder

# 1. Load a pretrained SparseEncoder model
model = SparseEncoder("{folder}")

# The sentences to encode
sentences = [
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
]

# 2. Calculate sparse embeddings by calling model.encode()
embeddings = model.encode(sentences)
print(embeddings.shape)

# 3. Calculate the embedding similarities (using dot product by default)
similarities = model.similarity(embeddings, embeddings)
print(similarities)

# 4. Check sparsity statistics
stats = SparseEncoder.sparsity(embeddings)
print(f"Sparsity: {{stats['sparsity_ratio']:.2%}}")
print(model.decode(embeddings, top_k=2))
"""


def test_the_quickstart_prints_what_the_peers_prints(tmp_path: Path) -> None:
    """With no change but the package's name."""
    save_masked("distilbert", tmp_path)
    printed = []
    for package in ("sbert_ray", "sentence_transformers"):
        code = QUICKSTART.format(package=package, folder=tmp_path)
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3]
        )
        assert result.returncode == 0, result.stderr
        printed.append(result.stdout)
    assert "torch.Size([3, 16])" in printed[0]
    # The last digits may differ, of which many are printed.
    numbers = [np.array(re.findall(r"-?\d+\.\d+", text), float) for text in printed]
    np.testing.assert_allclose(*numbers, atol=1e-5)
    assert len({re.sub(r"-?\d+\.\d+", "", text) for text in printed}) == 1
