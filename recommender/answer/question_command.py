"""A question as a command line: the words that ask it again, and those that measure for it where its evidence is."""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal

from catalog.errors import UnitError
from catalog.evidence.strategy_evidence import EnvironmentEvidence
from catalog.units import parse_duration, parse_percentile, parse_share, parse_size
from recommender.errors import FILL_COMMAND
from recommender.schemas import RecommendRequest

# The option of each field of a question; `version` and `detail` say how much is sent, which is a matter of HTTP.
FLAGS: Mapping[str, str] = {
    "max_latency_s": "--max-latency",
    "latency_percentile": "--percentile",
    "min_accuracy_pct": "--min-accuracy",
    "max_accuracy_drop_pp": "--max-drop",
    "slo": "--slo",
    "objective": "--objective",
    "confidence": "--confidence",
    "cost_of_breaking": "--cost-of-breaking",
    "equivalent_within": "--equivalent-within",
    "allow_tiers": "--allow-tier",
    "forbid_tiers": "--forbid-tier",
    "allow_operators": "--allow-operator",
    "forbid_operators": "--forbid-operator",
    "max_memory_bytes": "--max-memory",
    "max_model_bytes": "--max-model",
    "keep_raw_input_on": "--keep-raw-input-on",
    "max_sent_bytes": "--max-sent",
    "links": "--link",
    "environment": "--environment",
    "host": "--host",
    "scale": "--scale",
    "launcher": "--launcher",
}


def fill_command(environment: EnvironmentEvidence, *more: str) -> str:
    """Return `runner fill-catalog` with more options, and with those that make it measure in this environment."""
    return shlex.join([*FILL_COMMAND.split(), *more, *conditions_of(environment)])


def conditions_of(environment: EnvironmentEvidence, *, launcher: bool = True, scale: bool = True) -> list[str]:
    """Return the options, or one of the two, without which a fill would measure in another environment."""
    # With `auto` a Docker engine would be taken where one answers.
    words = ["--launcher", environment.launcher] if launcher and environment.launcher == "process" else []
    return [*words, *(["--scale", environment.scale] if scale and environment.scale != "1" else [])]


def recommend_command(request: RecommendRequest, *more: str) -> str | None:
    """Return `runner recommend` with the options that ask this question, followed by more options.

    None where no command line says exactly the same: a number of more digits than an option takes, or a name that holds
    what separates names.

    Examples
    --------
    >>> question = RecommendRequest(subject="net", max_latency_s=0.05, max_memory_bytes={"edge": 2**28})
    >>> recommend_command(question, "--measure", "2m")
    'runner recommend net --max-latency 50ms --max-memory edge=256m --measure 2m'
    """
    words = ["runner", "recommend", request.subject]
    try:
        for field, flag in FLAGS.items():
            value = getattr(request, field)
            if value is not None and value != RecommendRequest.model_fields[field].default:
                for text in _texts(field, value):
                    words += [flag, text]
    except _Inexpressible:
        return None
    # A subject may be named like an option.
    return None if request.subject.startswith("-") else shlex.join([*words, *more])


class _Inexpressible(Exception):
    """A value for which no option has a spelling."""


def _texts(field: str, value: object) -> Iterator[str]:
    """Yield the texts of a field: one, or one for each name in it."""
    if isinstance(value, Mapping):
        for name, amount in value.items():
            _refuse("=", name)
            yield f"{name}={amount if isinstance(amount, str) else size_option(amount)}"
    elif isinstance(value, list):
        for name in value:
            _refuse(",", name)
            if name != name.strip():
                raise _Inexpressible
            yield name
    elif isinstance(value, str):
        # The beginning of a hash names an environment as well as the whole key does, and fits into a line. Imported
        # keys stay whole: those of one origin begin alike.
        yield value[:12] if field == "environment" and re.fullmatch(r"[0-9a-f]{64}", value) else value
    elif isinstance(value, float):
        yield _NUMBERS.get(field, repr)(value)


def _refuse(separator: str, name: str) -> None:
    if separator in name:
        raise _Inexpressible


def duration_option(value_s: float) -> str:
    """Return a duration as an option takes it, in the unit in which it is shortest to read."""
    unit, factor = ("s", 1) if value_s >= 1 else ("ms", 1000) if value_s >= 0.001 else ("us", 10**6)
    return _exact(value_s, factor, unit, parse_duration)


def size_option(value: float) -> str:
    """Return a number of bytes as an option takes it, in the largest unit that divides it."""
    unit, factor = next((pair for pair in _SIZES if not value % pair[1]), _SIZES[-1])
    return _exact(value, Decimal(1) / factor, unit, parse_size)


_SIZES = (("g", 2**30), ("m", 2**20), ("k", 2**10))


def _exact(value: float, factor: int | Decimal, unit: str, parse: Callable[[str], float]) -> str:
    """Return a text that `parse` reads as exactly this value; raises `_Inexpressible` where there is none."""
    # Shortest digits of the float, not its binary expansion.
    digits = f"{Decimal(repr(value)) * factor:f}"
    text = f"{digits.rstrip('0').rstrip('.') if '.' in digits else digits}{unit}"
    try:
        if parse(text) == value:
            return text
    except UnitError as error:
        raise _Inexpressible from error
    raise _Inexpressible


_NUMBERS: Mapping[str, Callable[[float], str]] = {
    "max_latency_s": duration_option,
    "latency_percentile": lambda value: _exact(value, 1, "", parse_percentile),
    "equivalent_within": lambda value: _exact(value, 100, "%", parse_share),
    "max_sent_bytes": size_option,
    "min_accuracy_pct": lambda value: _exact(value, 1, "", float),
    "max_accuracy_drop_pp": lambda value: _exact(value, 1, "", float),
}
