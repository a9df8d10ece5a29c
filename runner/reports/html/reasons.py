"""Why latencies differ, from what was measured: sizes of inputs, bytes and rates of links, limits of tiers, nodes.

A reason is a sentence only where its parts are there; evidence from elsewhere often has only some of them.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from catalog.analysis import StrategyResult, SubjectResult
from catalog.evidence.reading import Breakdown
from catalog.evidence.strategy_evidence import StrategyEvidence
from catalog.units import duration, rate
from runner.reports.html.sentences import PairOfSubject, extent, listed, sentence, split, spoken

_CPU = "CPUExecutionProvider"
# From here on a tier counts as working at its limit.
_AT_LIMIT = 0.9
# The share of the variance of latency from which on the size of the input counts as a reason.
_EXPLAINED = 0.5


@dataclass(frozen=True)
class MeasuredCauses:
    """What may explain a latency.

    Attributes
    ----------
    breakdowns : mapping of latency key to Breakdown
    input_bytes : mapping of subject to mapping of input id to int
        Sizes as sent; empty where they are not known.
    nodes : mapping of latency key to mapping of tier to mapping of provider to int
        Nodes of the simplified graph that each execution provider got.
    tiers : sequence of mapping
        Limits: `tier`, `cpus`, `memory_bytes`, the smallest tier first.
    """

    breakdowns: Mapping[str, Breakdown] = field(default_factory=dict)
    input_bytes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    nodes: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    tiers: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class _Difference:
    """Where one strategy's mean latency is above (or below) another's, in seconds of each kind of part."""

    transmission_s: float
    compute_s: float
    rest_s: float

    @property
    def parts(self) -> Mapping[str, float]:
        return {
            "transmission": self.transmission_s,
            "compute": self.compute_s,
            "pre-processing, post-processing and serialising": self.rest_s,
        }


def condition_sentences(results: Sequence[SubjectResult], causes: MeasuredCauses) -> Iterator[str]:
    """Yield what the subjects and tiers are like: sizes of inputs, rates of links, limits of tiers, nodes."""
    sizes = {result.subject: _sizes(causes, result.subject) for result in results}
    sized = {subject: values for subject, values in sizes.items() if values}
    if sized:
        texts = [f"{subject} {_megabits(min(values), max(values))}" for subject, values in sized.items()]
        yield sentence(f"the inputs are {listed(texts)}{_wider(sized)}")
    rates = {
        link: bit_per_s
        for result in results
        for row in result.strategies
        for link, bit_per_s in declared_rates(row.evidence).items()
    }
    if rates:
        yield sentence(f"links: {listed([f'{link} {rate(bit_per_s)}' for link, bit_per_s in rates.items()])}")
    yield from _tier_ratios(causes.tiers)


def _sizes(causes: MeasuredCauses, subject: str) -> list[int]:
    return list(causes.input_bytes.get(subject, {}).values())


def _wider(sizes: Mapping[str, Sequence[int]]) -> str:
    """Return how much wider the widest range of sizes is than the narrowest."""
    spans = {subject: max(values) - min(values) for subject, values in sizes.items()}
    widest, narrowest = max(spans, key=spans.__getitem__), min(spans, key=spans.__getitem__)
    if len(spans) < 2 or not spans[narrowest] or spans[widest] == spans[narrowest]:
        return ""
    return f"; the range of {widest} is {spans[widest] / spans[narrowest]:.3g}x as wide as that of {narrowest}"


def _megabits(low: float, high: float) -> str:
    """Return bytes as `8 to 60 Mbit`, the unit of links."""
    texts = [f"{8 * value / 1e6:.3g}" for value in (low, high)]
    return f"{texts[0]} Mbit" if texts[0] == texts[1] else f"{texts[0]} to {texts[1]} Mbit"


def _tier_ratios(tiers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield each tier's limits against those of every smaller one."""
    limits = {str(row["tier"]): row for row in tiers}
    names = list(limits)
    for place, name in enumerate(names):
        ratios = [
            f"{limits[name]['cpus'] / limits[other]['cpus']:g}x the CPUs and "
            f"{limits[name]['memory_bytes'] / limits[other]['memory_bytes']:g}x the memory of {other}"
            for other in names[:place]
        ]
        if ratios:
            yield sentence(f"{name} has {listed(ratios)}")


def declared_rates(evidence: StrategyEvidence) -> dict[str, float]:
    """Return the declared rate up of every link that a strategy uses."""
    rows = condition_rows(evidence, "links")
    return {name: rate_up for name, row in rows.items() if (rate_up := positive(row.get("up_bit_per_s"))) is not None}


