import math
import re
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import CatalogError, UnitError
from catalog.units import (
    duration,
    duration_range,
    parse_bit_rate,
    parse_duration,
    parse_percentile,
    parse_size,
    parse_wait,
    points,
    rate,
    refuse_share,
    size,
)

PACKAGES = ("catalog", "recommender", "runner", "tierserver")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200mbit", 200_000_000),
        ("10mbit", 10_000_000),
        ("1gbit", 10**9),
        ("1.5mbit", 1_500_000),
        ("200 Mbit/s", 200_000_000),
        ("800bit", 800),
        (" 64kbit ", 64_000),
    ],
)
def test_bit_rates_are_powers_of_ten(text: str, expected: int) -> None:
    assert parse_bit_rate(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("512m", 2**29), ("4g", 2**32), ("0.5g", 2**29), ("64KiB", 2**16)])
def test_sizes_are_powers_of_1024(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("250ms", 0.25), ("100ms", 0.1), ("1s", 1.0), ("2min", 120.0), ("10us", 1e-5), ("0ms", 0.0)]
)
def test_durations_are_seconds(text: str, expected: float) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("10m", 600.0), ("10min", 600.0), ("90s", 90.0), ("2h", 7200.0), ("0.5 m", 30.0)]
)
def test_waits_are_seconds(text: str, expected: float) -> None:
    assert parse_wait(text) == expected


@pytest.mark.parametrize("value", ["0s", "0m", "-1m", "10", "10d", "9999h", "", 10])
def test_a_wait_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(UnitError, match="90s, 10m or 2h"):
        parse_wait(value)


def test_a_latency_has_no_unit_that_reads_as_minutes() -> None:
    with pytest.raises(UnitError, match="unknown unit 'm'"):
        parse_duration("100m")


def test_every_float_can_be_written_exactly() -> None:
    assert parse_duration("12.345678901234568ms") == 0.012345678901234568


@pytest.mark.parametrize(
    "value", ["", "mbit", "-1mbit", "1e3mbit", "1 m bit", "0mbit", "0.1bit", "99999gbit", None, []]
)
def test_bad_bit_rates_name_the_accepted_spellings(value: object) -> None:
    with pytest.raises(UnitError, match="200mbit or 1gbit"):
        parse_bit_rate(value)


@pytest.mark.parametrize("value", ["200mbps", "25MB", "1tbit"])
def test_unknown_units_list_the_known_ones(value: str) -> None:
    with pytest.raises(UnitError, match="known: bit, kbit, mbit, gbit"):
        parse_bit_rate(value)


@pytest.mark.parametrize("parse", [parse_bit_rate, parse_size, parse_duration])
@pytest.mark.parametrize("value", [100, 1.5])
def test_bare_numbers_have_no_unit(parse: object, value: float) -> None:
    with pytest.raises(UnitError, match="has no unit"):
        parse(value)  # type: ignore[operator]


@pytest.mark.parametrize("value", ["512mb", "1.0000001k", "2000t", "0m"])
def test_bad_sizes_are_refused(value: str) -> None:
    with pytest.raises(UnitError, match="512m"):
        parse_size(value)


@given(st.integers(1, 10**9), st.sampled_from([("bit", 1), ("kbit", 10**3), ("mbit", 10**6), ("gbit", 10**9)]))
def test_bit_rates_parse_exactly_or_are_refused_as_too_large(number: int, unit: tuple[str, int]) -> None:
    if number * unit[1] <= 10**13:
        assert parse_bit_rate(f"{number}{unit[0]}") == number * unit[1]
    else:
        with pytest.raises(UnitError):
            parse_bit_rate(f"{number}{unit[0]}")


@given(st.decimals(0, 999, places=3), st.sampled_from([("us", 10**6), ("ms", 1000), ("s", 1)]))
def test_durations_are_the_nearest_float(number: object, unit: tuple[str, int]) -> None:
    assert parse_duration(f"{number}{unit[0]}") == float(Fraction(str(number)) / unit[1])


@given(st.text())
def test_any_text_parses_or_raises_our_error(text: str) -> None:
    for parse in (parse_bit_rate, parse_size, parse_duration):
        try:
            parse(text)
        except CatalogError as error:
            assert str(error)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.000103, "0.103 ms"),
        (0.00321, "3.21 ms"),
        (0.04, "40 ms"),
        (0.1, "100 ms"),
        (0.99949, "999 ms"),
        (0.9996, "1 s"),
        (1.456, "1.46 s"),
        (59.996, "1 min 00 s"),
        (754, "12 min 34 s"),
        (-0.0123, "-12.3 ms"),
        (1e300, "1e+300 s"),
        (math.inf, "inf s"),
        (math.nan, "nan s"),
        (None, "–"),
    ],
)
def test_durations_have_a_unit_that_fits(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


def test_a_range_has_its_unit_once() -> None:
    assert duration_range(0.0102, 0.0167) == "10.2–16.7 ms"
    assert duration_range(0.98, 1.2) == "980 ms – 1.20 s"
    assert duration_range(61, 122) == "1 min 01 s – 2 min 02 s"


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (812, "812 B"),
        (65_638, "64.1 KiB"),
        (65_536, "64 KiB"),
        (1_048_570, "1 MiB"),
        (1_073_741_000, "1 GiB"),
        (1_992_294, "1.90 MiB"),
        (512 * 2**20, "512 MiB"),
        (4 * 2**30, "4 GiB"),
        (8_339_886_899, "7.77 GiB"),
        (None, "–"),
    ],
)
def test_sizes_print_in_powers_of_1024(count: int | None, shown: str) -> None:
    assert size(count) == shown


