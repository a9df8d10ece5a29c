"""Families over a setting: the same strategies at several bandwidths, limits of tiers, exits or cuts.

Settings that differ between environments are compared across them and nothing else is: a strategy enters with the
environments that differ in this one setting alone.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from catalog.evidence.strategy_evidence import StrategyEvidence
from catalog.statistics.families import StrategyFamily, strategy_name
from catalog.statistics.study_analysis import FamilyAnalysis, analyse_families, speedup
from catalog.units import duration, pvalue, rate, size
from runner.reports.html.markup import (
    WIDTH,
    Axis,
    Figure,
    Html,
    Ids,
    bottom_axis,
    joined,
    line,
    padded,
    rect,
    svg,
    table,
    tag,
    text,
)
from runner.reports.html.reasons import condition_rows, declared_rates, positive
from runner.reports.html.sentences import listed, sentence, split, spoken


@dataclass(frozen=True, order=True)
class SettingValue:
    """One value of a setting; `label` is how it prints, `number` what values are ordered by."""

    number: float
    label: str


@dataclass(frozen=True, eq=False)
class StrategySweep:
    """One strategy at every value of a setting, compared as in the study."""

    strategy: str
    evidence: Mapping[SettingValue, StrategyEvidence]
    analysis: FamilyAnalysis

    def median_s(self, value: SettingValue) -> float:
        """Return the median latency at a value."""
        return float(np.median(self.evidence[value].latency_s))


@dataclass(frozen=True, eq=False)
class SettingSweep:
    """All strategies of a subject that were measured at several values of one setting.

    `fastest` has the strategy with the lowest median at each value, over all that were measured there; `others` names
    what else was swept, and the value that it had here.
    """

    subject: str
    setting: str
    strategies: tuple[StrategySweep, ...]
    fastest: Mapping[SettingValue, StrategyEvidence]
    others: str = ""

    @property
    def title(self) -> str:
        """Return the setting, and at which values of the others it was swept."""
        return f"{self.setting} at {self.others}" if self.others else self.setting


def setting_sweeps(evidence: Sequence[StrategyEvidence], *, adjustment: str) -> tuple[SettingSweep, ...]:
    """Collect the sweeps that some evidence contains.

    Parameters
    ----------
    evidence : sequence of StrategyEvidence
        Of any subjects and environments.
    adjustment : str
        Of the p-values of Conover's test within a family.

    Returns
    -------
    tuple of SettingSweep
        Ordered by subject and setting.
    """
    groups: dict[tuple[str, str], dict[_Swept, dict[SettingValue, StrategyEvidence]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for strategy in evidence:
        if strategy.measured:
            settings = strategy_settings(strategy)
            for name, value in settings.items():
                others = frozenset((other, settings[other]) for other in settings if other != name)
                by_value = groups[strategy.subject, name][_swept(strategy, name, others)]
                # Evidence comes in the order of its environments: of several with this value the newest stays.
                by_value[value] = strategy
    sweeps: list[SettingSweep] = []
    for (subject, setting), members in sorted(groups.items(), key=lambda group: group[0]):
        swept = _measured_once({key: by_value for key, by_value in members.items() if len(by_value) > 1})
        for words, keys in _by_others(swept).items():
            strategies = tuple(_sweep(swept[key], setting, adjustment) for key in keys)
            fastest = _fastest(strategies, setting, evidence)
            sweeps.append(SettingSweep(subject, setting, strategies, fastest, words))
    return tuple(sweeps)


class _Swept(NamedTuple):
    """What the values of a setting are compared for: the strategy and its place, and its other settings."""

    identity: object
    place: object
    others: frozenset[tuple[str, SettingValue]]


def _measured_once(
    swept: Mapping[_Swept, Mapping[SettingValue, StrategyEvidence]],
) -> dict[_Swept, Mapping[SettingValue, StrategyEvidence]]:
    """Leave out the same latencies in another environment: settings that do not touch a strategy share its rounds."""
    once: dict[object, _Swept] = {}
    for key, by_value in swept.items():
        samples = frozenset((value, row.latency_s.tobytes()) for value, row in by_value.items())
        once.setdefault((key.identity, key.others, samples), key)
    return {key: swept[key] for key in once.values()}


def _by_others(swept: Iterable[_Swept]) -> dict[str, list[_Swept]]:
    """Return what is swept by the values of the other settings that are swept as well, in words."""
    values: dict[tuple[object, str], set[SettingValue]] = defaultdict(set)
    keys = list(swept)
    for key in keys:
        for other, value in key.others:
            values[key.identity, other].add(value)
    grouped: dict[str, list[_Swept]] = defaultdict(list)
    for key in keys:
        several = sorted((other, value) for other, value in key.others if len(values[key.identity, other]) > 1)
        grouped[listed([f"{other} {value.label}" for other, value in several])].append(key)
    return grouped


def strategy_settings(strategy: StrategyEvidence) -> dict[str, SettingValue]:
    """Return the settings that a strategy was measured with: rates of its links, limits of its tiers, pass options."""
    settings = {
        f"bandwidth of {link}": SettingValue(bit_per_s, rate(bit_per_s))
        for link, bit_per_s in declared_rates(strategy).items()
    }
    for tier, row in condition_rows(strategy, "tiers").items():
        if tier in strategy.tiers and (cpus := positive(row.get("cpus"))) is not None:
            settings[f"CPUs of {tier}"] = SettingValue(cpus, f"{cpus:g} CPU{'s' * (cpus != 1)}")
        if tier in strategy.tiers and (memory_bytes := positive(row.get("memory_bytes"))) is not None:
            settings[f"memory of {tier}"] = SettingValue(memory_bytes, size(memory_bytes))
    for step in strategy.passes:
        for option, value in (step.get("options") or {}).items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                settings[f"{option} of {step['name']}"] = SettingValue(float(value), f"{option}: {value:g}")
            elif isinstance(value, str):
                # Words have no order of their own, so that the alphabet orders them.
                settings[f"{option} of {step['name']}"] = SettingValue(0.0, value)
    return settings


def _swept(strategy: StrategyEvidence, setting: str, others: frozenset[tuple[str, SettingValue]]) -> _Swept:
    """Return what must be the same for two strategies to differ in a setting alone."""
    names = tuple(str(step["name"]) for step in strategy.passes)
    of_pass = any(setting.endswith(f" of {name}") for name in names)
    where = strategy.environment
    # An option belongs to the operator, so that operators differ in it within one environment. Imports have a host of
    # their own each, and what was measured here is compared on one host alone.
    place = where.key if of_pass else (where.launcher, where.scale, "" if where.origin else where.host)
    return _Swept((names, None if of_pass else strategy.operator, strategy.placement), place, others)


def _sweep(by_value: Mapping[SettingValue, StrategyEvidence], setting: str, adjustment: str) -> StrategySweep:
    ordered = dict(sorted(by_value.items(), key=lambda item: (item[0].number, item[0].label)))
    first = next(iter(ordered.values()))
    labels = [value.label for value in ordered]
    # Operators that differ in an option of a pass have different names: what they share are their passes.
    operators = {strategy.operator for strategy in ordered.values()}
    passes = "+".join(str(step["name"]) for step in first.passes)
    name = strategy_name(first.operator if len(operators) == 1 else passes, first.tiers)
    family = StrategyFamily(f"{setting}:{name}", "settings", (), tuple(labels))
    samples = {value.label: strategy.latency_s for value, strategy in ordered.items()}
    return StrategySweep(name, ordered, analyse_families(samples, [family], adjustment=adjustment).families[0])


def _fastest(
    swept: Sequence[StrategySweep], setting: str, evidence: Sequence[StrategyEvidence]
) -> Mapping[SettingValue, StrategyEvidence]:
    """Return the strategy with the lowest median at each value, among all that were measured in its environments."""
    members: dict[SettingValue, list[StrategyEvidence]] = defaultdict(list)
    for sweep in swept:
        for value, strategy in sweep.evidence.items():
            members[value].append(strategy)
    subject = next(iter(swept[0].evidence.values())).subject
    for value, rows in members.items():
        environments = {row.environment.key for row in rows}
        rows += [
            other
            for other in evidence
            if other.measured
            and other.subject == subject
            and other.environment.key in environments
            and strategy_settings(other).get(setting, value) == value
        ]
    ordered = sorted(members, key=lambda value: (value.number, value.label))
    return {value: min(members[value], key=lambda row: float(np.median(row.latency_s))) for value in ordered}


def sweep_sentences(sweep: SettingSweep) -> Iterator[str]:
    """Yield how each strategy changes from the first value to the last, and where the fastest strategy changes."""
    for strategy in sweep.strategies:
        values = list(strategy.evidence)
        first, last = values[0], values[-1]
        test, analysis = strategy.analysis.kruskal_wallis, strategy.analysis
        compared = analysis.comparison(last.label, first.label)
        word = f"Conover p {pvalue(compared.pvalue)}, Cliff's delta {compared.magnitude}"
        word = word if compared.significant else "not significant"
        operator, placement = split(strategy.strategy)
        yield sentence(
            f"{spoken(operator)} on {placement}: {duration(strategy.median_s(first))} at {first.label}, "
            f"{duration(strategy.median_s(last))} at {last.label}, "
            f"{speedup(strategy.median_s(last), strategy.median_s(first))} ({word}); Kruskal-Wallis over "
            f"{len(values)} values: p {pvalue(test.pvalue)}"
        )
    yield _choice(sweep)


def _choice(sweep: SettingSweep) -> str:
    """Return the fastest strategy over the values, those in a row with the same one together."""
    runs: list[tuple[str, list[str]]] = []
    for value, strategy in sweep.fastest.items():
        name = f"{spoken(strategy.operator)} on {strategy.placement}"
        if not runs or runs[-1][0] != name:
            runs.append((name, []))
        runs[-1][1].append(value.label)
    if len(runs) == 1:
        return sentence(f"the lowest median is that of {runs[0][0]} at every value")
    return sentence(f"the lowest median is that of {listed([f'{name} at {listed(labels)}' for name, labels in runs])}")


def sweep_tables(sweep: SettingSweep) -> Iterator[Html]:
    """Yield a matrix of effect sizes over the values for each strategy, as the study's tables of tiers."""
    for strategy in sweep.strategies:
        labels = strategy.analysis.members
        rows = [
            [label, duration(float(median)), *(_symbol(strategy.analysis, label, other) for other in labels)]
            for label, median in zip(labels, strategy.analysis.median, strict=True)
        ]
        test = strategy.analysis.kruskal_wallis
        caption = f"{strategy.strategy}: Kruskal-Wallis H {test.statistic:.4g}, p {pvalue(test.pvalue)}"
        yield table(caption, [sweep.setting, "median", *labels], rows, class_="matrix")


