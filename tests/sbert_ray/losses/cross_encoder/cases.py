"""Batches for all losses of cross-encoders, with their formulas in plain Python, for logits that are looked up."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

QUERIES = ["the cat", "a dog ran", "red mat", "the fast dog sat"]
DOCUMENTS = [
    "a cat sat on the mat",
    "the dog ran fast",
    "blue",
    "slow dog on a red mat",
    "the cat ran",
    "mat mat mat mat mat mat mat mat",
    "a slow cat",
    "red and blue",
    "the dog",
    "on",
    "dog sat",
    "a fast red cat ran on the blue mat",
]
PAIRS = [(query, text) for query in QUERIES for text in DOCUMENTS]
TWO = [QUERIES, DOCUMENTS[:4]]
THREE = [QUERIES, DOCUMENTS[:4], DOCUMENTS[4:8]]
FOUR = [*THREE, DOCUMENTS[8:]]
LISTS = [QUERIES, [DOCUMENTS[:3], DOCUMENTS[3:4], DOCUMENTS[4:10], DOCUMENTS[10:]]]
GRADES = [[2.0, 0.0, 1.0], [1.0], [1.0, 0.0, 2.0, 1.0, 0.0, 3.0], [0.0, 0.0]]
BELOW_ZERO = [[-1.0, 0.5, 0.25], [-2.0], [0.0, -0.5, 1.5, 0.7, 0.0, -3.0], [-1.0, -0.3]]

Logits = Mapping[tuple[str, str], Any]
Formula = Callable[[Logits, Sequence[Any], Any], float]


@dataclass(frozen=True)
class Case:
    """One loss with some options, on one batch."""

    loss: str
    inputs: Sequence[Sequence[Any]]
    labels: Any
    formula: Formula | None = None
    options: Callable[[ModuleType], dict[str, Any]] = lambda of: {}
    num_labels: int = 1
    note: str = ""

    def __str__(self) -> str:
        return f"{self.loss}-{self.note or 'default'}"

    def build(self, of: ModuleType, model: nn.Module) -> nn.Module:
        """The loss of a library."""
        return getattr(of, self.loss)(model, **self.options(of))

    @property
    def targets(self) -> Any:
        """The labels as the peer takes them."""
        if self.labels is None:
            return None
        if self.inputs is LISTS:
            return [torch.tensor(row) for row in self.labels]
        return torch.tensor(self.labels)


def logits_of(num_labels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Logits of all pairs, of the size that models give."""
    numbers = np.random.default_rng(num_labels).normal(size=(len(PAIRS), num_labels)) * 2
    return torch.from_numpy(numbers).to(dtype)


def lookup(logits: Tensor) -> dict[tuple[str, str], Any]:
    rows = logits.double().numpy()
    return dict(zip(PAIRS, rows[:, 0] if rows.shape[1] == 1 else rows, strict=True))


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def log_softmax(x: Any) -> Any:
    return x - np.log(np.exp(x).sum())


def bce(act: Any = lambda x: x, pos_weight: float = 1.0) -> Formula:
    def formula(s: Logits, inputs: Any, labels: Any) -> float:
        p = [sigmoid(act(s[pair])) for pair in zip(*inputs, strict=True)]
        return -np.mean(
            [pos_weight * y * math.log(x) + (1 - y) * math.log(1 - x) for x, y in zip(p, labels, strict=True)]
        )

    return formula


def mse(act: Any = lambda x: x) -> Formula:
    def formula(s: Logits, inputs: Any, labels: Any) -> float:
        pairs = zip(*inputs, strict=True)
        return np.mean([(act(s[pair]) - y) ** 2 for pair, y in zip(pairs, labels, strict=True)])

    return formula


def cross_entropy(s: Logits, inputs: Any, labels: Any) -> float:
    pairs = zip(*inputs, strict=True)
    return -np.mean([log_softmax(s[pair])[y] for pair, y in zip(pairs, labels, strict=True)])


