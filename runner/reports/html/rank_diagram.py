"""A critical-difference style diagram: estimates with their intervals, and bars that join what is not told apart."""

from collections.abc import Sequence

from catalog.analysis import StrategyResult, SubjectResult
from catalog.statistics.letters import Rank
from runner.reports.html.drawing import WIDTH, Axis, Figure, bottom_axis, dots, fitted, line, padded, text, text_width
from runner.reports.html.grouping import fastest_first
from runner.reports.html.markup import Html, tag
from runner.reports.units import duration

_ROW, _BARS_AT_MOST, _BAR = 32.0, 80.0, 6.0


def rank_diagram(result: SubjectResult) -> Figure:
    """Fastest first; a bar beside the rows has a dot for each strategy that shares its letter."""
    ordered = fastest_first(result)
    letters = _shared_letters(ordered)
    room = min(len(letters) * _BAR, _BARS_AT_MOST)
    right = WIDTH - room - (6 if letters else 0)
    axis = _axis(ordered, result.settings.percentile, right)
    shapes: list[Html] = []
    for position, each in enumerate(ordered):
        shapes += _row(each, axis, result.settings.percentile, position * _ROW, right)
    bottom = len(ordered) * _ROW + 4
    for number, letter in enumerate(letters):
        x = WIDTH - room + (number + 0.5) * room / len(letters)
        shapes += _bar(letter, [letter in each.rank.letters for each in ordered], x)
    asked = f"p{result.settings.percentile:g}"
    return Figure(
        title=f"Ranks of the strategies of {result.subject} by {asked}",
        description=_description(ordered, asked),
        height=bottom + 32,
        shapes=[*bottom_axis(axis, 4.0, bottom, title=f"{asked} latency with its interval, log scale"), *shapes],
    )


def _axis(ordered: Sequence[StrategyResult], percentile: float, right: float) -> Axis:
    intervals = [each.interval(percentile) for each in ordered]
    lowest = min(each.low_s or each.estimate_s for each in intervals)
    highest = max(each.high_s or each.estimate_s for each in intervals)
    return Axis(*padded(lowest, highest, logarithmic=True), 4.0, right - 4, logarithmic=True)


def _row(each: StrategyResult, axis: Axis, percentile: float, y: float, right: float) -> list[Html]:
    interval = each.interval(percentile)
    x, middle, label = axis.at(interval.estimate_s), y + 21, duration(interval.estimate_s)
    shapes = [text(0.0, y + 11, fitted(f"{ranks(each.rank)} {each.name}", right, size=10.5), class_="row")]
    ends = (x, x)
    if interval.low_s is not None and interval.high_s is not None:
        ends = axis.at(interval.low_s), axis.at(interval.high_s)
        shapes.append(line(ends[0], middle, ends[1], middle, "whisker"))
        shapes += [line(end, middle - 3, end, middle + 3, "whisker") for end in ends]
    shapes.append(dots([(x, middle)], "estimate"))
    after = ends[1] + 7 + text_width(label, size=11) <= right
    place = (ends[1] + 7, "start") if after else (ends[0] - 7, "end")
    shapes.append(text(place[0], middle + 4, label, class_="value", anchor=place[1]))
    return [tag("g", tag("title", f"{each.name}: rank {ranks(each.rank)}, {label}"), shapes)]


def _bar(letter: str, members: Sequence[bool], x: float) -> list[Html]:
    places = [position * _ROW + 21 for position, member in enumerate(members) if member]
    joined = tag("title", f"letter {letter}: not told apart")
    bar = line(x, places[0], x, places[-1], "tie")
    return [tag("g", joined, bar, dots(((x, y) for y in places), "tied"))]


def _shared_letters(ordered: Sequence[StrategyResult]) -> list[str]:
    """Letters of more than one strategy, in the order of their first one."""
    found = [letter for each in ordered for letter in each.rank.letters]
    return [letter for letter in dict.fromkeys(found) if found.count(letter) > 1]


def ranks(rank: Rank) -> str:
    """`3`, or `3–5` where ties leave it open."""
    return str(rank.rank) if rank.rank == rank.worst_rank else f"{rank.rank}–{rank.worst_rank}"


def _description(ordered: Sequence[StrategyResult], asked: str) -> str:
    best = [each.name for each in ordered if each.rank.rank == 1]
    shown = "; ".join(
        f"{each.name}, rank {ranks(each.rank)}, letters {' '.join(each.rank.letters)}" for each in ordered
    )
    return f"By {asked}. Nothing is shown to be faster than {', '.join(best)}. {shown}."