@given(st.integers(1, 1023), st.sampled_from(["KiB", "MiB", "GiB"]))
def test_a_whole_size_prints_as_it_was_written(number: int, unit: str) -> None:
    assert size(parse_size(f"{number}{unit}")) == f"{number} {unit}"


def test_rates_print_in_powers_of_ten() -> None:
    shown = [rate(bit_per_s) for bit_per_s in (800, 950e3, 9.98e6, 999.6e6, 1e9)]
    assert shown == ["800 bit/s", "950 kbit/s", "9.98 Mbit/s", "1 Gbit/s", "1 Gbit/s"]


def test_a_gain_has_a_sign() -> None:
    assert [points(value) for value in (1.25, -0.5, 0.0, -0.001, 0.001, None)] == [
        "+1.25",
        "-0.50",
        "0.00",
        "0.00",
        "0.00",
        "–",
    ]


# A unit right after a formatted figure, and why it does not come from `catalog.units`.
_BY_HAND = {
    "catalog/validity/findings.py": "stored with the verdict",
    "catalog/validity/rules.py": "stored with the verdict",
    "runner/operators/quantizers/preparation.py": "stored as the reason of an inapplicable operator",
    "runner/graph/model_file.py": "a constant",
    "runner/reports/html/markup.py": "ticks of an axis, which are round",
    "tierserver/limits.py": "ships into a tier alone",
    "tierserver/serve.py": "ships into a tier alone",
    "tierserver/file_cache.py": "ships into a tier alone",
    "runner/launchers/shaping.py": "an argument of tc",
    "catalog/evidence/database.py": "an argument of PostgreSQL",
    "runner/errors.py": "read by `runner --help`, which imports next to nothing",
    "runner/demo.py": "an argument of a command",
}


def test_durations_sizes_and_rates_are_printed_in_one_place() -> None:
    """Two homes of one format once printed the same figure in two ways on one screen."""
    root = Path(__file__).parents[2]
    modules = [module for package in PACKAGES for module in (root / package).rglob("*.py")]
    by_hand = {
        module.relative_to(root).as_posix()
        for module in modules
        if re.search(r"[}] ?(ms|[KMG]iB|[kMG]bit/s)\b", module.read_text(encoding="utf-8"))
    }
    assert by_hand - {"catalog/units.py"} == _BY_HAND.keys()
    defined = {
        (module.relative_to(root).as_posix(), name)
        for module in modules
        for name in re.findall(r"^def (duration|size|rate|percent|points)\(", module.read_text(encoding="utf-8"), re.M)
    }
    assert {place for place, _ in defined} == {"catalog/units.py"}


def test_p_values_and_ranks_are_printed_in_one_place() -> None:
    """The terminal's p-values and the report's had a format each."""
    root = Path(__file__).parents[2]
    homes = {
        (module.relative_to(root).as_posix(), name)
        for package in PACKAGES
        for module in (root / package).rglob("*.py")
        for name in re.findall(r"^def (pvalue|ranks?|rank_range)\(", module.read_text(encoding="utf-8"), re.M)
    }
    command = ("runner/commands/rank.py", "rank")
    assert homes - {command} == {("catalog/units.py", "pvalue"), ("catalog/statistics/comparison.py", "rank_range")}


@pytest.mark.parametrize(
    ("text", "percentile"),
    [
        ("90", 90.0),
        ("p90", 90.0),
        ("P90", 90.0),
        ("0.9", 90.0),
        ("0.999", 99.9),
        ("p99.9", 99.9),
        ("1", 1.0),
        (90.0, 90.0),
    ],
)
def test_a_percentile_has_one_meaning_however_it_is_written(text: object, percentile: float) -> None:
    assert parse_percentile(text) == percentile


@pytest.mark.parametrize("text", ["100", "0", "0.001", "p0.5", "90 %", "p", "-5", "1e2", ""])
def test_what_is_no_percentile_is_refused_with_the_spellings(text: str) -> None:
    with pytest.raises(UnitError, match="write a percentile such as 90, p90 or"):
        parse_percentile(text)


def test_a_share_that_stands_for_no_percentile_is_not_told_to_be_written_so() -> None:
    with pytest.raises(ValueError, match=r"^a percentile is from 1 to below 100, such as 90 for p90$"):
        refuse_share(1e-300)


def test_a_share_where_percentiles_are_numbers_is_refused_with_what_to_write() -> None:
    with pytest.raises(ValueError, match="write 90 for p90"):
        refuse_share(0.9)
    with pytest.raises(ValueError, match=r"write 99\.9 for p99\.9"):
        refuse_share("0.999")
    assert (refuse_share(90), refuse_share("all"), refuse_share(1)) == (90, "all", 1)