def margin_mse(act: Any = lambda x: x) -> Formula:
    def formula(s: Logits, inputs: Any, labels: Any) -> float:
        found = []
        for (query, positive, *negatives), row in zip(zip(*inputs, strict=True), labels, strict=True):
            given = row if isinstance(row, list) else [row]
            margins = given if len(given) == len(negatives) else [given[0] - score for score in given[1:]]
            for text, margin in zip(negatives, margins, strict=True):
                found.append((act(s[query, positive]) - act(s[query, text]) - margin) ** 2)
        return np.mean(found)

    return formula


def ranking(scale: float = 10.0, act: Any = sigmoid) -> Formula:
    """Of all in-batch negatives."""

    def formula(s: Logits, inputs: Any, labels: Any) -> float:
        queries, *columns = inputs
        found = []
        for row, query in enumerate(queries):
            positive = scale * act(s[query, columns[0][row]])
            everything = [scale * act(s[query, text]) for column in columns for text in column]
            found.append(math.log(sum(math.exp(x) for x in everything)) - positive)
        return np.mean(found)

    return formula


def scores_and_labels(s: Logits, inputs: Any, labels: Any) -> list[tuple[Any, Any]]:
    rows = zip(*inputs, labels, strict=True)
    return [(np.array([s[query, text] for text in texts]), np.array(row)) for query, texts, row in rows]


def list_net(act: Any = lambda x: x) -> Formula:
    def formula(s: Logits, inputs: Any, labels: Any) -> float:
        lists = scores_and_labels(s, inputs, labels)
        return -np.mean([(np.exp(log_softmax(y)) * log_softmax(act(x))).sum() for x, y in lists])

    return formula


def list_mle(weights: Any = None, by_labels: bool = False, act: Any = lambda x: x) -> Formula:
    def formula(s: Logits, inputs: Any, labels: Any) -> float:
        total = 0.0
        for x, y in scores_and_labels(s, inputs, labels):
            ranked = act(x[np.argsort(-y, kind="stable")] if by_labels else x)
            n = len(x)
            w = np.array([weights(n, rank) for rank in range(1, n + 1)]) if weights else np.ones(n)
            w = w / w.sum() if weights and w.sum() else w
            total -= sum(w[r] * (ranked[r] - math.log(sum(np.exp(ranked[r:])))) for r in range(n))
        return total / len(labels)

    return formula


def halving(n: int, rank: int) -> float:
    return 2.0 ** (n - rank) - 1


def adr_mse(alpha: float = 1.0, act: Any = lambda x: x) -> Formula:
    def formula(s: Logits, inputs: Any, labels: Any) -> float:
        found = []
        for logits, y in scores_and_labels(s, inputs, labels):
            x = act(logits)
            for j in range(len(x)):
                approximate = 1 + sum(sigmoid(alpha * (x[k] - x[j])) for k in range(len(x)) if k != j)
                rank = 1 + (y > y[j]).sum() + ((y == y[j]).sum() - 1) / 2
                found.append((rank - approximate) ** 2 / math.log2(rank + 1))
        return np.mean(found)

    return formula


def no_weight(i: int, j: int, gain: Any, discount: Any) -> float:
    return 1.0


def ndcg_loss1(i: int, j: int, gain: Any, discount: Any) -> float:
    return gain[i] / discount[i]


def ndcg_loss2(i: int, j: int, gain: Any, discount: Any) -> float:
    distance = abs(i - j)
    if not distance:
        return 0.0
    return abs(1 / math.log2(1 + distance) - 1 / math.log2(2 + distance)) * abs(gain[i] - gain[j])


def lambda_rank(i: int, j: int, gain: Any, discount: Any) -> float:
    return abs(1 / discount[i] - 1 / discount[j]) * abs(gain[i] - gain[j])


def ndcg_loss2pp(mu: float = 10.0) -> Any:
    return lambda *arguments: mu * ndcg_loss2(*arguments) + lambda_rank(*arguments)


