"""Face: logging at the import path that `sentence_transformers` has for it. No code lives here."""

from sbert_ray.inference.progress import LoggingHandler

__all__ = ["LoggingHandler"]
