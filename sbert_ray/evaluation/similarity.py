"""Semantic textual similarity: do similarities rank pairs as people do?"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from sbert_ray.embeddings import normalize_embeddings
from sbert_ray.evaluation.encoding import EmbeddingEvaluator
from sbert_ray.evaluation.evaluator import (
    Result,
    check_gold,
    check_lengths,
    chosen_similarities,
    file_name,
    similarity_names,
)
from sbert_ray.evaluation.metrics import pearson, spearman
from sbert_ray.quantization import BINARY_PRECISIONS, PRECISIONS, quantize_embeddings, unsigned_bits
from sbert_ray.similarity import SimilarityFunction


class EmbeddingSimilarityEvaluator(EmbeddingEvaluator):
    """Pearson's and Spearman's correlations of similarities with gold scores.

    The metrics are ``pearson_{fn}`` and ``spearman_{fn}``, with several similarities also the greatest of each as
    ``pearson_max`` and ``spearman_max``.

    Args:
        sentences1: N first texts.
        sentences2: N second texts.
        scores: N gold scores, on any scale.
        batch_size: Texts at a time, passed on to the model.
        main_similarity: Whose Spearman correlation is the primary metric; if None, the greatest one's.
        similarity_fn_names: ``cosine``, ``dot``, ``euclidean``, ``manhattan``; if None, the main one, or the model's.
        name: Prefix of the metrics' names.
        show_progress_bar: Passed on to the model.
        write_csv: Whether to write a CSV file where a call gives a folder.
        precision: If given, embeddings are normalized and then quantized to it, those of both sides with the same
            ranges, and compared as the numbers that the codes are; binary ones bit by bit.
        truncate_dim: Keep so many leading dimensions.

    Raises:
        ValueError: The columns are empty or differ in length, a gold score is no number, or a similarity or the
            precision is unknown.
    """

    card_name = "Semantic Similarity"
    card_options = ("precision", "truncate_dim")

    def __init__(  # noqa: PLR0913, PLR0917 (the public signature)
        self,
        sentences1: Sequence[Any],
        sentences2: Sequence[Any],
        scores: Sequence[float],
        batch_size: int = 16,
        main_similarity: str | SimilarityFunction | None = None,
        similarity_fn_names: Sequence[str] | None = None,
        name: str = "",
        show_progress_bar: bool = False,
        write_csv: bool = True,
        precision: str | None = None,
        truncate_dim: int | None = None,
    ) -> None:
        check_lengths(sentences1=sentences1, sentences2=sentences2, scores=scores)
        check_gold(scores)
        if precision is not None and precision not in PRECISIONS:
            raise ValueError(f"unknown precision {precision!r}; known precisions are {list(PRECISIONS)}")
        self.sentences1, self.sentences2, self.scores = sentences1, sentences2, scores
        self.batch_size = batch_size
        self.main_similarity = None if main_similarity is None else SimilarityFunction.name_of(main_similarity)
        self.similarity_fn_names = chosen_similarities(similarity_fn_names, self.main_similarity)
        self.name = name
        self.show_progress_bar = show_progress_bar
        self.write_csv = write_csv
        self.precision = precision
        self.truncate_dim = truncate_dim
        self.csv_file = file_name(file_name("similarity_evaluation", name, ""), precision or "")

    @classmethod
    def from_input_examples(cls, examples: Sequence[Any], **kwargs: Any) -> Self:
        """Make an evaluator of examples with ``texts``, two, and ``label``, the gold score."""
        first, second = zip(*(example.texts for example in examples), strict=True)
        return cls(list(first), list(second), [example.label for example in examples], **kwargs)

    def evaluate(self, model: Any) -> Result:
        """Return the correlations."""
        pair = [self.embed_inputs(model, sentences) for sentences in (self.sentences1, self.sentences2)]
        if self.precision is not None:
            pair = _quantized(pair, self.precision)
        metrics: dict[str, float] = {}
        names = similarity_names(self.similarity_fn_names, model)
        for name in names:
            scores = SimilarityFunction.to_similarity_pairwise_fn(name)(*pair).cpu().numpy()  # (N,)
            metrics |= {f"pearson_{name}": pearson(scores, self.scores)}
            metrics |= {f"spearman_{name}": spearman(scores, self.scores)}
        row = {f"{name}_{kind}": metrics[f"{kind}_{name}"] for name in names for kind in ("pearson", "spearman")}
        if len(names) > 1:
            metrics |= {
                f"{kind}_max": max(metrics[f"{kind}_{name}"] for name in names) for kind in ("pearson", "spearman")
            }
        main = self.main_similarity or (names[0] if len(names) == 1 else "max")
        return Result(metrics, row, f"spearman_{main}")


def _quantized(pair: Sequence[Tensor], precision: str) -> list[Tensor]:
    """Return the codes of two matrices (N, D) as numbers, those of one bit as (N, 8 ceil(D / 8))."""
    codes = quantize_embeddings([normalize_embeddings(matrix).cpu().numpy() for matrix in pair], precision)
    if precision in BINARY_PRECISIONS:
        codes = [np.unpackbits(unsigned_bits(code, precision), axis=1) for code in codes]
    return [torch.from_numpy(code.astype(np.float32)) for code in codes]