def lambda_loss(
    weight: Any = ndcg_loss2pp(),  # noqa: B008
    k: int | None = None,
    sigma: float = 1.0,
    eps: float = 1e-10,
    log: Any = math.log2,
    act: Any = lambda x: x,
) -> Formula:
    def formula(s: Logits, inputs: Any, labels: Any) -> float:
        found = []
        for logits, grades in scores_and_labels(s, inputs, labels):
            order = np.argsort(-act(logits), kind="stable")
            x, y = act(logits)[order], grades[order]
            discount = np.log2(2 + np.arange(len(x)))
            relevance = np.maximum(y, 0)
            best = ((2 ** np.sort(relevance)[::-1] - 1) / discount)[:k].sum()
            gain = (2**relevance - 1) / max(best, eps)
            for i in range(len(x)):
                for j in range(len(x)):
                    is_first = k is None or min(i, j) < k
                    if is_first and (weight is ndcg_loss1 or y[i] > y[j]):
                        found.append(-weight(i, j, gain, discount) * log(sigmoid(sigma * (x[i] - x[j]))))
        return np.mean(found) if found else 0.0

    return formula


def reciprocal_ranks(mask: Tensor) -> Tensor:
    return mask / torch.arange(1, mask.shape[1] + 1)


def of_lists(loss: str, formula: Formula, note: str, labels: Any = None, **options: Any) -> list[Case]:
    """The loss on grades with ties, and on labels below zero."""
    return [
        Case(loss, LISTS, labels, formula, lambda of: options, note=f"{note}{kind}")
        for kind, labels in {"": GRADES, ", labels below 0": BELOW_ZERO}.items()
    ]


def of_schemes() -> list[Case]:
    schemes = {
        "NoWeightingScheme": no_weight,
        "NDCGLoss1Scheme": ndcg_loss1,
        "NDCGLoss2Scheme": ndcg_loss2,
        "LambdaRankScheme": lambda_rank,
        "NDCGLoss2PPScheme": ndcg_loss2pp(),
    }
    return [
        Case(
            "LambdaLoss",
            LISTS,
            labels,
            lambda_loss(weight, k),
            lambda of, name=name, k=k: {"weighting_scheme": getattr(of, name)(), "k": k},
            note=f"{name}, k {k}{kind}",
        )
        for name, weight in schemes.items()
        for k in (None, 1, 2, 20)
        for kind, labels in {"": GRADES, ", labels below 0": BELOW_ZERO}.items()
    ]


