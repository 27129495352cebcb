"""The report page: well formed, self-contained, safe, and sensible for any outcome."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from jobs import charts
from jobs.report import duration, excerpt, large, moment, num_bytes, number, render_html, setting

VOID = {"meta", "br", "link", "img", "input"}


class Balance(HTMLParser):
    """Fails on tags that do not nest, and keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.tags: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def parse(html: str) -> Balance:
    parser = Balance()
    parser.feed(html)
    parser.close()
    assert not parser.open
    return parser


def empty_report(**changes: Any) -> dict[str, Any]:
    """Return the report of a job that had nothing to do."""
    report: dict[str, Any] = {
        "job": "embed",
        "state": "complete",
        "message": None,
        "output": "out",
        "input": "in",
        "started": "2026-11-23T10:00:00+00:00",
        "finished": "2026-11-23T10:00:01+00:00",
        "settings": {},
        "model": dict.fromkeys(
            "name revision dimension pooling normalize precision prompt max_seq_length".split()  # all unknown
        ),
        "rows": {"input": 0, "output": 0, "bad": 0, "resumed": 0},
        "units": {"total": 0, "done": 0, "resumed": 0, "retried": 0, "speculated": 0},
        "tokens": {"real": 0, "computed": 0, "padded": 0},
        "padding_share": 0.0,
        "bytes_out": 0,
        "cpu_seconds": 0.0,
        "device_idle_share": None,
        "seconds": dict.fromkeys("wall startup shutdown read tokenize wait compute write".split(), 0.0),
        "throughput": {"rows_per_second": 0.0, "tokens_per_second": 0.0, "timeline": []},
        "token_lengths": {"edges": [], "counts": []},
        "empty_texts": 0,
        "truncated_texts": 0,
        "duplicate_texts": 0,
        "duplicate_ids": 0,
        "workers": [],
        "bad_rows": {"count": 0, "shown": [], "folder": "out/_quarantine"},
        "driver": {"peak_memory_bytes": 0},
        "cost_per_million_rows": None,
        "versions": {},
    }
    return report | changes


def full_report(**changes: Any) -> dict[str, Any]:
    """Return the report of a job that did some work."""
    worker = {
        "worker": "node-1:4711",
        "units": 12,
        "rows": 60_001,
        "tokens": 3_210_000,
        "seconds": {"read": 2.0, "tokenize": 20.5, "wait": 4.5, "compute": 311.2, "write": 2.5},
        "cpu_seconds": 345.0,
        "device_idle_share": 0.021,
        "rows_per_second": 192.8,
        "peak_memory_bytes": 1_234_000_000,
        "retries": 1,
    }
    timeline = [{"t": 3.0 * i, "rows_per_second": 180.0 + i % 7, "tokens_per_second": 9000.0 + i} for i in range(100)]
    work = {
        "model": {"name": "all-MiniLM-L6-v2", "revision": "c9745ed", "dimension": 384, "pooling": "mean"}
        | {"normalize": True, "precision": "float32", "prompt": None, "max_seq_length": 256},
        "settings": {"id_column": "id", "keep_columns": ["package", "url"], "dry_run": False, "limit": None},
        "rows": {"input": 120_345, "output": 120_342, "bad": 3, "resumed": 40_000},
        "units": {"total": 25, "done": 24, "resumed": 1, "retried": 2, "speculated": 1},
        "tokens": {"real": 6_420_000, "computed": 6_400_000, "padded": 6_500_000},
        "duplicate_texts": 412,
        "device_idle_share": 0.034,
        "padding_share": 0.0123,
        "bytes_out": 187_000_000,
        "seconds": {"wall": 333.0, "startup": 12.5, "shutdown": 0.5, "read": 4.0, "tokenize": 41.0, "wait": 9.0}
        | {"compute": 602.0, "write": 5.0},
        "throughput": {"rows_per_second": 361.4, "tokens_per_second": 19_279.0, "timeline": timeline},
        "token_lengths": {"edges": [0, 16, 32, 64, 128, 256], "counts": [900, 40_000, 60_000, 18_000, 1_445]},
        "truncated_texts": 77,
        "driver": {"peak_memory_bytes": 213_000_000},
        "workers": [worker, worker | {"worker": "node-2:4712"}],
        "versions": {"sbert_ray": "0.1.0", "python": "3.11.9", "torch": "2.13.0"},
        "cost_per_million_rows": 1.5,
    }
    return empty_report(**work | changes)


def test_page_shows_the_figures():
    text = parse(render_html(full_report())).text
    for figure in (
        "120,342",
        "361",
        "19,279",
        "1.2%",
        "5 min 33 s",
        "187 MB",
        "1.23 GB",
        "$1.50",
        "213 MB",
        "77 truncated to 256",
        "computed 94.1% of",
        "idle 3.4% of",
        "412 equal to another of their unit",
        "2.1%",
        "20.5 s",
        "5 min 45 s",
    ):
        assert figure in " ".join(text.split()), figure
    assert "keep columns" in text
    assert "package, url" in text


