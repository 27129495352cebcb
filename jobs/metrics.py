"""Prometheus metrics of a job."""

from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge


class Metrics:
    """What a job has finished, on the metrics port of the node that its driver runs on.

    Args:
        job: name of the job, a tag of each series.
    """

    def __init__(self, job: str) -> None:
        self._counters = {
            name: Counter(f"sbert_ray_{name}", description=f"{name} that a job has finished", tag_keys=("job_name",))
            for name in ("rows", "tokens", "bad_rows", "units")
        }
        self._seconds = Counter(
            "sbert_ray_stage_seconds",
            description="seconds that workers have spent in a stage, of finished units",
            tag_keys=("job_name", "stage"),
        )
        self._idle = Gauge(
            "sbert_ray_device_idle_share",
            description="share of their time in which the workers' devices compute nothing, from their first batch on",
            tag_keys=("job_name",),
        )
        self._tags = {"job_name": job}

    def add(self, counts: Mapping[str, int], seconds: Mapping[str, float], idle_share: float | None) -> None:
        """Count a finished unit.

        Args:
            counts: its ``rows``, ``tokens`` and ``bad_rows``.
            seconds: its seconds by stage.
            idle_share: that of all devices by now.
        """
        for name, value in {**counts, "units": 1}.items():
            if value:
                self._counters[name].inc(value, tags=self._tags)
        for stage, spent in seconds.items():
            if spent > 0:
                self._seconds.inc(spent, tags=self._tags | {"stage": stage})
        if idle_share is not None:
            self._idle.set(idle_share, tags=self._tags)