SCORES = [0.0, 1.0, 0.3, 1.0]
TANH = nn.Tanh()
CASES = [
    Case("BinaryCrossEntropyLoss", TWO, SCORES, bce()),
    Case("BinaryCrossEntropyLoss", TWO, [0, 1, 1, 0], bce(), note="integers"),
    Case("BinaryCrossEntropyLoss", TWO, [[0.0], [1.0], [0.0], [1.0]], note="labels (B, 1)"),
    Case("BinaryCrossEntropyLoss", TWO, SCORES, bce(np.tanh), lambda of: {"activation_fn": TANH}, note="tanh"),
    Case(
        "BinaryCrossEntropyLoss",
        TWO,
        SCORES,
        bce(pos_weight=3.0),
        lambda of: {"pos_weight": torch.tensor(3.0)},
        note="pos_weight",
    ),
    Case("BinaryCrossEntropyLoss", TWO, SCORES, None, lambda of: {"reduction": "sum"}, note="kwargs"),
    Case("CrossEntropyLoss", TWO, [0, 2, 1, 1], cross_entropy, num_labels=3),
    Case("CrossEntropyLoss", TWO, [[0.2, 0.3, 0.5]] * 4, num_labels=3, note="probabilities"),
    Case(
        "CrossEntropyLoss",
        TWO,
        [0, 2, 1, 1],
        options=lambda of: {"activation_fn": TANH, "label_smoothing": 0.1},
        num_labels=3,
        note="kwargs",
    ),
    Case("CrossEntropyLoss", TWO, [0, 0, 0, 0], lambda *_: 0.0, note="one label"),
    Case("MSELoss", TWO, SCORES, mse()),
    Case("MSELoss", TWO, SCORES, mse(sigmoid), lambda of: {"activation_fn": nn.Sigmoid()}, note="sigmoid"),
    Case("MSELoss", TWO, SCORES, None, lambda of: {"reduction": "sum"}, note="kwargs"),
    Case("MarginMSELoss", THREE, SCORES, margin_mse()),
    Case("MarginMSELoss", THREE, [[0.3, 0.1]] * 2 + [[0.2, 0.5]] * 2, margin_mse(), note="scores"),
    Case("MarginMSELoss", FOUR, [[0.3, 0.1]] * 2 + [[0.2, 0.5]] * 2, margin_mse(), note="two negatives"),
    Case("MarginMSELoss", FOUR, [[0.3, 0.1, 0.7]] * 4, margin_mse(), note="two negatives, scores"),
    Case("MarginMSELoss", THREE, SCORES, margin_mse(np.tanh), lambda of: {"activation_fn": TANH}, note="tanh"),
    *[
        case
        for loss in ("MultipleNegativesRankingLoss", "CachedMultipleNegativesRankingLoss")
        for case in (
            Case(loss, TWO, None, ranking(), lambda of: {"num_negatives": None}, note="all, no hard ones"),
            Case(loss, FOUR, None, ranking(), lambda of: {"num_negatives": None}, note="all"),
            Case(loss, FOUR, None, ranking(), lambda of: {"num_negatives": 9}, note="as many as there are"),
            Case(loss, FOUR, None, ranking(), lambda of: {"num_negatives": 100}, note="more than there are"),
            Case(loss, FOUR, None),
            Case(loss, FOUR, None, None, lambda of: {"num_negatives": 1}, note="one"),
            Case(
                loss,
                THREE,
                None,
                ranking(3.0, np.tanh),
                lambda of: {"num_negatives": None, "scale": 3.0, "activation_fn": TANH},
                note="scale, tanh",
            ),
        )
    ],
    Case(
        "CachedMultipleNegativesRankingLoss", FOUR, None, None, lambda of: {"mini_batch_size": 3}, note="mini-batches"
    ),
    *of_lists("ListNetLoss", list_net(), "default"),
    *of_lists("ListNetLoss", list_net(np.tanh), "tanh", activation_fn=TANH),
    *of_lists("ListMLELoss", list_mle(), "default"),
    *of_lists("ListMLELoss", list_mle(by_labels=True), "by labels", respect_input_order=False),
    *of_lists("PListMLELoss", list_mle(halving), "default"),
    *of_lists("PListMLELoss", list_mle(halving, by_labels=True), "by labels", respect_input_order=False),
    *of_lists("PListMLELoss", list_mle(halving, act=np.tanh), "tanh", activation_fn=TANH),
    *of_lists("PListMLELoss", list_mle(), "no weights", lambda_weight=None),
    Case(
        "PListMLELoss",
        LISTS,
        GRADES,
        list_mle(lambda n, rank: 1 / rank),
        lambda of: {"lambda_weight": of.PListMLELambdaWeight(reciprocal_ranks)},
        note="own weights",
    ),
    *of_lists("ADRMSELoss", adr_mse(), "default"),
    *of_lists("ADRMSELoss", adr_mse(3.0), "alpha", alpha=3.0),
    *of_lists("ADRMSELoss", adr_mse(act=np.tanh), "tanh", activation_fn=TANH),
    *of_lists("LambdaLoss", lambda_loss(), "default"),
    *of_schemes(),
    *of_lists("LambdaLoss", lambda_loss(no_weight), "None", weighting_scheme=None),
    *of_lists("LambdaLoss", lambda_loss(sigma=0.3), "sigma", sigma=0.3),
    *of_lists("LambdaLoss", lambda_loss(eps=2.0), "eps", eps=2.0),
    *of_lists("LambdaLoss", lambda_loss(log=math.log), "natural", reduction_log="natural"),
    *of_lists("LambdaLoss", lambda_loss(act=np.tanh), "tanh", activation_fn=TANH),
    Case(
        "LambdaLoss",
        LISTS,
        GRADES,
        lambda_loss(ndcg_loss2pp(2.0)),
        lambda of: {"weighting_scheme": of.NDCGLoss2PPScheme(mu=2.0)},
        note="mu",
    ),
    *of_lists("RankNetLoss", lambda_loss(no_weight), "default"),
    *of_lists(
        "RankNetLoss", lambda_loss(no_weight, 2, 0.3, log=math.log), "all", k=2, sigma=0.3, reduction_log="natural"
    ),
]
"""All losses, with each option that changes a value; those without a formula are for the peer."""
