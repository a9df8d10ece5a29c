"""The drawn skeleton: well-formed, nothing over anything else, and true to the analysis."""

import itertools
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from runner.graph.analysis import GraphAnalysis, Segment, analyse
from runner.operators.registry import look_ahead
from runner.reports.skeleton import skeleton_svg
from runner.subjects.embedded.datasets import BUILTIN

_SVG = "{http://www.w3.org/2000/svg}"
_CHARACTER_PX = {"title": 8.5, "small": 5.5}


@pytest.fixture(scope="module")
def analysis() -> GraphAnalysis:
    return analyse(BUILTIN / "fashion-resnet.onnx")


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(root: ElementTree.Element) -> list[tuple[float, float, float, float]]:
    """Left, right, top and bottom of every text, widths of a monospaced font."""
    boxes = []
    for text in root.iter(f"{_SVG}text"):
        kinds = text.get("class", "").split()
        width = len(text.text or "") * next((px for kind, px in _CHARACTER_PX.items() if kind in kinds), 6.7)
        x, y = float(text.get("x", 0)), float(text.get("y", 0))
        left = x - width if "right" in kinds else x
        boxes.append((left, left + width, y - 9, y + 2))
    return boxes


@pytest.mark.parametrize("name", ["fashion-resnet", "canvas-fcn"])
@pytest.mark.parametrize("paper", [True, False])
def test_no_text_lies_over_another_or_outside(name: str, paper: bool) -> None:
    analysis = analyse(BUILTIN / f"{name}.onnx")
    root = parsed(skeleton_svg(analysis, look_ahead(analysis, paper=paper)))
    boxes = texts(root)
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    assert all(left >= 0 and right <= width and top >= 0 and bottom <= height for left, right, top, bottom in boxes)
    for one, other in itertools.combinations(boxes, 2):
        apart = one[1] <= other[0] or other[1] <= one[0] or one[3] <= other[2] or other[3] <= one[2]
        assert apart, (one, other)


def test_the_skipped_blocks_are_marked_and_the_head_behind_them_is_not(analysis: GraphAnalysis) -> None:
    root = parsed(skeleton_svg(analysis, look_ahead(analysis)))
    boxes = [rect.get("class") for rect in root.iter(f"{_SVG}rect") if rect.get("class") not in ("page", "bar")]
    assert boxes.count("skipped") == 3  # two blocks and the activation between them
    assert boxes[-1] == "chain"
    assert len(boxes) == len(analysis.skeleton)
    assert [path.get("class") for path in root.iter(f"{_SVG}path")].count("bypass") == 1


def test_the_cut_lies_between_the_segments_it_parts(analysis: GraphAnalysis) -> None:
    (cut,) = (cut for cut in analysis.cuts if cut.paper and not cut.inside_segment and cut.segment == 18)
    prospects = replace(look_ahead(analysis), cut=cut)
    root = parsed(skeleton_svg(analysis, prospects))
    boxes = [rect for rect in root.iter(f"{_SVG}rect") if rect.get("class") not in ("page", "bar")]
    line = next(path for path in root.iter(f"{_SVG}path") if path.get("class") == "cut")
    middle = float(line.get("d", "").partition(" ")[2].partition("H")[0])
    above, below = boxes[cut.segment], boxes[cut.segment + 1]
    assert float(above.get("y", 0)) + float(above.get("height", 0)) < middle < float(below.get("y", 0))


def test_refusals_are_written_below(analysis: GraphAnalysis) -> None:
    svg = skeleton_svg(analysis, look_ahead(analysis, blocks=9))
    assert "early_exit: 9 blocks were requested" in svg
    assert 'class="skipped"' not in svg


def test_hostile_names_stay_text(analysis: GraphAnalysis) -> None:
    nasty = Segment("</text><script>\x00&", "sub-graph", 1, ("a", "b"), ("Add", "Add"), None, None, 10)
    hostile = replace(analysis, skeleton=(nasty,), runs=(), exits=(), cuts=(), path=Path("<&>.onnx"))
    root = parsed(skeleton_svg(hostile, replace(look_ahead(analysis), exit=None, cut=None)))
    assert not list(root.iter(f"{_SVG}script"))
    assert any("</text><script>" in (text.text or "") for text in root.iter(f"{_SVG}text"))


def test_a_long_graph_keeps_its_ends_and_what_is_marked(analysis: GraphAnalysis) -> None:
    filler = [replace(analysis.skeleton[1], name=f"filler{index}") for index in range(500)]
    prospects = look_ahead(analysis)
    long = replace(analysis, skeleton=(*analysis.skeleton, *filler))
    svg = skeleton_svg(long, prospects)
    assert float(parsed(svg).get("height", 0)) < 2500
    assert "more segments" in svg and "filler499" in svg and "backbone.3.4" in svg and "filler250" not in svg


def test_both_colour_schemes_are_there(analysis: GraphAnalysis) -> None:
    svg = skeleton_svg(analysis, look_ahead(analysis))
    assert "prefers-color-scheme: dark" in svg and 'class="page"' in svg
