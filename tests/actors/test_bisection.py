"""The search for rows that kill."""

import pytest

from actors.bisection import MAX_CULPRITS, Bisection


def search(positions: list[int], killers: set[int]) -> tuple[list[int], int]:
    bisection, trials = Bisection(positions), 0
    while (trial := bisection.next()) is not None:
        trials += 1
        bisection.settle(survived=not killers & set(trial))
    return sorted(bisection.culprits), trials


@pytest.mark.parametrize("killers", [{0}, {999}, {500}, {3, 4}, {0, 999}, {1, 250, 251, 998}])
def test_finds_every_killer(killers: set[int]) -> None:
    positions = [position * 7 for position in range(1000)]
    found, trials = search(positions, {killer * 7 for killer in killers})
    assert found == sorted(killer * 7 for killer in killers)
    assert trials <= 22 * len(killers)


def test_a_single_row_is_the_killer() -> None:
    assert search([5], {5}) == ([5], 0)


def test_no_killer_is_found_where_there_is_none() -> None:
    assert search(list(range(8)), set()) == ([], 2)


def test_gives_up_when_too_many_kill() -> None:
    found, trials = search(list(range(1024)), set(range(1024)))
    assert len(found) == MAX_CULPRITS + 1
    assert trials < 100
