"""Face: what a process runs on, at the import path that `sentence_transformers` has for it. No code lives here."""

from sbert_ray.models.loading import default_device as get_device_name

__all__ = ["get_device_name"]
