"""Rows in the form of the study, with invented numbers: four subjects, six operators, their placements."""

import random

TIERS = ("mobile", "edge", "cloud")
ACROSS = ("mobile-edge", "edge-cloud", "mobile-cloud")
OPERATORS = {
    "identity": TIERS,
    "quantized": TIERS,
    "early_exit": TIERS,
    "quantized_early_exit": TIERS,
    "partition": ACROSS,
    "quantized_early_exit_partition": ACROSS,
}
SUBJECTS = ("a-net", "b-net", "c-net", "d-net")
RATES = {"mobile-edge_bit_per_s": "2e8", "edge-cloud_bit_per_s": "1e7"}
HEADER = "subject,operator,placement,input_id,repetition,latency_s,round," + ",".join(RATES)


def latency_rows(*, rounds: int = 2, inputs: int = 4, seed: int = 5, lacking: tuple[str, ...] = ()) -> list[str]:
    """Return CSV rows without the header; strategies in `lacking`, SUBJECT/OPERATOR@PLACEMENT, are left out."""
    rng = random.Random(seed)
    rows = []
    for subject in SUBJECTS:
        for operator, placements in OPERATORS.items():
            for placement in placements:
                center = rng.uniform(0.005, 0.05)
                rates = ["" if placement == "mobile" else "2e8", "1e7" if "cloud" in placement else ""]
                if f"{subject}/{operator}@{placement}" in lacking:
                    continue
                for number in range(1, rounds + 1):
                    for item in range(inputs):
                        value = round(center * rng.uniform(0.8, 1.25), 7)
                        cells = [subject, operator, placement, f"{item}.jpg", "0", str(value), str(number), *rates]
                        rows.append(",".join(cells))
    return rows


def accuracy_rows(*, seed: int = 6) -> list[str]:
    """Return CSV rows without the header, top-1 and top-5 of every uncut strategy."""
    rng = random.Random(seed)
    return [
        f"{subject},{operator},{placement},{metric},{round(rng.uniform(low, low + 10), 3)}"
        for subject in SUBJECTS
        for operator, placements in OPERATORS.items()
        for placement in placements
        if placement in TIERS
        for metric, low in (("top1", 60), ("top5", 85))
    ]
