"""The rules over one measurement: stored figures in, findings out. A figure that was not recorded gives no finding.

Latencies of one round are looked at beside each other as well: did they still fall after the warm-up, and did single
ones stand out?
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from statistics import median

import numpy as np
import scipy
from numpy.typing import NDArray

from catalog.evidence.records import LinkProbeRecord, MeasurementRecord, SampleRecord, TierRunRecord, Verdict
from catalog.statistics.intervals import inputs_needed
from catalog.validity.findings import DEFAULTS, Finding, Thresholds, strangers, worst

# To either side half as many, so that the size of the sample lies between theirs.
_NEIGHBOURS = 4


@dataclass(frozen=True)
class WarmUp:
    """How what came first compares with what came later: the end of the warm-up, or the first third of the samples.

    Attributes
    ----------
    slowdown_pct : float
        Median over the inputs of earlier over later latency, minus one; negative if the earlier one was faster.
    pvalue : float
        Of a sign test, one-sided: that as many inputs were slower by chance.
    pairs : int
        Inputs compared.
    """

    slowdown_pct: float
    pvalue: float
    pairs: int


def falling_pvalue(latency_s: Sequence[float]) -> float:
    """Return the probability that values without a trend fall as steadily as these.

    Parameters
    ----------
    latency_s : sequence of float
        Of one input sent again and again, in the order sent.

    Returns
    -------
    float
        From 0 to 1; 1 for fewer than three values.

    Notes
    -----
    Mann's test: the normal approximation of Kendall's S, with a correction for continuity, one-sided.

    References
    ----------
    H. B. Mann, Nonparametric tests against trend, Econometrica 13 (1945).

    Examples
    --------
    >>> round(falling_pvalue([0.9, 0.6, 0.4, 0.3, 0.25, 0.2]), 3), falling_pvalue([0.2, 0.3, 0.2, 0.3]) > 0.5
    (0.004, True)
    """
    values = np.asarray(latency_s)
    count = values.size
    if count < 3:
        return 1.0
    falls = -int(np.triu(np.sign(values[np.newaxis, :] - values[:, np.newaxis])).sum())
    deviation = math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    return float(scipy.special.ndtr(-(falls - 1) / deviation))


def warmup_slowdown(warmup_latency_s: Sequence[float], samples: Sequence[SampleRecord]) -> WarmUp | None:
    """Compare the last third of the last warm-up pass with the first repetition.

    Parameters
    ----------
    warmup_latency_s : sequence of float
        In the order they were taken: whole passes.
    samples : sequence of SampleRecord
        In the order they were taken.

    Returns
    -------
    WarmUp or None
        None where there is no whole pass of either kind.

    Notes
    -----
    A warm-up that was long enough ends as fast as the samples go on. The sign test asks for no distribution.

    Examples
    --------
    >>> taken = [SampleRecord(i, f"{i}", 0, 0.1, 0.0) for i in range(9)]
    >>> found = warmup_slowdown([0.3] * 6 + [0.12, 0.11, 0.1], taken)
    >>> round(found.slowdown_pct, 1), found.pairs
    (10.0, 3)
    """
    first = [sample.latency_s for sample in samples if sample.repetition == 0]
    count = len(first)
    if not count or len(warmup_latency_s) < count:
        return None
    # The last third alone: the beginning of a warm-up is meant to be slow.
    tail = count - max(1, count // 3)
    ratio = np.array(warmup_latency_s[-count:])[tail:] / np.array(first)[tail:]
    return _sign_test(ratio)


def early_slowdown(samples: Sequence[SampleRecord], input_bytes: Mapping[str, int]) -> WarmUp | None:
    """Compare the first third of the samples with later ones of their size.

    Parameters
    ----------
    samples : sequence of SampleRecord
        In the order they were taken, in which sizes are shuffled.
    input_bytes : mapping of str to int
        Size of each input.

    Returns
    -------
    WarmUp or None
        None where fewer than three samples have a size.

    Notes
    -----
    What a later sample of the same size takes is read off the line between its neighbours in size. The sign test is
    that of `warmup_slowdown`.

    Examples
    --------
    >>> taken = [SampleRecord(i, f"{i}", 0, 0.2 if i < 3 else 0.1, 0.0) for i in range(9)]
    >>> slow = early_slowdown(taken, {f"{i}": 1000 + i % 3 for i in range(9)})
    >>> round(slow.slowdown_pct), slow.pairs
    (100, 3)
    """
    sized = [sample for sample in samples if sample.input_id in input_bytes]
    count = len(sized) // 3
    if not count:
        return None
    early = sized[:count]
    later = sorted(sized[count:], key=lambda sample: input_bytes[sample.input_id])
    expected = np.interp(
        [input_bytes[sample.input_id] for sample in early],
        [input_bytes[sample.input_id] for sample in later],
        [sample.latency_s for sample in later],
    )
    return _sign_test(np.array([sample.latency_s for sample in early]) / expected)


def _sign_test(ratio: NDArray[np.float64]) -> WarmUp:
    slower, decided = int((ratio > 1).sum()), int((ratio != 1).sum())
    # Sign test, one-sided: a few slow inputs do not make a warm-up too short.
    pvalue = float(scipy.special.bdtrc(slower - 1, decided, 0.5)) if decided else 1.0
    return WarmUp(100 * (float(np.median(ratio)) - 1), float(pvalue), int(ratio.size))


def sized_outliers_pct(
    samples: Sequence[SampleRecord], input_bytes: Mapping[str, int], *, factor: float, least_s: float
) -> float | None:
    """Return how many samples took much longer than samples of inputs of nearly their size, in percent.

    Parameters
    ----------
    samples, input_bytes
        As `early_slowdown`.
    factor, least_s
        As `outliers_pct`.

    Returns
    -------
    float or None
        Percent of the samples; None where fewer than five have a size.

    Notes
    -----
    Each sample is compared with the four nearest in size, two smaller and two larger ones where there are as many. A
    latency grows with size at most in proportion, so that beside a smaller input the ratio of sizes is allowed as well.

    Examples
    --------
    >>> taken = [SampleRecord(i, f"{i}", 0, latency_s, 0.0) for i, latency_s in enumerate([0.1, 0.1, 0.3, 0.1, 0.4])]
    >>> sized_outliers_pct(taken, {"0": 10, "1": 10, "2": 11, "3": 12, "4": 48}, factor=2, least_s=0.02)
    20.0
    """
    sized = sorted(
        (sample for sample in samples if sample.input_id in input_bytes), key=lambda item: input_bytes[item.input_id]
    )
    if len(sized) <= _NEIGHBOURS:
        return None
    slow = 0
    for index, sample in enumerate(sized):
        first = min(max(index - _NEIGHBOURS // 2, 0), len(sized) - _NEIGHBOURS - 1)
        neighbours = [other for other in sized[first : first + _NEIGHBOURS + 1] if other is not sample]
        own = input_bytes[sample.input_id]
        # An empty file has no ratio; one byte more changes none that is worth a comparison.
        scaled = [other.latency_s * max(1.0, (own + 1) / (input_bytes[other.input_id] + 1)) for other in neighbours]
        expected = float(np.median(scaled))
        slow += sample.latency_s > max(factor * expected, expected + least_s)
    return 100 * slow / len(sized)


def outliers_pct(
    warmup_latency_s: Sequence[float], samples: Sequence[SampleRecord], *, factor: float, least_s: float
) -> float | None:
    """Return how many samples took much longer than the same input in another pass, in percent.

    Parameters
    ----------
    warmup_latency_s, samples
        As `warmup_slowdown`.
    factor : float
        Above 1.
    least_s : float
        Seconds that a sample must be slower by, at least.

    Returns
    -------
    float or None
        Percent of the samples; None where no input was sent twice.

    Examples
    --------
    >>> taken = [SampleRecord(i, f"{i}", 0, latency_s, 0.0) for i, latency_s in enumerate([0.1, 0.3])]
    >>> outliers_pct([0.1, 0.1], taken, factor=2, least_s=0.02)
    50.0
    """
    passes: dict[str, list[float]] = defaultdict(list)
    for sample in samples:
        passes[sample.input_id].append(sample.latency_s)
    own = {input_id: tuple(latencies_s) for input_id, latencies_s in passes.items()}
    count = len(passes)
    # With one repetition, the last warm-up pass is the only other pass over the inputs.
    if count and len(warmup_latency_s) >= count:
        for input_id, latency_s in zip(passes, warmup_latency_s[-count:], strict=True):
            passes[input_id].append(latency_s)
    if not any(len(step) > 1 for step in passes.values()):
        return None
    # By input and not by sample: a file from elsewhere may have a million samples of a few inputs.
    fastest = {input_id: min(latencies_s) for input_id, latencies_s in passes.items()}
    limits_s = {input_id: max(factor * least, least + least_s) for input_id, least in fastest.items()}
    slow = sum(
        sum(latency_s > limits_s[input_id] for latency_s in latencies_s)
        for input_id, latencies_s in own.items()
        if max(latencies_s) > limits_s[input_id]
    )
    return 100 * slow / len(samples)


_AGAIN = "measure again (`runner fill-catalog`)"


def judge_measurement(
    record: MeasurementRecord, *, percentiles: Iterable[float] = (), thresholds: Thresholds = DEFAULTS
) -> tuple[Finding, ...]:
    """Apply every rule that needs one measurement alone.

    Parameters
    ----------
    record : MeasurementRecord
        With its tier runs, link probes and samples.
    percentiles : iterable of float
        That latency targets ask for, such as 90.0.
    thresholds : Thresholds, optional

    Returns
    -------
    tuple of Finding
        One per rule and place, the valid ones too; none for a measurement that failed.

    Notes
    -----
    docs/verdicts.md describes each rule and how its thresholds were set.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> from catalog.evidence.records import SampleRecord
    >>> record = MeasurementRecord(
    ...     latency_key="key", environment_id=1, subject="net", operator="identity", placement="edge",
    ...     round=1, position=0, seed=0, status="complete", verdict="VALID",
    ...     inputs_select="random", started_at=datetime.now(UTC), finished_at=datetime.now(UTC),
    ...     samples=[SampleRecord(0, "a.png", 0, 0.1, 0.0)],
    ... )
    >>> [str(finding) for finding in judge_measurement(record, percentiles=[90])]
    ['inputs (p90): 1 inputs, limit 29 inputs']
    """
    # A failed measurement has its reason already, and half of its figures.
    if record.status != "complete":
        return ()
    rules = (
        _links,
        _link_drift,
        _restarted,
        _memory,
        _throttling,
        _client,
        _waiting,
        _host,
        _clock,
        _warmup,
        _outliers,
    )
    findings = [finding for rule in rules for finding in rule(record, thresholds)]
    return (*findings, *_inputs(record, percentiles))


def _links(record: MeasurementRecord, limits: Thresholds) -> Iterator[Finding]:
    for probe in record.link_probes:
        if probe.tolerance is not None:
            # Beyond the tolerance in either direction: shaping that was lost shows as too fast a link.
            deviation = probe.measured_bit_per_s / probe.declared_bit_per_s - 1
            yield Finding(
                rule="link rate",
                where=_link(probe),
                figure=100 * deviation,
                threshold=100 * probe.tolerance,
                unit="%",
                verdict="INVALID" if abs(deviation) > probe.tolerance else "VALID",
                note=f"{_rate(probe.measured_bit_per_s)} measured, {_rate(probe.declared_bit_per_s)} declared",
                advice=f"look for a busy host or lost shaping, then {_AGAIN}; the link's `tolerance` widens the limit",
            )


def _link_drift(record: MeasurementRecord, limits: Thresholds) -> Iterator[Finding]:
    """Compare what a real link carried before the samples and after: what it carries is not an error."""
    # Only a real link is probed without a tolerance at a moment; evidence from before there were moments has neither.
    real = {(probe.link, probe.direction, probe.moment): probe for probe in record.link_probes if not probe.tolerance}
    for (link, direction, moment), before in real.items():
        after = real.get((link, direction, "after"))
        if moment == "before" and after is not None and before.measured_bit_per_s > 0:
            drift = 100 * (after.measured_bit_per_s / before.measured_bit_per_s - 1)
            # Looks that overlap are the link's own variation, which the samples met as well.
            apart = max(_looks(before)) < min(_looks(after)) or max(_looks(after)) < min(_looks(before))
            yield Finding(
                rule="link drift",
                where=f"{link} {direction}",
                figure=drift,
                threshold=limits.link_drift_pct,
                unit="%",
                verdict="DOUBTFUL" if apart and abs(drift) > limits.link_drift_pct else "VALID",
                note=f"{_spread(before)} before, {_spread(after)} after",
                advice=f"the network changed while the samples were taken: use it for nothing else, then {_AGAIN}",
            )


def _looks(probe: LinkProbeRecord) -> Sequence[float]:
    return (probe.measured_bit_per_s, *(probe.discarded_bit_per_s or ()))


def _spread(probe: LinkProbeRecord) -> str:
    looks = _looks(probe)
    return f"{_rate(probe.measured_bit_per_s)} ({_rate(min(looks))} to {_rate(max(looks))})"


def _restarted(record: MeasurementRecord, limits: Thresholds) -> Iterator[Finding]:
    for run in record.tier_runs:
        if run.restarted is not None:
            # INVALID at once: a restarted tier has lost its caches in the middle of the samples.
            deaths = int(run.restarted) + (run.oom_kills or 0)
            advice = f"the tier died while it was measured: give it more memory, look at its log, then {_AGAIN}"
            yield Finding("restart", run.tier, deaths, 0, "deaths", "INVALID" if deaths else "VALID", advice)


def _memory(record: MeasurementRecord, limits: Thresholds) -> Iterator[Finding]:
    for run in record.tier_runs:
        if run.window_major_faults is not None and record.samples:
            faults = 100 * run.window_major_faults / len(record.samples)
            verdict = _graded(faults, limits.faults_doubtful_pct, limits.faults_invalid_pct)
            advice = f"pages were read from disk within latencies: give the tier or the host more memory, then {_AGAIN}"
            yield Finding("page faults", run.tier, faults, limits.faults_doubtful_pct, "%", verdict, advice)
        if run.window_memory_limit_events is not None:
            events = run.window_memory_limit_events
            advice = f"raise the tier's `memory`, then {_AGAIN}"
            yield Finding("memory limit", run.tier, events, 0, "hits", "DOUBTFUL" if events else "VALID", advice)


def _throttling(record: MeasurementRecord, limits: Thresholds) -> Iterator[Finding]:
    """Judge throttling: of q CPUs, n busy threads use c CPU seconds in c / q; beyond c / n of it they are throttled."""
    for run in _windows(record):
        if run.window_throttled_s is not None and run.window_cpu_seconds is not None and record.window_s:
            # The server's own threads run beside those of the engine.
            explained_s = run.window_cpu_seconds * max(0.0, (run.threads + 1) / run.cpus - 1)
            excess = 100 * max(0.0, run.window_throttled_s - explained_s) / record.window_s
            verdict = _graded(excess, limits.throttled_doubtful_pct, limits.throttled_invalid_pct)
            advice = f"something besides the declared quota limits this tier, such as a parent group; {_AGAIN}"
            yield Finding("throttling", run.tier, excess, limits.throttled_doubtful_pct, "%", verdict, advice)


def _client(record: MeasurementRecord, limits: Thresholds) -> Iterator[Finding]:
    # The first tier is the client's; one that computes a part is judged by `throttling` instead.
    for run in record.tier_runs[:1]:
        if run.provider == "none" and run.window_throttled_s is not None and record.window_s:
            share = 100 * run.window_throttled_s / record.window_s
            advice = "the client's own quota delays what it measures: declare more `cpus` for the first tier"
            yield _doubt("client starved", run.tier, share, limits.client_throttled_pct, advice)


def _waiting(record: MeasurementRecord, limits: Thresholds) -> Iterator[Finding]:
    for run in _windows(record):
        if run.window_waited_s is None or not run.window_cpu_seconds or not record.window_s:
            continue
        # Throttled threads wait too, but by their own quota, which is no disturbance.
        waited_s = max(0.0, run.window_waited_s - (run.window_throttled_s or 0.0))
        share = 100 * waited_s / run.window_cpu_seconds
        much = 100 * waited_s / record.window_s > limits.waited_least_pct
        advice = f"stop other work on this host, then {_AGAIN}"
        finding = _doubt("waiting for a CPU", run.tier, share, limits.waited_pct, advice)
        finding = replace(finding, note=strangers(record.host_load))
        yield finding if much else replace(finding, verdict="VALID")


def _host(record: MeasurementRecord, limits: Thresholds) -> Iterator[Finding]:
    load = record.host_load or {}
    if "cpus" not in load:
        return
    others, steal = (100 * load[name] / load["cpus"] for name in ("other_cpus", "steal_cpus"))
    advice = f"stop other work on this host, then {_AGAIN}"
    yield replace(_doubt("host load", "", others, limits.others_pct, advice), note=strangers(record.host_load))
    advice = f"the hypervisor gave this machine's CPUs to others: use a dedicated one, or {_AGAIN}"
    yield _doubt("steal", "", steal, limits.steal_pct, advice)


def _clock(record: MeasurementRecord, limits: Thresholds) -> Iterator[Finding]:
    if record.clock_jump_s is not None:
        lasted_s = (record.finished_at - record.started_at).total_seconds()
        # NTP slews the clock in proportion to time, so a long measurement may drift further.
        threshold = limits.clock_jump_s + limits.clock_slew_pct / 100 * max(0.0, lasted_s)
        jump = abs(record.clock_jump_s)
        advice = f"the clock was set or the machine slept meanwhile; {_AGAIN}"
        yield Finding("clock", "", jump, threshold, "s", "DOUBTFUL" if jump > threshold else "VALID", advice)


def _warmup(record: MeasurementRecord, limits: Thresholds) -> Iterator[Finding]:
    if record.warmup_latency_s is None or not record.samples:
        return
    advice = "declare a larger `warmup`, then fill again"
    if not record.warmup_latency_s:
        yield Finding("warm-up", "", 0, 1, "inferences before the first sample", "DOUBTFUL", advice)
        return
    steady = record.protocol.get("warmup_steady")
    if steady is None:
        slowdown = warmup_slowdown(record.warmup_latency_s, record.samples)
    else:
        slowdown = early_slowdown(record.samples, _input_bytes(record))
        advice = f"stop other work on this host, then {_AGAIN}; `warmup` may also count passes over all inputs"
    # A tier that is throttled jitters and is never quite steady. What makes a warm-up too short is that the latency of
    # its one input, sent again and again after the largest one, still fell at its end.
    if steady is False and falling_pvalue(record.warmup_latency_s[1:]) < limits.falling_pvalue:
        sent, unit = len(record.warmup_latency_s), "inferences, the last ones still falling"
        yield Finding("warm-up", "", sent, limits.warmup_inferences, unit, "DOUBTFUL", advice)
    elif slowdown is not None and slowdown.pairs >= limits.warmup_pairs:
        slower = slowdown.slowdown_pct > limits.warmup_pct and slowdown.pvalue < limits.warmup_pvalue
        verdict: Verdict = "DOUBTFUL" if slower else "VALID"
        yield Finding("warm-up", "", slowdown.slowdown_pct, limits.warmup_pct, "%", verdict, advice)


def _outliers(record: MeasurementRecord, limits: Thresholds) -> Iterator[Finding]:
    limit = {"factor": limits.outlier_factor, "least_s": limits.outlier_s}
    if record.protocol.get("warmup_steady") is None:
        share = outliers_pct(record.warmup_latency_s or (), record.samples, **limit)
    else:
        # The warm-up was no pass over the inputs, so that most were sent only once.
        share = sized_outliers_pct(record.samples, _input_bytes(record), **limit)
    if share is not None:
        advice = f"something disturbed single inferences: look at `waiting for a CPU` and `page faults`, then {_AGAIN}"
        yield _doubt("outliers", "", share, limits.outliers_pct, advice)


def _input_bytes(record: MeasurementRecord) -> Mapping[str, int]:
    """Return the sizes of a round's inputs; evidence from elsewhere may hold anything here."""
    sizes = record.protocol.get("input_bytes")
    entries = sizes.items() if isinstance(sizes, Mapping) else ()
    return {str(name): size for name, size in entries if isinstance(size, int) and size >= 0}


