"""Where the time goes: stacked bars of shares, with the mean latency written beside each."""

from collections.abc import Iterator, Mapping, Sequence

from catalog.analysis import StrategyResult, SubjectResult
from catalog.evidence.breakdown import Breakdown
from runner.reports.html.drawing import WIDTH, Figure, fitted, line, rect, text, text_width
from runner.reports.html.grouping import by_placement
from runner.reports.html.markup import Html, tag
from runner.reports.units import duration

PARTS = ("preprocess", "compute", "postprocess", "serialise", "transmission")
_ROW, _HEADING, _BAR = 32.0, 22.0, 13.0
# Parts that carry the name of their tier or link, and the class of that name: a hatch needs a halo.
_NAMED = {"compute": "on-part", "transmission": "name"}


def segments(found: Breakdown) -> Iterator[tuple[str, str, float]]:
    """Part, tier or link, and mean seconds; transmission comes last: by link, then what no link's bytes explain."""
    for tier in found.tiers:
        yield "preprocess", tier.tier, tier.preprocess_s
        yield "compute", tier.tier, tier.compute_s
        yield "postprocess", tier.tier, tier.postprocess_s
        yield "serialise", tier.tier, tier.serialise_s
    for link in found.links:
        yield "transmission", link.link, link.wire_s
    yield "transmission", "", found.other_transmission_s


def breakdown_bars(result: SubjectResult, breakdowns: Mapping[str, Breakdown]) -> Figure | None:
    """One bar per strategy; None where no parts are known, as of imported latencies."""
    known = [
        (placement, [each for each in members if _known(each, breakdowns)])
        for placement, members in by_placement(result.strategies)
    ]
    if not any(members for _, members in known):
        return None
    shapes: list[Html] = list(_legend())
    y = 40.0
    for placement, members in known:
        if members:
            shapes.append(text(0.0, y + 15, placement, class_="group"))
            y += _HEADING
        for each in members:
            shapes += _row(each, breakdowns[each.evidence.latency_key], y)
            y += _ROW
    return Figure(
        title=f"Where the time of {result.subject} goes",
        description=_description([each for _, members in known for each in members], breakdowns),
        height=y + 2,
        shapes=shapes,
    )


def _known(each: StrategyResult, breakdowns: Mapping[str, Breakdown]) -> bool:
    found = breakdowns.get(each.evidence.latency_key)
    return found is not None and bool(found.tiers)


def _row(each: StrategyResult, found: Breakdown, y: float) -> Iterator[Html]:
    label = duration(found.latency_s)
    name = fitted(each.evidence.operator, WIDTH - text_width(label, size=11) - 12, size=11)
    yield text(0.0, y + 11, name)
    yield text(WIDTH, y + 11, label, class_="value", anchor="end")
    drawn = [(part, tier, max(seconds, 0.0)) for part, tier, seconds in segments(found)]
    whole = sum(seconds for _, _, seconds in drawn) or 1.0
    x, before = 0.0, drawn[0][1]
    for part, tier, seconds in drawn:
        width = WIDTH * seconds / whole
        said = f"{each.name}: {part}{f' on {tier}' if tier else ''} {duration(seconds)}, {seconds / whole:.0%}"
        if tier != before:
            yield line(x, y + 13, x, y + 17 + _BAR, "boundary")
            before = tier
        if width > 0:
            yield rect(x, y + 15, width, _BAR, f"part {part}", tag("title", said))
        if part in _NAMED and text_width(tier, size=10) + 6 < width:
            yield text(x + width / 2, y + 25, tier, class_=f"small {_NAMED[part]}", anchor="middle")
        x += width


def _legend() -> Iterator[Html]:
    for position, part in enumerate(PARTS):
        x, y = (position % 3) * 114.0, 4.0 + 17 * (position // 3)
        yield rect(x, y, 14.0, 11.0, f"part {part}")
        yield text(x + 19, y + 9, part, class_="small")


def _description(strategies: Sequence[StrategyResult], breakdowns: Mapping[str, Breakdown]) -> str:
    return "Shares of the mean latency. " + " ".join(
        f"{each.name}: "
        + ", ".join(
            f"{part}{f' on {tier}' if tier else ''} {duration(seconds)}"
            for part, tier, seconds in segments(breakdowns[each.evidence.latency_key])
        )
        + "."
        for each in strategies
    )
