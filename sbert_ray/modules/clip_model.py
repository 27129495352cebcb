"""The name that a Transformer for texts and images had before 5.4."""

from typing import Any

from sbert_ray.modules.transformer import Transformer


class CLIPModel(Transformer):
    """A `Transformer` for texts and images; it is saved as one.

    Args:
        model_name_or_path: Passed on.
        options: Passed on.
    """

    def __init__(self, model_name_or_path: Any = "openai/clip-vit-base-patch32", *args: Any, **options: Any) -> None:
        super().__init__(model_name_or_path, *args, **options)
