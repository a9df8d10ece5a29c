from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.declaration.units import parse_bit_rate, parse_duration, parse_size
from catalog.errors import CatalogError, UnitError


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
