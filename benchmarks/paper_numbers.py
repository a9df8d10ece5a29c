"""Count what a report says of the numbers in the study's result sections: `python -m benchmarks.paper_numbers`.

Rows of the study's form with noise (`benchmarks.study_rows`: medians of known truth, in which directions oppose) go in
by `runner import` and come out by `runner report` and `runner sql`. What each number must be is computed from the rows
with numpy, scipy and scikit-posthocs. A number is *sayable* if the sentence or row of its pair has it in the page; it
is *wrong* if that says another one. Averages of opposite directions are not said on purpose.
"""

import argparse
import csv
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import scikit_posthocs
import scipy.stats

from benchmarks.study_rows import TASKS, accuracy_rows, latency_rows
from catalog.analysis import AnalysisSettings, analyse_subject
from catalog.evidence.database import open_database
from catalog.evidence.loading import strategy_evidence
from runner.reports.html.study_tables import median_table, ratio_table
from tests.runner.reports.html.conftest import Page
from tests.runner.reports.html.paper_claims import Claim, claims
from tests.runner.reports.html.test_paper_numbers import ReadReport

# Of the logarithm of a latency: rounds and inputs differ little, and single samples by so much.
_NOISE = 0.03
Samples = Mapping[tuple[str, str], np.ndarray]


def write_study(folder: Path, rounds: int, seed: int) -> Samples:
    """Write latencies with noise, and accuracies; return the seconds by subject and strategy."""
    rng = np.random.default_rng(seed)
    header, *lines = latency_rows(rounds)
    at = header.split(",").index("latency_s")
    samples: dict[tuple[str, str], list[float]] = defaultdict(list)
    with (folder / "study.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        for line in lines:
            cells = line.split(",")
            cells[at] = repr(round(float(cells[at]) * float(np.exp(rng.normal(0, _NOISE))), 6))
            samples[cells[0], f"{cells[1]}@{cells[2]}"].append(float(cells[at]))
            writer.writerow(cells)
    (folder / "study-accuracies.csv").write_text("\n".join([*accuracy_rows(), ""]))
    return {name: np.array(values) for name, values in samples.items()}


class IndependentReport(ReadReport):
    """A report of which the page and the expected numbers are known: medians and tests from the rows alone."""

    def __init__(
        self, database: Path, page: str, samples: Samples, families: Mapping[tuple[str, str], set[str]]
    ) -> None:
        with open_database(str(database)) as opened, opened.session() as session:
            evidence = strategy_evidence(session)
        # The page was made with the settings of a catalog without an `analysis` section.
        settings = AnalysisSettings()
        # As the page names them: in the order of the evidence.
        subjects = list(dict.fromkeys(row.subject for row in evidence))
        self._results = [
            analyse_subject([row for row in evidence if row.subject == name], settings) for name in subjects
        ]
        super().__init__(self._results, Page)
        self._tasks = {subject: TASKS[subject] for subject in subjects}
        self._page = Page(page).text
        self._samples, self.families = samples, families
        self.p50 = {name: float(np.median(values)) for name, values in samples.items()}
        self.by_family = {family: _conover(samples, family[0], members) for family, members in families.items()}
        self.conover = {
            (subject, pair): value for (subject, _), pairs in self.by_family.items() for pair, value in pairs.items()
        }

    def missing_from_page(self) -> list[str]:
        """Return the sentences and tables that the page lacks, though its code makes them."""
        # The page has tables of several pairs and of several operators: the rows of each are looked for.
        tables = [
            *(ratio_table([pair], self._tasks) for pair in self.pairs.values()),
            *(median_table([operator], self._results) for operator in self.medians),
        ]
        rows = [Page(row).text for table in tables for row in re.findall("<tr.*?</tr>", table, re.DOTALL)[1:]]
        texts = [*self.findings, *rows, *self.pair_rows.values()]
        return [text for text in texts if " ".join(text.split()) not in self._page]


def _conover(samples: Samples, subject: str, members: set[str]) -> dict[frozenset[str], float]:
    """Return Conover's p of each pair of a family, adjusted within it."""
    names = sorted(members)
    table = scikit_posthocs.posthoc_conover([samples[subject, name] for name in names], p_adjust="holm")
    return {
        frozenset((names[one], names[other])): float(table.iloc[one, other])
        for one, other in combinations(range(len(names)), 2)
    }


def _run(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "runner", *arguments], check=True, capture_output=True, text=True
    ).stdout


def _pairs(database: Path) -> list[dict[str, object]]:
    rows = _run("sql", "--json", "-d", str(database), "SELECT * FROM pairwise")
    return list(json.loads(rows))


def _wrong_pairs(rows: list[dict[str, object]], report: IndependentReport, samples: Samples) -> Counter[str]:
    """Count the pairs of the view `pairwise` whose numbers differ from those of the rows."""
    wrong: Counter[str] = Counter(pairs=len(rows))
    for row in rows:
        subject, left, right = (str(row[name]) for name in ("subject", "left_strategy", "right_strategy"))
        one, other = samples[subject, left], samples[subject, right]
        delta = float(np.sign(one[:, None] - other[None, :]).mean())
        expected = {"delta": delta}
        family = subject, str(row["family"])
        members = report.families[family]
        expected["conover_pvalue"] = report.by_family[family][frozenset((left, right))]
        expected["kruskal_wallis_pvalue"] = float(
            scipy.stats.kruskal(*(samples[subject, name] for name in members)).pvalue
        )
        for name, value in expected.items():
            wrong[name] += not np.isclose(float(str(row[name])), value, rtol=1e-6, atol=1e-300)
    return wrong


def measure(rounds: int, seed: int) -> int:
    """Print the table of one number of rounds; return how many numbers are wrong."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = write_study(folder, rounds, seed)
        database, page = folder / "study.db", folder / "report.html"
        _run("import", str(folder / "study.csv"), str(folder / "study-accuracies.csv"), "-d", str(database))
        _run("report", "-d", str(database), "-o", str(page))
        rows = _pairs(database)
        families: dict[tuple[str, str], set[str]] = defaultdict(set)
        for row in rows:
            families[str(row["subject"]), str(row["family"])] |= {str(row["left_strategy"]), str(row["right_strategy"])}
        report = IndependentReport(database, page.read_text(), samples, families)
    total, unsaid, wrong = Counter[str](), Counter[str](), list[Claim]()
    for claim in claims():
        total[claim.section] += 1
        if report.states(claim):
            continue
        if claim.kind == "average":
            unsaid[claim.section] += 1
        else:
            wrong.append(claim)
    print(f"\n{rounds} round{'s' * (rounds > 1)}\n\n| section | numbers | sayable | wrong |\n|---|--:|--:|--:|")
    for section, count in sorted(total.items()):
        bad = sum(claim.section == section for claim in wrong)
        print(f"| {section} | {count} | {count - unsaid[section] - bad} | {bad} |")
    print(f"| all | {total.total()} | {total.total() - unsaid.total() - len(wrong)} | {len(wrong)} |\n")
    for claim in wrong:
        print(f"wrong: section {claim.section}, {claim.written}, {claim.kind} of {claim.left} : {claim.right}")
    lacking = report.missing_from_page()
    print(f"sentences and tables that the page lacks: {len(lacking)}")
    for text in lacking[:5]:
        print(f"  {text[:150]}")
    pairs = _wrong_pairs(rows, report, samples)
    print(f"pairs in `runner sql`: {pairs.pop('pairs')}; wrong: {dict(pairs)}")
    return len(wrong)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    sys.exit(1 if sum(measure(rounds, options.seed) for rounds in (1, 5)) else 0)


if __name__ == "__main__":
    main()
