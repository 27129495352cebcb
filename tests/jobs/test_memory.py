"""The driver's memory does not grow with the corpus."""

import pytest

from benchmarks.driver_memory import peak_memory


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_drivers_memory_does_not_grow_with_the_corpus() -> None:
    small, units = peak_memory(10_000, rows_per_unit=500)
    assert units == 20
    large, units = peak_memory(1_000_000, rows_per_unit=500)
    assert units == 2000
    assert large < 1.1 * small  # 1.03 when it was measured