def _symbol(analysis: FamilyAnalysis, row: str, column: str) -> str:
    return "-" if row == column else analysis.comparison(row, column).symbol


_ROW, _HEADING, _BOX = 20.0, 22.0, 9.0


def sweep_figure(sweep: SettingSweep) -> Figure:
    """Draw the quartiles and the median of every strategy at every value, on one log scale."""
    latencies = [row.latency_s for strategy in sweep.strategies for row in strategy.evidence.values()]
    low = min(float(values.min()) for values in latencies)
    high = max(float(values.max()) for values in latencies)
    axis = Axis(*padded(low, high, logarithmic=True), 96.0, WIDTH - 62.0, logarithmic=True)
    shapes: list[Html] = []
    y = 0.0
    for strategy in sweep.strategies:
        shapes.append(text(0.0, y + 15, strategy.strategy, class_="group"))
        y += _HEADING
        for value, row in strategy.evidence.items():
            quartile_1, median, quartile_3 = (axis.at(float(at)) for at in np.percentile(row.latency_s, (25, 50, 75)))
            shapes += [
                text(0.0, y + 11, value.label),
                rect(quartile_1, y + 3, quartile_3 - quartile_1, _BOX, "box"),
                line(median, y + 2, median, y + 4 + _BOX, "median"),
                text(WIDTH, y + 11, duration(float(np.median(row.latency_s))), class_="value", anchor="end"),
            ]
            y += _ROW
    return Figure(
        title=f"{sweep.subject} over {sweep.title}",
        description=" ".join(sweep_sentences(sweep)),
        height=y + 34,
        shapes=[*bottom_axis(axis, 4.0, y + 4, title="end-to-end latency, log scale"), *shapes],
    )


def sweep_section(sweeps: Sequence[SettingSweep], ids: Ids) -> Html:
    """Return every sweep: in words, as a figure, and with the study's effect sizes."""
    return joined(_section(sweep, ids) for sweep in sweeps)


def _section(sweep: SettingSweep, ids: Ids) -> Html:
    figure = sweep_figure(sweep)
    return joined(
        tag("h4", f"{sweep.subject}: {sweep.title}"),
        tag("ul", (tag("li", said) for said in sweep_sentences(sweep)), class_="findings"),
        tag(
            "figure",
            tag("figcaption", tag("b", figure.title), ": quartiles and median, which is at the right."),
            svg(figure, id_=ids.new("sweep", sweep.subject, sweep.title)),
        ),
        tag("div", list(sweep_tables(sweep)), class_="matrices"),
    )
