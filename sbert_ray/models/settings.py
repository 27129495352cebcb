"""What a model knows besides its modules: prompts, similarity and truncation."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from sbert_ray.models.checkpoint import stored_prompts
from sbert_ray.models.requirements import PEER_VERSION
from sbert_ray.similarity import SimilarityFunction


@dataclass
class Settings:
    """The settings of a model, as the checkpoint and then the constructor give them."""

    prompts: dict[str, str]
    default_prompt_name: str | None = None
    similarity_fn_name: str | None = None
    truncate_dim: int | None = None

    @classmethod
    def merged(cls, stored: Mapping[str, Any], given: "Settings") -> "Settings":
        """Return the settings of a checkpoint, overridden by those ``given`` to the constructor.

        Raises:
            ValueError: The default prompt's name is not a prompt's, or the similarity function is unknown.
        """
        merged = cls(
            prompts=stored_prompts(stored) | given.prompts,
            default_prompt_name=given.default_prompt_name or stored.get("default_prompt_name"),
            similarity_fn_name=given.similarity_fn_name or stored.get("similarity_fn_name"),
            truncate_dim=stored.get("truncate_dim") if given.truncate_dim is None else given.truncate_dim,
        )
        if merged.default_prompt_name is not None:
            merged.prompt(None, merged.default_prompt_name)
        if merged.similarity_fn_name is not None:
            SimilarityFunction.to_similarity_fn(merged.similarity_fn_name)
        return merged

    def prompt(self, prompt: str | None, prompt_name: str | None) -> str | None:
        """Return the text before each input: ``prompt``, else that of ``prompt_name``, else the default one.

        Raises:
            ValueError: No prompt has that name.
        """
        if prompt is not None:
            return prompt
        name = prompt_name if prompt_name is not None else self.default_prompt_name
        if name is not None and name not in self.prompts:
            raise ValueError(f"unknown prompt name {name!r}; known prompts are {sorted(self.prompts)}")
        return None if name is None else self.prompts[name]

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``config_sentence_transformers.json``."""
        config = {
            "__version__": {
                "sentence_transformers": PEER_VERSION,
                "transformers": version("transformers"),
                "pytorch": version("torch"),
                "sbert_ray": version("sbert-ray"),
            },
            "default_prompt_name": self.default_prompt_name,
            "model_type": "SentenceTransformer",
            "prompts": self.prompts,
            "similarity_fn_name": self.similarity_fn_name or SimilarityFunction.COSINE.value,
        }
        return config | ({} if self.truncate_dim is None else {"truncate_dim": self.truncate_dim})
