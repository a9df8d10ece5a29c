"""Sums of floats that have the same last digit on every database, and in every order of the rows.

SQLite adds floats with a compensation or without one, as its version goes; PostgreSQL adds them in the order in which
it meets the rows. So a value is split into two whole numbers, whose sums are exact.
"""

# Of a part below one: 12 digits below the first number, which has 6 or none after the point.
_FRACTION = "1e12"


def exact_sum(value: str, *, scale: str = "1e6") -> str:
    """Return SQL for the sum of a column of floats, NULL where all are; `queries.py` finishes it by `in_dialect`.

    Parameters
    ----------
    value : str
        An expression, in seconds by default.
    scale : str
        What it is multiplied by to have its first six to nine digits before the point: `1` for rates and bytes, whose
        sum would not fit.

    Returns
    -------
    str
        An expression that is right to 18 digits after the point in seconds, of up to nine million rows.
    """
    scaled = f"({value}) * {scale}"
    whole = f"CAST(TRUNC({scaled}) AS BIGINT)"
    rest = f"CAST(TRUNC(({scaled} - {whole}) * {_FRACTION}) AS BIGINT)"
    sums = f"CAST(SUM({whole}) AS DOUBLE PRECISION) + CAST(SUM({rest}) AS DOUBLE PRECISION) / {_FRACTION}"
    return f"(({sums}) / {scale})"


def exact_mean(value: str, *, scale: str = "1e6") -> str:
    """Return SQL for the mean of a column of floats, without those that are NULL; see `exact_sum`."""
    return f"({exact_sum(value, scale=scale)} / COUNT({value}))"


def in_dialect(query: str, dialect: str) -> str:
    """Return a query with what `exact_sum` left open: SQLite's cast cuts digits off, that of others rounds."""
    return query.replace("TRUNC(", "(") if dialect == "sqlite" else query
