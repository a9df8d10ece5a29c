from pathlib import Path

import pytest

from catalog.declaration import PassSpec, load_catalog, parse_catalog
from catalog.errors import CatalogFileError

ROOT = Path(__file__).parents[3]

WHOLE = """\
version: 1
subjects:
  net: {model: ./net.onnx, task: classification, dataset: {images: pictures, labels: labels.csv}}
  other: {model: builtin:other, task: any, dataset: builtin:digits}
operators:
  identity: []
  quantized: [static_ptq]
  shorter: [static_ptq, {early_exit: {blocks: 2}}, partition]
tiers:
  mobile: {cpus: 0.5, memory: 512m, provider: cpu}
  edge: {cpus: 1, memory: 1g}
  cloud: {cpus: 2, memory: 4g, provider: [cuda, cpu]}
links:
  mobile-edge: {up: 20mbit, down: 200mbit, delay: 5ms}
  edge-cloud: {bandwidth: 10mbit, tolerance: 0.1}
strategies:
  - {operators: [identity, quantized], placements: [mobile, cloud]}
  - {operators: [shorter], placements: [edge-cloud]}
experiment: {inputs: 10, select: largest, rounds: 2}
slos:
  fast: {latency: {p90: 100ms, p99.9: 1s}, accuracy: {max_drop: 1.0, min: 80}}
"""


