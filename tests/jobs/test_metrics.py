"""What a job tells Prometheus of each finished unit."""

from typing import Any

import pytest

from jobs import metrics
from jobs.metrics import Metrics


class Series:
    """Keeps the values of a metric by its tags, as Ray's counters and gauges do."""

    kept: dict[tuple[str, ...], float]

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self.name, self.tag_keys = name, tag_keys

    def inc(self, value: float, tags: dict[str, str]) -> None:
        self.set(self.kept.get(self.key(tags), 0.0) + value, tags)

    def set(self, value: float, tags: dict[str, str]) -> None:
        self.kept[self.key(tags)] = value

    def key(self, tags: dict[str, str]) -> tuple[str, ...]:
        assert set(tags) == set(self.tag_keys)
        return (self.name, *(tags[key] for key in self.tag_keys))


def test_units_stages_and_the_idle_share_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[Any, float] = {}
    monkeypatch.setattr(Series, "kept", kept, raising=False)
    monkeypatch.setattr(metrics, "Counter", Series)
    monkeypatch.setattr(metrics, "Gauge", Series)
    told = Metrics("embed")
    told.add({"rows": 9, "tokens": 70, "bad_rows": 1}, {"read": 0.5, "compute": 2.0, "wait": 0.0}, None)
    told.add({"rows": 10, "tokens": 80, "bad_rows": 0}, {"read": 0.25, "compute": 3.0}, 0.25)
    told.add({"rows": 10, "tokens": 80, "bad_rows": 0}, {}, 0.125)
    assert kept == {
        ("sbert_ray_rows", "embed"): 29,
        ("sbert_ray_tokens", "embed"): 230,
        ("sbert_ray_bad_rows", "embed"): 1,
        ("sbert_ray_units", "embed"): 3,
        ("sbert_ray_stage_seconds", "embed", "read"): 0.75,
        ("sbert_ray_stage_seconds", "embed", "compute"): 5.0,
        ("sbert_ray_device_idle_share", "embed"): 0.125,
    }
