"""The embedding job with a worker that dies: `python -m tests.jobs.mortal` is a driver that can be killed too.

As long as there is a file ``marker``, the first worker to finish a batch removes it and takes its process down.
"""

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from actors.embedder import Embedder, EmbedderConfig
from actors.model_worker import Inputs
from actors.pool import PoolOptions
from actors.stages import Beat
from jobs.embed import EmbedJob
from jobs.unit_job import Location
from sbert_ray.data.dataset import RowReader
from tests.jobs.toy import die_as_told


class MortalEmbedder(Embedder):
    """Dies between two batches of a unit, once."""

    def __init__(self, reader: RowReader, output: str, config: EmbedderConfig, marker: Path) -> None:
        super().__init__(reader, output, config)
        self.marker = marker

    def compute(self, prepared: Inputs, beat: Beat) -> Any:
        def mortal_beat(num_rows: int) -> None:
            beat(num_rows)
            if num_rows < len(prepared) and self.marker.exists():
                self.marker.unlink()
                os.kill(os.getpid(), signal.SIGKILL)

        return super().compute(prepared, mortal_beat)


class MortalJob(EmbedJob):
    """Embed with workers that die."""

    command: ClassVar[str] = "mortal"

    marker: Location = Field(description="file that tells a worker to die")

    def worker(self, reader: RowReader, options: PoolOptions, facts: dict[str, Any]) -> Callable[[], Embedder]:
        build = super().worker(reader, options, facts)
        assert isinstance(build, partial)
        return partial(MortalEmbedder, *build.args, marker=Path(self.marker))


if __name__ == "__main__":
    if "DIE" in os.environ:
        die_as_told(os.environ["DIE"])
    MortalJob.main()
