"""Face: modules of sparse models at the import path that they had before 5.4. No code lives here."""

from sbert_ray.sparse_encoder.modules import (
    Asym,
    Dense,
    InputModule,
    MLMTransformer,
    Module,
    Router,
    SparseAutoEncoder,
    SparseStaticEmbedding,
    SpladePooling,
    Transformer,
)

__all__ = [
    "Asym",
    "Dense",
    "InputModule",
    "MLMTransformer",
    "Module",
    "Router",
    "SparseAutoEncoder",
    "SparseStaticEmbedding",
    "SpladePooling",
    "Transformer",
]
