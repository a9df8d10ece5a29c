"""Routes over links, and links that lead nowhere."""

import pytest

from runner.errors import LaunchError
from runner.launchers.base import Deployment, LinkLimits, Mount, TierLimits, check_links, engine_arguments

LINKS = (
    LinkLimits("mobile-edge", "mobile", "edge", 1, 1),
    LinkLimits("edge-cloud", "edge", "cloud", 1, 1),
    LinkLimits("cloud-archive", "cloud", "archive", 1, 1),
)


def deployment() -> Deployment:
    addresses = {(link.upstream, link.downstream): f"http://{link.downstream}:8000" for link in LINKS}
    return Deployment({}, LINKS, addresses)


def test_a_neighbour_is_reached_directly_and_others_through_relays() -> None:
    assert deployment().url("mobile", "edge") == "http://edge:8000"
    assert deployment().url("mobile", "cloud") == "http://edge:8000/tiers/cloud"
    assert deployment().url("mobile", "archive") == "http://edge:8000/tiers/cloud/tiers/archive"


def test_a_tier_relays_to_its_downstream_neighbours() -> None:
    assert deployment().routes("edge") == {"cloud": "http://cloud:8000"}
    assert deployment().routes("archive") == {}


@pytest.mark.parametrize(("source", "target"), [("cloud", "mobile"), ("mobile", "mobile"), ("mobile", "mars")])
def test_no_way_is_an_error_that_lists_the_links(source: str, target: str) -> None:
    with pytest.raises(LaunchError, match=f"no way from '{source}' to '{target}'; links .*mobile→edge"):
        deployment().url(source, target)


def test_a_link_to_a_tier_that_is_not_launched_is_refused() -> None:
    mobile = TierLimits("mobile", 1, 1 << 28, 1)
    with pytest.raises(LaunchError, match="'mobile-edge' ends at 'edge'; tiers launched: mobile"):
        check_links([mobile], LINKS[:1])
    with pytest.raises(LaunchError, match="same name"):
        check_links([mobile, mobile], [])


def test_only_a_tier_with_parts_starts_with_the_engine() -> None:
    inputs, model = Mount("inputs", {}, "i"), Mount("model", {}, "m", has_parts=True)
    assert engine_arguments([inputs]) == engine_arguments([]) == ["--no-engine"]
    assert engine_arguments([inputs, model]) == []
