"""Quantities with units: as people write them (`200mbit`, `512m`, `250ms`), and as people read them.

Code, database and API hold SI base units. Declarations are parsed once; figures are scaled only when they are printed,
here for the terminal, the report and the answers alike (`recommender/page/words.js` repeats the rules for the page).

A setting, the single values at which something was measured of what a catalog lists several values of, is printed so.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from catalog.errors import UnitError

# As many decimals as a float in another unit has, so that every figure of an answer can be written exactly.
_NUMBER = re.compile(r"(?P<number>\d{1,15}(?:\.\d{1,20})?)\s?(?P<unit>[a-z]+|%)(?P<per_second>/s)?", re.IGNORECASE)

_PERCENTILE = re.compile(r"(?P<p>p?)(?P<number>\d{1,3}(?:\.\d{1,9})?)", re.IGNORECASE)

_BIT_RATES = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_SIZES = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_DURATIONS = {"us": Fraction(1, 10**6), "ms": Fraction(1, 1000), "s": Fraction(1), "min": Fraction(60)}
# Not for a latency: `100m` would be taken for milliseconds by the writer and for minutes by the reader.
_WAITS = {**_DURATIONS, "m": Fraction(60), "h": Fraction(3600)}

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


def parse_wait(text: object) -> float:
    """Read how long something may take.

    Parameters
    ----------
    text : str
        A number and `s`, `m` or `min`, or `h`.

    Returns
    -------
    float
        Seconds, more than zero.

    Raises
    ------
    UnitError
        Naming the accepted spellings.

    Examples
    --------
    >>> parse_wait("10m"), parse_wait("1.5h")
    (600.0, 5400.0)
    """
    allowed = "a time such as 90s, 10m or 2h"
    value = _parse(text, _WAITS, allowed)
    if not 0 < value <= _MAX_S:
        raise UnitError(f"{text!r} is not more than zero and up to {_MAX_S}s; write {allowed}")
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


def parse_percentile(text: object) -> float:
    """Read a percentile.

    Parameters
    ----------
    text : str
        `90`, `p90` or `P99.9`; or a share below 1, such as `0.9`.

    Returns
    -------
    float
        90.0 for each of the first and the last; from 1 to below 100.

    Raises
    ------
    UnitError
        Naming the accepted spellings.

    Examples
    --------
    >>> parse_percentile("90"), parse_percentile("p99.9"), parse_percentile("0.9")
    (90.0, 99.9, 90.0)
    """
    allowed = "a percentile such as 90, p90 or 0.9"
    match = _PERCENTILE.fullmatch(str(text).strip())
    if match is None:
        raise UnitError(f"{text!r} does not parse; write {allowed}")
    value = Fraction(match["number"])
    # Nobody asks for less than the first percentile of a latency, and many write p90 as 0.9.
    if value < 1 and not match["p"]:
        value *= 100
    if not 1 <= value < 100:
        raise UnitError(f"{text!r} is not from 1 to below 100; write {allowed}")
    return float(value)


def refuse_share(value: object) -> object:
    """Refuse a percentile below 1 where percentiles are numbers: 0.9 is meant as p90 and would be nearly the minimum.

    Examples
    --------
    >>> refuse_share(90), refuse_share(0)
    (90, 0)
    """
    try:
        number = float(str(value))
    except ValueError:
        return value
    if 0 < number < 1 and not isinstance(value, bool):
        hint = f": write {100 * number:g} for p{100 * number:g}" if 1 <= 100 * number < 100 else ", such as 90 for p90"
        raise ValueError(f"a percentile is from 1 to below 100{hint}")
    return value


def _parse(text: object, units: Mapping[str, int | Fraction], allowed: str, *, per_second: bool = False) -> Fraction:
    # YAML reads `memory: 512` as a number; to guess a unit may be wrong by a factor of 2^20.
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
    # Exact, so that a size or rate that is not whole is refused instead of rounded.
    return Fraction(match["number"]) * units[unit]


def counted_range(numbers: Iterable[int], noun: str) -> str:
    """Return how many there are of something in several places: `3 rounds`, or `1 to 8 rounds`.

    Examples
    --------
    >>> counted_range([3, 3], "round"), counted_range([8, 1, 5], "round"), counted_range([1], "round")
    ('3 rounds', '1 to 8 rounds', '1 round')
    """
    listed = list(numbers)
    fewest, most = min(listed), max(listed)
    return counted(most, noun) if fewest == most else f"{fewest} to {counted(most, noun)}"


def counted(count: int, noun: str) -> str:
    """Format a count with its noun, in the plural unless it is one.

    Examples
    --------
    >>> counted(1, "round"), counted(0, "round"), counted(3, "accuracy"), counted(2, "day")
    ('1 round', '0 rounds', '3 accuracies', '2 days')
    """
    plural = f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2] not in "aeiou" else f"{noun}s"
    return f"{count} {noun if count == 1 else plural}"


def duration(seconds: float | None) -> str:
    """Format seconds with a unit that fits, a dash for None.

    Examples
    --------
    >>> duration(0.00321), duration(0.0412), duration(1.456), duration(10), duration(754)
    ('3.21 ms', '41.2 ms', '1.46 s', '10 s', '12 min 34 s')
    """
    if seconds is None:
        return "–"
    if seconds < 0:
        return f"-{duration(-seconds)}"
    # Each limit is where the figure would round up to the next unit: 0.9996 s is 1 s, never 1e+03 ms.
    if seconds < 0.9995:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 59.995:
        # Budgets are mostly whole seconds and read best as they were written.
        return f"{f'{seconds:.2f}'.removesuffix('.00')} s"
    # A bound of two rounds that disagree may be 1e300 s or infinite: no number of minutes to read.
    if not seconds < _MAX_S:
        return f"{seconds:.3g} s"
    # Rounded first: 119.6 s are 2 min 00 s, never 1 min 60 s.
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def limit_duration(seconds: float) -> str:
    """Format a limit that somebody set, with all its figures up to the sixth.

    Examples
    --------
    >>> limit_duration(0.01397), limit_duration(0.1), limit_duration(1.5), limit_duration(90)
    ('13.97 ms', '100 ms', '1.5 s', '1 min 30 s')
    """
    return _with_figures(seconds, 6) if 0 < seconds < 59.995 else duration(seconds)


def duration_beside(seconds: float, limit_s: float) -> str:
    """Format a duration that is read beside a limit: with as many figures as it takes to tell them apart.

    Examples
    --------
    >>> duration_beside(0.01302, 0.013), duration_beside(0.014, 0.013), duration_beside(10.004, 10)
    ('13.02 ms', '14 ms', '10.004 s')
    """
    shown = duration(seconds)
    if seconds == limit_s or not 0 < seconds < 59.995:
        return shown
    figures = next((figures for figures in range(3, 10) if not _alike(seconds, limit_s, figures)), 3)
    return shown if figures == 3 else _with_figures(seconds, figures)


def _alike(seconds: float, other_s: float, figures: int) -> bool:
    return _with_figures(seconds, figures) == _with_figures(other_s, figures)


def _with_figures(seconds: float, figures: int) -> str:
    return f"{1e3 * seconds:.{figures}g} ms" if seconds < 0.9995 else f"{seconds:.{figures}g} s"


def waiting(seconds: float) -> str:
    """Format an estimate of how long something takes: no finer than a person plans by.

    Examples
    --------
    >>> waiting(0.2), waiting(13.16), waiting(89.4), waiting(729), waiting(7500)
    ('1 s', '13 s', '89 s', '12 min', '2 h 5 min')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def waiting_range(least_s: float, most_s: float) -> str:
    """Format a range of how long something takes, with the unit once where it is the same.

    Examples
    --------
    >>> waiting_range(180, 420), waiting_range(40, 70), waiting_range(50, 200), waiting_range(60.2, 60.4)
    ('3–7 min', '40–70 s', '50 s – 3 min', '60 s')
    """
    least, most = waiting(least_s), waiting(most_s)
    if least == most:
        return most
    same_unit = least.split()[1:] == most.split()[1:] and least.count(" ") == 1
    return f"{least.split()[0]}–{most}" if same_unit else f"{least} – {most}"


