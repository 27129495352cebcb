"""The pipe to a side, and what is made of its replies, with a toy in place of a library."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.child import Job
from benchmarks.comparison import Comparison, contest, cosines, fastest, max_abs_diff, ratios
from benchmarks.machine import ModelSizes
from benchmarks.sides import Child, Side, SideFailedError

TOY = Side("toy", "toy", command=(str(Path(__file__).with_name("toy_side.py")),))
OURS = replace(TOY, name="ours", options={"factor": 2.0}, is_ours=True)
JOB = Job("encode", "a model")
SIZES = ModelSizes(1, 8, 16)
TEXTS = ["a", "bbbb", "cc", "dd", "e"]


@pytest.fixture(scope="module")
def found() -> Comparison:
    absent = Side("absent", "toy", "no-such-environment")
    with contest(JOB, [OURS, replace(TOY, name="tuned", is_tuned=True), absent], TOY) as at_work:
        return at_work.compare([TEXTS], rounds=2, sizes=SIZES)


def test_replies_come_back_whatever_the_library_prints(tmp_path):
    with Child(TOY, JOB) as child:
        child.ask("give", groups=[TEXTS])
        assert child.run(None) >= 0
        found = child.ask("inspect", path=str(tmp_path / "outputs.npy"))
        assert "numpy" in child.versions
    assert found["lengths"] == [1, 4, 2, 2, 1]
    assert found["num_positions"] == 8 + 4 + 1
    assert found["peak_bytes"] is None or found["peak_bytes"] >= 0
    np.testing.assert_array_equal(np.load(tmp_path / "outputs.npy"), [[len(text), 1] for text in TEXTS])


def test_a_side_that_fails_says_why_and_goes_on():
    with Child(TOY, JOB) as child:
        child.ask("give", groups=[["fail"]])
        with pytest.raises(SideFailedError, match="toy failed at 'run': ValueError: a text is bad"):
            child.run(None)
        child.ask("give", groups=[["good"]])
        assert child.run(None) >= 0


def test_a_side_that_dies_leaves_its_exit_code_and_last_words():
    with Child(TOY, JOB) as child:
        child.ask("give", groups=[["die"]])
        with pytest.raises(SideFailedError, match=r"toy died at 'run': exit code 3.*these are the last words"):
            child.run(None)
        with pytest.raises(SideFailedError, match="toy died"):
            child.run(None)


def test_a_side_that_is_not_installed_says_how_to():
    with pytest.raises(SideFailedError, match=r"absent is not installed: run benchmarks/peers.sh"):
        Child(Side("absent", "toy", "no-such-environment"), JOB)


def test_all_that_work_are_compared_and_the_others_named(found):
    assert [measured.side.name for measured in found.measured] == ["toy", "ours", "tuned"]
    assert [len(measured.seconds) for measured in found.measured] == [2, 2, 2]
    assert found.measured[2].batch_size in {8, 16, 32, 64, 128}
    assert [failure.partition(":")[0] for failure in found.failures] == ["absent is not installed"]
    assert len(found.peaks) == 2


def test_padding_and_operations_are_those_of_the_texts(found):
    reference, _, tuned = found.measured
    assert reference.padded_share == pytest.approx(1 - 10 / 13)
    assert tuned.padded_share == pytest.approx(1 - 10 / 20)
    assert found.flops == SIZES.flops([1, 4, 2, 2, 1])


def test_outputs_are_compared_row_by_row(found):
    reference, ours, tuned = (measured.outputs for measured in found.measured)
    assert max_abs_diff(ours, reference) == 4
    assert max_abs_diff(tuned, reference) == 0
    assert cosines(tuned, reference) == pytest.approx(np.ones(5))
    assert cosines(ours, reference)[0] == pytest.approx(3 / np.sqrt(10))


def test_speed_is_told_by_round_and_against_the_peak(found):
    reference = replace(found.reference, seconds=[4.0, 6.0, 8.0])
    ours = replace(found.measured[1], seconds=[1.0, 2.0, 4.0])
    assert ratios(reference, ours) == [4, 3, 2]
    known = replace(found, measured=[reference, ours], peaks=[50.0, 100.0, 200.0], flops=150)
    assert known.peak_share(ours) == pytest.approx(0.75)
    assert known.bound() == pytest.approx(4)


def test_a_side_that_cannot_do_the_work_is_left_out():
    dying = replace(OURS, command=TOY.command, options={"factor": "not a number"})
    with contest(JOB, [dying], TOY) as at_work:
        found = at_work.compare([TEXTS], rounds=1, sizes=SIZES)
    assert len(found.measured) == 1
    assert "ours failed at 'run'" in found.failures[0]


@pytest.mark.parametrize(
    ("seconds", "best", "num_tried"),
    [
        ({8: 1, 16: 2, 32: 3}, 8, 3),
        ({16: 4, 32: 3, 64: 2, 128: 1}, 128, 4),
        ({16: 4, 32: 3, 64: 4}, 32, 3),
        ({8: 3, 16: 2, 32: 3}, 16, 3),
    ],
    ids=["small", "large", "default", "between"],
)
def test_the_best_batch_size_is_found_without_trying_the_worst(seconds, best, num_tried):
    tried = set()

    def measure(batch_size: int) -> float:
        tried.add(batch_size)
        return seconds[batch_size]

    assert fastest(measure) == best
    assert len(tried) == num_tried
