"""A child process of the benchmarks with a model that counts letters; see test_sides.py."""

import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.child import Groups, Job, Shapes, serve


class Toy:
    """Embeds a text as its length and 1, in batches that are padded to the longest."""

    def __init__(self, job: Job, factor: float = 1.0) -> None:
        self._factor = factor
        self._batches: Groups = []
        os.write(1, f"loading {job.model}\n".encode())  # which must not get between the replies

    def run(self, groups: Groups, batch_size: int | None) -> list[Any]:
        if any("fail" in text for group in groups for text in group):
            raise ValueError("a text is bad")
        if any("die" in text for group in groups for text in group):
            sys.stderr.write("these are the last words\n")
            sys.stderr.flush()
            os._exit(3)
        size = batch_size or 2
        self._batches = [group[start : start + size] for group in groups for start in range(0, len(group), size)]
        return [np.array([[self._factor * len(text), 1] for text in group], np.float32) for group in groups]

    def shapes(self) -> Shapes:
        lengths = [[len(text) for text in batch] for batch in self._batches]
        return Shapes([n for batch in lengths for n in batch], sum(len(batch) * max(batch) for batch in lengths))

    def array(self, outputs: list[Any]) -> NDArray[np.float32]:
        return np.concatenate(outputs)


if __name__ == "__main__":
    serve({"toy": Toy})
