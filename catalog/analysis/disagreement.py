"""Where the study's tests and the analysis that decides say different things, and why, in one sentence."""

from catalog.statistics.comparison import Comparison
from catalog.statistics.study_analysis import PairComparison
from catalog.statistics.verdicts import Verdict


def disagreement(paper: PairComparison, decided: Comparison, *, samples: int) -> str | None:
    """Explain a pair on which the two analyses disagree.

    Parameters
    ----------
    paper : PairComparison
        Kruskal-Wallis, then Conover, over pooled samples.
    decided : Comparison
        Of the same pair, the same way round.
    samples : int
        Pooled samples of the two together.

    Returns
    -------
    str or None
        None where they agree, or where the evidence supports no decision at all (one round, too few inputs).

    Notes
    -----
    They agree when both call a pair different in the same direction, or when the study's test is not significant and
    the deciding analysis does not call the pair different either.
    """
    if decided.refusal is not None or decided.low is None or decided.high is None:
        return None
    interval = f"[{decided.low:.3g}, {decided.high:.3g}]"
    units = f"{decided.inputs} inputs in {decided.rounds} rounds"
    if paper.significant and decided.verdict is Verdict.EQUIVALENT:
        return (
            f"Conover calls them different (p = {paper.pvalue:.2g}), yet the ratio {interval} stays within "
            f"{100 * decided.question.equivalent_within:g} %: a difference can be certain and too small to matter"
        )
    if paper.significant and decided.verdict is Verdict.UNRESOLVED:
        return (
            f"Conover calls them different (p = {paper.pvalue:.2g}) because it takes {samples} samples as independent; "
            f"they are {units}, and with these as units the ratio {interval} is not settled"
        )
    if not paper.significant and decided.verdict is Verdict.DIFFERENT:
        return (
            f"Conover finds nothing (p = {paper.pvalue:.2g}) because the spread between inputs hides it; paired by "
            f"input the ratio {interval} excludes equality"
        )
    if paper.significant and decided.verdict is Verdict.DIFFERENT and (paper.delta < 0) != (decided.high < 1):
        return (
            f"the two point opposite ways: Cliff's delta {paper.delta:+.2f} speaks of all pooled samples, the ratio "
            f"{interval} of percentile {decided.question.percentile:g} of the same inputs"
        )
    return None
