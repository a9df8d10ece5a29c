"""Human spellings of quantities, parsed once into SI units: `200mbit`, `512m`, `250ms`."""

import re
from collections.abc import Mapping
from fractions import Fraction

from catalog.errors import UnitError

_NUMBER = re.compile(r"(?P<number>\d{1,15}(?:\.\d{1,9})?)\s?(?P<unit>[a-z]+|%)(?P<per_second>/s)?", re.IGNORECASE)

_BIT_RATES = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_SIZES = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_DURATIONS = {"us": Fraction(1, 10**6), "ms": Fraction(1, 1000), "s": Fraction(1), "min": Fraction(60)}

_MAX_BIT_PER_S = 10**13
_MAX_BYTES = 2**50
_MAX_S = 10**7


def parse_bit_rate(text: object) -> int:
    """Read a bandwidth.

    Parameters
    ----------
    text : str
        A number and `bit`, `kbit`, `mbit` or `gbit` (powers of ten, as `tc` has them), optionally with `/s`.

    Returns
    -------
    int
        Bits per second, at least 1.

    Raises
    ------
    UnitError
        Naming the accepted spellings.

    Examples
    --------
    >>> parse_bit_rate("200mbit")
    200000000
    """
    allowed = "a bandwidth such as 500kbit, 200mbit or 1gbit"
    value = _parse(text, _BIT_RATES, allowed, per_second=True)
    if value.denominator != 1 or not 1 <= value <= _MAX_BIT_PER_S:
        raise UnitError(f"{text!r} is not a whole number of bits per second up to 10000gbit; write {allowed}")
    return int(value)


def parse_size(text: object) -> int:
    """Read a memory size.

    Parameters
    ----------
    text : str
        A number and `k`, `m`, `g` or `t` (powers of 1024, as Docker has them), or `kib`, `mib`, `gib`, `tib`.

    Returns
    -------
    int
        Bytes, at least 1.

    Raises
    ------
    UnitError
        Naming the accepted spellings.

    Examples
    --------
    >>> parse_size("512m")
    536870912
    """
    allowed = "a size such as 512m (= 512 MiB) or 4g (= 4 GiB)"
    value = _parse(text, _SIZES, allowed)
    if value.denominator != 1 or not 1 <= value <= _MAX_BYTES:
        raise UnitError(f"{text!r} is not a whole number of bytes up to 1024t; write {allowed}")
    return int(value)


def parse_duration(text: object) -> float:
    """Read a duration.

    Parameters
    ----------
    text : str
        A number and `us`, `ms`, `s` or `min`.

    Returns
    -------
    float
        Seconds, zero or more.

    Raises
    ------
    UnitError
        Naming the accepted spellings.

    Examples
    --------
    >>> parse_duration("250ms")
    0.25
    """
    allowed = "a duration such as 100ms, 1s or 1.5min"
    value = _parse(text, _DURATIONS, allowed)
    if value > _MAX_S:
        raise UnitError(f"{text!r} is longer than {_MAX_S}s; write {allowed}")
    return float(value)


def parse_share(text: object) -> float:
    """Read a percentage.

    Parameters
    ----------
    text : str
        A number and `%`.

    Returns
    -------
    float
        1.0 for 100 %.

    Raises
    ------
    UnitError
        Naming the accepted spellings.

    Examples
    --------
    >>> parse_share("5%")
    0.05
    """
    return float(_parse(text, {"%": Fraction(1, 100)}, "a percentage such as 5%"))


def _parse(text: object, units: Mapping[str, int | Fraction], allowed: str, *, per_second: bool = False) -> Fraction:
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        raise UnitError(f"{text!r} has no unit; write {allowed}")
    if not isinstance(text, str):
        raise UnitError(f"expected {allowed}, got {text!r}")
    match = _NUMBER.fullmatch(text.strip())
    if match is None or (match["per_second"] and not per_second):
        raise UnitError(f"{text!r} does not parse; write {allowed}")
    unit = match["unit"].lower()
    if unit not in units:
        raise UnitError(f"unknown unit {match['unit']!r} in {text!r} (known: {', '.join(units)}); write {allowed}")
    return Fraction(match["number"]) * units[unit]
