"""Testbeds: what may be declared, and one clear error with its line for what may not."""

import pytest

from catalog.declaration import TestbedSpec, TierPlace, parse_catalog
from catalog.declaration.schema import shared_engines
from catalog.errors import CatalogFileError

CATALOG = """\
version: 1
subjects: {s: {model: "builtin:fashion-resnet", task: classification, dataset: "builtin:fashion"}}
operators: {identity: []}
tiers: {mobile: {cpus: 1, memory: 512m}, edge: {cpus: 1, memory: 512m}, cloud: {cpus: 1, memory: 512m}}
links: {mobile-edge: {bandwidth: 1mbit}, edge-cloud: {bandwidth: 1mbit}}
strategies: [{operators: [identity], placements: [mobile, cloud]}]
testbeds:
"""


def declared(text: str) -> TestbedSpec:
    return parse_catalog(f"{CATALOG}  x: {text}\n").testbeds["x"]


def test_without_a_declaration_tiers_are_emulated_here() -> None:
    testbeds = parse_catalog(CATALOG.removesuffix("testbeds:\n")).testbeds
    assert {name: (spec.engine, spec.links) for name, spec in testbeds.items()} == {"emulated": ("local", "emulated")}


def test_places_are_engines_by_url_or_context_and_tier_servers() -> None:
    lab = declared(
        "{tiers: {mobile: http://192.0.2.7:8000, edge: {engine: unix:///run/edge.sock, address: 10.1.0.2, port: 8700}, "
        "cloud: gpu-context}}"
    )
    assert lab.tiers is not None and lab.links == "real" and lab.replicas is None
    assert [(place.engine, place.server) for place in lab.tiers.values()] == [
        (None, "http://192.0.2.7:8000"),
        ("unix:///run/edge.sock", None),
        ("gpu-context", None),
    ]
    assert [place.host for place in lab.tiers.values()] == ["192.0.2.7", None, None]
    assert declared("{engine: ssh://lab@nuc, replicas: boards}").links == "emulated"
    assert declared("{tiers: {mobile: local, edge: ssh://lab@nuc, cloud: tcp://gpu1:2376}, links: real}").tiers


def test_the_first_tier_of_a_testbed_is_the_clients_in_whichever_order_they_are_written() -> None:
    lab = declared("{tiers: {cloud: ssh://gpu, edge: ssh://nuc, mobile: local}}")
    assert lab.tiers is not None and list(lab.tiers) == ["mobile", "edge", "cloud"]


WRONG = [
    ("{engine: local, links: real}", "links: real needs a place for each tier"),
    (
        "{tiers: {mobile: local, edge: 'http://a', cloud: ssh://b}, links: emulated}",
        "edge is a tier server: write links",
    ),
    ("{engine: local, tiers: {mobile: local}}", "either one engine for all tiers, or tiers with a place each"),
    ("{replicas: boards}", "either one engine for all tiers, or tiers with a place each"),
    (
        "{engine: 'ftp://nuc'}",
        "ftp:// does not lead to a Docker engine; allowed: local, a Docker context's name",
    ),
    ("{engine: 'http://nuc:8000'}", "a tier server, which serves one tier: name it under `tiers`"),
    ("{engine: 'tcp://nuc'}", "it names no port (2376 is usual)"),
    ("{engine: 'ssh://nuc:99999'}", "Port out of range"),
    ("{engine: 'ssh://'}", "it names no host"),
    ("{engine: 'unix://run/edge.sock'}", "a socket is an absolute path"),
    ("{engine: 'my engine'}", "it is not the name of a Docker context"),
    ("{engine: 'ssh://-oProxyCommand=id@nuc'}", "'-oProxyCommand=id' is not the name of a user or a host"),
    ("{engine: 'ssh://-oProxyCommand=id/x'}", "is not the name of a user or a host"),
    ("{tiers: {mobile: 'http://u@phone:1', edge: ssh://a, cloud: ssh://b}}", "a token is read from token_file"),
    ("{tiers: {mobile: 'http://phone:1/x', edge: ssh://a, cloud: ssh://b}}", "it is more than the address of a server"),
    ("{tiers: {mobile: {server: 'ssh://a'}, edge: ssh://a, cloud: ssh://b}}", "a tier server is reached by http"),
    ("{tiers: {mobile: {token_file: t}, edge: ssh://a, cloud: ssh://b}}", "one place: an engine or a server"),
    ("{tiers: {mobile: {engine: local, token_file: t}, edge: ssh://a, cloud: ssh://b}}", "token_file belongs to"),
    ("{tiers: {mobile: {server: 'http://p:1', port: 1}, edge: ssh://a, cloud: ssh://b}}", "port is that of a"),
    ("{tiers: {mobile: {engine: local, address: 'a b'}, edge: ssh://a, cloud: ssh://b}}", "'a b' is not an address"),
    ("{tiers: {mobile: local, edge: ssh://a}}", "testbed 'x' has no place for tier cloud; name one for each tier"),
    ("{tiers: {mobile: local, edge: ssh://a, could: ssh://b, cloud: ssh://c}}", "tier 'could' is not declared"),
    ("{tiers: {mobile: local, edge: local, cloud: ssh://b}}", "write edge: {engine: local, address: HOST}"),
    ("{tiers: {mobile: local, edge: 'http://p:1', cloud: 'http://p:1'}}", "http://p:1 serves tier 'edge' already"),
    ("{engin: local}", "unknown key 'engin'; allowed: engine, tiers, links, replicas; did you mean 'engine'?"),
    ("{tiers: {mobile: {engine: local, adress: a}, edge: ssh://a, cloud: ssh://b}}", "did you mean 'address'?"),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[said[:40] for _, said in WRONG])
def test_a_wrong_testbed_is_one_error_with_its_line(text: str, said: str) -> None:
    with pytest.raises(CatalogFileError) as caught:
        declared(text)
    assert said in str(caught.value)
    assert len(caught.value.problems) == 1 and caught.value.line == 8


def test_a_password_in_a_catalog_is_refused_and_not_repeated() -> None:
    for text in ("{engine: 'ssh://lab:secret@nuc'}", "{tiers: {mobile: 'http://u:secret@phone'}}"):
        with pytest.raises(CatalogFileError) as caught:
            declared(text)
        assert "secret" not in str(caught.value) and ":***@" in str(caught.value)


def test_two_testbeds_that_claim_one_engine_are_named() -> None:
    boards = {
        "lab-1": TestbedSpec(tiers={"mobile": TierPlace(engine="ssh://pi@a"), "edge": TierPlace(engine="ssh://nuc")}),
        "lab-2": TestbedSpec(tiers={"mobile": TierPlace(engine="ssh://pi@b"), "edge": TierPlace(engine="ssh://nuc/")}),
        "lab-3": TestbedSpec(engine="ssh://pi@c"),
    }
    assert shared_engines(boards) == [
        "testbeds lab-1 and lab-2 both use ssh://nuc: they cannot measure at the same time; name one of them"
    ]
    assert shared_engines({name: boards[name] for name in ("lab-1", "lab-3")}) == []
