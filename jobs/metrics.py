"""Prometheus metrics of a job."""

from ray.util.metrics import Counter


class Metrics:
    """Counters of what a job has finished, on the metrics port of the node that its driver runs on.

    Args:
        job: name of the job, a tag of each series.
    """

    def __init__(self, job: str) -> None:
        self._counters = {
            name: Counter(f"sbert_ray_{name}", description=f"{name} that a job has finished", tag_keys=("job_name",))
            for name in ("rows", "tokens", "bad_rows", "units")
        }
        self._tags = {"job_name": job}

    def add(self, rows: int, tokens: int, bad_rows: int) -> None:
        """Count a finished unit."""
        for name, value in {"rows": rows, "tokens": tokens, "bad_rows": bad_rows, "units": 1}.items():
            if value:
                self._counters[name].inc(value, tags=self._tags)
