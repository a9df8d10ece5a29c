import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.declaration import Strategy, parse_catalog
from catalog.errors import ContentKeyError
from catalog.keys import accuracy_key, artifact_key, content_key, latency_key

CATALOG = """\
version: 1
subjects: {net: {model: builtin:net, task: classification, dataset: builtin:net}}
operators: {identity: [], quantized: [static_ptq], halves: [static_ptq, partition]}
tiers: {mobile: {cpus: 1, memory: 1g}, edge: {cpus: 1, memory: 1g}, cloud: {cpus: 2, memory: 1g}}
links: {mobile-edge: {bandwidth: 200mbit}, edge-cloud: {bandwidth: 10mbit}}
strategies:
  - {operators: [identity, quantized], placements: [mobile, edge, cloud]}
  - {operators: [halves], placements: [mobile-edge]}
"""


def keys(text: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return latency and accuracy keys by strategy, as the runner makes them."""
    catalog = parse_catalog(text)

    def artifact(strategy: Strategy) -> str:
        return artifact_key(
            model_sha256="m",
            passes=[{"name": step.name, "options": dict(step.options)} for step in strategy.passes],
            pass_versions={step.name: 1 for step in strategy.passes},
            calibration_fingerprint="c" if strategy.passes else None,
            tools={"onnx": "1"},
        )

    def latency(strategy: Strategy) -> str:
        return latency_key(
            artifact_key=artifact(strategy),
            inputs_fingerprint="i",
            input_ids=["a", "b"],
            preprocess={"width": 28},
            postprocess=None,
            placement=strategy.placement.tiers,
            tiers=[catalog.tiers[name].model_dump() for name in strategy.route],
            links=[catalog.links[name].model_dump() for name in strategy.links],
            warmup=1,
            repetitions=1,
            protocol_version=1,
            launcher="process",
            scale="1",
            runtime="1.0",
            host="h",
        )

    def accuracy(strategy: Strategy) -> str:
        return accuracy_key(
            artifact_key=artifact(strategy),
            dataset_fingerprint="d",
            preprocess={"width": 28},
            postprocess=None,
            provider="cpu",
            runtime="1.0",
            cpu_model="x",
        )

    strategies = catalog.strategies()
    return {strategy.name: latency(strategy) for strategy in strategies}, {
        strategy.name: accuracy(strategy) for strategy in strategies
    }


def test_one_link_changes_exactly_the_latencies_on_its_routes_and_no_accuracy() -> None:
    latency, accuracy = keys(CATALOG)
    changed_latency, changed_accuracy = keys(CATALOG.replace("10mbit", "20mbit"))
    changed = {name for name in latency if latency[name] != changed_latency[name]}
    assert changed == {"net/identity@cloud", "net/quantized@cloud"}
    assert accuracy == changed_accuracy


def test_one_tier_changes_exactly_the_latencies_that_touch_it() -> None:
    latency, accuracy = keys(CATALOG)
    changed_latency, changed_accuracy = keys(CATALOG.replace("edge: {cpus: 1", "edge: {cpus: 2"))
    changed = {name for name in latency if latency[name] != changed_latency[name]}
    assert changed == {name for name in latency if not name.endswith("@mobile")}
    assert accuracy == changed_accuracy


def test_rounds_and_inputs_not_in_use_change_nothing() -> None:
    assert keys(CATALOG) == keys(CATALOG + "experiment: {rounds: 7}\n")


def test_strategies_differ_and_accuracies_belong_to_operators() -> None:
    latency, accuracy = keys(CATALOG)
    assert len(set(latency.values())) == 7
    assert len(set(accuracy.values())) == 3


def test_a_key_is_the_digest_of_canonical_json() -> None:
    # printf '%s' '{"a":[1,"é"]}' | sha256sum
    assert content_key({"a": (1.0, "é")}) == "5db14a2cddc92d31365806bb5d82ed2bc436bf6960d10cd4654140f7bdadce1c"
    assert len(content_key({})) == 64


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), {1: 2}, b"bytes", object(), {"a": [{"b": float("nan")}]}, {1, 2}]
)
def test_what_has_no_canonical_form_is_refused_with_its_place(value: object) -> None:
    with pytest.raises(ContentKeyError, match=r"^\$\.x"):
        content_key({"x": value})


@pytest.mark.parametrize(
    ("one", "other"), [(True, 1), (None, False), ("1", 1), ([], {}), (0.1, 0.1 + 1e-17 + 1e-10), ([1, 2], [2, 1])]
)
def test_what_differs_has_another_key(one: object, other: object) -> None:
    assert content_key({"x": one}) != content_key({"x": other})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=4))
def test_keys_survive_json_and_do_not_depend_on_order(mapping: dict[str, Any]) -> None:
    again = json.loads(json.dumps(mapping))
    assert content_key(dict(reversed(again.items()))) == content_key(mapping)
