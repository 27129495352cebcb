"""The totals of a report, by hand-made records."""

import random
from typing import Any

import pytest

from actors.worker import LENGTH_EDGES, UnitReport, Usage
from jobs.report import render_html
from jobs.summary import MAX_BINS, MAX_SHOWN, MAX_WORKERS, Timeline, Totals, record_of
from sbert_ray.data.manifest import Record
from sbert_ray.data.rows import BadRow
from sbert_ray.data.sink import Committed

BEGUN = 1_700_000_000.0
MODEL = dict.fromkeys("name revision dimension pooling normalize precision prompt max_seq_length".split())
COUNTED = {"rows": 10, "tokens": 60, "computed_tokens": 50, "padded_tokens": 80, "empty_texts": 1, "truncated_texts": 2}
COUNTED |= {"duplicate_texts": 5, "duplicate_ids": 3, "pairs": 12, "queries": 4, "halvings": 0}
SECONDS = {"read": 0.5, "tokenize": 1.0, "wait": 0.25, "compute": 2.0, "write": 0.25}


def make_record(unit: int, *, run: int = 1, attempts: int = 1, num_bad: int = 0, **changes: Any) -> Record:
    """Return the record of a unit of ten rows, computed in the 4 s up to `finished` s after the start."""
    finished = BEGUN + changes.pop("finished", 10.0)
    report = UnitReport(
        committed=Committed(f"data/part-{unit:08d}.parquet", 10 - num_bad, num_bad, 1000, "0" * 64),
        stats={**COUNTED, "token_lengths": [4, 6], "seconds": SECONDS, **changes},
        bad=[BadRow("a.parquet", row, "the text is null", id=f"id-{row}") for row in range(num_bad)],
        environment="cpu in float32",
        worker=changes.pop("worker", "node:1"),
        peak_memory_bytes=changes.pop("peak_memory_bytes", 100),
        usage=changes.pop("usage", Usage(7.0, 3.0, 4.0)),
        begun=finished - 4.0,
        finished=finished,
    )
    return record_of(unit, report, run, attempts)


def totals_of(*records: Record) -> Totals:
    totals = Totals(run=1, begun=BEGUN)
    for record in records:
        totals.add(record)
    return totals


def whole(report: dict[str, Any]) -> dict[str, Any]:
    """Return a report with what the job itself adds."""
    report = report | {"job": "embed", "state": "complete", "message": None, "input": "in", "output": "out"}
    report |= {"settings": {}, "model": MODEL}
    report["units"] |= {"total": 9}
    report["bad_rows"] |= {"folder": "out/_quarantine"}
    return report


def test_a_record_tells_the_file_and_the_worker() -> None:
    record = make_record(3, attempts=2, num_bad=1)
    assert (record.unit, record.file, record.rows, record.bad_rows) == (3, "data/part-00000003.parquet", 9, 1)
    assert (record.num_bytes, record.sha256, record.run, record.attempts) == (1000, "0" * 64, 1, 2)
    assert (record.stats["worker"], record.stats["peak_memory_bytes"]) == ("node:1", 100)
    assert record.stats["usage"] == {"cpu_seconds": 7.0, "device_seconds": 3.0, "device_span": 4.0}
    assert (record.stats["begun"], record.stats["finished"]) == (BEGUN + 6, BEGUN + 10)
    assert record.stats["bad"] == [
        {"file": "a.parquet", "position": 0, "reason": "the text is null", "id": "id-0", "text": None}
    ]


def test_adds_up_what_units_tell() -> None:
    totals = totals_of(make_record(0), make_record(1, attempts=3, num_bad=2), make_record(2))
    assert (totals.units, totals.rows_out, totals.bad_rows, totals.num_bytes, totals.retried) == (3, 28, 2, 3000, 1)
    assert totals.counts == totals.new == {name: 3 * count for name, count in COUNTED.items()}
    assert totals.seconds == {name: 3 * seconds for name, seconds in SECONDS.items()}
    assert totals.lengths == [12, 18]
    assert (totals.first_work, totals.last_work) == (BEGUN + 6, BEGUN + 10)


def test_tells_earlier_runs_from_this_one() -> None:
    totals = totals_of(make_record(0, run=0, num_bad=1), make_record(1, run=1), make_record(2, run=0))
    assert (totals.units, totals.resumed_units, totals.resumed_rows, totals.bad_rows) == (3, 2, 20, 1)
    assert totals.counts["tokens"] == 180
    assert totals.new == COUNTED
    assert totals.seconds == SECONDS
    assert totals.lengths == [12, 18]
    assert [worker["units"] for worker in totals.worker_table()] == [1]
    assert sum(counts[0] for counts in totals.timeline.bins.values()) == pytest.approx(10)