def duration_range(low_s: float, high_s: float) -> str:
    """Format two durations, with the unit once where it is the same.

    Examples
    --------
    >>> duration_range(0.0041, 0.0043), duration_range(0.98, 1.2)
    ('4.1–4.3 ms', '980 ms – 1.20 s')
    """
    low, high = duration(low_s), duration(high_s)
    # Minutes are written with two units, which two figures cannot share.
    same_unit = low.split()[1:] == high.split()[1:] and low.count(" ") == 1
    return f"{low.split()[0]}–{high}" if same_unit else f"{low} – {high}"


def size(count: float | None) -> str:
    """Format bytes in powers of 1024 (the paper's MB are MiB), a dash for None.

    Examples
    --------
    >>> size(812), size(65_638), size(1_992_294), size(4 * 2**30)
    ('812 B', '64.1 KiB', '1.90 MiB', '4 GiB')
    """
    if count is None:
        return "–"
    for unit, factor, digits in (("GiB", 2**30, 2), ("MiB", 2**20, 2), ("KiB", 2**10, 1)):
        if count >= factor - factor / 2048:  # what three figures would round up to it
            # Limits are mostly whole and read best as they were written; what is measured hardly ever is.
            return f"{f'{count / factor:.{digits}f}'.removesuffix('.' + digits * '0')} {unit}"
    return f"{count:.0f} B"


