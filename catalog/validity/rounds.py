"""The rule over the rounds of one strategy: how far each is from the others."""

from collections.abc import Mapping, Sequence

import numpy as np

from catalog.evidence.records import MeasurementRecord, Verdict
from catalog.validity.findings import Finding
from catalog.validity.thresholds import DEFAULTS, Thresholds


def judge_rounds(
    records: Sequence[MeasurementRecord], *, thresholds: Thresholds = DEFAULTS
) -> tuple[tuple[Finding, ...], ...]:
    """Compare each round of a strategy with its other rounds.

    Parameters
    ----------
    records : sequence of MeasurementRecord
        Of one latency key: complete and not INVALID, one per round.
    thresholds : Thresholds, optional

    Returns
    -------
    tuple of tuple of Finding
        Aligned with `records`; empty ones where there is no other round, or no input in common with one.

    Notes
    -----
    The figure is the median over the inputs of this round's latency against the median over all rounds of the same
    input, so that of three rounds the one that is off does not accuse the others. Doubtful at most: a strategy whose
    rounds really differ must keep the rounds that show it.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> from catalog.evidence.records import SampleRecord
    >>> def taken(number, latency_s):
    ...     return MeasurementRecord(
    ...         "key", 1, "net", "identity", "edge", round=number, position=0, seed=0, status="complete",
    ...         verdict="VALID", inputs_select="random", started_at=datetime.now(UTC), finished_at=datetime.now(UTC),
    ...         samples=[SampleRecord(0, "a.png", 0, latency_s, 0.0)],
    ...     )
    >>> [f"{each[0].figure:+.0f} % {each[0].verdict}" for each in judge_rounds([taken(1, 0.1), taken(2, 0.2)])]
    ['-33 % DOUBTFUL', '+33 % DOUBTFUL']
    """
    medians = [_by_input(record) for record in records]
    return tuple(_drift(own, medians, thresholds) for own in medians)


def _by_input(record: MeasurementRecord) -> Mapping[str, float]:
    """Median latency of each input over its repetitions."""
    series: dict[str, list[float]] = {}
    for sample in record.samples:
        series.setdefault(sample.input_id, []).append(sample.latency_s)
    return {input_id: float(np.median(values)) for input_id, values in series.items()}


def _drift(own: Mapping[str, float], rounds: Sequence[Mapping[str, float]], limits: Thresholds) -> tuple[Finding, ...]:
    ratios = []
    for input_id, latency_s in own.items():
        known = [each[input_id] for each in rounds if input_id in each]
        if len(known) > 1:
            ratios.append(latency_s / float(np.median(known)))
    if not ratios:
        return ()
    drift = 100 * (float(np.median(ratios)) - 1)
    verdict: Verdict = "DOUBTFUL" if abs(drift) > limits.drift_pct else "VALID"
    advice = "the host changed between the rounds, or a start was lucky: add rounds, or measure on a quieter host"
    return (Finding("drift", "", drift, limits.drift_pct, "%", verdict, advice),)
