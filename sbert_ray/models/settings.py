"""What a model knows besides its modules: prompts, similarity, truncation and the like."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from sbert_ray.models.checkpoint import stored_prompts
from sbert_ray.models.requirements import PEER_VERSION
from sbert_ray.similarity import SimilarityFunction

DEFAULT_SIMILARITY = {"SentenceTransformer": "cosine", "SparseEncoder": "dot"}
"""By type of model; those that are missing give scores, not embeddings."""


@dataclass
class Settings:
    """The settings of a model, as the checkpoint and then the constructor give them."""

    model_type: str
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity_fn_name: str | None = None
    truncate_dim: int | None = None
    max_active_dims: int | None = None
    activation_fn: str | None = None
    """Dotted path of its class."""
    keep_in_fp32_modules: list[str] | None = None
    """Paths of linear layers that compute in float32."""

    @classmethod
    def merged(cls, stored: Mapping[str, Any], given: "Settings") -> "Settings":
        """Return the settings of a checkpoint, overridden by those ``given`` to the constructor.

        Raises:
            ValueError: The default prompt's name is not a prompt's, or the similarity function is unknown.
        """

        def either(name: str) -> Any:
            value = getattr(given, name)
            return stored.get(name) if value is None else value

        merged = cls(
            model_type=given.model_type,
            prompts=stored_prompts(stored, given.model_type) | given.prompts,
            default_prompt_name=given.default_prompt_name or stored.get("default_prompt_name"),
            similarity_fn_name=given.similarity_fn_name or stored.get("similarity_fn_name"),
            truncate_dim=either("truncate_dim"),
            max_active_dims=either("max_active_dims"),
            activation_fn=either("activation_fn"),
            keep_in_fp32_modules=either("keep_in_fp32_modules"),
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

    @property
    def similarity(self) -> str | None:
        """The name of the function that compares embeddings; None for models without."""
        return self.similarity_fn_name or DEFAULT_SIMILARITY.get(self.model_type)

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``config_sentence_transformers.json``."""
        config: dict[str, Any] = {
            "__version__": {
                "sentence_transformers": PEER_VERSION,
                "transformers": version("transformers"),
                "pytorch": version("torch"),
                "sbert_ray": version("sbert-ray"),
            },
            "default_prompt_name": self.default_prompt_name,
            "model_type": self.model_type,
            "prompts": self.prompts,
        }
        if self.similarity is not None:
            config["similarity_fn_name"] = self.similarity
        for name in ("truncate_dim", "max_active_dims", "activation_fn"):
            if (value := getattr(self, name)) is not None:
                config[name] = value
        if self.keep_in_fp32_modules:
            config["keep_in_fp32_modules"] = self.keep_in_fp32_modules
        return config
