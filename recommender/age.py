"""How old evidence is, in whole days, so that an answer stays true for the rest of its day."""

from datetime import UTC, date, datetime

from recommender.evidence.model import SubjectEvidence
from recommender.schemas import AgeOut


def today() -> date:
    """The day by which answers are dated, UTC."""
    return datetime.now(UTC).date()


def age_out(part: SubjectEvidence, on: date) -> AgeOut:
    """The span of the measurements and its distance from a day."""
    return AgeOut(
        oldest_at=part.first_measured_at,
        newest_at=part.last_measured_at,
        asked_on=on.isoformat(),
        words=_words(part, on),
    )


def _words(part: SubjectEvidence, on: date) -> str:
    if part.first_measured_at is None:
        return "nothing measured yet"
    oldest, newest = _days(part.first_measured_at, on), _days(part.last_measured_at, on)
    if oldest == newest:
        return f"measured {_ago(newest)}"
    return f"measured between {_ago(oldest)} and {_ago(newest)}"


def _days(moment: str, on: date) -> int:
    """Whole days, by UTC's calendar."""
    return (on - datetime.fromisoformat(moment).astimezone(UTC).date()).days


def _ago(days: int) -> str:
    if days == 0:
        return "today"
    if days < 0:
        return f"{-days} day{'s' if days < -1 else ''} in the future (a clock is wrong)"
    return f"{days} day{'s' if days > 1 else ''} ago"
