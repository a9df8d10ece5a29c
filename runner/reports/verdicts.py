"""The verdicts in the terminal: every rule with figure and threshold, what to do, and each measurement not valid."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from catalog.validity.findings import Finding, amount
from runner.measuring.rejudge import Judged, RuleSummary

_STYLES = {"VALID": "", "DOUBTFUL": "yellow", "INVALID": "red"}


def rules_table(summaries: Sequence[RuleSummary]) -> Table:
    """One row per rule: how many measurements it calls what, and its worst figure."""
    table = Table(title="rules", title_justify="left", pad_edge=False)
    table.add_column("rule", no_wrap=True)
    for heading in ("valid", "doubtful", "invalid", "limit", "worst"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("where", overflow="fold")
    for each in summaries:
        place = f"{each.measurement}, {each.worst.where}" if each.worst.where else each.measurement
        table.add_row(
            Text(each.rule),
            *(str(each.counts[name]) for name in ("VALID", "DOUBTFUL", "INVALID")),
            amount(each.worst.threshold, each.worst.unit),
            Text(amount(each.worst.figure, each.worst.unit), style=_STYLES[each.worst.verdict]),
            Text(place),
        )
    return table


def broken_table(judged: Sequence[Judged]) -> Table:
    """One row per measurement that is not valid, with every rule it breaks."""
    table = Table(title="not valid", title_justify="left", pad_edge=False)
    table.add_column("measurement", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("why: figure, limit")
    for each in judged:
        if each.verdict != "VALID":
            why = each.reason or "" if each.failed else "\n".join(str(finding) for finding in _broken(each))
            verdict = "failed" if each.failed else each.verdict
            table.add_row(Text(each.name), Text(verdict, style=_STYLES[each.verdict]), Text(why))
    return table


def advice(judged: Sequence[Judged]) -> Iterator[str]:
    """What to do, once per broken rule."""
    found = {finding.rule: finding.advice for each in judged for finding in _broken(each)}
    for rule, what in found.items():
        yield f"{rule}: {what}"


def _broken(judged: Judged) -> list[Finding]:
    return [finding for finding in judged.findings if finding.verdict != "VALID"]
