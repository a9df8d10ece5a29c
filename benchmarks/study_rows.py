"""Rows in the form of the study, with invented numbers of known truth: `python -m benchmarks.study_rows > study.csv`.

Four subjects, 18 strategies, in which directions oppose: medians are products of a subject's identity on a tier and a
factor. Where the study's text has a range, a factor lies at each of its ends, so that whatever averages opposite
directions shows. With `--accuracies`, the rows of accuracies; both files together make a report with all research
questions:

    python -m benchmarks.study_rows > study.csv
    python -m benchmarks.study_rows --accuracies > study-accuracies.csv
    runner import study.csv study-accuracies.csv -d study.db && runner report -d study.db
"""

import argparse
import sys
from collections.abc import Iterator, Mapping

SUBJECTS = ("resnet", "resnext", "fcn", "duc")
TASKS = {"resnet": "classification", "resnext": "classification", "fcn": "segmentation", "duc": "segmentation"}
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
# Bits per second; a strategy beyond the first tier uses them.
LINKS = {"mobile-edge": 200e6, "edge-cloud": 1e6}


def median_s(strategy: str, subject: str) -> float:
    """Return the true median."""
    return MEDIANS_S[strategy][SUBJECTS.index(subject)]


def factors(number: int, inputs: int = INPUTS) -> list[float]:
    """Return what the inputs of a round make of the median, 1 % less to 1 % more.

    Symmetric, and odd in number, so that the median of a round is its true one; rounds differ by a twentieth of that.
    """
    of_round = 1 + 0.0005 * (number - 2)
    return [of_round * (0.99 + 0.02 * position / (inputs - 1)) for position in range(inputs)]


def size_bytes(strategy: str, subject: str) -> int:
    """Return the size of an operator's artifact; a cut changes none."""
    operator = strategy.split("@")[0].removesuffix("_partition").replace("partition", "identity")
    return SIZES_MIB[operator][SUBJECTS.index(subject)] * 2**20


def latency_rows(rounds: int = 5) -> Iterator[str]:
    """Yield CSV rows of latencies, the header first."""
    links = ",".join(f"{link}_bit_per_s" for link in LINKS)
    yield f"subject,operator,placement,input_id,repetition,latency_s,round,size_bytes,{links}"
    for subject in SUBJECTS:
        for strategy in MEDIANS_S:
            operator, placement = strategy.split("@")
            last = TIERS.index(placement.split("-")[-1])
            rates = ",".join(f"{rate:.0f}" if position < last else "" for position, rate in enumerate(LINKS.values()))
            for number in range(1, rounds + 1):
                for item, factor in enumerate(factors(number)):
                    latency_s = median_s(strategy, subject) * factor
                    size = size_bytes(strategy, subject)
                    yield f"{subject},{operator},{placement},{item:03d}.jpg,0,{latency_s!r},{number},{size},{rates}"


def accuracy_rows() -> Iterator[str]:
    """Yield CSV rows of accuracies, the header first."""
    yield "subject,operator,placement,metric,value_pct,items"
    for (subject, metric), by_operator in ACCURACIES.items():
        for operator, values in zip(WHOLE, by_operator, strict=True):
            for tier, value in zip(TIERS, values, strict=True):
                yield f"{subject},{operator},{tier},{metric},{value},1000"


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description="Rows in the form of the study, with invented numbers of known truth.")
    parser.add_argument("--accuracies", action="store_true", help="rows of accuracies in place of latencies")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each strategy (default 5)")
    options = parser.parse_args()
    rows = accuracy_rows() if options.accuracies else latency_rows(options.rounds)
    sys.stdout.writelines(f"{row}\n" for row in rows)


if __name__ == "__main__":
    main()