def test_has_a_line_per_worker() -> None:
    totals = totals_of(
        make_record(0, worker="node:2", peak_memory_bytes=300, usage=Usage(9.0, 5.0, 8.0)),
        make_record(1, worker="node:1", attempts=2),
        make_record(2, worker="node:2", peak_memory_bytes=200, computed_tokens=1, usage=Usage(8.0, 4.0, 5.0)),  # late
    )
    other = {"units": 1, "rows": 10, "tokens": 50, "seconds": SECONDS, "peak_memory_bytes": 100, "retries": 1}
    both = {"units": 2, "rows": 20, "tokens": 51, "peak_memory_bytes": 300, "retries": 0}
    both["seconds"] = {name: 2 * seconds for name, seconds in SECONDS.items()}
    assert totals.worker_table() == [
        {"worker": "node:1", "rows_per_second": 5.0, "cpu_seconds": 7.0, "device_idle_share": 0.25, **other},
        {"worker": "node:2", "rows_per_second": 5.0, "cpu_seconds": 9.0, "device_idle_share": 0.375, **both},
    ]
    assert totals.device_idle_share == pytest.approx(1 - (3 + 5) / (4 + 8))
    assert totals.report(None)["cpu_seconds"] == 16.0


def test_a_device_that_never_computed_has_no_idle_share() -> None:
    assert totals_of().device_idle_share is None
    [worker] = totals_of(make_record(0, usage=Usage(1.0, 0.0, 0.0))).worker_table()
    assert worker["device_idle_share"] is None


def test_a_worker_too_many_is_among_the_others() -> None:
    totals = totals_of(*(make_record(unit, worker=f"node:{unit}") for unit in range(MAX_WORKERS + 20)))
    assert len(totals.workers) == MAX_WORKERS + 1
    assert totals.workers["others"]["units"] == 20
    assert totals.device_idle_share == 0.25
    [others] = [worker for worker in totals.worker_table() if worker["worker"] == "others"]
    assert others["device_idle_share"] is None  # of many processes, none of which is known


def test_shows_the_first_bad_rows_only() -> None:
    totals = totals_of(*(make_record(unit, num_bad=7) for unit in range(100)))
    assert totals.bad_rows == 700
    assert len(totals.shown) == MAX_SHOWN
    assert totals.shown[7] == BadRow("a.parquet", 0, "the text is null", id="id-0")


@pytest.mark.parametrize("seed", range(20))
def test_a_timeline_loses_nothing_when_its_bins_merge(seed: int) -> None:
    generator = random.Random(seed)
    timeline = Timeline()
    added, last = [0.0, 0.0], 0.0
    for _ in range(300):
        begin = generator.uniform(-5, 10 ** generator.uniform(0, 4))
        end = begin + generator.choice([0.0, generator.uniform(0, 1), generator.uniform(0, 500)])
        counts = (generator.randrange(1000), generator.random())
        timeline.add(begin, end, counts)
        added, last = [a + b for a, b in zip(added, counts, strict=True)], max(last, end)
        assert max(timeline.bins) < MAX_BINS
    sums = [sum(column) for column in zip(*timeline.bins.values(), strict=True)]
    assert sums == pytest.approx(added, rel=1e-6)
    assert min(min(counts) for counts in timeline.bins.values()) >= 0
    rates = timeline.rates()
    areas = [sum(rate[column] for _, rate in rates) * timeline.width for column in range(2)]
    assert areas == pytest.approx(added, rel=1e-6)
    assert rates[-1][0] - timeline.width / 2 <= last <= rates[-1][0] + timeline.width / 2


def test_a_timeline_stays_small() -> None:
    timeline = Timeline()
    for second in range(100_000):
        timeline.add(second, second + 3.0, (7,))
    assert MAX_BINS / 2 <= len(timeline.bins) <= MAX_BINS
    assert timeline.width == 512
    assert sum(count for (count,) in timeline.bins.values()) == pytest.approx(700_000)
    assert [rate for _, (rate,) in timeline.rates()[1:-1]] == pytest.approx([7.0] * (len(timeline.bins) - 2), rel=1e-2)


