"""A study of four subjects and 18 strategies with invented numbers of known truth, in which directions oppose.

Medians are products of a subject's identity on a tier and a factor. Where the study's text has a range, a factor lies
at each of its ends, so that whatever averages opposite directions shows.
"""

from collections.abc import Mapping

import numpy as np
from sqlmodel import Session

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

SUBJECTS = ("resnet", "resnext", "fcn", "duc")
TASKS = {"resnet": "classification", "resnext": "classification", "fcn": "segmentation", "duc": "segmentation"}
PASSES = {
    "identity": (),
    "quantized": ("static_ptq",),
    "early_exit": ("early_exit",),
    "quantized_early_exit": ("static_ptq", "early_exit"),
    "partition": ("partition",),
    "quantized_early_exit_partition": ("static_ptq", "early_exit", "partition"),
}
# Seconds by strategy, in the order of the subjects.
MEDIANS_S: Mapping[str, tuple[float, ...]] = {
    "identity@mobile": (8.94, 6.29, 27.38, 45.46),
    "identity@edge": (5.64, 3.96, 12.28, 23.64),
    "identity@cloud": (17.61, 17.61, 3.76, 28.61),
    "quantized@mobile": (8.94 * 1.15, 6.29 * 1.19, 27.38 / 1.37, 45.46 / 1.17),
    "quantized@edge": (5.64 / 1.58, 3.96 / 1.50, 12.28 / 1.64, 23.64 / 1.20),
    "quantized@cloud": (17.61, 17.61, 3.76, 28.61 * 1.30),
    "early_exit@mobile": (8.94 / 1.25, 6.29 / 1.22, 27.38 / 1.05, 45.46 / 1.11),
    "early_exit@edge": (5.64 / 1.32, 3.96 / 1.22, 12.28 / 1.08, 23.64 / 1.17),
    "early_exit@cloud": (17.61, 17.61, 3.76, 28.61),
    "quantized_early_exit@mobile": (8.94 / 1.07, 6.29 * 1.05, 27.38 / 1.62, 45.46 / 1.29),
    "quantized_early_exit@edge": (5.64 / 1.90, 3.96 / 1.80, 12.28 / 1.97, 23.64 / 1.36),
    "quantized_early_exit@cloud": (17.61, 17.61, 3.76, 28.61 * 1.08),
    "partition@mobile-edge": (8.94 / 1.26, 6.29 / 1.13, 27.38 / 1.11, 45.46 * 1.05),
    "partition@edge-cloud": (17.61 / 1.58, 17.61 / 1.73, 3.76 * 59.59, 28.61 * 40.38),
    "partition@mobile-cloud": (17.61 / 1.25, 17.61 / 1.48, 3.76 * 62.60, 28.61 * 41.68),
    "quantized_early_exit_partition@mobile-edge": (5.76, 4.18, 12.33, 28.61 * 1.08 * 1.04),
    "quantized_early_exit_partition@edge-cloud": (17.61 / 1.84, 17.61 / 1.80, 3.76 * 58.57, 28.61 * 15.28),
    "quantized_early_exit_partition@mobile-cloud": (17.61 / 1.40, 17.61 / 1.48, 3.76 * 60.65, 28.61 * 15.91),
}
# MiB of the model files and percent on mobile, edge and cloud by metric, in the order of the subjects.
SIZES_MIB = {
    "identity": (484, 319, 199, 249),
    "quantized": (123, 81, 50, 63),
    "early_exit": (380, 250, 164, 215),
    "quantized_early_exit": (96, 64, 42, 54),
}
ACCURACIES = {
    ("resnet", "top1"): ((82.5, 82.5, 82.52), (82.1, 82.1, 82.2), (76.6, 76.6, 76.61), (75.4, 75.4, 75.3)),
    ("resnet", "top5"): ((96.0, 96.0, 96.01), (95.8, 95.8, 95.85), (93.4, 93.4, 93.5), (93.0, 93.0, 93.05)),
    ("resnext", "top1"): ((83.2, 83.2, 83.21), (83.0, 83.0, 83.1), (77.2, 77.2, 77.3), (75.6, 75.6, 75.5)),
    ("resnext", "top5"): ((96.4, 96.4, 96.41), (96.3, 96.3, 96.35), (93.9, 93.9, 93.95), (93.8, 93.8, 93.7)),
    ("fcn", "miou"): ((66.7, 66.7, 66.71), (66.4, 66.4, 66.3), (55.1, 55.1, 55.15), (54.3, 54.3, 54.4)),
    ("duc", "miou"): ((81.9, 81.9, 81.91), (81.6, 81.6, 81.65), (75.7, 75.7, 75.75), (75.3, 75.3, 75.2)),
}
WHOLE = tuple(SIZES_MIB)
TIERS = ("mobile", "edge", "cloud")
INPUTS = 25


def median_s(strategy: str, subject: str) -> float:
    """Return the true median."""
    return MEDIANS_S[strategy][SUBJECTS.index(subject)]


def accuracies_pct(operator: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return all accuracies of an operator, in one order for all operators."""
    return np.array([values[WHOLE.index(operator)] for values in ACCURACIES.values()]).ravel()


def store_study(database: Database, *, rounds: int) -> int:
    """Write the whole study and return its environment."""
    environment = EvidenceBuilder(database).environment("e" * 64)
    # Odd in number and symmetric, so that the median of a round's samples is exactly the true one.
    factors = np.linspace(0.99, 1.01, INPUTS)
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
                    samples = sample_records(median_s(name, subject) * factors * (1 + 0.0005 * (number - 2)))
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