def _inputs(record: MeasurementRecord, percentiles: Iterable[float]) -> Iterator[Finding]:
    # Rounds that draw their inputs count them together: one round alone says nothing of them.
    if set(map(attrgetter("stratum"), record.samples)) - {None}:
        return
    inputs = len(set(map(attrgetter("input_id"), record.samples)))
    for percentile in sorted(set(percentiles)):
        needed = inputs_needed(percentile)
        advice = f"declare `inputs: {needed}` or more; below, p{percentile:g} has no upper bound at 95 %"
        verdict: Verdict = "DOUBTFUL" if inputs < needed else "VALID"
        yield Finding("inputs", f"p{percentile:g}", inputs, needed, "inputs", verdict, advice)


def _windows(record: MeasurementRecord) -> Sequence[TierRunRecord]:
    return [run for run in record.tier_runs if run.window_cpu_seconds is not None]


def _doubt(rule: str, where: str, share_pct: float, limit_pct: float, advice: str) -> Finding:
    """Judge a share that makes doubtful, and never invalid."""
    verdict: Verdict = "DOUBTFUL" if share_pct > limit_pct else "VALID"
    return Finding(rule, where, share_pct, limit_pct, "%", verdict, advice)


def _graded(figure: float, doubtful: float, invalid: float) -> Verdict:
    return "INVALID" if figure > invalid else "DOUBTFUL" if figure > doubtful else "VALID"