def condition_rows(evidence: StrategyEvidence, kind: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the tiers or links of a strategy's conditions by name; evidence from elsewhere may state them in part."""
    rows = evidence.conditions.get(kind)
    if not isinstance(rows, list | tuple):
        return {}
    return {row["name"]: row for row in rows if isinstance(row, Mapping) and isinstance(row.get("name"), str)}


def positive(value: object) -> float | None:
    """Return a number above 0 as a float; None for anything else."""
    stated = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
    return float(value) if stated and isinstance(value, int | float) else None


def _crossing(evidence: StrategyEvidence, causes: MeasuredCauses) -> dict[str, float]:
    """Return the mean bytes that cross each link: as recorded, or else the input of an uncut model."""
    if evidence.sent_bytes_by_link:
        return {link: float(np.mean(sent)) for link, sent in evidence.sent_bytes_by_link.items()}
    sizes = causes.input_bytes.get(evidence.subject, {})
    if len(evidence.tiers) != 1 or not sizes:
        return {}
    return dict.fromkeys(declared_rates(evidence), float(np.mean(list(sizes.values()))))


def pair_reason(
    spoken_of: str,
    reference: str,
    members: Sequence[PairOfSubject],
    strategies: Mapping[tuple[str, str], StrategyResult],
    causes: MeasuredCauses,
) -> Iterator[str]:
    """Yield what the difference of a pair consists of, one sentence for the subjects of each direction."""
    for direction in ("lower", "higher"):
        group = [member for member in members if member.is_shown and member.direction == direction]
        differences = {
            member.subject: difference
            for member in group
            if (difference := _difference(member.subject, (spoken_of, reference), strategies, causes)) is not None
        }
        wires = {
            member.subject: wire
            for member in group
            if (wire := _wires(member.subject, (spoken_of, reference), strategies, causes)) is not None
        }
        if not differences and not wires:
            continue
        texts = [_composition(differences)] if differences else []
        texts += [_wire_text(group, wires, (spoken_of, reference))] if wires else []
        subjects = listed(list(dict.fromkeys([*differences, *wires])))
        word = "faster" if direction == "lower" else "slower"
        yield sentence(f"{_named(spoken_of)} is {word} than {_named(reference)} in {subjects}: {'; '.join(texts)}")


def _named(strategy: str) -> str:
    operator, placement = split(strategy)
    return f"{spoken(operator)} on {placement}"


def _difference(
    subject: str,
    pair: tuple[str, str],
    strategies: Mapping[tuple[str, str], StrategyResult],
    causes: MeasuredCauses,
) -> _Difference | None:
    rows = [strategies.get((subject, name)) for name in pair]
    breakdowns = [causes.breakdowns.get(row.evidence.latency_key) for row in rows if row is not None]
    first, second = (*breakdowns, None, None)[:2]
    # Without parts the whole latency would pass for transmission.
    if first is None or second is None or not first.tiers or not second.tiers:
        return None
    compute = [sum(tier.compute_s for tier in parts.tiers) for parts in (first, second)]
    transmission_s = first.transmission_s - second.transmission_s
    compute_s = compute[0] - compute[1]
    return _Difference(transmission_s, compute_s, first.latency_s - second.latency_s - transmission_s - compute_s)


def _composition(differences: Mapping[str, _Difference]) -> str:
    """Return the parts of the mean difference, the largest first, as ranges over the subjects."""
    columns: dict[str, list[float]] = defaultdict(list)
    for difference in differences.values():
        for name, seconds in difference.parts.items():
            columns[name].append(seconds)
    ordered = sorted(columns, key=lambda name: -abs(float(np.mean(columns[name]))))
    texts = [f"{name} {_signed_range(columns[name])}" for name in ordered]
    return f"the mean differs by {listed(texts)}"


def _signed_range(values: Sequence[float]) -> str:
    texts = [f"{'−' if value < 0 else '+'}{duration(abs(value))}" for value in (min(values), max(values))]
    return texts[0] if texts[0] == texts[1] else f"{texts[0]} to {texts[1]}"


@dataclass(frozen=True)
class _Wires:
    """Seconds that the bytes of two strategies take at the rates of their links, and what crosses the slowest link."""

    own_s: float
    reference_s: float
    slowest: str
    slowest_bit_per_s: float
    own_bytes: float
    reference_bytes: float


def _wires(
    subject: str,
    pair: tuple[str, str],
    strategies: Mapping[tuple[str, str], StrategyResult],
    causes: MeasuredCauses,
) -> _Wires | None:
    rows = [strategies.get((subject, name)) for name in pair]
    if any(row is None for row in rows):
        return None
    rates: dict[str, float] = {}
    crossing: list[dict[str, float]] = []
    for row in rows:
        if row is not None:
            rates |= declared_rates(row.evidence)
            crossing.append(_crossing(row.evidence, causes))
            # A strategy that uses a link of which no bytes are known has no time on the wire.
            if declared_rates(row.evidence) and not crossing[-1]:
                return None
    if not rates or not any(crossing):
        return None
    slowest = min(rates, key=rates.__getitem__)
    own_s, reference_s = (
        sum(8 * sent / rates[link] for link, sent in links.items() if link in rates) for links in crossing
    )
    own_bytes, reference_bytes = (links.get(slowest, 0.0) for links in crossing)
    return _Wires(own_s, reference_s, slowest, rates[slowest], own_bytes, reference_bytes)


def _wire_text(group: Sequence[PairOfSubject], wires: Mapping[str, _Wires], pair: tuple[str, str]) -> str:
    (own, reference), values = (_named(name) for name in pair), list(wires.values())
    bytes_text = [
        f"{_megabits(min(sent), max(sent))} with {name}"
        for sent, name in (
            ([wire.own_bytes for wire in values], own),
            ([wire.reference_bytes for wire in values], reference),
        )
    ]
    gaps = [wire.own_s - wire.reference_s for wire in values]
    apart = [member.median_s - member.reference_s for member in group if member.subject in wires]
    return (
        f"{' and '.join(bytes_text)} cross {values[0].slowest} ({rate(values[0].slowest_bit_per_s)}); at the rates "
        f"of the links the bytes take {_signed_range(gaps)}, where the medians differ by {_signed_range(apart)}"
    )


def size_slopes(results: Sequence[SubjectResult], names: Sequence[str], causes: MeasuredCauses) -> Iterator[str]:
    """Yield how much a further megabit of input adds to the latency of a strategy, by least squares over inputs."""
    for name in names:
        slopes = {}
        for result in results:
            row = next((strategy for strategy in result.strategies if strategy.name == name), None)
            slope = None if row is None else _slope(row.evidence, causes.input_bytes.get(result.subject, {}))
            if slope is not None:
                slopes[result.subject] = slope
        if slopes:
            texts = [f"{duration(seconds)} in {subject}" for subject, seconds in slopes.items()]
            yield sentence(f"each further Mbit of input adds {listed(texts)} to {_named(name)}")


def _slope(evidence: StrategyEvidence, sizes: Mapping[str, int]) -> float | None:
    """Return seconds per megabit; None where sizes are missing or explain little of the latency."""
    megabits = np.array([8 * sizes.get(name, 0) / 1e6 for name in evidence.input_ids])[evidence.input_index]
    if not sizes or not np.all(megabits > 0) or np.ptp(megabits) <= 0:
        return None
    correlation = float(np.corrcoef(megabits, evidence.latency_s)[0, 1])
    if not correlation > 0 or correlation**2 < _EXPLAINED:
        return None
    return float(np.polyfit(megabits, evidence.latency_s, 1)[0])


def node_sentence(operator: str, results: Sequence[SubjectResult], causes: MeasuredCauses) -> Iterator[str]:
    """Yield the share of an operator's nodes that an accelerator runs, by tier; nothing where the CPU runs all."""
    shares: dict[str, dict[str, float]] = defaultdict(dict)
    for result in results:
        for row in result.strategies:
            if row.evidence.operator != operator or len(row.evidence.tiers) > 1:
                continue
            for tier, providers in causes.nodes.get(row.evidence.latency_key, {}).items():
                total = sum(providers.values())
                accelerated = total - providers.get(_CPU, 0)
                if total and tier in row.evidence.tiers:
                    shares[tier][result.subject] = 100 * accelerated / total
    for tier, by_subject in shares.items():
        if any(by_subject.values()):
            texts = listed([f"{subject} {share:.2f} %" for subject, share in by_subject.items()])
            extremes = extent(list(by_subject.values()))
            yield sentence(f"on {tier}, the accelerator runs {extremes} % of the nodes of {spoken(operator)} ({texts})")


def limit_sentences(operator: str, results: Sequence[SubjectResult], causes: MeasuredCauses) -> Iterator[str]:
    """Yield the tiers on which an operator works at its limit of CPU or memory."""
    limits = {str(row["tier"]): row for row in causes.tiers}
    for tier, limit in limits.items():
        cpu: dict[str, float] = {}
        memory: dict[str, float] = {}
        for result in results:
            for row in result.strategies:
                use = row.evidence.tier_use.get(tier)
                if row.evidence.operator != operator or row.evidence.tiers != (tier,) or use is None:
                    continue
                busy_s = _busy_s(causes.breakdowns.get(row.evidence.latency_key), tier)
                if use.cpu_s is not None and busy_s:
                    cpu[result.subject] = use.cpu_s / (busy_s * limit["cpus"])
                if use.memory_bytes is not None:
                    memory[result.subject] = use.memory_bytes / limit["memory_bytes"]
        if busy := [subject for subject, share in cpu.items() if share >= _AT_LIMIT]:
            # Without a number: CPU time also counts what lies between the measured parts, so that it may exceed 100 %.
            cpus = f"{limit['cpus']:g} CPU{'s' * (limit['cpus'] != 1)}"
            yield sentence(f"{spoken(operator)} on {tier} works at the limit of its {cpus} in {listed(busy)}")
        if full := [f"{name} {100 * share:.0f} %" for name, share in memory.items() if share >= _AT_LIMIT]:
            yield sentence(f"{spoken(operator)} on {tier} works at the limit of its memory ({listed(full)})")


def _busy_s(breakdown: Breakdown | None, tier: str) -> float:
    """Return the mean seconds of an inference in which a tier works."""
    if breakdown is None:
        return 0.0
    return sum(
        times.preprocess_s + times.compute_s + times.postprocess_s + times.serialise_s
        for times in breakdown.tiers
        if times.tier == tier
    )
