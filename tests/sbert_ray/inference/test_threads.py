"""Threads are limited for this process, here tried in another one."""

import subprocess
import sys

import pytest

from sbert_ray.inference.threads import limit_threads

SCRIPT = """
import os
from sbert_ray.inference.threads import limit_threads
limit_threads(1)
import torch
print(torch.get_num_threads(), os.environ["RAYON_NUM_THREADS"], os.environ["TOKENIZERS_PARALLELISM"])
"""


def test_limits_torch_and_the_tokenizers() -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["1", "1", "false"]


def test_rejects_no_threads() -> None:
    with pytest.raises(ValueError, match="num_threads must be positive, got 0"):
        limit_threads(0)
