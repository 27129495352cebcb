"""The same evaluation by the peer and by us, and models whose embeddings have many ties."""

import csv
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sbert_ray.embeddings import normalize_embeddings, select_max_active_dims
from sbert_ray.similarity import SimilarityFunction


class Texts:
    """Embeds texts as small integers, so that many similarities are equal, and takes the options that models take."""

    def __init__(self, dim: int = 4, levels: int = 3, similarity_fn_name: str = "cosine") -> None:
        self.dim, self.levels, self.similarity_fn_name = dim, levels, similarity_fn_name
        self.counts: list[int] = []

    def row(self, text: str) -> np.ndarray:
        rng = np.random.default_rng(zlib.crc32(text.encode()))
        return rng.integers(-self.levels, self.levels + 1, self.dim).astype(np.float32)

    def encode(self, texts: Any, **options: Any) -> Any:
        self.counts.append(len(texts))
        prompt = options.get("prompt") or options.get("prompt_name") or ""
        matrix = torch.from_numpy(np.stack([self.row(prompt + text) for text in texts]))
        return self.converted(matrix[:, : options.get("truncate_dim")], options)

    def converted(self, matrix: torch.Tensor, options: dict[str, Any]) -> Any:
        if options.get("normalize_embeddings"):
            matrix = normalize_embeddings(matrix)
        if options.get("precision"):
            from sentence_transformers.util.quantization import quantize_embeddings

            return quantize_embeddings(matrix.numpy(), options["precision"])
        if options.get("convert_to_tensor"):
            return matrix
        return matrix.numpy() if options.get("convert_to_numpy", True) else list(matrix)

    def encode_query(self, texts: Any, **options: Any) -> Any:
        return self.encode(["query: " + text for text in texts], **options)

    def encode_document(self, texts: Any, **options: Any) -> Any:
        return self.encode(texts, **options)

    @property
    def similarity(self) -> Any:
        return SimilarityFunction.to_similarity_fn(self.similarity_fn_name)

    @property
    def similarity_pairwise(self) -> Any:
        return SimilarityFunction.to_similarity_pairwise_fn(self.similarity_fn_name)

    def eval(self) -> "Texts":
        return self

    model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *args, **options: None)  # the peer needs one


class SparseTexts(Texts):
    """The same with what is negative left out, as sparse tensors."""

    def row(self, text: str) -> np.ndarray:
        return np.maximum(super().row(text), 0)

    def converted(self, matrix: torch.Tensor, options: dict[str, Any]) -> Any:
        matrix = select_max_active_dims(matrix, options.get("max_active_dims"))
        is_sparse = options.get("convert_to_sparse_tensor", True)
        if not options.get("convert_to_tensor", True):
            return [row.to_sparse() if is_sparse else row for row in matrix]
        return matrix.to_sparse() if is_sparse else matrix

    @staticmethod
    def sparsity(embeddings: torch.Tensor) -> dict[str, float]:
        from sentence_transformers import SparseEncoder

        return SparseEncoder.sparsity(embeddings)


def words(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def assert_same(ours: Any, theirs: Any, model: Any, tmp_path: Path, rtol: float = 1e-6) -> dict[str, float]:
    """Run both twice, and compare metrics, primary metric, files, and what a model's card is told."""
    arguments = () if model is None else (model,)
    for step in (7, 8):
        with card(model) as expected_card:
            expected = theirs(*arguments, output_path=make(tmp_path / "theirs"), epoch=2, steps=step)
        with card(model) as got_card:
            got = ours(*arguments, output_path=str(tmp_path / "ours"), epoch=2, steps=step)
    assert got_card.keys() == expected_card.keys()
    for key, (metrics, *others) in expected_card.items():
        assert got_card[key][1:] == tuple(others)
        if any(isinstance(value, str) for value in metrics.values()):
            assert got_card[key][0] == metrics
        else:
            assert got_card[key][0] == pytest.approx(metrics, rel=rtol, abs=rtol, nan_ok=True)
    assert list(got) == list(expected)
    assert all(type(value) is float for value in got.values())
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, rel=rtol, abs=rtol, nan_ok=True), name
    assert ours.primary_metric == theirs.primary_metric
    assert ours.primary_metric in got
    assert ours.name == theirs.name
    assert_same_files(tmp_path / "ours", tmp_path / "theirs", rtol)
    return got


@contextmanager
def card(model: Any) -> Iterator[dict[tuple[str, str], Any]]:
    """Yield what a model's card is told last by each evaluator, by class and name."""
    told: dict[tuple[str, str], Any] = {}

    def tell(evaluator: Any, metrics: dict[str, float], epoch: int = 0, step: int = 0) -> None:
        options = {key: value for key, value in evaluator.get_config_dict().items() if key != "dataset_id"}
        facts = (metrics, epoch, step, evaluator.description, options)
        told[type(evaluator).__name__, getattr(evaluator, "name", "")] = facts

    if model is not None:
        model.model_card_data = SimpleNamespace(set_evaluation_metrics=tell)
    yield told


def make(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)  # the peer does not always
    return str(folder)


def assert_same_files(ours: Path, theirs: Path, rtol: float = 1e-6) -> None:
    names = sorted(path.name for path in theirs.iterdir())
    assert sorted(path.name for path in ours.iterdir()) == names if names else not ours.exists()
    for name in names:
        if name.endswith("csv"):
            for got, expected in zip(read(ours / name), read(theirs / name), strict=True):
                assert list(got) == list(expected)
                values = [float(value) for value in expected.values()]
                assert [float(v) for v in got.values()] == pytest.approx(values, rel=rtol, abs=rtol, nan_ok=True)
        else:
            assert (ours / name).read_text() == (theirs / name).read_text()


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))
