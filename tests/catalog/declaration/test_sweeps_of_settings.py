"""Links and tiers that list values: each combination is a catalog of its own, and all that is wrong is said."""

import pytest

from catalog.declaration.catalog import parse_catalog
from catalog.errors import CatalogFileError

FILE = """\
version: 1
subjects: {{net: {{model: ./net.onnx, task: any, dataset: {{images: pictures}}}}}}
operators: {{identity: []}}
tiers: {{mobile: {{cpus: 1, memory: {memory}}}, edge: {{cpus: {cpus}, memory: 2g}}, cloud: {{cpus: 4, memory: 8g}}}}
links: {{mobile-edge: {{bandwidth: {bandwidth}}}, edge-cloud: {{bandwidth: 1mbit}}}}
strategies: [{{operators: [identity], placements: [mobile, edge]}}]
"""


def declared(*, memory: str = "1g", cpus: str = "2", bandwidth: str = "1mbit") -> str:
    return FILE.format(memory=memory, cpus=cpus, bandwidth=bandwidth)


def test_each_combination_of_values_is_a_setting() -> None:
    catalog = parse_catalog(declared(cpus="[0.5, 2]", bandwidth="[1mbit, 10mbit]"))
    assert [str(own.setting) for own in catalog.settings] == [
        "CPUs of edge 0.5, bandwidth of mobile-edge 1 Mbit/s",
        "CPUs of edge 0.5, bandwidth of mobile-edge 10 Mbit/s",
        "CPUs of edge 2, bandwidth of mobile-edge 1 Mbit/s",
        "CPUs of edge 2, bandwidth of mobile-edge 10 Mbit/s",
    ]
    values = [(own.tiers["edge"].cpus, own.links["mobile-edge"].up_bit_per_s) for own in catalog.settings]
    assert values == [(0.5, 1e6), (0.5, 1e7), (2, 1e6), (2, 1e7)]
    # What is read without settings in mind is at the first values.
    assert catalog.setting == catalog.settings[0].setting and catalog.tiers["edge"].cpus == 0.5


def test_memory_is_swept_in_bytes() -> None:
    catalog = parse_catalog(declared(memory="[512m, 1g]"))
    assert [own.tiers["mobile"].memory_bytes for own in catalog.settings] == [2**29, 2**30]
    assert str(catalog.settings[0].setting) == "memory of mobile 512 MiB"


def test_a_file_without_lists_has_no_setting() -> None:
    catalog = parse_catalog(declared())
    assert catalog.setting is None and catalog.settings == (catalog,)


BAD = {
    "no value": ({"cpus": "[]"}, "4:46: tiers.edge: cpus lists 0 values; list 1 to 50"),
    "a value twice": ({"bandwidth": "[1mbit, 1000kbit]"}, "links.mobile-edge: bandwidth lists a value twice"),
    "a wrong value": ({"cpus": "[1, 0]"}, "tiers.edge.cpus: Input should be greater than 0, got 0"),
    "a wrong first value": ({"memory": "[much, 1g]"}, "tiers.mobile.memory: 'much' does not parse"),
    "too many": (
        {"cpus": f"[{', '.join(map(str, range(1, 9)))}]", "memory": f"[{', '.join(f'{n}g' for n in range(1, 9))}]"},
        "8 (memory of mobile) x 8 (CPUs of edge) are 64 settings; allowed are 50",
    ),
}


@pytest.mark.parametrize(("values", "message"), BAD.values(), ids=BAD)
def test_a_sweep_that_cannot_be_measured_is_refused(values: dict[str, str], message: str) -> None:
    with pytest.raises(CatalogFileError) as caught:
        parse_catalog(declared(**values))
    assert message in str(caught.value)


def test_a_sweep_that_touches_no_strategy_is_refused() -> None:
    text = declared().replace("edge-cloud: {bandwidth: 1mbit}", "edge-cloud: {bandwidth: [1mbit, 2mbit]}")
    with pytest.raises(CatalogFileError, match="no strategy passes edge-cloud, so that all settings would be the same"):
        parse_catalog(text)
