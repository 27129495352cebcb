"""The command that proves an output whole."""

import argparse
import logging
import sys
import time
from typing import ClassVar

from pydantic import Field

from jobs.job import EXIT_OK, Job
from jobs.unit_job import Location, check_protocol
from sbert_ray.data.storage import redacted
from sbert_ray.data.verify import Verdict, verify

logger = logging.getLogger(__name__)

EXIT_PROBLEMS = 1
LOG_SECONDS = 5.0
MAX_SHOWN = 100


class VerifyJob(Job):
    """Prove that an output is whole: each input row exactly once, checksums and schema as they were written.

    Exit code 0 says that all of it holds, 1 that something does not, with a line for each.
    """

    command: ClassVar[str] = "verify"

    output: Location = Field(description="folder of a job's output")
    input: Location | None = Field(default=None, description="where its input is now; none: where it was")

    @classmethod
    def parser(cls) -> argparse.ArgumentParser:
        """Return the parser, which takes the output without a flag too."""
        parser = super().parser()
        parser.add_argument("output", nargs="?", metavar="OUTPUT", help="the same as --output")
        return parser

    def run(self) -> int:
        """Check everything and print what was found."""
        for url in filter(None, (self.output, self.input)):
            check_protocol(url)
        shown = time.monotonic()
        for verdict in verify(self.output, self.input):
            if time.monotonic() - shown > LOG_SECONDS:
                shown = time.monotonic()
                logger.info("%d of %d units checked", verdict.units, verdict.num_units)
        _print(verdict, redacted(self.output))
        return EXIT_PROBLEMS if verdict.problems else EXIT_OK


def _print(verdict: Verdict, output: str) -> None:
    lines = [f"note: {note}" for note in verdict.notes] + [f"problem: {text}" for text in verdict.problems[:MAX_SHOWN]]
    if len(verdict.problems) > MAX_SHOWN:
        lines.append(f"and {len(verdict.problems) - MAX_SHOWN} problems more")
    if verdict.problems:
        lines.append(f"{output} is NOT whole: {len(verdict.problems)} problem(s)")
    else:
        quarantined = f", {verdict.bad_rows} more in quarantine" if verdict.bad_rows else ""
        lines.append(f"{output} is whole: {verdict.rows} rows in {verdict.units} units, each once{quarantined}")
    sys.stdout.write("\n".join([*lines, ""]))


if __name__ == "__main__":
    VerifyJob.main()