def _link(probe: LinkProbeRecord) -> str:
    return f"{probe.link} {probe.direction}, {probe.moment}" if probe.moment else f"{probe.link} {probe.direction}"


def _rate(bit_per_s: float) -> str:
    return f"{bit_per_s / 1e6:.4g} Mbit/s" if bit_per_s < 1e9 else f"{bit_per_s / 1e9:.4g} Gbit/s"


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
    ...         latency_key="key", environment_id=1, subject="net", operator="identity", placement="edge",
    ...         round=number, position=0, seed=0, status="complete",
    ...         verdict="VALID", inputs_select="random", started_at=datetime.now(UTC), finished_at=datetime.now(UTC),
    ...         samples=[SampleRecord(0, "a.png", 0, latency_s, 0.0)],
    ...     )
    >>> [f"{each[0].figure:+.0f} % {each[0].verdict}" for each in judge_rounds([taken(1, 0.1), taken(2, 0.2)])]
    ['-33 % DOUBTFUL', '+33 % DOUBTFUL']
    """
    return _drifts([_by_input(record) for record in records], thresholds)


_FEWEST_SHARED = 5


def _by_input(record: MeasurementRecord) -> Mapping[str, float]:
    """Return the median latency of each input over its repetitions."""
    series: dict[str, list[float]] = defaultdict(list)
    for sample in record.samples:
        series[sample.input_id].append(sample.latency_s)
    # Most inputs are sent once, or a few times: for so few, numpy's median takes ten times as long.
    return {input_id: median(values) for input_id, values in series.items()}


def _drifts(rounds: Sequence[Mapping[str, float]], limits: Thresholds) -> tuple[tuple[Finding, ...], ...]:
    """Compare rounds, each the latency by input; per input, because rounds may differ in which inputs they have."""
    ids = list(dict.fromkeys(input_id for by_input in rounds for input_id in by_input))
    latency_s = np.array([[by_input.get(input_id, np.nan) for input_id in ids] for by_input in rounds])
    # An input of one round alone has nothing to be compared with.
    latency_s = latency_s[:, (~np.isnan(latency_s)).sum(axis=0) > 1] if ids else np.empty((len(rounds), 0))
    middle = np.nanmedian(latency_s, axis=0) if latency_s.size else np.empty(latency_s.shape[1])
    return tuple(
        _drift(own[~np.isnan(own)] / middle[~np.isnan(own)], len(by_input), limits)
        for own, by_input in zip(latency_s, rounds, strict=True)
    )


def _drift(ratios: NDArray[np.float64], inputs: int, limits: Thresholds) -> tuple[Finding, ...]:
    # Rounds that draw their own inputs share few of them, and a few are too few for a median.
    if not ratios.size or ratios.size < min(inputs, _FEWEST_SHARED):
        return ()
    # The median over inputs: single disturbed inferences are the rule `outliers`.
    drift = 100 * (float(np.median(ratios)) - 1)
    verdict: Verdict = "DOUBTFUL" if abs(drift) > limits.drift_pct else "VALID"
    advice = "the host changed between the rounds, or a start was lucky: add rounds, or measure on a quieter host"
    return (Finding("drift", "", drift, limits.drift_pct, "%", verdict, advice),)


def judge_strategy(
    records: Sequence[MeasurementRecord], *, percentiles: Iterable[float] = (), thresholds: Thresholds = DEFAULTS
) -> tuple[tuple[Finding, ...], ...]:
    """Apply every rule to all measurements of a strategy, to each alone and between its rounds.

    Parameters
    ----------
    records : sequence of MeasurementRecord
        Of one latency key; failed attempts and several of one round may be among them.
    percentiles, thresholds
        As `judge_measurement`.

    Returns
    -------
    tuple of tuple of Finding
        Aligned with `records`. Where no rule has a figure to judge by, one DOUBTFUL finding says so: nothing is valid
        because it is silent.

    Notes
    -----
    Only rounds that count are compared, so that a broken one does not make the others look wrong.
    """
    percentiles = tuple(percentiles)
    alone = [judge_measurement(record, percentiles=percentiles, thresholds=thresholds) for record in records]
    counting = [
        position
        for position, (record, findings) in enumerate(zip(records, alone, strict=True))
        if record.status == "complete" and record.verdict != "INVALID" and worst(findings) != "INVALID"
    ]
    rounds = judge_rounds([records[position] for position in counting], thresholds=thresholds)
    between = dict(zip(counting, rounds, strict=True))
    judged = [(*findings, *between.get(position, ())) for position, findings in enumerate(alone)]
    return tuple(
        findings if findings or record.status != "complete" else (_UNJUDGED,)
        for record, findings in zip(records, judged, strict=True)
    )


_UNJUDGED = Finding(
    rule="unjudged",
    where="",
    figure=0,
    threshold=1,
    unit="rules",
    verdict="DOUBTFUL",
    advice="no rule has a figure to judge by: bring a second round, or inputs that are measured twice in a round",
    note="no counters, no other round, no input measured twice",
)
