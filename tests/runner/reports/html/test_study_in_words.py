"""The study's form in words: factors, drops and sizes against ratios that numpy takes of the true numbers."""

import shutil
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import wilcoxon

from benchmarks.study_rows import accuracy_rows, latency_rows
from catalog.analysis import AnalysisSettings, SubjectResult, analyse_subject
from catalog.evidence.database import open_database
from catalog.evidence.loading import strategy_evidence
from catalog.exchange import import_files
from catalog.units import pvalue
from runner.reports.html.sentences import extent
from runner.reports.html.study_tables import median_table, ratio_table
from runner.reports.html.summary import QuestionSummary, pair_finding, summarise
from tests.runner.reports.html.study_truth import (
    PASSES,
    SIZES_MIB,
    SUBJECTS,
    TASKS,
    WHOLE,
    accuracies_pct,
    median_s,
    store_study,
)


@pytest.fixture(scope="module", params=[1, 3], ids=["one round", "three rounds, from rows"])
def results(
    request: pytest.FixtureRequest, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[SubjectResult]:
    folder = tmp_path_factory.mktemp("study")
    with open_database(shutil.copy(sqlite_template, folder / "study.db")) as database:
        if request.param == 1:
            store_study(database, rounds=1)
        else:
            files = {"study.csv": latency_rows(request.param), "accuracies.csv": accuracy_rows()}
            for name, rows in files.items():
                (folder / name).write_text("\n".join(rows))
            import_files(database, [folder / name for name in files])
        with database.session() as session:
            evidence = strategy_evidence(session)
    settings = AnalysisSettings(n_resamples=200)
    return [analyse_subject([row for row in evidence if row.subject == subject], settings) for subject in SUBJECTS]


@pytest.fixture(scope="module")
def summaries(results: list[SubjectResult]) -> dict[str, QuestionSummary]:
    return {summary.question: summary for summary in summarise(results)}


def test_no_factor_averages_opposite_directions(summaries: dict[str, QuestionSummary]) -> None:
    """Every factor is the mean of the true ratios of the subjects that point the same way, with their range."""
    checked = 0
    for summary in summaries.values():
        for pair in summary.pairs:
            text = pair_finding(pair, PASSES)
            # Decided to be equivalent in all subjects, whatever the medians are: there is no factor to average.
            if "no difference between" in text:
                continue
            ratios = [median_s(pair.spoken_of, subject) / median_s(pair.reference, subject) for subject in SUBJECTS]
            # Nothing in the truth differs by less than 0.5 %, except what is equal.
            lower = [1 / ratio for ratio in ratios if ratio < 0.997]
            higher = [ratio for ratio in ratios if ratio > 1.003]
            for word, factors in (("lower", lower), ("higher", higher)):
                assert bool(factors) == (f"x {word} " in text), text
                if factors:
                    average = "average " if len(factors) > 1 else ""
                    assert f"{np.mean(factors):.2f}x {word} {average}median latency" in text, text
                    assert extent(factors, "x") in text
                    checked += 1
    assert checked > 80


def test_opposite_directions_of_quantization_name_their_subjects(summaries: dict[str, QuestionSummary]) -> None:
    finding = next(text for text in summaries["RQ2"].findings if text.startswith("On mobile, quantized"))
    assert finding.startswith(
        "On mobile, quantized shows 1.27x lower average median latency than identity in two of four subjects (fcn and "
        "duc; 1.17x to 1.37x) and 1.17x higher average median latency in two (resnet and resnext; 1.15x to 1.19x)"
    )
    assert finding.endswith("As in the paper: Cliff's delta large in all.")


def test_what_does_not_differ_is_named_beside_what_does(summaries: dict[str, QuestionSummary]) -> None:
    finding = next(text for text in summaries["RQ2"].findings if text.startswith("On cloud, quantized"))
    assert "quantized shows 1.30x higher median latency than identity in one of four subjects (duc)" in finding
    assert finding.endswith("Cliff's delta large in one (duc), not significant in three (resnet, resnext and fcn).")


def test_one_round_describes_and_three_decide(results: list[SubjectResult]) -> None:
    rounds = results[0].strategies[0].evidence.rounds_declared
    (first, *_) = (summary.findings[0] for summary in summarise(results))
    decided = "; different in all" if rounds > 1 else ""
    assert first == (
        "Edge shows 1.83x lower average median latency than mobile across four subjects (1.59x to 2.23x)"
        f"{decided}. As in the paper: Cliff's delta large in all."
    )


def test_lowest_and_highest_medians(summaries: dict[str, QuestionSummary]) -> None:
    assert any(
        answer.startswith("The median latency of identity is lowest on edge (resnet 5.6")
        and "cloud (fcn 3.7" in answer
        and "and highest on cloud (resnet 17.6" in answer
        for answer in summaries["RQ1"].answers
    )


@pytest.mark.parametrize(("left", "right"), [*combinations(WHOLE, 2)])
def test_drops_of_every_pair_of_operators(left: str, right: str, summaries: dict[str, QuestionSummary]) -> None:
    first, second = accuracies_pct(left), accuracies_pct(right)
    drops = first - second
    delta = np.sign(first[:, None] - second[None, :]).mean()
    spoken = (left.replace("_", " "), right.replace("_", " "))
    openings = (
        f"As in the paper, Wilcoxon's test of {spoken[0]} against {spoken[1]} over",
        f"{spoken[1].capitalize()} against {spoken[0]}: drops of",
    )
    findings = [text for summary in summaries.values() for text in summary.findings]
    (finding,) = (text for text in findings if text.startswith(openings))
    assert f"drops of {drops.min():.2f} to {drops.max():.2f} points" in finding
    assert f"Cliff's delta {delta:.2f}" in finding
    if finding.startswith("As in the paper"):
        assert f"p {pvalue(wilcoxon(first, second, method='exact').pvalue)}, significant at 0.0125" in finding


@pytest.mark.parametrize(("left", "right"), [*combinations(WHOLE, 2)])
def test_sizes_of_every_pair_of_operators(left: str, right: str, summaries: dict[str, QuestionSummary]) -> None:
    ratios = np.array(SIZES_MIB[left]) / SIZES_MIB[right]
    smaller, larger = ratios[ratios > 1], 1 / ratios[ratios < 1]
    opening = f"The model files of {right.replace('_', ' ')} are "
    ending = f"than those of {left.replace('_', ' ')}."
    findings = [text for summary in summaries.values() for text in summary.findings]
    (finding,) = (text for text in findings if text.startswith(opening) and text.endswith(ending))
    for word, factors in (("smaller", smaller), ("larger", larger)):
        if factors.size:
            assert f"{factors.mean():.2f}x {word} on average across four subjects" in finding
            assert f"({factors.min():.2f}x to {factors.max():.2f}x)" in finding


def test_ratios_and_differences_stand_beside_subject_by_subject(
    summaries: dict[str, QuestionSummary], results: list[SubjectResult], read_page: Callable[[str], Any]
) -> None:
    table = read_page(ratio_table(summaries["RQ1"].pairs, TASKS)).text
    assert "identity@edge : identity@mobile 1.59x lower, −3.30 s, large (-1.00)" in table
    assert "2.23x lower, −15." in table and "3.27x higher, +8.52 s" in table
    medians = read_page(median_table(["identity"], results)).text
    assert "identity@cloud 17.6" in medians and "s (IQR" in medians
