"""How an evaluation runs: look into everything, embed what is not embedded yet, evaluate, write the metrics."""

import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import ray

from actors.evaluator import Measured
from actors.pool import Pool, PoolOptions
from jobs.cluster import pool_options, start_ray, stops_unwrapped
from jobs.embed import EmbedJob
from jobs.job import EXIT_OK
from jobs.progress import Progress
from jobs.unit_job import check_protocol
from sbert_ray.data.errors import InputError, PlanChangedError
from sbert_ray.data.examples import Examples
from sbert_ray.data.lease import Lease
from sbert_ray.data.listing import check_apart
from sbert_ray.data.manifest import Plan
from sbert_ray.data.storage import Storage, redacted

if TYPE_CHECKING:
    from jobs.evaluate import EvaluateJob

logger = logging.getLogger(__name__)

METRICS = "metrics.json"
SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a look into everything has found, before any worker starts.

    Args:
        settings: every setting that changes results.
        files: name, size, identity and rows of each file that is read.
        counts: how much there is to evaluate.
        num_rows: texts or documents that are gone through, for the progress.
        model: what is told of the model.
        prompts: put before the texts, by what they are.
        evaluator: makes what builds a worker, from what its actor has, once all is embedded.
        embed: jobs that come first.
        before: writes what those read.
    """

    settings: dict[str, Any]
    files: list[dict[str, Any]]
    counts: dict[str, int]
    num_rows: int
    model: dict[str, Any]
    prompts: dict[str, str | None]
    evaluator: Callable[[PoolOptions], Callable[[], Any]]
    embed: Sequence[EmbedJob] = ()
    before: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Evaluation:
    """One run of an evaluation.

    Args:
        job: its options.
        sources: everything that is read, by the names of the options.
    """

    job: "EvaluateJob"
    sources: Mapping[str, str]

    def run(self, look: Callable[[], Findings]) -> int:
        """Evaluate, unless an earlier run has, write the metrics, and print them.

        Raises:
            PlanChangedError: if an earlier run has evaluated something else here.
        """
        begun = time.time()
        output = self.job.output
        for url in (*self.sources.values(), output):
            check_protocol(url)
        for url in self.sources.values():
            check_apart(url, output)
        found = look()
        plan = Plan(self.job.command, found.settings, found.files, 0, "")
        if self.job.dry_run:
            return self._show(found)
        storage = Storage(output)
        storage.check_writable()
        with Lease(storage) as lease:
            document = self._earlier(storage, plan)
            if document is None:
                with stops_unwrapped():
                    measured, seconds = self._work(found)
                document = self._document(plan, found, measured, {"total": time.time() - begun, **seconds})
                lease.check()
                storage.write(METRICS, json.dumps(document, indent=1).encode())
        logger.info("%s: %s", self.job.command, redacted(storage.locate(METRICS)))
        sys.stdout.write(json.dumps(document["metrics"], indent=1) + "\n")
        return EXIT_OK

    def _work(self, found: Findings) -> tuple[Measured, dict[str, float]]:
        begun = time.time()
        found.before()
        for job in found.embed:
            logger.info("embedding %s", redacted(job.input))
            job.run()
        embedded = time.time()
        start_ray(self.job.ray_address)
        options = _single(pool_options(self.job, 1), self.job)
        with (
            Pool(found.evaluator(options), options) as pool,
            Progress(self.job.command, found.num_rows, 0, exact=False) as progress,
        ):
            measured: Measured = pool.call(
                "evaluate", self.job.task, on_tick=lambda: progress.show(pool.rows_in_flight, None)
            )
        return measured, {"embed": embedded - begun, "work": time.time() - embedded, **measured.seconds}

    def _earlier(self, storage: Storage, plan: Plan) -> dict[str, Any] | None:
        """Return what an earlier run has found.

        Raises:
            InputError: if what it has written cannot be read.
            PlanChangedError: if it evaluated something else.
        """
        if not storage.exists(METRICS):
            return None
        where = redacted(storage.locate(METRICS))
        try:
            document: dict[str, Any] = json.loads(storage.read(METRICS))
            old = Plan(document["job"], document["settings"], document["files"], 0, "")
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{where} is not of an evaluation: {error!r}; give a new output") from error
        if old.fingerprint != plan.fingerprint:
            changes = "\n  ".join(old.differences(plan))
            raise PlanChangedError(
                f"{where} is of an evaluation of another input or with other settings:\n  {changes}\n"
                "Give a new output, or run again as before."
            )
        logger.info("an earlier run has evaluated this; nothing is left to do")
        return document

    def _document(self, plan: Plan, found: Findings, measured: Measured, seconds: dict[str, float]) -> dict[str, Any]:
        primary = measured.primary_metric
        return {
            "job": self.job.command,
            "task": self.job.task,
            "primary_metric": primary,
            "primary_value": measured.metrics[primary],
            "metrics": measured.metrics,
            "greater_is_better": measured.greater_is_better,
            "model": found.model,
            "prompts": found.prompts,
            "dataset": {name: redacted(url) for name, url in self.sources.items()},
            "counts": found.counts | measured.counts,
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            "device": measured.device,
            "peak_memory_bytes": measured.peak_memory_bytes,
            "versions": measured.versions | {"ray": version("ray")},
            "settings": plan.settings,
            "files": plan.files,
            "fingerprint": plan.fingerprint,
        }

    def _show(self, found: Findings) -> int:
        """Print what would be done."""
        lines = [f"{name:<8} {redacted(url)}" for name, url in self.sources.items()]
        lines.append(f"counts   {json.dumps(found.counts)}")
        lines += [f"embed    {redacted(job.input)} into {redacted(job.output)}" for job in found.embed]
        lines += [f"output   {redacted(self.job.output)}", f"settings {json.dumps(found.settings, indent=2)}"]
        sys.stdout.write("\n".join([*lines, ""]))
        return EXIT_OK


def _single(options: PoolOptions, job: "EvaluateJob") -> PoolOptions:
    """Return what the one actor gets that evaluates: on CPUs as many threads as the smallest node has.

    They are not reserved: by then, all else that the job does is done.
    """
    threads = options.num_threads
    if not options.num_gpus and job.num_cpus_per_worker is None:
        cpus = (node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"])
        threads = max(int(min(filter(None, cpus), default=1.0)), 1)
    return replace(options, num_workers=1, num_threads=threads, in_flight=1)


def looked_through(tables: Mapping[str, Examples], allow_unknown_ids: bool) -> tuple[int, dict[str, int]]:
    """Read tables of examples to the end, and return how many texts they have, and how many rows each.

    Raises:
        InputError: if a row is wrong, an id is there twice, or one that another table names is not there.
    """
    num_texts, counts, ids = 0, dict.fromkeys(tables, 0), set[str]()
    unknown: dict[str, None] = {}
    for name, table in tables.items():
        for batch in table.batches():
            counts[name] += len(next(iter(batch.values())))
            texts = [values for role in table.roles if role.kind == "text" for values in batch[role.name]]
            lists = [values for role in table.roles if role.kind == "texts" for values in batch[role.name]]
            num_texts += len(texts) + sum(map(len, lists))
            if repeated := [one for one in batch.get("id", ()) if one in ids or ids.add(one)]:  # type: ignore[func-returns-value]
                raise InputError(f"{redacted(table.url)}: each id must be there once, got {repeated[0]!r} again")
            named = (one for role in ("id1", "id2") for one in batch.get(role, ()))
            unknown |= dict.fromkeys(one for one in named if one not in ids)
    if unknown and not allow_unknown_ids:
        raise InputError(
            f"{redacted(tables['duplicates'].url)} names {len(unknown)} ids that are not in"
            f" {redacted(tables['input'].url)}: {', '.join(map(repr, list(unknown)[:SHOWN]))}; mend it, or leave such"
            " pairs out with --allow-unknown-ids"
        )
    return num_texts, counts
