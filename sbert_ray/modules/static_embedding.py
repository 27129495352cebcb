"""One vector per token, without context: the mean of them embeds a text.

Shapes: V tokens of the vocabulary, D dimensions, B texts, M tokens of all of them.
"""

import inspect
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from sbert_ray.inference.bags import TokenBags, tokenize_bags
from sbert_ray.inference.precision import load_precision
from sbert_ray.inference.prepared import Features
from sbert_ray.modules.module import LoadOptions, UnlimitedModule, read_weights, weights_file

logger = logging.getLogger(__name__)

MODEL2VEC_FILES = ["config.json", "model.safetensors", "tokenizer.json"]


class StaticEmbedding(UnlimitedModule):
    """Turns texts into the mean of the vectors of their tokens, ``sentence_embedding`` (B, D); zeros without tokens.

    There are no special tokens, and no limit of length but one that ``tokenizer.json`` itself may set.

    Args:
        tokenizer: A tokenizer of the tokenizers library, or one of transformers that is built on it.
        embedding_weights: The vectors (V, D), as an array or a tensor.
        embedding_dim: D of random vectors, to be trained, in the place of ``embedding_weights``.
        base_model: What the vectors were made of, for the reader.

    Raises:
        ValueError: The tokenizer is of another kind, there are neither weights nor D, or the weights are no matrix.

    References:
        Tulkens and van Dongen 2024, Model2Vec: fast state-of-the-art static embeddings.
    """

    public_path = "sentence_transformers.sentence_transformer.modules.static_embedding.StaticEmbedding"
    save_in_root: ClassVar[bool] = True

    def __init__(
        self,
        tokenizer: Tokenizer | PreTrainedTokenizerBase,
        embedding_weights: NDArray[Any] | Tensor | None = None,
        embedding_dim: int | None = None,
        base_model: str | None = None,
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        if embedding_weights is not None:
            weights = torch.as_tensor(embedding_weights)
            if weights.ndim != 2:
                raise ValueError(f"embedding_weights must be a matrix (V, D), got the shape {tuple(weights.shape)}")
            self.embedding = nn.EmbeddingBag.from_pretrained(weights, freeze=not weights.is_floating_point())
        elif embedding_dim is not None:
            self.embedding = nn.EmbeddingBag(self.tokenizer.get_vocab_size(), embedding_dim)
        else:
            raise ValueError("give either embedding_weights or embedding_dim")
        self.num_embeddings = self.embedding.num_embeddings
        self.embedding_dim = self.embedding.embedding_dim
        self.base_model = base_model

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the tokenizers library."""
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Tokenizer | PreTrainedTokenizerBase) -> None:
        core = getattr(tokenizer, "backend_tokenizer", tokenizer)
        if not isinstance(core, Tokenizer):
            raise ValueError(
                "tokenizer must be of the tokenizers library, or of transformers and built on it, got "
                f"{type(tokenizer).__name__}"
            )
        core.no_padding()
        self._tokenizer = core

    def prepare(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        *,
        task: str | None = None,  # noqa: ARG002 (for a Router)
        on_chunk: Callable[[], None] | None = None,
    ) -> TokenBags:
        """Tokenize texts, each after ``prompt``, into bags of tokens.

        Raises:
            ValueError: The tokenizer gives a token that has no vector.
        """
        bags = tokenize_bags(self.tokenizer, inputs, prompt, on_chunk)
        if (largest := int(bags.ids.max(initial=-1))) >= self.num_embeddings:
            token = self.tokenizer.id_to_token(largest)
            raise ValueError(
                f"there must be a vector for each token, got {self.num_embeddings} and the token {token!r} "
                f"with the id {largest}"
            )
        return bags

    def forward(self, features: Features) -> Features:
        """Add ``sentence_embedding``, from ``input_ids`` (M,) and ``offsets`` (B,), where each text begins in them."""
        return features | {"sentence_embedding": self.embedding(features["input_ids"], features["offsets"])}

    def get_embedding_dimension(self) -> int:
        """Return D."""
        return self.embedding_dim

    def config(self) -> dict[str, Any]:
        """Return nothing: the tokenizer and the weights are all there is."""
        return {}

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and ``model.safetensors`` to a checkpoint's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = {"embedding.weight": self.embedding.weight.detach().cpu().contiguous()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        self.tokenizer.save(str(folder / "tokenizer.json"))

    @classmethod
    def load(cls, folder: Path, options: LoadOptions) -> Self:
        """Build the module from its folder in a checkpoint, which may be one of model2vec.

        Raises:
            FileNotFoundError: The tokenizer or the weights are missing.
            ValueError: The weights are of another kind of model, or int8 is asked for.
        """
        path = folder / "tokenizer.json"
        if not path.exists():
            raise FileNotFoundError(f"{str(folder)!r} lacks tokenizer.json")
        weights = _matrix(read_weights(weights_file(folder, options)), folder)
        requested = options.model_kwargs.get("dtype") or options.model_kwargs.get("torch_dtype")
        stored = weights.dtype if weights.is_floating_point() else torch.float32  # vectors in 8 bits, not scaled
        precision = load_precision(requested, stored, options.device)
        if precision.is_int8:
            raise ValueError("dtype='int8' needs linear layers, of which a StaticEmbedding has none")
        return cls(Tokenizer.from_file(str(path)), weights.to(precision.dtype))

    @classmethod
    def from_model2vec(cls, model_id_or_path: str | os.PathLike[str]) -> Self:
        """Build the module from a model of model2vec, which need not be installed.

        Args:
            model_id_or_path: A folder, or the id of a model on the hub.

        Raises:
            FileNotFoundError: A folder lacks the tokenizer or the weights.
            ValueError: The weights are of another kind of model.
        """
        folder = Path(model_id_or_path)
        if not folder.is_dir():
            from huggingface_hub import snapshot_download

            folder = Path(snapshot_download(os.fspath(model_id_or_path), allow_patterns=MODEL2VEC_FILES))
        module = cls.load(folder, LoadOptions())
        module.base_model = os.fspath(model_id_or_path)
        return module

    @classmethod
    def from_distillation(  # noqa: PLR0913, PLR0917 (the public signature)
        cls,
        model_name: str,
        vocabulary: list[str] | None = None,
        device: str | None = None,
        pca_dims: int | None = 256,
        apply_zipf: bool = True,
        sif_coefficient: float | None = 1e-4,
        token_remove_pattern: str | None = r"\[unused\d+\]",
        quantize_to: str = "float32",
        use_subword: bool = True,
        **kwargs: Any,
    ) -> Self:
        r"""Build the module from what a transformer makes of each token alone, by the package model2vec.

        Args:
            model_name: The transformer's id on the hub or folder.
            vocabulary: Further words to get vectors of their own.
            device: Where the transformer runs.
            pca_dims: D, the number of principal components to keep; None keeps all of the transformer.
            apply_zipf: Whether rare tokens weigh more, by their rank, in old versions of model2vec.
            sif_coefficient: How much rare tokens weigh more, by smooth inverse frequency; None leaves it.
            token_remove_pattern: Tokens that match get no vector.
            quantize_to: The dtype of the vectors.
            use_subword: Whether the tokens of the transformer get vectors, in old versions of model2vec.
            kwargs: Passed on to ``model2vec.distill.distill``.

        Raises:
            ImportError: model2vec is not installed.
        """
        try:
            from model2vec.distill import distill
        except ImportError as error:
            raise ImportError(
                "from_distillation needs the package model2vec: pip install 'sbert-ray[distill]'"
            ) from error
        wanted = kwargs | {
            "vocabulary": vocabulary,
            "device": device,
            "pca_dims": pca_dims,
            "apply_zipf": apply_zipf,
            "sif_coefficient": sif_coefficient,
            "token_remove_pattern": token_remove_pattern,
            "quantize_to": quantize_to,
            "use_subword": use_subword,
        }
        known = inspect.signature(distill).parameters
        if ignored := sorted(wanted.keys() - known.keys()):
            logger.warning("ignoring %s, which this version of model2vec does not know", ignored)
        model = distill(model_name, **{name: value for name, value in wanted.items() if name in known})
        weights = _folded(
            getattr(model.embedding, "weight", model.embedding),
            getattr(model, "token_mapping", None),
            getattr(model, "weights", None),
        )
        return cls(model.tokenizer, weights, base_model=model_name)


def _matrix(weights: Mapping[str, Tensor], folder: Path) -> Tensor:
    if "embedding.weight" in weights:
        return weights["embedding.weight"]
    if "embeddings" not in weights:
        raise ValueError(
            f"the weights in {str(folder)!r} must hold 'embedding.weight', or 'embeddings' of model2vec, "
            f"got {sorted(weights)}"
        )
    try:
        return _folded(weights["embeddings"], weights.get("mapping"), weights.get("weights"))
    except (IndexError, RuntimeError) as error:
        raise ValueError(f"the parts of the weights in {str(folder)!r} do not fit: {error}") from error


def _folded(embeddings: Any, mapping: Any, weights: Any) -> Tensor:
    """Return model2vec's vectors (V, D): several tokens may share one, and each may have a weight of its own."""
    matrix = torch.as_tensor(embeddings).detach()
    if mapping is not None:
        matrix = matrix[torch.as_tensor(mapping, dtype=torch.int64)]
    if weights is not None:
        dtype = torch.promote_types(matrix.dtype, torch.float32)
        matrix = (matrix * torch.as_tensor(weights).unsqueeze(1)).to(dtype)
    return matrix.contiguous()
