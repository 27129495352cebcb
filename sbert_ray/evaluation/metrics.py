"""Metrics as functions of arrays, on NumPy alone.

Shapes: N examples; Q queries with K hits each, the best first; C classes.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def pearson(x: ArrayLike, y: ArrayLike) -> float:
    """Return Pearson's correlation of two samples (N,); nan if one of them is constant."""
    first, second = np.asarray(x, np.float64), np.asarray(y, np.float64)
    # A mean may differ from equal values by rounding, so that a constant has some variance.
    if len(first) < 2 or (first == first[0]).all() or (second == second[0]).all():
        return float("nan")
    first, second = first - first.mean(), second - second.mean()
    return float(np.clip(first / np.linalg.norm(first) @ (second / np.linalg.norm(second)), -1.0, 1.0))


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Return Spearman's correlation of two samples (N,): Pearson's correlation of their ranks, means among ties."""
    x, y = np.asarray(x), np.asarray(y)
    if np.isnan(x).any() or np.isnan(y).any():
        return float("nan")
    return pearson(_ranks(x), _ranks(y))


def _ranks(values: NDArray[np.floating]) -> Floats:
    """Rank from 1, ties sharing the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean_ranks: Floats = np.cumsum(counts) - (counts - 1) / 2
    return mean_ranks[inverse]


class Accuracy(NamedTuple):
    """The best accuracy, and from which score on an example counts as positive."""

    accuracy: float
    threshold: float


class F1(NamedTuple):
    """The best F1, its precision and recall, and from which score on an example counts as positive."""

    f1: float
    precision: float
    recall: float
    threshold: float


def best_accuracy(scores: ArrayLike, labels: ArrayLike) -> Accuracy:
    """Return the threshold of greatest accuracy, the greatest such threshold.

    A threshold is midway between neighbouring scores, or the least score, or the next number above the greatest one.

    Args:
        scores: N numbers, the greater the more positive; for distances their negatives.
        labels: N of 0 and 1.

    Raises:
        ValueError: A score is nan.
    """
    scores, labels, cuts, positives = _cuts(scores, labels)
    cuts, positives = np.append(0, cuts), np.append(0, positives)
    accuracies = (2 * positives - cuts + len(labels) - labels.sum()) / len(labels)
    best = int(accuracies.argmax())
    if best == 0:
        return Accuracy(float(accuracies[0]), float(np.nextafter(scores[0], scores.dtype.type(np.inf))))
    return Accuracy(float(accuracies[best]), _threshold(scores, int(cuts[best])))


def best_f1(scores: ArrayLike, labels: ArrayLike, num_positives: int | None = None) -> F1:
    """Return the threshold of greatest F1, the greatest such threshold; all are 0 where no label is positive.

    A threshold is midway between neighbouring scores, or the least score.

    Args:
        scores: N numbers, the greater the more positive; for distances their negatives.
        labels: N of 0 and 1.
        num_positives: How many there are in all, where the N are not all examples.

    Raises:
        ValueError: A score is nan.
    """
    scores, labels, cuts, positives = _cuts(scores, labels)
    total = int(labels.sum()) if num_positives is None else num_positives
    if not labels.any():
        return F1(0.0, 0.0, 0.0, 0.0)
    precisions, recalls = positives / cuts, positives / total
    # As 2 positives / (cuts + total), thresholds would tie that by this, the definition, differ in the last bit.
    f1 = np.zeros(len(cuts))
    np.divide(2 * precisions * recalls, precisions + recalls, out=f1, where=positives > 0)
    best = int(f1.argmax())
    threshold = _threshold(scores, int(cuts[best]))
    return F1(float(f1[best]), float(precisions[best]), float(recalls[best]), threshold)


