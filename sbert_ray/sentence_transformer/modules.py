"""Face: modules of dense models at the import path that `sentence_transformers` has for them. No code lives here."""

from sbert_ray.modules import Dense, Dropout, LayerNorm, Normalize, Pooling, Transformer

__all__ = ["Dense", "Dropout", "LayerNorm", "Normalize", "Pooling", "Transformer"]
