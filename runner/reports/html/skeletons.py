"""Pictures of the measured models for a report: which blocks an early exit skips, and where partition cuts.

A model is drawn only if it is the one that was measured, which the digest of its file says.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from catalog.analysis import SubjectResult
from catalog.evidence.strategy_evidence import StrategyEvidence
from catalog.units import counted
from runner.errors import RunnerError
from runner.graph.analysis import GraphAnalysis, analyse
from runner.graph.model_digest import model_sha256
from runner.operators.registry import look_ahead
from runner.reports.html.markup import Html, joined, tag
from runner.reports.html.sentences import listed
from runner.reports.skeleton import skeleton_svg


def model_pictures(models: Mapping[str, Path], results: Sequence[SubjectResult]) -> Mapping[str, Html]:
    """Draw the models of a report.

    Parameters
    ----------
    models : mapping of subject to Path
        Model files as declared; a subject without one is left out.
    results : sequence of SubjectResult

    Returns
    -------
    mapping of subject to Html
        Pictures, or a sentence that says why there is none.
    """
    return {result.subject: _pictures(models[result.subject], result) for result in results if result.subject in models}


def _pictures(path: Path, result: SubjectResult) -> Html:
    evidence = [*(strategy.evidence for strategy in result.strategies), *result.unmeasured]
    exits, cuts = (
        _operators_by(evidence, "early_exit", "blocks", 2),
        _operators_by(evidence, "partition", "cut", "paper"),
    )
    if not exits and not cuts:
        return tag("p", "No operator shortens or cuts this model.", class_="muted")
    try:
        if not path.is_file() or model_sha256(path) not in _measured_digests(evidence):
            return tag("p", f"{path.name} is not there, or is not the model that was measured: it is not drawn.")
        return joined(_drawn(analyse(path), exits, cuts))
    except (RunnerError, OSError) as error:
        # A model that cannot be read must not keep the figures of its measurements from being shown.
        return tag("p", f"{path.name} cannot be drawn: {error}")


def _drawn(
    analysis: GraphAnalysis, exits: Mapping[Any, Sequence[str]], cuts: Mapping[Any, Sequence[str]]
) -> Iterator[Html]:
    """Yield a picture for each number of skipped blocks, the first with the first kind of cut; then the other cuts."""
    for (blocks, leaving), (cut, cutting) in zip_longest(exits.items(), cuts.items(), fillvalue=(None, ())):
        prospects = look_ahead(analysis, blocks=2 if blocks is None else int(blocks), paper=cut != "any")
        # What no operator does is no part of the picture.
        shown = replace(
            prospects,
            exit=None if blocks is None else prospects.exit,
            exit_refusal=None if blocks is None else prospects.exit_refusal,
            cut=None if cut is None else prospects.cut,
            cut_refusal=None if cut is None else prospects.cut_refusal,
            quantization_refusal=None,
        )
        whats = (
            [f"an exit that skips {counted(int(blocks), 'block')} ({listed(leaving)})"] if blocks is not None else []
        )
        whats += [f"the cut of the whole model ({listed(cutting)})"] if cut is not None else []
        yield _picture(skeleton_svg(analysis, shown), f"{analysis.path.name}: {' and '.join(whats)}")


def _measured_digests(evidence: Sequence[StrategyEvidence]) -> set[str]:
    """Return the digests of the file of identity, which is the model itself."""
    return {file.sha256 for strategy in evidence if not strategy.passes for file in strategy.files}


def _operators_by(
    evidence: Sequence[StrategyEvidence], name: str, option: str, default: object
) -> Mapping[Any, list[str]]:
    """Return the operators that have a pass, by one of its options."""
    operators: dict[Any, list[str]] = {}
    for strategy in evidence:
        for step in strategy.passes:
            if step["name"] == name:
                names = operators.setdefault((step.get("options") or {}).get(option, default), [])
                if strategy.operator not in names:
                    names.append(strategy.operator)
    return operators


def _picture(svg: str, caption: str) -> Html:
    # As an image: the rules of its style would otherwise reach the other figures of the page.
    encoded = base64.b64encode(svg.encode()).decode()
    image = tag("img", src=f"data:image/svg+xml;base64,{encoded}", alt=caption, class_="skeleton")
    return tag("figure", tag("figcaption", caption), image, class_="skeleton")
