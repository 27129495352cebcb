"""The name by which a class is imported, by the peer."""

from typing import Any

import numpy as np
import pytest

from sbert_ray.full_name import fullname
from sbert_ray.modules import Pooling


@pytest.mark.parametrize("obj", [3, "a", int, np.float32(1), np.ndarray, Pooling, Pooling(3), fullname, None])
def test_is_the_peers(obj: Any) -> None:
    assert fullname(obj) == pytest.importorskip("sentence_transformers.util").fullname(obj)


def test_a_class_of_ours_is_where_it_is_defined() -> None:
    assert fullname(Pooling(3)) == "sbert_ray.modules.pooling.Pooling"
