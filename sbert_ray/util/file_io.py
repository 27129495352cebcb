"""Face: files of models at the import path that `sentence_transformers` has for them. No code lives here."""

from sbert_ray.models.hub import is_sentence_transformer_model

__all__ = ["is_sentence_transformer_model"]
