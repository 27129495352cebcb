"""Metrics against their formulas in plain Python, and against SciPy and scikit-learn, ties included."""

import math
from typing import Any

import numpy as np
import pytest

from sbert_ray.evaluation import metrics as of

SEEDS = range(25)


def labelled(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 30))
    scores = rng.normal(size=count).round(1 if seed % 2 else 8).astype(np.float32)
    return scores, rng.integers(0, 2, count)


@pytest.mark.parametrize("seed", SEEDS)
def test_correlations_equal_scipys(seed: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    x, y = np.random.default_rng(seed).normal(size=(2, 40)).round(1 if seed % 2 else 8)
    assert of.pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic)
    assert of.spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)


def test_a_constant_has_no_correlation() -> None:
    for constant in ([0.1] * 3, [7, 7, 7]):
        assert math.isnan(of.pearson(constant, [1, 2, 3]))
        assert math.isnan(of.spearman([1, 2, 3], constant))
    assert math.isnan(of.spearman([1, float("nan"), 2], [1, 2, 3]))


@pytest.mark.parametrize("seed", SEEDS)
def test_thresholds_are_the_best_of_all(seed: int) -> None:
    scores, labels = labelled(seed)
    candidates = [-math.inf, *((a + b) / 2 for a, b in zip(sorted(scores), sorted(scores)[1:], strict=False)), math.inf]

    def f1(threshold: float) -> float:
        chosen = scores >= threshold
        return 2 * int(labels[chosen].sum()) / max(1, int(chosen.sum() + labels.sum()))

    accuracy, threshold = of.best_accuracy(scores, labels)
    assert accuracy == pytest.approx(max(((scores >= c) == labels).mean() for c in candidates))
    assert accuracy == pytest.approx(((scores >= threshold) == labels).mean())
    best = of.best_f1(scores, labels)
    assert best.f1 == pytest.approx(max(map(f1, candidates)))
    if labels.any():
        chosen = scores >= best.threshold
        assert (best.precision, best.recall) == (labels[chosen].mean(), labels[chosen].sum() / labels.sum())
        assert best.f1 == pytest.approx(f1(best.threshold))


@pytest.mark.parametrize("seed", SEEDS)
def test_thresholds_equal_the_peers(seed: int) -> None:
    peer = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation").BinaryClassificationEvaluator
    scores, labels = labelled(seed)
    for sign in (1, -1):
        expected = peer.find_best_acc_and_threshold(scores, labels, sign > 0)
        accuracy, threshold = of.best_accuracy(sign * scores, labels)
        assert (accuracy, sign * threshold) == pytest.approx(tuple(map(float, expected)))
        f1, precision, recall, threshold = of.best_f1(sign * scores, labels)
        expected = peer.find_best_f1_and_threshold(scores, labels, sign > 0)
        assert (f1, precision, recall, sign * threshold) == pytest.approx(tuple(map(float, expected)))


@pytest.mark.parametrize("seed", SEEDS)
def test_average_precision_and_matthews_equal_scikit_learns(seed: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    scores, labels = labelled(seed)
    labels[0] = 1
    assert of.average_precision(labels, scores) == pytest.approx(sklearn.average_precision_score(labels, scores))
    chosen = (scores > 0).astype(int)
    assert of.matthews_correlation(labels, chosen) == pytest.approx(sklearn.matthews_corrcoef(labels, chosen))


def test_without_positives_precision_is_none() -> None:
    assert of.average_precision([0, 0], [1.0, 2.0]) == 0.0
    assert of.best_f1([1.0, 2.0], [0, 0]) == (0.0, 0.0, 0.0, 0.0)
    assert of.matthews_correlation([0, 0], [0, 1]) == 0.0


@pytest.mark.parametrize("seed", SEEDS)
def test_f1_by_class_equals_scikit_learns(seed: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    labels, predictions = np.random.default_rng(seed).integers(0, 4, (2, 9))
    expected = [sklearn.f1_score(labels, predictions, average=kind) for kind in ("macro", "micro", "weighted")]
    assert of.f1_by_class(labels, predictions) == pytest.approx(tuple(expected))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("k", [1, 3, 50])
def test_tied_ndcg_equals_scikit_learns(seed: int, k: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    scores, labels = labelled(seed)
    assert of.tied_ndcg_at_k(labels, scores, k) == pytest.approx(sklearn.ndcg_score([labels], [scores], k=k))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("k", [1, 3, 7, 9])
def test_retrieval_metrics_are_their_formulas(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    hits = rng.integers(0, 2, (5, 7)).astype(bool)
    relevant = hits.sum(1) + rng.integers(1, 4, 5)
    for i, row in enumerate(hits.tolist()):
        ranks = [rank for rank, hit in enumerate(row[:k], 1) if hit]
        few = min(k, relevant[i])
        gain = sum(1 / math.log2(rank + 1) for rank in ranks)
        precisions = [sum(other <= rank for other in ranks) / rank for rank in ranks]
        assert of.accuracy_at_k(hits, k)[i] == bool(ranks)
        assert of.precision_at_k(hits, k)[i] == len(ranks) / k
        assert of.recall_at_k(hits, relevant, k)[i] == len(ranks) / relevant[i]
        assert of.mrr_at_k(hits, k)[i] == (1 / ranks[0] if ranks else 0)
        ideal = sum(1 / math.log2(r + 1) for r in range(1, few + 1))
        assert of.ndcg_at_k(hits, relevant, k)[i] == pytest.approx(gain / ideal)
        assert of.map_at_k(hits, relevant, k)[i] == pytest.approx(sum(precisions) / few)


def test_a_threshold_between_neighbouring_numbers_is_the_upper_one() -> None:
    for seed in range(50):
        upper = np.random.default_rng(seed).uniform(0.1, 1)
        for kind in (np.float16, np.float32, np.float64):
            scores = np.array([kind(upper), np.nextafter(kind(upper), kind(0))])
            for best in (of.best_accuracy(scores, [1, 0]), of.best_f1(scores, [1, 0])):
                assert best.threshold == scores[0]
                assert ((scores >= kind(best.threshold)) == [1, 0]).all()


def test_a_threshold_of_halves_is_finite() -> None:
    assert of.best_f1(np.array([60000, 50000], np.float16), [1, 0]).threshold == 54976.0


def test_thresholds_of_many_equal_scores_are_the_peers() -> None:
    """F1s that are equal as fractions differ in their last bit, which decides between thresholds."""
    peer = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation").BinaryClassificationEvaluator
    for seed in range(2000):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(3, 40))
        scores, labels = rng.integers(0, 12, count).astype(np.float32), rng.integers(0, 2, count)
        if labels.any():
            assert of.best_f1(scores, labels) == tuple(
                map(float, peer.find_best_f1_and_threshold(scores, labels, True))
            )


@pytest.mark.parametrize(
    "function", [of.best_accuracy, of.best_f1, lambda scores, labels: of.average_precision(labels, scores)]
)
def test_nan_is_no_score(function: Any) -> None:
    with pytest.raises(ValueError, match="scores must be numbers, got nan in row 2"):
        function([0.5, 1.0, float("nan")], [1, 0, 1])


def test_no_scores_are_no_positives() -> None:
    assert of.best_f1([], [], 3) == (0.0, 0.0, 0.0, 0.0)
    assert of.average_precision([], [], 3) == 0.0
