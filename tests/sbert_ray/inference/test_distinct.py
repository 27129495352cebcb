"""Inputs that occur more than once are found, and put back where they were."""

import random

import numpy as np

from sbert_ray.inference.distinct import distinct


def test_each_input_is_found_at_its_place_again() -> None:
    rng = random.Random(0)
    texts = [f"text {rng.randrange(50)}" for _ in range(1000)]
    found = distinct(texts)
    assert [found.values[place] for place in found.rows] == texts
    assert list(found.values) == list(dict.fromkeys(texts)), "in the order in which they first occur"
    assert found.rows.dtype == np.int64


def test_pairs_are_told_by_both_texts() -> None:
    found = distinct([("a", "b"), ("a", "c"), ("a", "b"), ("b", "a")])
    assert list(found.values) == [("a", "b"), ("a", "c"), ("b", "a")]
    assert found.rows.tolist() == [0, 1, 0, 2]


def test_texts_that_are_all_different_stay_as_they_are() -> None:
    texts = ["a", "A", "a ", ""]
    found = distinct(texts)
    assert found.values is texts
    assert found.rows.tolist() == [0, 1, 2, 3]
    assert len(distinct([]).values) == len(distinct([]).rows) == 0
