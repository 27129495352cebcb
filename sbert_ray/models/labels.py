"""How many scores a cross-encoder gives for a pair, by the JSON files of its checkpoint. Knows no torch."""

from pathlib import Path

from sbert_ray.models.layout import module_config
from sbert_ray.modules.configs import is_classifier, read_json
from sbert_ray.modules.entries import ModuleEntry

USUAL_LABELS = 2
"""Of a classifier whose ``config.json`` does not say."""


def count_labels(folder: Path, entries: list[ModuleEntry]) -> int:
    """Return K of the modules of a checkpoint, as `CrossEncoder.num_labels` does once they are loaded."""
    for entry in reversed(entries):
        if entry.kind == "LogitScore":
            return 1
        if entry.kind == "Dense":
            config = module_config(folder, entry)
            if config.get("module_output_name") == "scores":
                return int(config["out_features"])
        if entry.kind == "Transformer":
            return _head_labels(folder / entry.path)
    return 1


def _head_labels(folder: Path) -> int:
    config = read_json(folder / "config.json")
    if not is_classifier(config.get("architectures")):
        return 1  # the head will be a new one
    return int(config.get("num_labels") or len(config.get("id2label") or ()) or USUAL_LABELS)
