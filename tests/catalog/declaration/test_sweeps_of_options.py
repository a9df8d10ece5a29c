"""Operators declared at several values of a pass option are operators of their own, in every place they are named."""

import pytest

from catalog.declaration.catalog import parse_catalog
from catalog.errors import CatalogFileError

FILE = """\
version: 1
subjects: {{net: {{model: ./net.onnx, task: any, dataset: {{images: pictures}}}}}}
operators: {{identity: [], {operators}}}
tiers: {{mobile: {{cpus: 1, memory: 1g}}, edge: {{cpus: 2, memory: 2g}}}}
links: {{mobile-edge: {{bandwidth: 1mbit}}}}
strategies: [{{operators: [identity, {named}], placements: [mobile, edge]}}]
"""


def test_each_number_of_blocks_is_an_operator() -> None:
    text = FILE.format(operators="exits: [static_ptq, {early_exit: {blocks: [1, 3]}}]", named="exits")
    catalog = parse_catalog(text)
    assert list(catalog.operators) == ["identity", "exits-blocks-1", "exits-blocks-3"]
    assert catalog.operators["exits-blocks-3"][1].options == {"blocks": 3}
    assert [strategy.name for strategy in catalog.strategies()] == [
        f"net/{operator}@{tier}"
        for operator in ("identity", "exits-blocks-1", "exits-blocks-3")
        for tier in ("mobile", "edge")
    ]


def test_a_variant_has_the_passes_of_an_operator_declared_by_hand() -> None:
    swept = parse_catalog(FILE.format(operators="exits: [{early_exit: {blocks: [2]}}]", named="exits"))
    by_hand = parse_catalog(FILE.format(operators="two: [{early_exit: {blocks: 2}}]", named="two"))
    assert swept.operators["exits-blocks-2"] == by_hand.operators["two"]


def test_a_file_without_sweeps_stays_as_declared() -> None:
    catalog = parse_catalog(FILE.format(operators="two: [{early_exit: {blocks: 2}}]", named="two"))
    assert list(catalog.operators) == ["identity", "two"]


@pytest.mark.parametrize(
    ("operators", "message"),
    [
        ("exits: [{early_exit: {blocks: []}}]", "blocks of early_exit lists none; list one or more different values"),
        (
            f"exits: [{{early_exit: {{blocks: {list(range(1, 102))}}}}}]",
            "has more than 100 variants",
        ),
        (
            "exits: [{early_exit: {blocks: [1, 2]}}, {early_exit: {blocks: [1, 2]}}]",
            "lists values in two passes of one name; list them in one",
        ),
        ("exits: [{early_exit: {blocks: [2, 2]}}]", "blocks of early_exit lists 2, 2; list one or more"),
        (
            "exits: [{early_exit: {blocks: [2]}}], exits-blocks-2: []",
            "variant 'exits-blocks-2' is declared as well",
        ),
    ],
)
def test_what_cannot_be_expanded_is_said_with_its_place(operators: str, message: str) -> None:
    with pytest.raises(CatalogFileError) as caught:
        parse_catalog(FILE.format(operators=operators, named="exits"))
    assert message in str(caught.value) and "strategies.yaml:3:" in str(caught.value)
