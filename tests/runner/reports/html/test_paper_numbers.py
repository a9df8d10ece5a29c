"""How many of the numbers that the study's result sections state can be read in a report of evidence of its form.

Every number is looked for where it belongs: in the sentence of its pair, or in the row of its pair in a table by
subject. What it must be is computed from the true numbers of the invented study.
"""

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import wilcoxon

from catalog.analysis import AnalysisSettings, SubjectResult, analyse_subject
from catalog.evidence.database import open_database
from catalog.evidence.loading import strategy_evidence
from catalog.statistics.outcomes import magnitude
from catalog.units import duration, pvalue
from runner.reports.html.sentences import PairOfSubject
from runner.reports.html.study_tables import median_table, ratio_cell, ratio_table
from runner.reports.html.subject_section import pair_tables
from runner.reports.html.summary import StrategyPair, pair_finding, summarise
from tests.runner.reports.html.paper_claims import Claim, claims
from tests.runner.reports.html.study_truth import PASSES, SIZES_MIB, SUBJECTS, TASKS, accuracies_pct, store_study


class ReadReport:
    """What a report says of pairs, operators and subjects."""

    def __init__(self, results: list[SubjectResult], read_page: Callable[[str], Any]) -> None:
        summaries = summarise(results)
        self.findings = [text for summary in summaries for text in summary.findings]
        self.pairs: Mapping[frozenset[str], StrategyPair] = {
            frozenset((pair.spoken_of, pair.reference)): pair for summary in summaries for pair in summary.pairs
        }
        self.medians = {
            operator: read_page(median_table([operator], results)).text
            for summary in summaries
            for operator in summary.operators
        }
        self.averages = {names: read_page(ratio_table([pair], TASKS)).text for names, pair in self.pairs.items()}
        self.pair_rows = {
            result.subject: " ".join(read_page(table).text for table in pair_tables(result)) for result in results
        }
        self.p50 = {
            (result.subject, row.name): row.description.median for result in results for row in result.strategies
        }
        self.conover = {
            (result.subject, frozenset((pair.paper.left, pair.paper.right))): pair.paper.pvalue
            for result in results
            for family in result.families
            for pair in family.pairs
        }

    def states(self, claim: Claim) -> bool:
        """Return whether the number's counterpart stands where it belongs."""
        if "drop" in claim.kind or claim.kind == "level":
            return self._states_drop(claim)
        if "size" in claim.kind:
            return self._states_size(claim)
        if claim.kind == "median":
            (subject,) = claim.subjects
            return duration(self.p50[subject, claim.left]) in self.medians[claim.left.partition("@")[0]]
        if claim.kind == "p":
            (subject,) = claim.subjects
            pair = frozenset((claim.left, claim.right))
            return pvalue(self.conover[subject, pair]) in self.pair_rows[subject]
        return self._states_factor(claim)

    def _states_factor(self, claim: Claim) -> bool:
        pair = self.pairs[frozenset((claim.left, claim.right))]
        ratios = np.array(
            [self.p50[subject, claim.left] / self.p50[subject, claim.right] for subject in claim.subjects]
        )
        # Against the true numbers, which the stored ones only scale.
        factors = np.maximum(ratios, 1 / ratios)
        text = pair_finding(pair, PASSES)
        if claim.kind in ("one", "seconds"):
            member = self._member(pair, claim.subjects[0])
            if claim.kind == "one":
                return f"{factors[0]:.2f}x" in ratio_cell(member)
            seconds = self.p50[claim.subjects[0], claim.left] - self.p50[claim.subjects[0], claim.right]
            return duration(abs(seconds)) in ratio_cell(member)
        if claim.kind == "average":
            # As the study averages: over all subjects of its sentence, in the direction of the mean logarithm.
            lower = np.log(ratios).mean() < 0
            average = float(np.mean(1 / ratios if lower else ratios))
            pattern = rf"{average:.2f}x (lower|higher)( average median latency| \()"
        else:
            low, high = f"{factors.min():.2f}x", f"{factors.max():.2f}x"
            pattern = rf"{low} to \d" if claim.kind == "lowest" else rf"x to {high}"
        # Averages over the subjects of a task stand in the table by subject.
        return re.search(pattern, f"{text} {self.averages[frozenset((claim.left, claim.right))]}") is not None

    @staticmethod
    def _member(pair: StrategyPair, subject: str) -> PairOfSubject:
        return next(member for member in pair.members if member.subject == subject)

    def _states_drop(self, claim: Claim) -> bool:
        left, right = accuracies_pct(claim.left), accuracies_pct(claim.right)
        delta = float(np.sign(left[:, None] - right[None, :]).mean())
        number = {
            "least drop": f"drops of {(left - right).min():.2f} to",
            "most drop": f"to {(left - right).max():.2f} points",
            "effect of drop": f"Cliff's delta {delta:.2f} ({magnitude(delta)})",
            "p of drop": f"p {pvalue(float(wilcoxon(left, right, method='exact').pvalue))}",
            "level": "significant at 0.0125",
        }[claim.kind]
        first, second = (name.replace("_", " ") for name in (claim.left, claim.right))
        about = (f"Wilcoxon's test of {first} against {second} ", f"{second} against {first}: drops")
        return any(number in text and (about[0] in text or about[1] in text.lower()) for text in self.findings)

    def _states_size(self, claim: Claim) -> bool:
        ratios = np.array(SIZES_MIB[claim.left]) / SIZES_MIB[claim.right]
        value = {"average size": ratios.mean(), "least size": ratios.min(), "most size": ratios.max()}[claim.kind]
        first, second = (name.replace("_", " ") for name in (claim.left, claim.right))
        opening, ending = f"The model files of {second} are ", f"than those of {first}."
        texts = [text for text in self.findings if text.startswith(opening) and text.endswith(ending)]
        return any(f"{max(value, 1 / value):.2f}x" in text for text in texts)


@pytest.mark.parametrize("rounds", [1, 5], ids=["one round", "five rounds"])
def test_the_numbers_of_the_result_sections_can_be_read(
    rounds: int,
    sqlite_template: Path,
    tmp_path: Path,
    read_page: Callable[[str], Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with open_database(shutil.copy(sqlite_template, tmp_path / "study.db")) as database:
        store_study(database, rounds=rounds)
        with database.session() as session:
            evidence = strategy_evidence(session)
    settings = AnalysisSettings(n_resamples=200)
    results = [analyse_subject([row for row in evidence if row.subject == name], settings) for name in SUBJECTS]
    report = ReadReport(results, read_page)
    everything = claims()
    unsaid = [claim for claim in everything if not report.states(claim)]
    with capsys.disabled():
        print(f"\n{rounds} rounds: {len(everything) - len(unsaid)} of {len(everything)} numbers can be read")
        for claim in unsaid:
            print(f"  not: section {claim.section}, {claim.written}, {claim.kind} of {claim.left} : {claim.right}")
    # The study averages opposite directions four times; a report does not.
    assert {(claim.section, claim.written) for claim in unsaid} == {
        ("5.2", "3.44"), ("5.3", "2.90"), ("5.4", "1.13"), ("5.5", "3.89"),
    }  # fmt: skip
