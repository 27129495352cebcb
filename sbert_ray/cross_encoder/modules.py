"""Face: modules of cross-encoders at the import path that `sentence_transformers` has for them. No code lives here."""

from sbert_ray.modules import Asym, Dense, InputModule, LogitScore, Module, Router, Transformer

__all__ = ["Asym", "Dense", "InputModule", "LogitScore", "Module", "Router", "Transformer"]