def test_a_timeline_shows_pauses() -> None:
    timeline = Timeline()
    timeline.add(0.0, 0.5, (10,))
    timeline.add(3.0, 4.5, (9,))
    assert timeline.rates() == [
        (0.5, pytest.approx((10.0,))),
        (1.5, (0.0,)),
        (2.5, (0.0,)),
        (3.5, pytest.approx((6.0,), rel=1e-5)),
        (4.5, pytest.approx((3.0,), rel=1e-5)),
    ]


def test_a_timeline_without_work_is_empty() -> None:
    assert Timeline().rates() == []


def test_work_before_the_start_counts_at_the_start() -> None:
    timeline = Timeline()
    timeline.add(-7.0, -5.0, (4,))  # the clock of another node may be late
    assert timeline.bins == {0: pytest.approx((4.0,))}


def test_the_report_has_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.summary.time.time", lambda: BEGUN + 27.0)
    totals = totals_of(
        make_record(0, run=0),
        make_record(1, finished=10.0),
        make_record(2, finished=26.0, num_bad=1, worker="node:2", attempts=2),
    )
    totals.num_workers = 2
    report = totals.report(cost_per_worker_hour=0.36)
    assert (report["started"], report["finished"]) == ("2023-11-14T22:13:20+00:00", "2023-11-14T22:13:47+00:00")
    assert report["rows"] == {"input": 30, "output": 29, "bad": 1, "resumed": 10}
    assert report["units"] == {"done": 3, "resumed": 1, "retried": 1, "speculated": 0}
    assert report["tokens"] == {"real": 180, "computed": 150, "padded": 240}
    assert report["padding_share"] == 0.375
    assert report["bytes_out"] == 3000
    stages = {name: 2 * value for name, value in SECONDS.items()}
    assert report["seconds"] == {"wall": 27.0, "startup": 6.0, "shutdown": 1.0} | stages
    assert (report["device_idle_share"], report["cpu_seconds"]) == (0.25, 14.0)
    assert report["throughput"]["rows_per_second"] == 20 / 20
    assert report["throughput"]["tokens_per_second"] == 100 / 20
    assert sum(point["rows_per_second"] for point in report["throughput"]["timeline"]) == pytest.approx(20)
    assert report["token_lengths"] == {"edges": list(LENGTH_EDGES), "counts": [12, 18]}
    assert (report["empty_texts"], report["truncated_texts"], report["duplicate_ids"]) == (3, 6, 9)
    assert (report["duplicate_texts"], "halvings" in report) == (15, False)
    assert [worker["worker"] for worker in report["workers"]] == ["node:1", "node:2"]
    assert report["bad_rows"]["count"] == 1
    assert report["bad_rows"]["shown"][0]["id"] == "id-0"
    assert report["cost_per_million_rows"] == pytest.approx(0.36 * 2 * 27 / 3600 / 20 * 1e6)
    assert report["versions"].keys() >= {"python", "sbert-ray", "ray", "torch", "transformers", "pyarrow"}
    assert report["driver"]["peak_memory_bytes"] > 1e6


def test_halved_batches_are_told_where_there_are_any() -> None:
    report = totals_of(make_record(0, halvings=2), make_record(1, halvings=1)).report(None)
    assert report["halvings"] == 3
    page = " ".join(render_html(whole(report)).split())
    assert "A batch did not fit into the device's memory 3 times and was halved" in page


@pytest.mark.parametrize("cost", [None, 0.5])
@pytest.mark.parametrize("num_units", [0, 3])
def test_the_page_shows_the_report(num_units: int, cost: float | None) -> None:
    lengths = [1] * (len(LENGTH_EDGES) - 1)
    totals = totals_of(*(make_record(unit, num_bad=1, token_lengths=lengths) for unit in range(num_units)))
    page = render_html(whole(totals.report(cost)))
    assert ("No worker ran" in page) == (num_units == 0)
    assert ("the text is null" in page) == (num_units > 0)
    assert ("per million rows" in page) == (num_units > 0 and cost is not None)


def test_a_report_of_earlier_work_alone_has_no_speed() -> None:
    report = totals_of(make_record(0, run=0)).report(cost_per_worker_hour=1.0)
    assert report["throughput"] == {"rows_per_second": 0.0, "tokens_per_second": 0.0, "timeline": []}
    assert report["cost_per_million_rows"] is None
    assert report["workers"] == []
    assert "of them by earlier runs" in render_html(whole(report))
