"""How many threads the libraries of a worker's process use: as many as it was given CPUs."""

import os
from contextlib import suppress

COUNTS = (
    "OMP_NUM_THREADS",  # torch, oneDNN, and pyarrow's threads for computing
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",  # numpy
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "RAYON_NUM_THREADS",  # tokenizers
    "ARROW_IO_THREADS",
)
"""Variables of the environment that libraries read when they are loaded or first used."""


def set_threads(num_threads: int) -> None:
    """Make libraries that are loaded from now on, in this process and those it starts, use ``num_threads`` threads."""
    os.environ |= dict.fromkeys(COUNTS, str(num_threads))
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if num_threads > 1 else "false"


def limit_torch(num_threads: int) -> None:
    """Make torch and the tokenizers, which may be loaded already, use ``num_threads`` threads."""
    from sbert_ray.inference.threads import limit_threads

    limit_threads(num_threads)
    import torch

    with suppress(RuntimeError):  # the first one to set it in a process has decided
        torch.set_num_interop_threads(num_threads)
