"""What is a pair, and what is a list of them."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sbert_ray.inference.pairs import as_pairs

PAIRS = [("a", "b"), ("c", "")]


@pytest.mark.parametrize("inputs", [("a", "b"), ["a", "b"], np.array(["a", "b"]), pa.array(["a", "b"])])
def test_two_texts_are_one_pair(inputs: Any) -> None:
    assert as_pairs(inputs) == ([("a", "b")], True)


@pytest.mark.parametrize(
    "inputs",
    [
        PAIRS,
        tuple(PAIRS),
        [list(pair) for pair in PAIRS],
        np.array(PAIRS),
        [np.array(pair) for pair in PAIRS],
        pa.array([list(pair) for pair in PAIRS]),
        pa.array([list(pair) for pair in PAIRS], pa.list_(pa.string(), 2)),
    ],
)
def test_pairs_stay_pairs_of_plain_texts(inputs: Any) -> None:
    pairs, is_single = as_pairs(inputs)
    assert (pairs, is_single) == (PAIRS, False)


@pytest.mark.parametrize("inputs", [[], (), np.empty((0, 2), "U1"), pa.array([], pa.list_(pa.string()))])
def test_nothing_is_no_pair(inputs: Any) -> None:
    assert as_pairs(inputs) == ([], False)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ("ab", TypeError, "must be a pair of texts or a list of pairs, got str"),
        ({"a": "b"}, TypeError, "got dict"),
        ({("a", "b"), ("c", "d")}, TypeError, "must be a pair of texts or a list of pairs, got a set, which has no o"),
        ([*PAIRS, {"a", "b"}], TypeError, "row 2 is of type set"),
        (iter(PAIRS), TypeError, "got list_iterator"),
        (np.zeros((1, 2, 2)), TypeError, r"got ndarray of shape \(1, 2, 2\)"),
        (["a"], ValueError, r"got 1 text\(s\)"),
        ([*PAIRS, ("a",)], ValueError, r"row 2 has 1 item\(s\)"),
        ([*PAIRS, "ab"], TypeError, "row 2 is of type str"),
        (["ab", *PAIRS], TypeError, "row 0 is of type str"),
        ([*PAIRS, {"a": "b", "c": "d"}], TypeError, "row 2 is of type dict"),
        ([*PAIRS, 3], TypeError, "row 2 is of type int"),
        ([(b"a", "b")], TypeError, "the first one of row 0 is of type bytes"),
    ],
)
def test_what_is_no_pair_is_named(inputs: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        as_pairs(inputs)
