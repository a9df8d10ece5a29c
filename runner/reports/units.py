"""Numbers as people read them; storage and API keep SI base units."""

_MIB = 1024 * 1024


def duration(seconds: float | None) -> str:
    """Return `3.2 ms`, `1.46 s`, `12 min`."""
    if seconds is None:
        return "–"
    if seconds < 0.0995:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def size(count: float | None) -> str:
    """Return bytes as `812 B`, `64 KiB`, `1.90 MiB` (the paper's MB are MiB)."""
    if count is None:
        return "–"
    if count < 1024:
        return f"{count:.0f} B"
    return f"{count / 1024:.0f} KiB" if count < _MIB else f"{count / _MIB:.2f} MiB"


def rate(bit_per_s: float | None) -> str:
    """Return `9.98 Mbit/s`, `950 kbit/s`."""
    if bit_per_s is None:
        return "–"
    return f"{bit_per_s / 1e6:.3g} Mbit/s" if bit_per_s >= 1e6 else f"{bit_per_s / 1e3:.3g} kbit/s"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} %"


def points(value: float | None) -> str:
    """Return a drop in percentage points; a gain has a minus sign."""
    return "–" if value is None else f"{value:+.2f}" if value else "0.00"
