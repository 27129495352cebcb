"""What jobs over units of work share: plan, pool, commit, report."""

import json
import logging
import os
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Annotated, Any, NamedTuple

import fsspec
from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from actors.pool import Pool, PoolOptions
from actors.worker import UnitWorker
from jobs.cluster import Cpus, Gpus, pool_options, start_ray, stops_unwrapped
from jobs.job import EXIT_OK, Job, may_pass
from jobs.metrics import Metrics
from jobs.progress import Progress
from jobs.report import render_html
from jobs.summary import Totals, record_of
from sbert_ray.data.dataset import Dataset, RowReader
from sbert_ray.data.errors import InputError, LeaseLostError, PlanChangedError
from sbert_ray.data.lease import Lease
from sbert_ray.data.listing import check_apart
from sbert_ray.data.manifest import Manifest, Plan, Record
from sbert_ray.data.storage import Storage, redacted
from sbert_ray.data.units import default_rows_per_unit

logger = logging.getLogger(__name__)

SHOWN = 10
JOB_COPY = "/runtime_resources/working_dir_files/"
"""Part of the path of the temporary copy of a working directory that a submitted Ray job runs in."""


def absolute(url: str) -> str:
    """Return a local path in full, since workers run in other folders; a URL as it is.

    Raises:
        ValueError: if it is empty, or lies in the temporary copy that a submitted job runs in.
    """
    if not url.strip():
        raise ValueError("a path or URL must not be empty")  # it would stand for the current folder
    path = url if "://" in url or "::" in url else os.path.abspath(os.path.expanduser(url))
    if JOB_COPY in path:
        raise ValueError(f"{url} lies in the job's temporary copy of the working directory; give a full path or a URL")
    return path


Location = Annotated[str, AfterValidator(absolute)]


def check_protocol(url: str) -> None:
    """Make sure that this Python can open a URL at all.

    Raises:
        InputError: that says what to install, or that there is no such protocol.
    """
    if "://" not in url:
        return
    try:
        fsspec.get_filesystem_class(url.partition("://")[0].rpartition("::")[2])
    except (ImportError, ValueError) as error:
        raise InputError(f"cannot use {url}: {error}") from error


class Run(NamedTuple):
    """One run of a job on its output."""

    dataset: Dataset
    rows_per_unit: int
    storage: Storage
    manifest: Manifest
    lease: Lease
    totals: Totals


