"""By which method of a transformer each kind of input becomes an embedding. Knows no torch."""

from collections.abc import Mapping
from typing import Any

IMAGE_TEXT_MODELS = ("clip",)
"""The ``model_type`` of transformers with a tower for texts and one for images, into one space (arXiv:2103.00020).

SigLIP is not among them: it reads the padding of a text, so that its embedding depends on the rest of the batch.
"""

OTHER_IMAGE_TEXT_MODELS = ("align", "altclip", "blip", "chinese_clip", "clipseg", "siglip", "siglip2", "x_clip")
"""Models with two towers that are not read, and would otherwise ask for images in the middle of the work."""

IMAGE_TEXT_SETTINGS: dict[str, Any] = {
    "modality_config": {
        kind: {"method": f"get_{kind}_features", "method_output_name": "pooler_output"} for kind in ("text", "image")
    },
    "module_output_name": "sentence_embedding",
}
"""How a Transformer module reads them."""

IMAGE_POSITIONS = 128
"""The least cost of an image. At 224 by 224 pixels 512 of them, 308 MB, are a GPU's batch, and 32 a CPU's."""


def is_image_text(config: Mapping[str, Any]) -> bool:
    """Return whether a Transformer module's config is that of a model for texts and images."""
    return bool(config.get("module_output_name") == IMAGE_TEXT_SETTINGS["module_output_name"])


def check_image_text(config: Mapping[str, Any], model_type: str, where: str) -> None:
    """Make sure that a Transformer module's config fits a model for texts and images.

    Args:
        config: The module's.
        model_type: That of the transformer.
        where: What an error calls them.

    Raises:
        ValueError: It does not.
    """
    name = IMAGE_TEXT_SETTINGS["module_output_name"]
    if model_type not in IMAGE_TEXT_MODELS:
        raise ValueError(
            f"{where} must be of {list(IMAGE_TEXT_MODELS)} to give the output {name!r}, got {model_type!r}"
        )
    if (found := config.get("module_output_name")) != name:
        raise ValueError(f"{where} is for texts and images, so its module_output_name must be {name!r}, got {found!r}")
    expected = IMAGE_TEXT_SETTINGS["modality_config"]
    given = config.get("modality_config") or expected
    methods = {kind: entry.get("method") for kind, entry in given.items()}
    outputs = {entry.get("method_output_name") for entry in given.values()}
    if methods != {kind: entry["method"] for kind, entry in expected.items()} or not outputs <= {"pooler_output", None}:
        raise ValueError(f"{where} must read its inputs by {expected}, got {given}")


def image_positions(config: Mapping[str, Any]) -> int:
    """Return what an image costs, in token positions: its patches, and at least what its pixels weigh in memory."""
    vision = config.get("vision_config") or config
    size, patch = vision.get("image_size"), vision.get("patch_size")
    patches = (size // patch) ** 2 + 1 if isinstance(size, int) and isinstance(patch, int) else 0
    return max(patches, IMAGE_POSITIONS)