def line_of(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


def refused(old: str, new: str) -> tuple[CatalogFileError, str]:
    assert old in WHOLE
    text = WHOLE.replace(old, new, 1)
    with pytest.raises(CatalogFileError) as caught:
        parse_catalog(text)
    return caught.value, text


def test_the_shipped_catalog_loads() -> None:
    catalog = load_catalog(ROOT / "strategies.yaml")
    assert catalog.client == "mobile"
    assert len(catalog.strategies()) == 36


def test_spellings_become_si_units() -> None:
    catalog = parse_catalog(WHOLE)
    assert catalog.tiers["mobile"].memory_bytes == 2**29
    assert catalog.tiers["edge"].provider == ("cpu",)
    assert catalog.tiers["cloud"].provider == ("cuda", "cpu")
    assert (catalog.links["mobile-edge"].up_bit_per_s, catalog.links["mobile-edge"].down_bit_per_s) == (20e6, 200e6)
    assert catalog.links["mobile-edge"].delay_s == 0.005
    assert catalog.links["edge-cloud"].up_bit_per_s == catalog.links["edge-cloud"].down_bit_per_s == 10e6
    assert catalog.operators["shorter"] == (
        PassSpec.model_validate("static_ptq"),
        PassSpec.model_validate({"early_exit": {"blocks": 2}}),
        PassSpec.model_validate("partition"),
    )
    assert catalog.experiment.repetitions == 1
    assert catalog.slos["fast"].latency_s == {90.0: 0.1, 99.9: 1.0}
    assert catalog.slos["fast"].accuracy.max_drop_pp == 1.0


def test_strategies_expand_in_declared_order_with_their_routes() -> None:
    strategies = parse_catalog(WHOLE).strategies()
    assert [strategy.name for strategy in strategies] == [
        f"{subject}/{rest}"
        for subject in ("net", "other")
        for rest in ("identity@mobile", "identity@cloud", "quantized@mobile", "quantized@cloud", "shorter@edge-cloud")
    ]
    at_mobile, at_cloud, *_, split = strategies[:5]
    assert (at_mobile.route, at_mobile.links) == (("mobile",), ())
    assert (at_cloud.route, at_cloud.links) == (("mobile", "edge", "cloud"), ("mobile-edge", "edge-cloud"))
    assert split.placement.tiers == ("edge", "cloud")
    assert (split.route, split.links) == (at_cloud.route, at_cloud.links)
    assert [step.name for step in split.passes] == ["static_ptq", "early_exit", "partition"]
    assert len(set(strategies)) == len(strategies)


def test_tier_names_may_contain_dashes() -> None:
    text = WHOLE.replace("edge", "far-edge")
    split = parse_catalog(text).strategies()[4]
    assert split.placement.tiers == ("far-edge", "cloud")
    assert split.links == ("mobile-far-edge", "far-edge-cloud")


def test_names_that_read_in_two_ways_are_refused() -> None:
    error, text = refused(
        "  edge: {cpus", "  mobile-edge: {cpus: 1, memory: 1g}\n  edge-cloud: {cpus: 1, memory: 1g}\n  edge: {cpus"
    )
    assert error.problems
    text = text.replace("placements: [mobile, cloud]", "placements: [mobile-edge]")
    with pytest.raises(CatalogFileError, match=r"can be read as mobile-edge or mobile \+ edge; rename"):
        parse_catalog(text)


# What is written instead of what, where the error points (at the first occurrence in that line), what it says.
WRONG = [
    ("version: 1", "version: 2", "2", "version: got 2; allowed: 1"),
    ("version: 1", "version: true", "true", "allowed: 1"),
    ("version: 1", "verison: 1", "verison", "unknown key 'verison'; allowed: version, subjects"),
    ("memory: 512m", "memroy: 512m", "memroy", "'memroy'; allowed: cpus, memory, provider; did you mean 'memory'?"),
    ("{inputs: 10", "{input: 10", "input:", "did you mean 'inputs'?"),
    ("task: classification", "task: clasification", "clasif", "did you mean 'classification'?"),
    ("labels: labels.csv", "label: labels.csv", "label:", "unknown key 'label'; allowed: images, labels"),
    ("memory: 512m", "memory: 512mb", "512mb", "unknown unit 'mb'"),
    ("memory: 512m", "memory: 512", "512", "has no unit"),
    ("bandwidth: 10mbit", "bandwidth: fast", "fast", "write a bandwidth such as"),
    ("bandwidth: 10mbit, ", "", "{", "either bandwidth, or both up and down"),
    ("bandwidth: 10mbit", "bandwidth: 10mbit, up: 1mbit", "{", "either bandwidth, or both up and down"),
    ("cpus: 0.5", "cpus: 0", "0,", "greater than 0"),
    ("cpus: 0.5", "cpus: yes", "yes", "tiers.mobile.cpus: "),
    ("cpus: 0.5", "cpus: .nan", ".nan", "tiers.mobile.cpus: "),
    ("cpus: 0.5, ", "", "{", "the key 'cpus' is missing here"),
    ("provider: cpu}", "provider: gpu}", "gpu", "allowed: cpu, cuda; did you mean 'cpu'?"),
    ("[cuda, cpu]", "[]", "[]", "tiers.cloud.provider: this must not be empty"),
    ("rounds: 2", "rounds: 0", "0}", "greater than or equal to 1"),
    ("rounds: 2", "rounds: two", "two", "got 'two'"),
    ("select: largest", "select: bigest", "bigest", "did you mean 'largest'?"),
    ("select: largest", "select: sistematic", "sistematic", "did you mean 'systematic'?"),
    ("inputs: 10, select: largest", "inputs: 1, select: systematic", "{inputs: 1", "needs inputs: 2 or more, got 1"),
    ("select: largest, rounds: 2", "select: largest, warmup: stedy", "stedy", "did you mean 'steady'?"),
    ("select: largest, rounds: 2", "select: largest, warmup: -1", "-1", "greater than or equal to 0"),
    ("p90: 100ms", "q90: 100ms", "{q90", "'q90' is not a percentile; write p50"),
    ("p90: 100ms", "p90: 100", "100,", "has no unit"),
    ("max_drop: 1.0", "max_drop: -1", "-1", "greater than or equal to 0"),
    ("[static_ptq]", "[{a: {}, b: {}}]", "{a", "a pass is a name"),
    ("[static_ptq]", "[{a: 3}]", "{a", "options of pass 'a'"),
    ("[static_ptq]", "static_ptq", "static", "operators.quantized: expected a list ([a, b]), got 'static_ptq'"),
    ("  net: {model", "  ne/t: {model", "ne/t", "not a name"),
    (
        "quantized], pl",
        "quantised], pl",
        "quantised",
        "'quantised' is not declared; allowed: identity, quantized, shorter;",
    ),
    ("quantized], pl", "quantised], pl", "quantised", "did you mean 'quantized'?"),
    ("[mobile, cloud]", "[mobile, clowd]", "clowd", "did you mean 'cloud'?"),
    ("[edge-cloud]", "[edge-clud]", "edge-clud", "did you mean 'edge-cloud'?"),
    ("[edge-cloud]", "[cloud-edge]", "cloud-edge", "no route from tier 'cloud' to tier 'edge' over the declared links"),
    ("[edge-cloud]", "[edge-edge]", "edge-edge", "names a tier twice"),
    ("[mobile, cloud]", "[mobile, mobile]", "mobile]", "duplicated strategy: 'identity' on 'mobile'"),
    ("[identity, quantized]", "[identity, identity]", "identity]", "duplicated strategy"),
    ("[shorter], placements: [edge-", "[identity], placements: [", "cloud]", "already declared on line 17"),
    ("[edge-cloud]", "[edge]", "edge]", "operator 'shorter' makes 2 parts and placement 'edge' has 1 tier; each part"),
    ("[edge-cloud]", "[edge]", "edge]", "name placements of 2 tiers (such as mobile-edge), in a separate entry"),
    ("[edge-cloud]", "[edge-cloud, mobile-edge-cloud]", "mobile-edge-cloud", "makes 2 parts and placement "),
    (
        "{early_exit: {blocks: 2}}, partition]",
        "partition, early_exit]",
        "early_exit]",
        "early_exit takes one model, and",
    ),
    ("[mobile, cloud]", "[mobile, edge-cloud]", "edge-cloud", "'identity' makes 1 part and placement 'edge-cloud' has"),
    ("[mobile, cloud]", "[mobile, edge-cloud]", "edge-cloud", "name single tiers (mobile, edge, cloud), in a separate"),
    ("  edge-cloud: {", "  edge-clod: {", "edge-clod", "does not join two declared tiers (mobile, edge, cloud)"),
    ("  edge-cloud: {", "  edge-clod: {", "edge-clod", "did you mean 'edge-cloud'?"),
    ("  edge-cloud: {", "  edge-edge: {", "edge-edge", "joins a tier with itself"),
    ("  edge-cloud: {", "  edge-mobile: {", "edge-mobile", "in the other direction"),
    ("  edge: {cpus", "  Mobile: {cpus", "Mobile", "tier 'Mobile' differs from tier 'mobile' in capitals alone"),
]


@pytest.mark.parametrize(("old", "new", "at", "said"), WRONG)
def test_every_error_names_its_place_what_is_allowed_and_the_nearest_spelling(
    old: str, new: str, at: str, said: str
) -> None:
    error, text = refused(old, new)
    assert said in str(error)
    line = line_of(WHOLE, old)
    column = text.splitlines()[line - 1].index(at) + 1
    assert (error.line, error.column) == (line, column)
    assert str(error).startswith(f"strategies.yaml:{line}:{column}: ")


def test_a_pass_of_another_version_is_not_compared_with_tiers() -> None:
    """Leave the number of its parts, which is not known here, to the runner: it refuses the pass by its name."""
    catalog = parse_catalog(WHOLE.replace("[static_ptq]", "[of_another_version]").replace("[mobile, cloud]", "[edge]"))
    assert "net/quantized@edge" in {strategy.name for strategy in catalog.strategies()}
    parse_catalog(WHOLE.replace("early_exit: {blocks: 2}", "of_another_version: {}"))


def test_more_parts_than_declared_tiers_say_so() -> None:
    twice = "[partition, partition, static_ptq]"
    error, _ = refused("[static_ptq, {early_exit: {blocks: 2}}, partition]", twice)
    assert "makes 4 parts and placement 'edge-cloud' has 2 tiers" in str(error)
    assert "4 tiers are needed and 3 declared" in str(error)


def test_a_reversed_link_leaves_no_route_and_says_what_to_declare() -> None:
    error, _ = refused("  edge-cloud: {band", "  cloud-edge: {band")
    assert "declare for example mobile-cloud" in str(error)


def test_an_indirect_route_needs_every_link() -> None:
    error, text = refused("  mobile-edge: {up: 20mbit, down: 200mbit, delay: 5ms}\n", "")
    assert error.line == line_of(text, "placements: [mobile, cloud]")
    assert len(error.problems) == 2


def test_all_problems_are_told_at_once_in_order() -> None:
    text = WHOLE.replace("cpus: 0.5", "cpu: 0.5").replace("rounds: 2", "round: 2")
    with pytest.raises(CatalogFileError) as caught:
        parse_catalog(text)
    lines = [problem.line for problem in caught.value.problems]
    assert lines == sorted(lines)
    assert {10, 19} <= set(lines)
    assert len(str(caught.value).splitlines()) == len(lines)


@pytest.mark.parametrize("text", ["[]", "just text", "version: 1\n", "version: 1\nsubjects: {}\n"])
def test_what_is_no_catalog_says_so(text: str) -> None:
    with pytest.raises(CatalogFileError, match=r"mapping that starts|is missing here"):
        parse_catalog(text)