def _cuts(
    scores: ArrayLike, labels: ArrayLike
) -> tuple[NDArray[np.floating], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return scores and labels by descending score, and where scores change the counts of rows and positives so far."""
    values = np.asarray(scores)
    values = values if np.issubdtype(values.dtype, np.floating) else values.astype(np.float64)
    check_numbers(values)
    order = np.argsort(-values, kind="stable")
    values, sorted_labels = values[order], np.asarray(labels, np.int64)[order]
    is_last = np.append(values[1:] != values[:-1], True)[: len(values)]  # of equal ones
    cuts = np.flatnonzero(is_last) + 1
    return values, sorted_labels, cuts.astype(np.int64), sorted_labels.cumsum()[cuts - 1]


def _threshold(scores: NDArray[np.floating], cut: int) -> float:
    if cut == len(scores):
        return float(scores[-1])
    above, below = scores[cut - 1], scores[cut]
    middle = scores.dtype.type((float(above) + float(below)) / 2)  # the sum of two halves may be no half
    return float(middle if middle > below else above)  # between neighbouring numbers there is none


def check_numbers(scores: NDArray[np.floating]) -> None:
    """Make sure that scores (N,) or (N, K) can be ranked.

    Raises:
        ValueError: One is nan.
    """
    is_nan = np.isnan(scores)
    if is_nan.any():
        raise ValueError(f"scores must be numbers, got nan in row {int(np.argwhere(is_nan)[0, 0])}")


def average_precision(labels: ArrayLike, scores: ArrayLike, num_positives: int | None = None) -> float:
    """Return the mean of the precisions at each positive; equal scores are one rank. 0 without positives.

        sum over thresholds t:   (recall[t] - recall[t - 1]) precision[t]

    Args:
        labels: N of 0 and 1.
        scores: N numbers, the greater the more positive.
        num_positives: How many there are in all, where the N are not all examples.

    Raises:
        ValueError: A score is nan.
    """
    _, labels, cuts, positives = _cuts(scores, labels)
    total = int(labels.sum()) if num_positives is None else num_positives
    if not labels.any():
        return 0.0
    return float((np.diff(positives, prepend=0) / total * (positives / cuts)).sum())


def matthews_correlation(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Return Matthews' correlation of two samples (N,) of 0 and 1; 0 if one of them is constant."""
    correlation = pearson(labels, predictions)
    return 0.0 if np.isnan(correlation) else correlation


class F1ByClass(NamedTuple):
    """F1 over classes: the mean of the classes, that of all examples, and the mean weighted by classes' examples."""

    macro: float
    micro: float
    weighted: float


def f1_by_class(labels: ArrayLike, predictions: ArrayLike) -> F1ByClass:
    """Return F1 of predicted classes (N,), over the classes that occur in labels (N,) or predictions."""
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    classes = np.union1d(labels, predictions)
    support = (labels == classes[:, None]).sum(1)  # (C,)
    right = ((labels == classes[:, None]) & (predictions == classes[:, None])).sum(1)
    f1 = 2 * right / (support + (predictions == classes[:, None]).sum(1))
    micro = float((labels == predictions).mean())
    return F1ByClass(float(f1.mean()), micro, float((f1 * support).sum() / support.sum()))


def accuracy_at_k(hits: NDArray[np.bool_], k: int) -> Floats:
    """Return 1 for each query with a relevant one among its first ``k`` hits (Q, K), else 0, as (Q,)."""
    found: Floats = np.asarray(hits[:, :k].any(1), np.float64)
    return found


def precision_at_k(hits: NDArray[np.bool_], k: int) -> Floats:
    """Return the share of relevant ones among the first ``k`` hits (Q, K), out of ``k`` also where K is less."""
    shares: Floats = hits[:, :k].sum(1) / k
    return shares


def recall_at_k(hits: NDArray[np.bool_], num_relevant: NDArray[np.int64], k: int) -> Floats:
    """Return the share of a query's relevant documents (Q,) that is among its first ``k`` hits (Q, K), as (Q,)."""
    shares: Floats = hits[:, :k].sum(1) / num_relevant
    return shares


def mrr_at_k(hits: NDArray[np.bool_], k: int) -> Floats:
    """Return 1 / the rank of the first relevant one among the first ``k`` hits (Q, K), else 0, as (Q,)."""
    first = hits[:, :k]
    if not first.shape[1]:
        return np.zeros(len(hits))
    ranks: Floats = np.where(first.any(1), 1 / (1 + first.argmax(1)), 0.0)
    return ranks


def ndcg_at_k(hits: NDArray[np.bool_], num_relevant: NDArray[np.int64], k: int) -> Floats:
    """Return the normalised discounted cumulative gain of the first ``k`` hits (Q, K), as (Q,).

        sum over relevant ranks r <= k: 1 / log2(1 + r), divided by that of min(k, relevant) first ranks

    References:
        Jarvelin and Kekalainen 2002, Cumulated gain-based evaluation of IR techniques, doi:10.1145/582415.582418.
    """
    gains = _discounts(max(k, hits.shape[1]))
    ideal = np.append(0.0, gains.cumsum())[np.minimum(num_relevant, k)]
    shares: Floats = hits[:, :k] @ gains[: hits[:, :k].shape[1]] / ideal
    return shares


def map_at_k(hits: NDArray[np.bool_], num_relevant: NDArray[np.int64], k: int) -> Floats:
    """Return the precisions at each relevant one of the first ``k`` hits (Q, K), over min(k, relevant), as (Q,)."""
    first = hits[:, :k]
    precisions = first.cumsum(1) / np.arange(1, first.shape[1] + 1)
    means: Floats = (precisions * first).sum(1) / np.minimum(num_relevant, k)
    return means


def tied_ndcg_at_k(relevance: ArrayLike, scores: ArrayLike, k: int) -> float:
    """Return the NDCG at ``k`` of documents (K,) by their scores, the mean over all orders of equal scores.

    References:
        McSherry and Najork 2008, Computing information retrieval performance measures efficiently in the presence of
        tied scores, doi:10.1007/978-3-540-78646-7_38.
    """
    gains, values = np.asarray(relevance, np.float64), np.asarray(scores)
    discounts = _discounts(len(gains)) * (np.arange(len(gains)) < k)
    _, ties, counts = np.unique(-values, return_inverse=True, return_counts=True)
    mean_gains = np.bincount(ties, gains) / counts
    ends = counts.cumsum()
    summed = np.append(0.0, discounts.cumsum())
    ideal = float(np.sort(gains)[::-1] @ discounts)
    return float(mean_gains @ (summed[ends] - summed[ends - counts])) / ideal if ideal else 0.0


def _discounts(size: int) -> Floats:
    discounts: Floats = 1 / np.log2(np.arange(2, size + 2))
    return discounts
