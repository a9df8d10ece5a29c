"""The first page of a report: what to deploy for each SLO and subject, how sure that is, and what would make it sure.

Every figure and word is the recommender's, so that the report, `runner slo` and the service say the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from catalog.evidence.strategy_evidence import SloEvidence
from catalog.units import duration, points, size
from recommender.answer.wording import percentile_name
from recommender.schemas import NearMissOut, RecommendResponse, StrategyOut
from runner.reports.answer import confidence, far_outputs, shortfall
from runner.reports.html.markup import Child, Html, joined, tag
from runner.reports.html.sentences import count


@dataclass(frozen=True)
class SloAnswer:
    """The answer for one subject; `slo` is None where none is declared, and the fastest strategy is the answer."""

    slo: SloEvidence | None
    subject: str
    answer: RecommendResponse


ABSENT = "–"
_HEADS = ("subject", "deploy", "latency", "drop, pp", "size", "how sure", "to make it sure")


def answers_section(answers: Sequence[SloAnswer], subject_ids: Mapping[str, str]) -> Html:
    """Return a sentence that counts the answers, and a table for each SLO with a row for each subject.

    `subject_ids` are the ids of the subjects' sections, which the rows link to.
    """
    by_slo: dict[str, list[SloAnswer]] = {}
    for entry in answers:
        by_slo.setdefault(_caption(entry.slo), []).append(entry)
    tables = (_table(caption, rows, subject_ids) for caption, rows in by_slo.items())
    return joined(tag("p", _counted(answers), class_="answer"), tables)


def limits_in_words(slo: SloEvidence) -> str:
    """Return `p90 at most 100 ms, drop at most 1 points`: what an SLO demands."""
    limits = [f"p{percentile:g} at most {duration(limit_s)}" for percentile, limit_s in slo.latency_s.items()]
    limits += [f"drop at most {slo.max_drop_pp:g} pp"] if slo.max_drop_pp is not None else []
    limits += [f"accuracy at least {slo.min_pct:g} %"] if slo.min_pct is not None else []
    return ", ".join(limits) or "no limits"


def _caption(slo: SloEvidence | None) -> str:
    return "No SLO is declared: the fastest" if slo is None else f"{slo.name}: {limits_in_words(slo)}"


def _counted(answers: Sequence[SloAnswer]) -> str:
    proven = sum(entry.answer.recommendation is not None for entry in answers)
    open_ = sum(entry.answer.recommendation is None and bool(entry.answer.undecided) for entry in answers)
    none = len(answers) - proven - open_
    words = {"proven": proven, "open": open_, "without a strategy": none}
    listed = ", ".join(f"{count(number)} {word}" for word, number in words.items() if number)
    questions = f"{count(len(answers))} question{'' if len(answers) == 1 else 's'}"
    return f"Of {questions} (every SLO for every subject): {listed}."


def _table(caption: str, rows: Sequence[SloAnswer], subject_ids: Mapping[str, str]) -> Html:
    head = tag("tr", (tag("th", name, scope="col") for name in _HEADS))
    body = (_row(entry, subject_ids) for entry in rows)
    inner = tag("table", tag("caption", tag("b", caption)), tag("thead", head), tag("tbody", body), class_="answers")
    return tag("div", inner, class_="scroll", tabindex="0")


def _row(entry: SloAnswer, subject_ids: Mapping[str, str]) -> Html:
    cells = _cells(entry)
    link = tag("a", entry.subject, href=f"#{subject_ids[entry.subject]}")
    # On a phone a row becomes a card, whose lines take their names from here.
    labelled = (
        tag("td", cell, data_label=name, class_="absent" if cell == ABSENT else None)
        for name, cell in zip(_HEADS[1:], cells, strict=True)
    )
    return tag("tr", tag("th", link, scope="row"), labelled)


def _cells(entry: SloAnswer) -> tuple[Child, ...]:
    """Return what follows the subject: strategy, latency, drop, size, how sure, and what would make it sure."""
    answer = entry.answer
    best = answer.recommendation
    if best is not None:
        sure = f"proven, {confidence(best.joint_confidence)}"
        return (*_figures(best), sure, far_outputs(best) or ABSENT)
    undecided = next(iter(answer.undecided), None)
    if undecided is not None:
        return (*_figures(undecided), "open", undecided.to_do)
    nearest = next(iter(answer.near_misses), None)
    if nearest is None:
        return ("nothing measured", ABSENT, ABSENT, ABSENT, ABSENT, answer.summary)
    return (*_missed(nearest), "none holds", _relaxed(answer))


def _figures(strategy: StrategyOut) -> Iterator[Child]:
    latency, accuracy = strategy.latency, strategy.accuracy
    yield tag("b", f"{strategy.operator} on {strategy.placement}")
    yield f"{percentile_name(latency.percentile)} {duration(latency.percentile_s)}"
    yield ABSENT if accuracy is None or accuracy.drop_pp is None else points(accuracy.drop_pp)
    yield ABSENT if strategy.size_bytes is None else size(strategy.size_bytes)


def _missed(nearest: NearMissOut) -> Iterator[Child]:
    _, *figures = _figures(nearest)
    yield joined(tag("b", "none"), f"; nearest {nearest.operator} on {nearest.placement} ({shortfall(nearest)})")
    yield from figures


def _relaxed(answer: RecommendResponse) -> str:
    return answer.relaxation.words if answer.relaxation is not None else ABSENT
