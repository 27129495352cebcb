"""How many threads this process computes with."""

import os


def limit_threads(num_threads: int) -> None:
    """Use ``num_threads`` threads for torch's kernels and for the tokenizers' Rust core, in this process.

    Call it before the first text is tokenized: the Rust core keeps the pool of threads that it started with.

    Raises:
        ValueError: ``num_threads`` is not positive.
    """
    if num_threads < 1:
        raise ValueError(f"num_threads must be positive, got {num_threads}")
    os.environ["RAYON_NUM_THREADS"] = str(num_threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if num_threads > 1 else "false"

    import torch

    torch.set_num_threads(num_threads)
