"""A model is modules in a row that users may change, and what does not fit is named."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sbert_ray import CrossEncoder, SentenceTransformer
from sbert_ray.modules import Dense, Normalize, Pooling, Transformer, WhitespaceTokenizer, WordEmbeddings

TEXTS = ["a cat", "the fast dog ran on the mat"]


@pytest.fixture
def model(tiny_checkpoint: Path) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_checkpoint), device="cpu")


def test_modules_may_be_taken_out_added_and_exchanged(model: SentenceTransformer, tmp_path: Path) -> None:
    whole = model.encode(TEXTS)
    del model[2]
    raw = model.encode(TEXTS)
    np.testing.assert_allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), whole, atol=1e-6)
    model.append(Normalize())
    np.testing.assert_allclose(model.encode(TEXTS), whole, atol=1e-6)
    model.insert(2, Dense(16, 4))
    model[1] = Pooling(16, "cls")
    embeddings = model.encode(TEXTS)
    assert embeddings.shape == (2, 4)
    model.save_pretrained(str(tmp_path))
    np.testing.assert_allclose(SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS), embeddings, atol=1e-6)


def test_a_plain_module_of_torch_may_be_among_them(model: SentenceTransformer, tmp_path: Path) -> None:
    class Negative(nn.Module):
        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            return features | {"sentence_embedding": -features["sentence_embedding"]}

    other = SentenceTransformer(modules=[*model, Negative()], device="cpu")
    np.testing.assert_allclose(other.encode(TEXTS), -model.encode(TEXTS), atol=1e-6)
    assert other.get_embedding_dimension() == 16
    with pytest.raises(ValueError, match="module 3, of type Negative, is none of this"):
        other.save_pretrained(str(tmp_path))


def test_older_names_are_there(model: SentenceTransformer, tiny_checkpoint: Path) -> None:
    assert model._first_module() is model[0]
    assert model._last_module() is model[2]
    assert model[0].auto_model is model.transformers_model
    assert model.config is model[0].model.config
    assert model.get_backend() == "torch"
    assert CrossEncoder(modules=[model[0]], device="cpu").get_model_kwargs() == []
    with pytest.warns(FutureWarning, match="the argument model_args is called model_kwargs now"):
        Transformer(str(tiny_checkpoint), model_args={"attn_implementation": "eager"})


def test_an_evaluator_gets_the_model_and_a_folder(model: SentenceTransformer, tmp_path: Path) -> None:
    found = model.evaluate(lambda given, folder: (given is model, Path(folder).is_dir()), str(tmp_path / "new"))
    assert found == (True, True)
    assert model.evaluate(lambda _, folder: folder) is None


def test_what_does_not_fit_is_named(tiny_checkpoint: Path, tmp_path: Path) -> None:
    transformer = Transformer(str(tiny_checkpoint))
    with pytest.raises(ValueError, match="Dense takes 100 dimensions, and the modules before it give 16"):
        SentenceTransformer(modules=[transformer, Pooling(16), Dense(100, 8)], device="cpu").encode("a cat")
    with pytest.raises(ValueError, match="a SentenceTransformer's modules must write 'sentence_embedding', got"):
        SentenceTransformer(modules=[transformer], device="cpu").encode("a cat")
    with pytest.raises(ValueError, match="tokenizer must be None with the name of a model, got 128"):
        Transformer(str(tiny_checkpoint), 128)

    class Custom(nn.ReLU):
        """Not torch's own."""

    with pytest.raises(ValueError, match=r"activation_function must be a module of torch.nn, got '.*Custom'"):
        Dense(3, 4, activation_function=Custom()).save(tmp_path)


def test_a_damaged_file_names_itself(model: SentenceTransformer, tmp_path: Path) -> None:
    SentenceTransformer(modules=[*model, Dense(16, 4)], device="cpu").save_pretrained(str(tmp_path))
    weights = tmp_path / "3_Dense/model.safetensors"
    weights.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"the weights in '.*3_Dense/model.safetensors' cannot be read"):
        SentenceTransformer(str(tmp_path), device="cpu")
    (tmp_path / "config_sentence_transformers.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config_sentence_transformers.json' must be an object, got list"):
        SentenceTransformer(str(tmp_path), device="cpu")


def test_a_word_tokenizer_runs_no_code_of_its_folder_even_if_someone_says_yes(tmp_path: Path) -> None:
    tokenizer = WhitespaceTokenizer(["cat"], stop_words=())
    WordEmbeddings(tokenizer, torch.ones(1, 4)).save(tmp_path)
    config = tmp_path / "wordembedding_config.json"
    name = "sentence_transformers.sentence_transformer.modules.tokenizer.TransformersTokenizerWrapper"
    config.write_text(f'{{"tokenizer_class": "{name}", "update_embeddings": false, "max_seq_length": 9}}')
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", null]}}'
    )
    (tmp_path / "evil.py").write_text("print('RAN')\nclass Evil: pass\n")
    script = (
        "from pathlib import Path; from sbert_ray.modules import WordEmbeddings, LoadOptions;"
        f"WordEmbeddings.load(Path({str(tmp_path)!r}), LoadOptions())"
    )
    run = subprocess.run([sys.executable, "-c", script], input="y\ny\n", capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert "RAN" not in run.stdout
    assert "custom code" not in run.stdout  # which would be the question


def test_an_error_in_a_pool_tells_where_its_inputs_begin(model: SentenceTransformer) -> None:
    pool = model.start_multi_process_pool(["cpu"])
    try:
        with pytest.raises(RuntimeError, match=r"with inputs from row 2 on: [\s\S]*row 0 has a lone surrogate"):
            model.encode(["a", "b", "\ud800"], pool=pool, chunk_size=2)
    finally:
        model.stop_multi_process_pool(pool)
