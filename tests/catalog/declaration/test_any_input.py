"""Whatever stands in a catalog file: a catalog, or one error of ours with a place for each problem."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.declaration import Catalog, load_catalog, parse_catalog
from catalog.errors import CatalogFileError

WHOLE = """\
version: 1
subjects: {net: {model: ./net.onnx, task: classification, dataset: {images: a, labels: b.csv}}}
operators: {identity: [], quantized: [static_ptq: {calibration_samples: 8}], halves: [partition]}
tiers: {mobile: {cpus: 0.5, memory: 512m, provider: cpu}, edge: {cpus: 1, memory: 1g, provider: [cuda, cpu]}}
links: {mobile-edge: {bandwidth: 200mbit, delay: 5ms}}
strategies:
- {operators: [identity, quantized], placements: [mobile, edge]}
- {operators: [halves], placements: [mobile-edge]}
experiment: {inputs: 10, rounds: 2}
slos: {fast: {latency: {p90: 100ms}, accuracy: {max_drop: 1.0}}}
"""
KEYS = st.sampled_from(sorted(set("".join(c if c.isalnum() or c == "_" else " " for c in WHOLE).split())))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | KEYS
    | st.sampled_from(["10mbit", "512m", "5ms", "p90", "mobile-edge", "-", "./x.onnx", "2026-11-24", "1e999", "0x1g"])
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=4) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)

UNHURRIED = settings(deadline=None)


def taken(text: str) -> Catalog | CatalogFileError:
    """Return the catalog, expanded, or the error; every other exception passes."""
    try:
        catalog = parse_catalog(text)
        catalog.strategies()
    except CatalogFileError as error:
        assert error.problems and all(
            problem.line >= 1 and problem.column >= 1 and problem.message for problem in error.problems
        )
        assert len(str(error).splitlines()) >= len(error.problems)
        return error
    return catalog


@UNHURRIED
@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    taken(text)


@UNHURRIED
@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "strategies.yaml"
        path.write_bytes(content)
        with pytest.raises(CatalogFileError):
            load_catalog(path)


@UNHURRIED
@given(ANYTHING)
def test_any_structure(data: Any) -> None:
    taken(yaml.safe_dump(data))


@UNHURRIED
@given(st.data())
def test_a_catalog_with_anything_in_any_place(data: st.DataObject) -> None:
    whole = yaml.safe_load(WHOLE)
    for _ in range(data.draw(st.integers(1, 3))):
        parent, key = data.draw(st.sampled_from(list(places(whole))))
        parent[key] = data.draw(ANYTHING)
    taken(yaml.safe_dump(whole))


@UNHURRIED
@given(st.integers(0, len(WHOLE)), st.integers(0, 30), st.text(max_size=10))
def test_a_catalog_with_any_text_in_place_of_a_piece(start: int, length: int, text: str) -> None:
    taken(WHOLE[:start] + text + WHOLE[start + length :])


def test_the_whole_one_is_a_catalog() -> None:
    assert isinstance(taken(WHOLE), Catalog)


def places(data: Any) -> Any:
    """Yield every value of a tree by its parent and key."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in list(items):
        yield data, key
        yield from places(value)
