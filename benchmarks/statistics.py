"""The statistics at the study's size and beyond: `python -m benchmarks.statistics`.

Prints ratios of times measured in this one run, and how time and memory grow; times of other machines mean little.
"""

# ruff: noqa: E402  (the search path comes first)

import sys
from pathlib import Path

# Run as a file, this module would stand before the standard library's `statistics`, which others import.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]

import argparse
import gc
import itertools
import subprocess
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

import numpy as np
import scikit_posthocs
import scipy.stats
from numpy.typing import NDArray
from statsmodels.stats.multitest import multipletests

from benchmarks.growth_figure import Growth, growth_svg
from catalog.analysis import AnalysisSettings, store_missing
from catalog.evidence.database import Database, open_database
from catalog.exchange import import_files
from catalog.statistics.families import StrategyFamily, StudiedOperator, study_families
from catalog.statistics.rank_tests import adjust_pvalues, conover, pool_ranks
from catalog.statistics.study_analysis import SubjectAnalysis, analyse_families
from runner.reports.html import gather_report, render_report

Latencies = Mapping[str, NDArray[np.float64]]

TIERS = ("mobile", "edge", "cloud")
SINGLE = tuple((tier,) for tier in TIERS)
ACROSS = (("mobile", "edge"), ("edge", "cloud"), ("mobile", "cloud"))
OPERATORS = (
    StudiedOperator("identity", (), SINGLE),
    StudiedOperator("quantized", ("static_ptq",), SINGLE),
    StudiedOperator("early_exit", ("early_exit",), SINGLE),
    StudiedOperator("partition", ("partition",), ACROSS),
    StudiedOperator("quantized_early_exit", ("static_ptq", "early_exit"), SINGLE),
    StudiedOperator("quantized_early_exit_partition", ("static_ptq", "early_exit", "partition"), ACROSS),
)
FAMILIES = study_families(OPERATORS, TIERS)
STRATEGIES = tuple(dict.fromkeys(member for family in FAMILIES for member in family.members))
SAMPLES_PER_STRATEGY = 500


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figure", type=Path, help="SVG file to write the growth to")
    figure = parser.parse_args().figure
    compare_with_loops()
    print()
    price_of_the_library()
    print()
    store_and_report()
    print()
    growth = {"18 strategies a subject": grow_by_subjects()}
    print()
    growth["one family of all"] = grow_one_family()
    if figure is not None:
        figure.write_text(growth_svg(growth), encoding="utf-8")


def compare_with_loops() -> None:
    """Time the study: 4 subjects × 18 strategies × 500 samples, nine families each, all tests as in the paper."""
    rng = np.random.default_rng(0)
    subjects = [_samples(rng, STRATEGIES) for _ in range(4)]
    _check_agreement(_analyse(subjects[0], FAMILIES), subjects[0])  # also imports everything before it is timed
    gc.freeze()  # statsmodels forces a garbage collection in each adjustment; this keeps what it costs out of the ratio
    fast = min(_timed(partial(_all, _analyse, subjects)) for _ in range(3))
    slow = min(_timed(partial(_all, _loop, subjects)) for _ in range(3))
    print(f"As in the paper, {len(subjects) * len(STRATEGIES)} strategies x {SAMPLES_PER_STRATEGY}, all families:")
    print(f"  analyse_families                                   {fast:8.3f} s")
    print(f"  loop over scipy, scikit-posthocs and a naive delta {slow:8.3f} s   ratio {slow / fast:.1f}")


def price_of_the_library() -> None:
    """Time what scikit-posthocs costs a command that tests: its import, its p-values, and Holm by statsmodels."""
    rng = np.random.default_rng(0)
    subjects = [_samples(rng, STRATEGIES) for _ in range(4)]
    pooled = [
        pool_ranks({name: samples[name] for name in family.members}) for samples in subjects for family in FAMILIES
    ]
    pvalues = [result.unadjusted_pvalue[np.triu_indices(len(result.names), 1)] for result in map(conover, pooled)]
    plain, loaded = (min(_timed(partial(_import, modules)) for _ in range(3)) for modules in (_PRESENT, _ALL))
    conovers = _timed(lambda: [conover(ranks) for ranks in pooled])
    by_hand, by_library = (_timed(partial(_holm, adjust, pvalues)) for adjust in (adjust_pvalues, _by_statsmodels))
    print(f"scikit-posthocs, {len(pooled)} families of {len(subjects) * len(STRATEGIES)} strategies:")
    print(f"  import, beside numpy and scipy.special             {loaded - plain:8.3f} s")
    print(f"  Conover's p-values                                 {conovers:8.3f} s")
    print(f"  Holm by hand                                       {by_hand:8.4f} s")
    print(f"  Holm by statsmodels                                {by_library:8.4f} s")


_PRESENT = "numpy, scipy.special"
_ALL = "numpy, scipy.special, scikit_posthocs"


def _import(modules: str) -> None:
    subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)


def _holm(adjust: Callable[[NDArray[np.float64], str], object], pvalues: Sequence[NDArray[np.float64]]) -> None:
    for values in pvalues:
        adjust(values, "holm")


def _by_statsmodels(pvalues: NDArray[np.float64], adjustment: str) -> object:
    return multipletests(pvalues, method=adjustment)


