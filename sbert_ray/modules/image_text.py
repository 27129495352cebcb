"""Transformers with a tower for texts and one for images, into one space (arXiv:2103.00020).

Shapes: B inputs, D dimensions, C channels, H and W pixels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from torch import Tensor
from transformers import AutoImageProcessor, PreTrainedConfig, PreTrainedModel

from sbert_ray.inference.images import Images, require_pillow
from sbert_ray.inference.prepared import Features
from sbert_ray.modules.modalities import IMAGE_TEXT_MODELS, image_positions
from sbert_ray.modules.module import LoadOptions
from sbert_ray.modules.pretrained import hub_arguments, load_tokenizer

_IMAGE_SETTINGS = (
    "backend crop_size do_center_crop do_convert_rgb do_normalize do_rescale do_resize image_mean image_std resample"
    " rescale_factor size"
).split()


class ImagePixels:
    """Makes pixel values of opened images, each on its own, so that they do not depend on the rest of a batch.

    Args:
        processor: An image processor of transformers.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, image: Any) -> Tensor:
        """Return the pixel values (C, H, W) of an image of Pillow, or of an array (H, W, C) or (C, H, W)."""
        return cast(Tensor, self.processor(images=[image], return_tensors="pt")["pixel_values"][0])


def reads_images(config: PreTrainedConfig, task: str) -> bool:
    """Return whether a transformer is one for texts and images."""
    return task == "feature-extraction" and config.model_type in IMAGE_TEXT_MODELS


def load_processor(
    folder: Path | str, config: dict[str, Any], options: LoadOptions, model: PreTrainedModel, task: str
) -> Any:
    """Load the tokenizer in ``folder`` or, for a model of texts and images, the processor of both.

    Images are processed by Pillow, whatever else is installed, so that pixels are the same everywhere; unless the user
    gives ``processor_kwargs={"backend": "torchvision"}``.

    Args:
        folder: A checkpoint of transformers, or its id on the hub.
        config: The Transformer module's config.
        options: They win over the config.
        model: The checkpoint's model.
        task: What it is for.

    Raises:
        ImportError: The model takes images, and Pillow is not installed.
    """
    tokenizer = load_tokenizer(folder, config, options, model.config)
    if not reads_images(model.config, task):
        return tokenizer
    require_pillow()
    from transformers import CLIPProcessor

    given = {name: value for name, value in options.processor_kwargs.items() if name in _IMAGE_SETTINGS}
    image_processor = AutoImageProcessor.from_pretrained(
        folder, **({"backend": "pil"} | hub_arguments(folder, options) | given)
    )
    return CLIPProcessor(image_processor, tokenizer)


def prepare_images(images: Sequence[Any], processor: Any, config: PreTrainedConfig) -> Images:
    """Return images ready to be read batch by batch."""
    return Images(images, ImagePixels(processor.image_processor), image_positions(config.to_dict()))


def image_text_embeddings(model: PreTrainedModel, features: Features) -> Tensor:
    """Return the embeddings (B, D) of ``input_ids`` and ``attention_mask`` (B, T), or ``pixel_values`` (B, C, H, W)."""
    towers: Any = model
    if features.get("modality") == "image":
        output = towers.get_image_features(pixel_values=features["pixel_values"])
    else:
        names = ("input_ids", "attention_mask")
        output = towers.get_text_features(**{name: features[name] for name in names})
    return cast(Tensor, getattr(output, "pooler_output", output))  # a tensor in the first releases of transformers 5
