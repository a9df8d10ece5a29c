"""The study of `benchmarks.study_rows` in a database: invented numbers of known truth, in which directions oppose."""

import numpy as np
from sqlmodel import Session

from benchmarks.study_rows import (
    ACCURACIES,
    MEDIANS_S,
    SIZES_MIB,
    SUBJECTS,
    TASKS,
    TIERS,
    WHOLE,
    factors,
    median_s,
)
from catalog.evidence.database import Database
from catalog.evidence.writing import record_accuracy, record_measurement, sync_strategies, upsert_artifact
from tests.evidence_builder import (
    EvidenceBuilder,
    accuracy_record,
    artifact_record,
    measurement_record,
    named_passes,
    sample_records,
    strategy_record,
)

PASSES = {
    "identity": (),
    "quantized": ("static_ptq",),
    "early_exit": ("early_exit",),
    "quantized_early_exit": ("static_ptq", "early_exit"),
    "partition": ("partition",),
    "quantized_early_exit_partition": ("static_ptq", "early_exit", "partition"),
}


def accuracies_pct(operator: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return all accuracies of an operator, in one order for all operators."""
    return np.array([values[WHOLE.index(operator)] for values in ACCURACIES.values()]).ravel()


def store_study(database: Database, *, rounds: int) -> int:
    """Write the whole study and return its environment."""
    environment = EvidenceBuilder(database).environment("e" * 64)
    with database.session() as session:
        declared = [
            strategy_record(
                environment, subject, *name.split("@"),
                passes=named_passes(*PASSES[name.split("@")[0]]),
                task=TASKS[subject],
                accuracy_key=accuracy_key(subject, name),
                rounds=rounds,
            )
            for subject in SUBJECTS
            for name in MEDIANS_S
        ]  # fmt: skip
        sync_strategies(session, environment, declared)
        for record in declared:
            operator = record.operator.removesuffix("_partition").replace("partition", "identity")
            size = SIZES_MIB[operator][SUBJECTS.index(record.subject)] * 2**20
            upsert_artifact(session, artifact_record(record.subject, record.operator, files=(), size_bytes=size))
        for subject in SUBJECTS:
            for name in MEDIANS_S:
                for number in range(1, rounds + 1):
                    samples = sample_records(median_s(name, subject) * np.array(factors(number)))
                    record_measurement(
                        session,
                        measurement_record(environment, subject, *name.split("@"), number, samples=samples),
                    )
        _store_accuracies(session, environment)
        session.commit()
    return environment


def accuracy_key(subject: str, strategy: str) -> str:
    """Return a key of its own for every tier, as the study judged each of them."""
    return f"accuracy:{subject}:{strategy.replace('@', ':')}"


def _store_accuracies(session: Session, environment: int) -> None:
    for subject in SUBJECTS:
        for place, tier in enumerate(TIERS):
            for row, operator in enumerate(WHOLE):
                values = {
                    f"{metric}_pct": by_operator[row][place]
                    for (name, metric), by_operator in ACCURACIES.items()
                    if name == subject
                }
                record_accuracy(
                    session,
                    accuracy_record(
                        environment, subject, operator,
                        key=accuracy_key(subject, f"{operator}@{tier}"),
                        metric_primary="top1" if "top1_pct" in values else "miou",
                        items=1000,
                        **values,
                    ),
                )  # fmt: skip
