"""Numbers as people read them."""

import pytest

from runner.reports.units import duration, points, rate, size


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.00321, "3.2 ms"), (0.09949, "99.5 ms"), (0.1, "100 ms"), (1.456, "1.46 s"), (754, "12 min 34 s"), (None, "–")],
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


def test_sizes_are_binary() -> None:
    assert [size(n) for n in (812, 65_638, 2 * 1024 * 1024)] == ["812 B", "64 KiB", "2.00 MiB"]


def test_rates_are_decimal() -> None:
    assert [rate(n) for n in (9.98e6, 950e3)] == ["9.98 Mbit/s", "950 kbit/s"]


def test_a_gain_has_a_sign() -> None:
    assert [points(value) for value in (1.25, -0.5, 0.0, None)] == ["+1.25", "-0.50", "0.00", "–"]