def rate(bit_per_s: float | None) -> str:
    """Format a bandwidth in powers of ten, a dash for None.

    Examples
    --------
    >>> rate(9.98e6), rate(950e3), rate(1e9)
    ('9.98 Mbit/s', '950 kbit/s', '1 Gbit/s')
    """
    if bit_per_s is None:
        return "–"
    for unit, factor in (("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3)):
        if bit_per_s >= factor * 0.9995:  # what three figures would round up to it
            return f"{bit_per_s / factor:.3g} {unit}"
    return f"{bit_per_s:.0f} bit/s"


def percent(value: float | None) -> str:
    """Format a percentage, a dash for None."""
    return "–" if value is None else f"{value:.2f} %"


def points(value: float | None) -> str:
    """Format a drop in percentage points: a gain has a minus sign; a dash for None."""
    if value is None:
        return "–"
    shown = f"{value:+.2f}"
    return shown if float(shown) else "0.00"


def pvalue(value: float) -> str:
    """Return `0.031`, `3.2e-08`, `< 1e-300`; never zero."""
    if value < 1e-300:  # near the least float, a zero would claim certainty
        return "< 1e-300"
    return f"{value:.2g}" if value >= 0.001 else f"{value:.1e}"


@dataclass(frozen=True)
class Setting:
    """Single values of what is swept, by a name such as `bandwidth of edge-cloud`."""

    values: Mapping[str, float]

    def __str__(self) -> str:
        """Return the setting in words, as answers and reports print it."""
        return ", ".join(f"{name} {_in_words(name, value)}" for name, value in self.values.items())


def setting_of(details: Mapping[str, Any]) -> Setting | None:
    """Return the setting that the details of an environment hold; another program may have changed them."""
    values = details.get("setting")
    if not isinstance(values, Mapping) or not values:
        return None
    sound = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values.values())
    return Setting(dict(values)) if sound else None


def _in_words(name: str, value: float) -> str:
    if name.startswith("bandwidth"):
        return rate(value)
    return size(value) if name.startswith("memory") else f"{value:g}"
