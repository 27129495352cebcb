"""The name that a Transformer for ``fill-mask`` had before 5.4."""

from typing import Any

from sbert_ray.modules.transformer import Transformer


class MLMTransformer(Transformer):
    """A `Transformer` whose task is ``fill-mask``; it is saved as one.

    Args:
        model_name_or_path: Passed on.
        options: Passed on.
    """

    def __init__(self, model_name_or_path: Any, *args: Any, **options: Any) -> None:
        super().__init__(model_name_or_path, *args, **{"transformer_task": "fill-mask"} | options)