def test_page_says_within_what_repeated_ids_were_counted():
    text = " ".join(parse(render_html(full_report(duplicate_ids=12))).text.split())
    assert (
        "12 ids repeated among rows read together, mostly a unit of work"
        " (sbert-ray verify counts them over the whole output)" in text
    )


def test_page_of_an_empty_job_is_whole():
    text = parse(render_html(empty_report())).text
    assert text.count("no data") == 4
    assert "No worker ran" in text
    assert not re.search(r"\b(nan|None|inf)\b", text)


def test_page_loads_and_runs_nothing():
    html = render_html(full_report())
    assert not {"script", "link", "img", "iframe"} & set(parse(html).tags)
    assert not re.search(r"https?://|url\(|@import|\son\w+=", html)


def test_foreign_text_is_escaped():
    attack = "<script>alert('x')</script>"
    row = {"file": attack, "position": 3, "id": attack, "reason": attack, "text": attack}
    bad_rows = {"count": 1, "shown": [row], "folder": attack}
    html = render_html(
        full_report(bad_rows=bad_rows, message=attack, output=attack, settings={attack: attack}, state="failed")
    )
    assert "script" not in parse(html).tags
    assert "<script" not in html
    assert parse(html).text.count(attack) >= 7


def test_page_of_a_failed_job_says_why_and_shows_bad_rows():
    row = {"file": "a.parquet", "position": 17, "id": None, "reason": "text is null", "text": None}
    bad_rows = {"count": 250, "shown": [row], "folder": "out/_quarantine"}
    text = parse(render_html(empty_report(state="failed", message="too many bad rows", bad_rows=bad_rows))).text
    for expected in ("failed", "too many bad rows", "a.parquet", "text is null", "250 quarantined", "The first 1"):
        assert expected in text


def test_a_timeline_of_one_point_is_a_dot():
    chart = charts.line_chart([(0.0, 5.0)], title="t")
    assert 'class="dot"' in chart
    assert "nan" not in chart


@pytest.mark.parametrize(
    ("top", "ticks"),
    [(0, [0, 1]), (1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (7, [0, 2, 4, 6, 8]), (120, [0, 50, 100, 150]), (1000, [0, 200])],
)
def test_ticks_are_round_and_reach_the_top(top, ticks):
    found = charts._ticks(top)
    assert found[: len(ticks)] == pytest.approx(ticks)
    assert found[-1] >= top


@pytest.mark.parametrize("top", [0.4, 1, 5.9, 61, 599, 3601, 86_400, 1_000_000])
def test_clock_ticks_are_few_and_inside(top):
    ticks = charts._clock_ticks(top)
    assert 1 <= len(ticks) <= 7
    assert ticks[-1] <= top


def heights(chart: str) -> list[float]:
    return [float(height) for height in re.findall(r'class="bar" .*? height="([\d.]+)"', chart)]


def test_histogram_bars_compare_by_area():
    chart = charts.histogram([0, 10, 20, 40], [5, 10, 20], title="t")
    low, high, wide = heights(chart)
    assert (high, wide) == (2 * low, 2 * low)
    assert "height: per 10" in chart
    assert "20 to 40: 20 (57.1%)" in chart


def test_histogram_leaves_out_empty_bins_at_the_end_and_draws_an_open_one():
    chart = charts.histogram([0, 10, 20, 2**30, 2**31], [0, 3, 1, 0], title="t")
    assert len(heights(chart)) == 3
    assert "20 and more: 1 (25.0%)" in chart
    assert "height: per" not in chart


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 256, [0, 50, 100, 150, 200, 250]), (-0.5, 1, [-0.4, -0.2, 0, 0.2, 0.4, 0.6, 0.8, 1])],
)
def test_ticks_between_are_round_and_inside(low, high, expected):
    assert charts._ticks_between(low, high) == pytest.approx(expected)


def test_stacked_bar_fills_its_width():
    chart = charts.stacked_bar([("a", 1.0), ("b", 3.0)], title="t")
    assert [float(width) for width in re.findall(r' width="([\d.]+)"', chart)] == [120, 360]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (number(1234567), "1,234,567"),
        (number(0.12345), "0.123"),
        (number(0), "0"),
        (large(12_345_678), "12.3 M"),
        (num_bytes(999), "999 B"),
        (num_bytes(1_500_000), "1.5 MB"),
        (duration(0), "0 s"),
        (duration(0.0152), "15 ms"),
        (duration(4), "4 s"),
        (duration(59.97), "1 min"),
        (duration(192), "3 min 12 s"),
        (duration(7500), "2 h 05 min"),
        (moment("2026-11-23T10:00:00.5+02:00"), "2026-11-23 08:00:00 UTC"),
        (setting(True), "yes"),
        (setting(0), "0"),
        (excerpt(b"\xff"), "b'\\xff'"),
    ],
)
def test_values_read_well(shown, expected):
    assert shown == expected


def test_long_texts_are_cut():
    assert len(excerpt("x" * 1_000_000)) < 300
