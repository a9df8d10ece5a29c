"""The words for constraints that are broken and for changes that would help."""

from collections.abc import Sequence

from recommender.answer.wording import duration, percentile_name, strategy_name
from recommender.ranking import Breach, Change, Relaxation

_MIB = 1024 * 1024


def size(count: float) -> str:
    """`62.1 MiB`, `12.3 KiB`, `512 bytes`."""
    if count >= _MIB:
        return f"{count / _MIB:.4g} MiB"
    return f"{count / 1024:.4g} KiB" if count >= 1024 else f"{count:.4g} bytes"


def breach_words(breach: Breach) -> str:
    """Why one constraint excludes a strategy."""
    name = breach.name
    match breach.constraint:
        case "allow_tiers":
            return f"it computes on {name}, which allow_tiers does not name"
        case "forbid_tiers":
            return f"it computes on {name}, which forbid_tiers names"
        case "allow_operators":
            return f"allow_operators does not name {name}"
        case "forbid_operators":
            return f"forbid_operators names {name}"
        case "keep_raw_input_on":
            return f"its first part computes on {name}, so the raw input would leave the tier it must stay on"
    what = {
        "max_memory_bytes": f"its peak memory on {name}",
        "max_model_bytes": f"the size of its model files on {name}",
        "max_sent_bytes": "what it sends per inference",
    }[breach.constraint]
    limit = size(breach.limit or 0)
    if breach.got is None:
        return f"{what} is not known, and a limit of {limit} is set"
    return f"{what}, {size(breach.got)}, is over the limit of {limit}"


def reasons(breaches: Sequence[Breach]) -> str:
    """All of them in one phrase."""
    return "; ".join(breach_words(each) for each in breaches)


def relaxation_words(relaxation: Relaxation) -> str:
    """`max_latency_s (p90) from 5 ms to 21.3 ms gives quantized on edge`."""
    it = relaxation.change
    name = strategy_name(relaxation.gives.candidate)
    if it.after is None:
        return f"without {_field(it)} (asked: {_value(it, it.before)}) it is {name}"
    return f"{_field(it)} from {_value(it, it.before)} to {_value(it, it.after)} gives {name}"


def _field(it: Change) -> str:
    where = it.key or (percentile_name(it.percentile) if it.percentile is not None else None)
    return f"{it.field} ({where})" if where else it.field


def _value(it: Change, value: float | str | tuple[str, ...] | None) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(value)}]"
    if value is None or isinstance(value, str):
        return str(value)
    if it.field.endswith("_bytes"):
        return f"{value:.0f} bytes"
    if it.field == "max_latency_s":
        return duration(value)
    return f"{value:g} {'pp' if it.field == 'max_accuracy_drop_pp' else '%'}"
