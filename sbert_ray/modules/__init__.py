"""The steps that models are made of, by the name that checkpoints give them. Imported on first use, torch with them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sbert_ray.inference.prepared import Features
    from sbert_ray.modules.bag_of_words import BoW
    from sbert_ray.modules.clip_model import CLIPModel
    from sbert_ray.modules.cnn import CNN
    from sbert_ray.modules.dense import Dense
    from sbert_ray.modules.dropout import Dropout
    from sbert_ray.modules.layer_norm import LayerNorm
    from sbert_ray.modules.logit_score import LogitScore
    from sbert_ray.modules.lstm import LSTM
    from sbert_ray.modules.mlm_transformer import MLMTransformer
    from sbert_ray.modules.module import InputModule, LoadOptions, Module
    from sbert_ray.modules.normalize import Normalize
    from sbert_ray.modules.pooling import Pooling
    from sbert_ray.modules.router import Asym, Router
    from sbert_ray.modules.sparse_auto_encoder import SparseAutoEncoder
    from sbert_ray.modules.sparse_static_embedding import SparseStaticEmbedding
    from sbert_ray.modules.splade_pooling import SpladePooling
    from sbert_ray.modules.static_embedding import StaticEmbedding
    from sbert_ray.modules.transformer import Transformer
    from sbert_ray.modules.weighted_layer_pooling import WeightedLayerPooling
    from sbert_ray.modules.word_embeddings import WordEmbeddings
    from sbert_ray.modules.word_tokenizers import (
        ENGLISH_STOP_WORDS,
        PhraseTokenizer,
        TransformersTokenizerWrapper,
        WhitespaceTokenizer,
        WordTokenizer,
    )
    from sbert_ray.modules.word_weights import WordWeights

MODULES = {
    "BoW": "sbert_ray.modules.bag_of_words",
    "CNN": "sbert_ray.modules.cnn",
    "Dense": "sbert_ray.modules.dense",
    "Dropout": "sbert_ray.modules.dropout",
    "LayerNorm": "sbert_ray.modules.layer_norm",
    "LogitScore": "sbert_ray.modules.logit_score",
    "LSTM": "sbert_ray.modules.lstm",
    "Normalize": "sbert_ray.modules.normalize",
    "Pooling": "sbert_ray.modules.pooling",
    "Router": "sbert_ray.modules.router",
    "SparseAutoEncoder": "sbert_ray.modules.sparse_auto_encoder",
    "SparseStaticEmbedding": "sbert_ray.modules.sparse_static_embedding",
    "SpladePooling": "sbert_ray.modules.splade_pooling",
    "StaticEmbedding": "sbert_ray.modules.static_embedding",
    "Transformer": "sbert_ray.modules.transformer",
    "WeightedLayerPooling": "sbert_ray.modules.weighted_layer_pooling",
    "WordEmbeddings": "sbert_ray.modules.word_embeddings",
    "WordWeights": "sbert_ray.modules.word_weights",
}
"""Where the module of each name in ``modules.json`` is defined."""

INPUT_MODULES = {"BoW", "Router", "SparseStaticEmbedding", "StaticEmbedding", "Transformer", "WordEmbeddings"}
"""Those that may come first in a model."""

__all__ = [
    "CNN",
    "ENGLISH_STOP_WORDS",
    "INPUT_MODULES",
    "LSTM",
    "MODULES",
    "Asym",
    "BoW",
    "CLIPModel",
    "Dense",
    "Dropout",
    "Features",
    "InputModule",
    "LayerNorm",
    "LoadOptions",
    "LogitScore",
    "MLMTransformer",
    "Module",
    "Normalize",
    "PhraseTokenizer",
    "Pooling",
    "Router",
    "SparseAutoEncoder",
    "SparseStaticEmbedding",
    "SpladePooling",
    "StaticEmbedding",
    "Transformer",
    "TransformersTokenizerWrapper",
    "WeightedLayerPooling",
    "WhitespaceTokenizer",
    "WordEmbeddings",
    "WordTokenizer",
    "WordWeights",
]

_WORD_TOKENIZERS = (
    "ENGLISH_STOP_WORDS",
    "PhraseTokenizer",
    "TransformersTokenizerWrapper",
    "WhitespaceTokenizer",
    "WordTokenizer",
)

_HOMES = {
    **MODULES,
    **dict.fromkeys(("InputModule", "LoadOptions", "Module"), "sbert_ray.modules.module"),
    "Asym": "sbert_ray.modules.router",
    "CLIPModel": "sbert_ray.modules.clip_model",
    "MLMTransformer": "sbert_ray.modules.mlm_transformer",
    "Features": "sbert_ray.inference.prepared",
    **dict.fromkeys(_WORD_TOKENIZERS, "sbert_ray.modules.word_tokenizers"),
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
