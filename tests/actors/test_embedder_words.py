"""The embedding worker with models of words, which have no transformer, and what a job checks of them first."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.testing import assert_allclose
from tokenizers import Tokenizer, models, pre_tokenizers

from actors.embedder import Embedder, EmbedderConfig
from jobs.embed import EmbedJob
from sbert_ray import SentenceTransformer
from sbert_ray.data.dataset import Dataset
from sbert_ray.data.errors import InputError
from sbert_ray.data.units import Unit
from sbert_ray.models.checkpoint import resolve_checkpoint
from sbert_ray.modules import LSTM, BoW, Pooling, StaticEmbedding, WhitespaceTokenizer, WordEmbeddings

VOCAB = "pad the cat dog sat ran slow red blue".split()
TEXTS = ["the cat sat", "a dog", "", "   ", "the slow red cat ran", "a dog", "red " * 40]


def static() -> list[Any]:
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(VOCAB)}, unk_token="pad"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return [StaticEmbedding(core, torch.randn(9, 8))]


def recurrent() -> list[Any]:
    words = WordEmbeddings(WhitespaceTokenizer(VOCAB, stop_words=()), torch.randn(9, 6))
    return [words, LSTM(6, 4), Pooling(8)]


MODELS = {"static": static, "lstm": recurrent, "bag of words": lambda: [BoW(VOCAB[1:])]}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    built = SentenceTransformer(modules=MODELS[request.param](), device="cpu")
    built.save_pretrained(str(tmp_path / request.param))
    return tmp_path / request.param


def test_a_worker_embeds_with_any_model(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    table = pa.table({"id": range(len(TEXTS)), "text": TEXTS})
    pq.write_table(table, tmp_path / "in/a.parquet")
    revision = resolve_checkpoint(model).revision
    options = {"text_columns": ("text",), "id_column": "id"}
    config = EmbedderConfig(model=str(model), revision=revision, is_local=True, **options)
    worker = Embedder(Dataset.open(f"{tmp_path}/in", ("text",), ["id"]).reader(100), f"{tmp_path}/out", config)
    report = worker.process(Unit(0, "a.parquet", 0, len(TEXTS)), lambda _: None)
    written = pq.read_table(tmp_path / "out" / report.committed.file)
    column = written["embedding"].combine_chunks()
    found = column.flatten().to_numpy().reshape(len(column), -1)
    assert written["id"].to_pylist() == list(range(7))
    assert_allclose(found, SentenceTransformer(str(model), device="cpu").encode(TEXTS), atol=1e-6)
    words = [sum(word in VOCAB for word in text.split()) for text in TEXTS]
    assert report.stats["tokens"] >= sum(words)
    assert report.stats["truncated_texts"] == 0
    assert np.isfinite(found).all()


def test_a_job_knows_the_model_before_it_starts(model: Path) -> None:
    job = EmbedJob(input="/in", output="/out", model=str(model))
    assert job.checkpoint_info.embedding_dimension == 8
    with pytest.raises(InputError, match="--truncate-dim must be at most the model's 8, got 9"):
        _ = EmbedJob(input="/in", output="/out", model=str(model), truncate_dim=9).checkpoint_info


def test_a_job_refuses_a_limit_that_the_model_cannot_keep(model: Path) -> None:
    job = EmbedJob(input="/in", output="/out", model=str(model), max_seq_length=9)
    if model.name == "lstm":
        assert job.checkpoint_info.max_seq_length == 1000000
        return
    with pytest.raises(InputError, match=r"--max-seq-length: the model's (BoW|StaticEmbedding) reads texts of any"):
        _ = job.checkpoint_info


def test_a_job_names_a_missing_file_of_the_model(model: Path) -> None:
    names = {"static": "tokenizer.json", "lstm": "wordembedding_config.json", "bag of words": "0_BoW/config.json"}
    (model / names[model.name]).unlink()
    with pytest.raises(InputError, match=f"--model: .* lacks {Path(names[model.name]).name}"):
        _ = EmbedJob(input="/in", output="/out", model=str(model)).checkpoint_info
