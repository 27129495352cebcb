"""Packed batches: where texts are, and how they are cut."""

import numpy as np
import pytest
import torch

from sbert_ray.inference.batching import cost_of, plan_packs
from sbert_ray.inference.packing import Packing
from sbert_ray.inference.tokenized import TokenizedTexts

CPU = torch.device("cpu")


def test_a_packing_tells_where_each_text_is() -> None:
    packing = Packing.of(np.array([4, 2, 2, 1]))
    assert packing.groups == ((1, 4), (2, 2), (1, 1))
    assert (packing.num_texts, packing.num_tokens, packing.longest) == (4, 9, 4)
    assert packing.positions(CPU).tolist() == [0, 1, 2, 3, 0, 1, 0, 1, 0]
    assert packing.starts(CPU).tolist() == [0, 4, 6, 8]
    assert packing.bounds(CPU).tolist() == [0, 4, 6, 8, 9]
    assert packing.bounds(CPU).dtype == torch.int32
    assert packing.firsts().groups == ((4, 1),)
    tokens = torch.arange(9)
    assert [view.tolist() for (view,) in packing.by_length(tokens)] == [[[0, 1, 2, 3]], [[4, 5], [6, 7]], [[8]]]


def test_equal_lengths_that_are_apart_are_groups_of_their_own() -> None:
    assert Packing.of(np.array([1, 3, 1])).groups == ((1, 1), (1, 3), (1, 1))


def test_positions_leave_out_tokens_that_do_not_count() -> None:
    packing = Packing.of(np.array([4, 2]))
    ids = torch.tensor([5, 1, 6, 7, 1, 8])
    assert packing.counted(ids, 2, 1).tolist() == [2, 1, 3, 4, 1, 2]
    assert packing.counted(ids, 2).tolist() == [2, 3, 4, 5, 2, 3]
    assert packing.counted(torch.full((6,), 9), 2, 1).tolist() == [2, 3, 4, 5, 2, 3]


def test_features_of_packed_texts_have_no_padding() -> None:
    texts = TokenizedTexts(
        np.arange(6, dtype=np.int32), np.array([0, 1, 4, 6]), np.arange(10, 16, dtype=np.int32), prompt_length=2
    )
    features = texts.packed(np.array([1, 2, 0]))
    assert features["input_ids"].tolist() == [1, 2, 3, 4, 5, 0]
    assert features["token_type_ids"].tolist() == [11, 12, 13, 14, 15, 10]
    assert features["packing"].groups == ((1, 3), (1, 2), (1, 1))
    assert features["prompt_length"].tolist() == [2]


@pytest.mark.parametrize("max_rows", [None, 1, 7])
def test_every_row_is_in_one_pack_and_no_pack_costs_too_much(max_rows: int | None) -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 500)
    costs = cost_of(lengths, 300)
    packs = plan_packs(lengths, costs, 1000, max_rows)
    assert sorted(np.concatenate(packs)) == list(range(500))
    for rows, following in zip(packs, [*packs[1:], None], strict=True):
        assert (np.diff(lengths[rows]) <= 0).all()
        assert len(rows) == 1 or costs[rows].sum() <= 1000
        assert max_rows is None or len(rows) <= max_rows
        if max_rows is None and following is not None:
            assert costs[rows].sum() + costs[following[0]] > 1000, "there was room for another row"


def test_no_rows_make_no_packs() -> None:
    assert plan_packs(np.empty(0, np.int64), np.empty(0, np.int64), 10) == []


def test_attention_makes_long_rows_cost_more() -> None:
    lengths = np.array([0, 1, 300, 600])
    assert cost_of(lengths, 300).tolist() == [0, 1, 600, 1800]
    assert cost_of(lengths, None) is lengths
