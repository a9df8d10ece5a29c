"""The conditions under which the numbers hold, in one paragraph and a list."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from catalog.evidence import EnvironmentEvidence, Origin, SloEvidence
from catalog.units import duration, rate, size
from runner.reports.html.markup import Html, details, joined, table, tag
from runner.reports.html.report_data import EnvironmentReport


def title(environment: EnvironmentEvidence) -> str:
    """Return an environment's heading: `docker on h`, `phone, imported`."""
    if environment.origin is not None:
        return f"{environment.host}, imported from {environment.origin.name}"
    emulated = "" if environment.scale == "1" else f", emulated at {environment.scale}"
    return f"{environment.launcher} on {environment.host}{emulated}"


def conditions(report: EnvironmentReport) -> Html:
    """List every fact about what was measured, how, and where."""
    return tag("dl", (joined(tag("dt", name), tag("dd", value)) for name, value in _facts(report)))


def in_short(report: EnvironmentReport) -> str:
    """Summarise in a few sentences what was measured."""
    strategies = [strategy for result in report.results for strategy in result.strategies]
    inputs = _range([strategy.samples.fewest_inputs for strategy in strategies])
    rounds = [len(strategy.evidence.rounds) for strategy in strategies]
    repeated = _range([int(strategy.evidence.repetition.max()) + 1 for strategy in strategies])
    repetitions = "once" if repeated == "1" else f"{repeated} times"
    chosen = {strategy.evidence.inputs_select for strategy in strategies}
    how = {"random": "chosen at random", "largest": "the largest of the data set"}
    # Several, where strategies were imported from files that chose their inputs in different ways.
    select = " or ".join(sorted(how.get(name or "", "chosen in an unknown way") for name in chosen))
    text = (
        f"End-to-end latencies of a single stream of requests, one at a time, on unloaded tiers. {inputs} inputs "
        f"({select}) in {_range(rounds)} round(s), each input {repetitions} a round."
    )
    # How rounds differ is what an interval rests on; one round does not show it.
    if min(rounds) < 2:
        text += " One round alone supports description, not decisions."
    doubtful = sum(row["verdict"] == "DOUBTFUL" for row in report.verdicts)
    if doubtful:
        text += f" {doubtful} of the {len(report.verdicts)} measurements are DOUBTFUL; the reasons are at the end."
    if report.environment.origin is not None:
        return f"Imported, not measured here. {text}"
    if report.environment.scale != "1":
        text += f" Emulated at {report.environment.scale}: budgets are judged on the emulation only."
    if report.environment.launcher == "process":
        text += " Tiers are processes with links paced in user space, not containers."
    return f"Measured. {text}"


def _range(values: Sequence[int]) -> str:
    return str(min(values)) if min(values) == max(values) else f"{min(values)} to {max(values)}"


def _facts(report: EnvironmentReport) -> Iterator[tuple[str, str]]:
    where, settings = report.environment, report.results[0].settings
    # --environment takes the beginning of a key.
    yield "Environment", f"{where.key[:16]}, {where.provenance}"
    if where.origin is None:
        yield "Launcher", f"{where.launcher}, {where.engine}, scale {where.scale}"
        yield (
            "Host",
            (
                f"{where.host}: {where.cpu_model}, {where.cpu_count} CPUs, {size(where.memory_bytes)}, "
                f"kernel {where.kernel}"
            ),
        )
        yield "Software", f"ONNX Runtime {where.onnxruntime}, Tierwise {where.tierwise}"
    else:
        for origin in _origins(report) or [where.origin]:
            yield "File", f"{origin.name}, SHA-256 {origin.sha256[:16]}…, imported {origin.imported_at}"
    for tier in report.tiers:
        limits = f"{tier['cpus']:g} CPUs, {size(tier['memory_bytes'])}, {tier['threads']} thread(s), {tier['provider']}"
        yield f"Tier {tier['tier']}", limits
    rows = [row for result in report.results for strategy in result.strategies for row in strategy.evidence.rounds]
    yield "From, to", f"{min(row.started_at for row in rows)}, {max(row.finished_at for row in rows)}"
    yield (
        "Question",
        (
            f"p{settings.percentile:g} of latency, equivalent within {100 * settings.equivalent_within:g} %, "
            f"{100 * settings.confidence_level:g} % confidence for all comparisons of a question together, "
            f"{settings.n_resamples} draws of inputs"
        ),
    )
    for slo in report.slos:
        yield f"SLO {slo.name}", _slo(slo)


def _origins(report: EnvironmentReport) -> list[Origin]:
    """Return every file that the page's evidence came from, in the order of import."""
    strategies = [strategy.evidence for result in report.results for strategy in result.strategies]
    origins = {origin.id: origin for row in (*strategies, *report.unmeasured) for origin in row.origins}
    return [origins[identity] for identity in sorted(origins)]


def _slo(slo: SloEvidence) -> str:
    limits = [f"p{percentile:g} at most {duration(limit_s)}" for percentile, limit_s in slo.latency_s.items()]
    limits += [f"drop at most {slo.max_drop_pp:g} points"] if slo.max_drop_pp is not None else []
    limits += [f"accuracy at least {slo.min_pct:g} %"] if slo.min_pct is not None else []
    return ", ".join(limits) or "no limits"


VERDICTS = ("VALID", "DOUBTFUL", "INVALID", "failed")


def links_table(rows: Sequence[Mapping[str, Any]]) -> Html:
    """Return declared beside measured payload rates, by link and direction."""
    heads = ("link", "direction", "declared", "measured, mean", "deviation", "tolerance", "RTT", "probes")
    cells = (
        [
            row["link"],
            row["direction"],
            rate(row["declared_bit_per_s"]),
            rate(row["mean_bit_per_s"]),
            f"{row['least_pct']:+.1f} to {row['most_pct']:+.1f} %",
            "–" if row["tolerance_pct"] is None else f"{row['tolerance_pct']:g} %",
            duration(row["rtt_s"]),
            str(row["probes"]),
        ]
        for row in rows
    )
    return table("Links of the evidence that counts, probed before and after each measurement", heads, cells, left=2)


def verdict_section(rows: Sequence[Mapping[str, Any]]) -> Iterator[Html]:
    """Yield the count of measurements by verdict and subject, and every one that is not valid with its reason."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        counts.setdefault(row["subject"], Counter())[_verdict(row)] += 1
    cells = ([subject, *(str(by_verdict[name]) for name in VERDICTS)] for subject, by_verdict in counts.items())
    yield table("Measurements by verdict", ("subject", *VERDICTS), cells)
    # Folded, because a busy machine may have doubted hundreds.
    doubted = [row for row in rows if _verdict(row) != "VALID"]
    if doubted:
        listed = (
            [
                f"{row['subject']}/{row['operator']}@{row['placement']} round {row['round']}",
                _verdict(row),
                row["reason"] or "–",
            ]
            for row in doubted
        )
        yield details(
            f"{len(doubted)} measurements that are not valid, and why",
            table("Not valid", ("measurement", "verdict", "reason"), listed, left=3),
        )


def _verdict(row: Mapping[str, Any]) -> str:
    return "failed" if row["status"] != "complete" else str(row["verdict"])


def unmeasured_list(rows: Sequence[tuple[str, str]]) -> Html | None:
    """List the declared strategies without evidence here, each with the reason."""
    if not rows:
        return None
    items = (tag("li", f"{name}: {reason}") for name, reason in rows)
    return details(f"{len(rows)} declared strategies without evidence here", tag("ul", items))
