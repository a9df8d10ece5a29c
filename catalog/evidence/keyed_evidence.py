"""Rows under one content key: what a single latency or accuracy rests on."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func
from sqlmodel import Session, select

from catalog.evidence.tables import Accuracy, Environment, LinkProbe, Measurement, Sample, Strategy, TierRun, column


@dataclass(frozen=True)
class LatencyExtent:
    """How many samples a measurement has, and the least, mean and most seconds of one; None without samples."""

    samples: int
    min_s: float | None
    mean_s: float | None
    max_s: float | None


def environment_key(session: Session, environment_id: int) -> str:
    """Return the key of an environment that is there."""
    return str(
        session.exec(select(column(Environment, "key")).where(column(Environment, "id") == environment_id)).one()
    )


def stored_strategy(session: Session, subject: str, operator: str, placement: str, environment: str) -> Strategy | None:
    """Return a strategy's row in the environment of that key, declared now or not."""
    query = (
        select(Strategy)
        .join(Environment, column(Environment, "id") == column(Strategy, "environment_id"))
        .where(column(Strategy, "subject") == subject, column(Strategy, "operator") == operator)
        .where(column(Strategy, "placement") == placement, column(Environment, "key") == environment)
    )
    # One at most: the four names are unique together.
    return session.exec(query).first()


def has_measurement(session: Session, latency_key: str) -> bool:
    """Tell whether anything was measured under a key, whatever its outcome."""
    return (
        session.exec(select(column(Measurement, "id")).where(column(Measurement, "latency_key") == latency_key)).first()
        is not None
    )


def has_accuracy(session: Session, accuracy_key: str) -> bool:
    """Tell whether an accuracy was attempted under a key, whatever its outcome."""
    return (
        session.exec(select(column(Accuracy, "id")).where(column(Accuracy, "key") == accuracy_key)).first() is not None
    )


def attempted_keys(session: Session) -> set[tuple[str, int]]:
    """Return the keys under which anything was attempted, each with the environment of an attempt."""
    keys: set[tuple[str, int]] = set()
    for table, name in ((Measurement, "latency_key"), (Accuracy, "key")):
        rows = session.execute(select(column(table, name), column(table, "environment_id")).distinct())
        keys |= {(key, environment_id) for key, environment_id in rows}
    return keys


def measurements_under(session: Session, latency_key: str) -> Sequence[Measurement]:
    """Return every attempt under a key, by round and in the order they were made."""
    query = select(Measurement).where(column(Measurement, "latency_key") == latency_key)
    return session.exec(query.order_by(column(Measurement, "round"), column(Measurement, "id"))).all()


def input_orders(session: Session, latency_key: str) -> tuple[tuple[str, ...], ...]:
    """Return each order of input ids that was sent under a key, once."""
    protocols = session.exec(
        select(column(Measurement, "protocol")).where(column(Measurement, "latency_key") == latency_key)
    ).all()
    # Imported rows have a protocol without input ids.
    return tuple(dict.fromkeys(tuple(protocol.get("input_ids", ())) for protocol in protocols))


def latency_extent(session: Session, measurement_id: int | None) -> LatencyExtent:
    """Return how many samples a measurement has and between what they lie."""
    latency = column(Sample, "latency_s")
    query = select(func.count(latency), func.min(latency), func.avg(latency), func.max(latency))
    return LatencyExtent(*session.exec(query.where(column(Sample, "measurement_id") == measurement_id)).one())


def tier_runs_of(session: Session, measurement_id: int | None) -> Sequence[TierRun]:
    """Return the tiers of a measurement."""
    return session.exec(select(TierRun).where(column(TierRun, "measurement_id") == measurement_id)).all()


def link_probes_of(session: Session, measurement_id: int | None) -> Sequence[LinkProbe]:
    """Return the link probes of a measurement."""
    return session.exec(select(LinkProbe).where(column(LinkProbe, "measurement_id") == measurement_id)).all()


def newest_accuracy(session: Session, accuracy_key: str) -> Accuracy | None:
    """Return the latest attempt under a key: an earlier one may have failed."""
    # By the number, because the clock may have been set back.
    return session.exec(
        select(Accuracy).where(column(Accuracy, "key") == accuracy_key).order_by(column(Accuracy, "id").desc())
    ).first()