class UnitJob(Job):
    """A job that turns each unit of a dataset into one committed file.

    The same command again does only what is missing. What a subclass adds is its fields, what it needs of the input,
    which of its settings change results, and the worker.
    """

    input: Location = Field(description="Parquet or JSONL to read (.jsonl, .gz, .zst): a file, folder, glob or URL")
    output: Location = Field(description="folder or URL to write to; the same command again goes on where it stopped")
    num_workers: PositiveInt | None = Field(
        default=None, description="actors, each with a model; none: one per GPU of the cluster, or else one per CPU"
    )
    num_gpus_per_worker: Gpus | None = Field(
        default=None, description="GPUs of each worker, a fraction shares one; none: 1 where the cluster has GPUs"
    )
    num_cpus_per_worker: Cpus | None = Field(
        default=None,
        description="CPUs, and so threads, of each worker; none: 1, and with GPUs as many threads as CPUs for each GPU",
    )
    rows_per_unit: PositiveInt | None = Field(
        default=None, description="rows per unit of work and output file; none: 256 to 16384, by the size of the input"
    )
    limit: PositiveInt | None = Field(default=None, description="stop after so many rows of the input")
    max_bad_rows: NonNegativeInt = Field(
        default=0, description="rows that may go to quarantine instead of the output before the job fails"
    )
    hang_seconds: PositiveFloat = Field(
        default=300, description="time without a finished batch after which a worker is killed and its units retried"
    )
    max_attempts: PositiveInt = Field(default=3, description="how often a unit may fail before the job looks into it")
    cost_per_worker_hour: NonNegativeFloat | None = Field(
        default=None, description="what an hour of a worker costs, for the cost per million rows in the report"
    )
    ray_address: str | None = Field(
        default=None, description="Ray cluster to use; none: RAY_ADDRESS if it is set, or else a local Ray of its own"
    )
    dry_run: bool = Field(default=False, description="say what would be done, and do nothing")

    @abstractmethod
    def open_dataset(self) -> Dataset:
        """Open the input and check its columns."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the settings that change results."""

    @abstractmethod
    def worker(self, reader: RowReader, options: PoolOptions, facts: dict[str, Any]) -> Callable[[], UnitWorker]:
        """Return what builds a worker, inside an actor that has what ``options`` say.

        Args:
            reader: gives the rows of a unit.
            options: what its actor has.
            facts: what ``facts`` returned in the first run of this output.
        """

    @abstractmethod
    def describe_model(self) -> dict[str, Any]:
        """Return what the report tells of the model."""

    @property
    def sources(self) -> Sequence[str]:
        """Everything that is read, none of which the output may lie in."""
        return [self.input]

    def default_rows(self, dataset: Dataset) -> int:
        """Return the rows of a unit where none are asked for; a function of the input and the settings alone."""
        return default_rows_per_unit(dataset.estimated_rows)

    def facts(self) -> dict[str, Any]:
        """Return what output files tell besides the settings; those of the first run hold for all of them."""
        return {}

    def before(self, pool: Pool, run: Run) -> None:
        """Find out what all units need, once, and keep it in the manifest."""

    def run(self) -> int:
        """Do what is not done yet, and write the report."""
        begun = time.time()
        for url in (*self.sources, self.output):
            check_protocol(url)
        for url in self.sources:
            check_apart(url, self.output)
        dataset = self.open_dataset()
        rows_per_unit = self.rows_per_unit or self.default_rows(dataset)
        settings = {**self.settings(), "rows_per_unit": rows_per_unit, "limit": self.limit}
        num_units = sum(1 for _ in dataset.units(rows_per_unit, self.limit))
        plan = Plan(self.command, settings, [file.described() for file in dataset.files], num_units, self.input)
        if self.dry_run:
            self._show_plan(dataset, plan)
            return EXIT_OK
        storage = Storage(self.output)
        storage.check_writable()
        Manifest.check_place(storage)
        with Lease(storage) as lease:
            manifest = Manifest.open(storage, plan)
            manifest.clean()
            totals = Totals(manifest.run, begun)
            for record in manifest.records(storage):
                totals.add(record)
            run = Run(dataset, rows_per_unit, storage, manifest, lease, totals)
            self._check_bad_rows(run)
            if storage.exists(manifest.SUCCESS):
                logger.info("all %d units were done by earlier runs; nothing is left to do", num_units)
                return EXIT_OK
            with self._reported(run), stops_unwrapped():
                self._work(run)
                manifest.clean()  # what killed workers have left
                self._write_report(run, "complete", None)
                manifest.succeed()  # last, as it ends all work on this output
        shown = map(redacted, (self.output, storage.locate("report.html")))
        logger.info("%s: %d rows in %s; report: %s", self.command, totals.rows_out, *shown)
        return EXIT_OK

    def _work(self, run: Run) -> None:
        if run.manifest.num_done == run.manifest.plan.num_units:
            return
        start_ray(self.ray_address)
        options = pool_options(self, run.manifest.plan.num_units - run.manifest.num_done)
        run.totals.num_workers = options.num_workers
        total = _expected_rows(run.dataset, self.limit)
        exact = run.dataset.num_rows is not None or self.limit is not None
        logger.info(
            "%d of %d units to do, with %d worker(s)",
            run.manifest.plan.num_units - run.manifest.num_done,
            run.manifest.plan.num_units,
            options.num_workers,
        )
        facts = run.manifest.remember("facts", self.facts)
        with (
            Pool(self.worker(run.dataset.reader(run.rows_per_unit), options, facts), options) as pool,
            Progress(self.command, total, run.totals.resumed_rows, exact) as progress,
        ):
            self.before(pool, run)
            self._commit(pool, run, progress)

    def _commit(self, pool: Pool, run: Run, progress: Progress) -> None:
        manifest, totals = run.manifest, run.totals
        todo = (unit for unit in run.dataset.units(run.rows_per_unit, self.limit) if not manifest.done[unit.index])
        metrics = Metrics(self.command)
        for done in pool.run(todo):
            if done is not None:
                record = record_of(done.unit.index, done.result, manifest.run, done.attempts)
                run.lease.check()
                self._check_seen(run, record)
                manifest.append([record])
                totals.add(record)
                counts = {"rows": record.rows, "tokens": record.stats.get("tokens", 0), "bad_rows": record.bad_rows}
                metrics.add(counts, record.stats["seconds"], totals.device_idle_share)
                self._check_bad_rows(run)
            note = f"{totals.bad_rows} bad" if totals.bad_rows else ""
            progress.show(totals.counts["rows"] + pool.rows_in_flight, totals.new["computed_tokens"], note)
        totals.speculated = pool.speculations
        if manifest.num_done < manifest.plan.num_units:
            raise AssertionError(f"{manifest.plan.num_units - manifest.num_done} units were never finished")

    def _check_seen(self, run: Run, record: Record) -> None:
        """Make sure that a worker's file is where the driver sees it, and made like all others."""
        worker, made = record.stats["worker"], record.stats["environment"]
        if not run.storage.exists(record.file):
            raise InputError(
                f"worker {worker} wrote {record.file} to another disk than this one's {self.output};"
                " give an --output that all nodes share, or a URL"
            )
        totals = run.totals
        if totals.environment is None:
            totals.environment = run.manifest.remember("environment", lambda: made)
        if made != totals.environment:
            raise PlanChangedError(
                f"worker {worker} computes on {made}, and {self.output} was begun on {totals.environment}; run it there"
                " (see --num-gpus-per-worker, --num-cpus-per-worker and --dtype), or give a new output"
            )

    def _check_bad_rows(self, run: Run) -> None:
        totals = run.totals
        if totals.bad_rows > self.max_bad_rows:
            shown = "\n  ".join(str(row) for row in totals.shown[:SHOWN])
            raise InputError(
                f"{totals.bad_rows} bad row(s) so far, and max_bad_rows is {self.max_bad_rows}:\n  {shown}\n"
                f"All are in {run.storage.locate('_quarantine')}. Mend the input and give a new output, or run again"
                " with a higher --max-bad-rows to leave them out."
            )

    def _show_plan(self, dataset: Dataset, plan: Plan) -> None:
        rows = _expected_rows(dataset, self.limit)
        about = "" if dataset.num_rows is not None or self.limit is not None else "about "
        units = islice(dataset.units(plan.settings["rows_per_unit"], self.limit), 3)
        first = ", ".join(map(str, units)) + (", ..." if plan.num_units > 3 else "")
        print(  # noqa: T201 - what the user asked for
            "\n".join(
                [
                    f"input    {redacted(dataset.url)}: {len(dataset.files)} files, {about}{rows:,} rows",
                    f"units    {plan.num_units} of about {plan.settings['rows_per_unit']} rows: {first}",
                    f"output   {redacted(self.output)}: {self._state_of_output(plan)}",
                    *(f"{name:<8} {value}" for name, value in self.estimates(dataset, rows).items()),
                    f"settings {json.dumps(plan.settings, indent=2)}",
                ]
            )
        )

    def _state_of_output(self, plan: Plan) -> str:
        storage = Storage(self.output)
        old = Manifest.read_plan(storage)
        if old is None:
            return "REFUSED, since it has a data folder but no manifest" if storage.sizes("data") else "new"
        state = f"{sum(1 for _ in Manifest.records(storage))} of {old.num_units} units done"
        if old.fingerprint == plan.fingerprint:
            return state
        return "\n  ".join([f"{state}; REFUSED, since input or settings differ:", *old.differences(plan)])

    def estimates(self, dataset: Dataset, rows: int) -> dict[str, str]:  # noqa: ARG002 - for those that can tell
        """Return what else a dry run can tell."""
        return {}

    # Reporting

    @contextmanager
    def _reported(self, run: Run) -> Iterator[None]:
        """Write the report if the block fails."""
        try:
            yield
        except LeaseLostError:
            raise  # the output is another run's now
        except BaseException as error:
            self._write_report(run, "stopped" if may_pass(error) else "failed", str(error) or repr(error))
            raise

    def _write_report(self, run: Run, state: str, message: str | None) -> None:
        report = {
            "job": self.command,
            "state": state,
            "message": message and redacted(message),
            "input": redacted(self.input),
            "output": redacted(self.output),
            "settings": self.model_dump(mode="json", exclude={"input", "output", "dry_run"}),
            "model": self.describe_model(),
            **run.totals.report(self.cost_per_worker_hour),
        }
        report["units"]["total"] = run.manifest.plan.num_units
        report["bad_rows"]["folder"] = redacted(run.storage.locate("_quarantine"))
        run.storage.write("report.json", json.dumps(report, indent=1).encode())
        run.storage.write("report.html", render_html(report).encode())


def _expected_rows(dataset: Dataset, limit: int | None) -> int:
    return min(dataset.estimated_rows, limit or dataset.estimated_rows)
