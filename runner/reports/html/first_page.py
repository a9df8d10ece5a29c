"""The first page of a report: what to deploy for each SLO and subject, how sure that is, and what would make it sure.

Every figure and word is the recommender's, so that the report, `runner slo` and the service say the same.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from catalog.evidence.strategy_evidence import SloEvidence
from catalog.units import duration, limit_duration, points, size
from recommender.answer.wording import how_sure, percentile_name
from recommender.schemas import NearMissOut, RecommendationOut, RecommendResponse, StrategyOut
from runner.reports.answer import far_outputs, shortfall
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
_WORDS = {"infeasible": "without a strategy", "unmeasured": "not measured"}


def answers_section(answers: Sequence[SloAnswer], subject_ids: Mapping[str, str]) -> Html:
    """Return a sentence that counts the answers, and a table for each SLO with a row for each subject.

    `subject_ids` are the ids of the subjects' sections, which the rows link to.
    """
    by_slo: dict[str, list[SloAnswer]] = {}
    for entry in answers:
        by_slo.setdefault(_caption(entry.slo), []).append(entry)
    tables = (_table(caption, rows, subject_ids) for caption, rows in by_slo.items())
    # Without an SLO nothing was asked that could be proven.
    counted = tag("p", _counted(answers), class_="answer") if any(entry.slo for entry in answers) else None
    return joined(counted, tables)


def limits_in_words(slo: SloEvidence) -> str:
    """Return `p90 at most 100 ms, drop at most 1 pp`: what an SLO demands."""
    limits = [f"p{percentile:g} at most {limit_duration(limit_s)}" for percentile, limit_s in slo.latency_s.items()]
    limits += [f"drop at most {slo.max_drop_pp:g} pp"] if slo.max_drop_pp is not None else []
    limits += [f"accuracy at least {slo.min_pct:g} %"] if slo.min_pct is not None else []
    return ", ".join(limits) or "no limits"


def _caption(slo: SloEvidence | None) -> str:
    return "No SLO is declared: the fastest" if slo is None else f"{slo.name}: {limits_in_words(slo)}"


def _counted(answers: Sequence[SloAnswer]) -> str:
    """Say how many answers are how sure, the surest first."""
    statuses: Counter[str] = Counter(entry.answer.status for entry in answers)
    order = ("proven", "likely", "open", "estimated", "infeasible", "unmeasured")
    listed = ", ".join(
        f"{count(statuses[status])} {_WORDS.get(status, status)}" for status in order if statuses[status]
    )
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
        tag("td", tag("div", cell), data_label=name, class_="absent" if cell == ABSENT else None)
        for name, cell in zip(_HEADS[1:], cells, strict=True)
    )
    return tag("tr", tag("th", link, scope="row"), labelled)


def _cells(entry: SloAnswer) -> tuple[Child, ...]:
    """Return what follows the subject: strategy, latency, drop, size, how sure, and what would make it sure."""
    answer = entry.answer
    best = answer.recommendation
    if best is not None:
        name, *figures = _figures(best)
        sure = ABSENT if entry.slo is None else how_sure(best.status, best.probability)
        return (joined(name, _doubts(best)), *figures, sure, _surer(answer))
    nearest: StrategyOut | None = next(iter((*answer.undecided, *answer.near_misses)), None)
    if nearest is None:
        return ("nothing measured", ABSENT, ABSENT, ABSENT, ABSENT, _surer(answer))
    _, *figures = _figures(nearest)
    lacks = f" ({shortfall(nearest)})" if isinstance(nearest, NearMissOut) else ""
    name = joined(tag("b", "none"), f"; nearest {nearest.operator} on {nearest.placement}{lacks}")
    infeasible = answer.infeasible
    # Of what the row says: that no strategy holds.
    sure = ABSENT if infeasible is None else how_sure(infeasible.status, infeasible.probability)
    return (name, *figures, sure, _surer(answer))


def _figures(strategy: StrategyOut) -> Iterator[Child]:
    latency, accuracy = strategy.latency, strategy.accuracy
    yield tag("b", f"{strategy.operator} on {strategy.placement}")
    yield f"{percentile_name(latency.percentile)} {duration(latency.percentile_s)}"
    yield ABSENT if accuracy is None or accuracy.drop_pp is None else points(accuracy.drop_pp)
    yield ABSENT if strategy.size_bytes is None else size(strategy.size_bytes)


def _doubts(best: RecommendationOut) -> str | None:
    """Return what a reader must know of its answers before it is deployed."""
    far = far_outputs(best)
    return f" ({far})" if far else None


def _surer(answer: RecommendResponse) -> Child:
    """Say what would make it sure, or what to ask instead, and which strategy is proven already."""
    sentences = [] if answer.to_do is None else [answer.to_do.words]
    # Beside a strategy to deploy, other limits would be another question.
    if answer.recommendation is None and answer.relaxation is not None:
        sentences.append(f"Another limit: {answer.relaxation.words}")
    if answer.proven is not None:
        latency = answer.proven.latency
        figure = f"{percentile_name(latency.percentile)} {duration(latency.percentile_s)}"
        sentences.append(f"Proven already: {answer.proven.operator} on {answer.proven.placement}, {figure}")
    return [tag("div", _coded(f"{sentence}.")) for sentence in sentences] or ABSENT


def _coded(words: str) -> Iterator[Child]:
    """Yield words with what stands between backticks as code."""
    for position, piece in enumerate(words.split("`")):
        yield tag("code", piece) if position % 2 else piece