def store_and_report() -> None:
    """Time the same size through the product: rows imported, both analyses stored, the page written."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "study.csv"
        rows.write_text("\n".join(["subject,operator,placement,input_id,repetition,latency_s,round", *_rows(), ""]))
        with open_database(Path(folder) / "study.db", create=True) as opened:
            imported = _timed(partial(import_files, opened, [rows]))
            stored = _timed(partial(store_missing, opened, AnalysisSettings()))
            reported = _timed(partial(_report, opened))
    print(f"Through the database, 72 strategies x {SAMPLES_PER_STRATEGY}, in 5 rounds of 100 inputs:")
    print(f"  import the rows of CSV                             {imported:8.2f} s")
    print(f"  all tests and intervals, 2,000 resamples, stored   {stored:8.2f} s")
    print(f"  analyse again and write the report                 {reported:8.2f} s")


def _rows() -> Iterator[str]:
    rng = np.random.default_rng(3)
    for subject, name in itertools.product("abcd", STRATEGIES):
        operator, placement = name.split("@")
        center, inputs = rng.normal(-3, 0.5), rng.normal(0, 0.3, 100)
        for number in range(1, 6):
            values = np.exp(center + rng.normal(0, 0.05) + inputs + rng.normal(0, 0.05, 100))
            for item, value in enumerate(values):
                yield f"{subject},{operator},{placement},{item}.jpg,0,{value:.6f},{number}"


def _report(opened: Database) -> None:
    render_report(gather_report(opened), made_at=datetime.now(UTC))


def grow_by_subjects() -> list[Growth]:
    """Time more subjects of 18 strategies each."""
    print(f"More subjects of {len(STRATEGIES)} strategies x {SAMPLES_PER_STRATEGY}, nine families each:")
    print("  strategies        s   s per strategy   MiB at the peak")
    rng = np.random.default_rng(1)
    growth = []
    for strategies in (252, 504, 1008):
        subjects = [_samples(rng, STRATEGIES) for _ in range(strategies // len(STRATEGIES))]
        growth.append(_growth(strategies, partial(_all, analyse_families, subjects)))
    return growth


def grow_one_family() -> list[Growth]:
    """Time more strategies in a single family, so that every one is compared with every other."""
    print(f"One family of all strategies x {SAMPLES_PER_STRATEGY}, every pair compared:")
    print("  strategies        s   s per strategy   MiB at the peak")
    rng = np.random.default_rng(2)
    growth = []
    for strategies in (250, 500, 1000):
        names = tuple(f"operator{number}@edge" for number in range(strategies))
        samples, family = _samples(rng, names), StrategyFamily("operators@edge", "operators", (), names)
        growth.append(_growth(strategies, partial(analyse_families, samples, [family])))
    return growth


def _samples(rng: np.random.Generator, names: Sequence[str]) -> Latencies:
    """Draw latencies in seconds, rounded to 0.1 ms so that some are tied."""
    return {name: rng.lognormal(rng.normal(-2, 0.5), 0.3, SAMPLES_PER_STRATEGY).round(4) for name in names}


def _all(
    analyse: Callable[[Latencies, Sequence[StrategyFamily]], object], subjects: Sequence[Latencies]
) -> list[object]:
    return [analyse(samples, FAMILIES) for samples in subjects]


def _analyse(samples: Latencies, families: Sequence[StrategyFamily]) -> SubjectAnalysis:
    analysis = analyse_families(samples, families)
    for family in analysis.families:
        family.comparisons()
    return analysis


def _loop(samples: Latencies, families: Sequence[StrategyFamily]) -> None:
    """Compute the same results, one library call after another; Cliff's delta compares all values."""
    for values in samples.values():
        scipy.stats.shapiro(values)
        scipy.stats.probplot(values)
        np.percentile(values, [5, 25, 50, 75, 90, 95, 99])
    for family in families:
        groups = [samples[name] for name in family.members]
        scipy.stats.kruskal(*groups)
        scikit_posthocs.posthoc_conover(groups, p_adjust="holm")
        for left, right in itertools.combinations(groups, 2):
            _naive_delta(left, right)


def _check_agreement(analysis: SubjectAnalysis, samples: Latencies) -> None:
    """Refuse to time two things that differ."""
    for family in analysis.families:
        groups = [samples[name] for name in family.members]
        np.testing.assert_allclose(family.kruskal_wallis.pvalue, scipy.stats.kruskal(*groups).pvalue, rtol=1e-6)
        post_hoc = scikit_posthocs.posthoc_conover(groups, p_adjust="holm").to_numpy()
        np.testing.assert_allclose(family.post_hoc.pvalue, post_hoc, rtol=1e-6)
        naive = [[_naive_delta(left, right) for right in groups] for left in groups]
        np.testing.assert_allclose(family.delta, naive, atol=1e-12)


def _naive_delta(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    return float(np.sign(left[:, None] - right).mean())


def _timed(work: Callable[[], object]) -> float:
    gc.collect()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _growth(strategies: int, work: Callable[[], object]) -> Growth:
    """Measure and print. Memory is traced in a run of its own, because tracing costs time."""
    seconds = _timed(work)
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"  {strategies:10d} {seconds:8.2f} {seconds / strategies:16.5f} {peak / 2**20:17.1f}")
    return Growth(strategies, seconds, peak / 2**20)


if __name__ == "__main__":
    main()
