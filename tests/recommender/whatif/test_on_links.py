"""Questions about other links, from the database to the answer: what is predicted and what stays measured."""

from typing import Any

import pytest

from tests.recommender.conftest import Client, Writer
from tests.recommender.test_link_samples import measure


@pytest.fixture
def linked(writer: Writer) -> int:
    """partition@edge-cloud is 20 ms and 50 kB over edge-cloud: 60 ms at 10 Mbit/s; identity@mobile takes 50 ms."""
    environment = writer.environment()
    writer.strategy(environment, "identity", "mobile", 0.05)
    writer.declare(environment, "partition", "edge-cloud")
    measure(writer, environment, f"latency:{environment}:net:partition:edge-cloud", 10)
    writer.judge(environment, "identity", 90.0)
    writer.judge(environment, "partition", 90.0)
    return environment


def ask(client: Client, **question: Any) -> dict[str, Any]:
    response = client.post("/recommend", json={"subject": "net", **question})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def latencies(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the latencies by placement, wherever they are in the answer."""
    rows = [answer["recommendation"], *answer["alternatives"], *answer["near_misses"], *answer["undecided"]]
    return {row["placement"]: row["latency"] for row in rows if row}


def test_what_uses_an_asked_link_is_predicted_and_marked_and_the_rest_stays_measured(
    linked: int, client: Client
) -> None:
    answer = ask(client, links={"edge-cloud": "100mbit"})
    by_placement = latencies(answer)
    assert by_placement["mobile"]["predicted"] is False and by_placement["mobile"]["predicted_from"] is None
    assert by_placement["mobile"]["percentile_s"] == pytest.approx(0.05)
    assert by_placement["edge-cloud"]["predicted"] is True
    assert by_placement["edge-cloud"]["predicted_from"]["bandwidths_measured"] == 1
    assert by_placement["edge-cloud"]["predicted_from"]["largest_check_error"] is None
    # 40 ms on the wire at the probed rate become about a tenth.
    assert by_placement["edge-cloud"]["percentile_s"] == pytest.approx(0.024, rel=0.05)
    assert (
        by_placement["edge-cloud"]["low_s"]
        < by_placement["edge-cloud"]["percentile_s"]
        < by_placement["edge-cloud"]["high_s"]
    )
    assert answer["recommendation"]["placement"] == "edge-cloud"
    assert "predicted from one measured bandwidth of edge-cloud, not measured" in answer["recommendation"]["why"]
    assert answer["links"] == [{"link": "edge-cloud", "bit_per_s": 100e6}]
    assert any("1 of 2 latencies are predicted" in warning for warning in answer["warnings"])
    assert not latencies(ask(client))["edge-cloud"]["predicted"]


def test_a_predicted_bound_is_wider_than_the_measured_one_at_the_joint_confidence(linked: int, client: Client) -> None:
    """The measurements have no spread at all here, so everything that leaves a budget unproven is the model's."""
    estimate = latencies(ask(client, links={"edge-cloud": "20mbit"}))["edge-cloud"]["percentile_s"]
    tight = ask(client, links={"edge-cloud": "20mbit"}, max_latency_s=1.005 * estimate, version=1)
    [gap] = tight["undecided"]
    assert (gap["placement"], gap["kind"]) == ("edge-cloud", "unproven")
    assert "Declare edge-cloud as asked and measure it there" in gap["to_do"]
    measured_s = latencies(ask(client))["edge-cloud"]["percentile_s"]
    assert not ask(client, max_latency_s=1.005 * measured_s)["undecided"]
    assert ask(client, links={"edge-cloud": "20mbit"}, max_latency_s=1.5 * estimate)["near_misses"] == []


def test_a_predicted_latency_is_equivalent_to_nothing_that_the_model_cannot_tell_apart(
    linked: int, client: Client
) -> None:
    # 20 ms and 40 ms * 10 / 13.33 are 50 ms: as fast as identity@mobile, give or take the model's 5 % of what it moved.
    answer = ask(client, links={"edge-cloud": "13.333mbit"}, equivalent_within=0.01)
    [other] = answer["alternatives"]
    assert other["relation"] == "unresolved"
    assert other["ratio_low"] < 1 < other["ratio_high"]


def test_a_miss_says_that_it_was_predicted(linked: int, client: Client) -> None:
    answer = ask(client, links={"edge-cloud": "1mbit"}, max_latency_s=0.2)
    [miss] = answer["near_misses"]
    assert "a predicted p90 of 413 ms" in miss["lacks"][0]


def test_several_bandwidths_check_the_prediction_and_the_asked_one_may_be_measured(
    linked: int, writer: Writer, client: Client
) -> None:
    measure(writer, linked, "at-1", 1)
    measure(writer, linked, "at-50", 50)
    source = latencies(ask(client, links={"edge-cloud": "20mbit"}))["edge-cloud"]["predicted_from"]
    assert source["bandwidths_measured"] == 3
    assert source["largest_check_error"] < 0.05
    assert "predicted from 3 measured bandwidths" in source["in_words"]
    answer = ask(client, links={"edge-cloud": "1mbit"})
    there = latencies(answer)["edge-cloud"]
    assert there["predicted"] is False
    assert there["percentile_s"] == pytest.approx(0.42)
    assert [alternative["latency_evidence_id"] for alternative in answer["alternatives"]] == ["at-1"]


def test_a_strategy_that_cannot_be_predicted_is_named_with_the_reason(
    linked: int, writer: Writer, client: Client
) -> None:
    writer.strategy(linked, "identity", "cloud", 0.03)  # its links were not recorded: neither probed nor declared
    answer = ask(client, links={"mobile-edge": "1mbit"})
    left_out = {left_out["placement"]: left_out["reason"] for left_out in answer["not_considered"]}
    assert left_out["cloud"].startswith("no prediction for the asked links: the rate of mobile-edge was neither probed")
    assert "cloud" not in latencies(answer)
    lack = "2 of 3 measured strategies have no prediction on these links."
    assert f"Whether another one is better is open: {lack}" in answer["summary"]
    # They were measured, so that no fill would help.
    assert [entry["command"] for entry in answer["not_considered"]] == [None, None] and answer["to_do"] is None
    nothing = ask(client, links={"mobile-edge": "1mbit"}, max_latency_s=1e-6)
    assert nothing["recommendation"] is None and nothing["to_do"] is None
    assert f"Whether another one keeps them is open: {lack}" in nothing["summary"]
    assert "not measured yet" not in nothing["summary"]
    assert "measured, but without a prediction on these links: identity@mobile and identity@cloud" in " ".join(
        answer["warnings"]
    )
    assert answer["environment"]["complete"] is True  # of the measurements, whatever the question


@pytest.mark.parametrize("words", ["5", "0mbit", "fast", "10mbits", "-1mbit", "1e3mbit", "99999gbit", 5, None, True])
def test_bad_bandwidths_are_refused_with_what_is_allowed(linked: int, client: Client, words: object) -> None:
    response = client.post("/recommend", json={"subject": "net", "links": {"edge-cloud": words}})
    assert response.status_code == 422
    [refused] = response.json()["errors"]
    assert refused["field"] == "links.edge-cloud"
    assert "a bandwidth such as 500kbit, 200mbit or 1gbit" in refused["allowed"]


def test_an_unknown_link_is_a_problem_with_the_known_ones(linked: int, client: Client) -> None:
    response = client.post("/recommend", json={"subject": "net", "links": {"edge-clout": "1mbit"}})
    assert response.status_code == 404
    body = response.json()
    assert body["type"] == "urn:problem-type:tierwise:unknown-link"
    assert (body["known"], body["nearest"]) == (["edge-cloud", "mobile-edge"], "edge-cloud")


@pytest.mark.parametrize("words", ["500kbit", "0.5mbit", "10Mbit", "10 mbit", "1.5gbit/s"])
def test_bandwidths_are_worded_as_in_the_catalog_file(linked: int, client: Client, words: str) -> None:
    assert ask(client, links={"edge-cloud": words})["recommendation"] is not None


def test_links_and_the_bandwidths_that_were_measured(linked: int, writer: Writer, client: Client) -> None:
    measure(writer, linked, "at-1", 1)
    body = client.get("/links", params={"subject": "net"}).json()
    edge, front = body["links"]
    assert (edge["link"], front["link"]) == ("edge-cloud", "mobile-edge")
    assert edge["declared_bit_per_s"] == 10e6
    assert edge["measured_bit_per_s"] == [1e6, 10e6]
    assert edge["strategies"] == 1


def test_a_real_link_is_shown_with_what_it_carried(writer: Writer, client: Client) -> None:
    environment = writer.environment()
    writer.declare(environment, "partition", "edge-cloud")
    writer.judge(environment, "partition", 90.0)
    links = [{"name": "edge-cloud", "up_bit_per_s": 50_000_000, "down_bit_per_s": 50_000_000, "real": True}]
    measure(writer, environment, f"latency:{environment}:net:partition:edge-cloud", 10, links=links)
    [link] = client.get("/links", params={"subject": "net"}).json()["links"]
    assert link["declared_bit_per_s"] == 9.9e6
    assert link["real"] == {"bit_per_s": 9.9e6, "least_bit_per_s": 9.9e6, "most_bit_per_s": 9.9e6}


def test_curves_have_intervals_and_the_choice_changes_where_they_cross(linked: int, client: Client) -> None:
    query = {"subject": "net", "link": "edge-cloud", "from": "1mbit", "to": "100mbit", "points": 5}
    body = client.get("/whatif", params=query).json()
    moving, flat = body["curves"]
    assert (moving["placement"], moving["predicted"]) == ("edge-cloud", True)
    assert (flat["placement"], flat["predicted"], flat["predicted_from"]) == ("mobile", False, None)
    assert [point["bit_per_s"] for point in moving["points"]] == pytest.approx([1e6, 10**6.5, 1e7, 10**7.5, 1e8])
    assert moving["points"][2]["latency_s"] == pytest.approx(0.06, rel=0.01)
    assert all(
        point["low_s"] < point["latency_s"] < point["high_s"] for point in (moving["points"][0], moving["points"][4])
    )
    assert [point["latency_s"] for point in flat["points"]] == pytest.approx([0.05] * 5)
    [crossing] = body["crossings"]
    assert (crossing["below"], crossing["above"]) == ("identity@mobile", "partition@edge-cloud")
    # 20 ms and 40 ms at 9.9 Mbit/s: 50 ms where the wire takes 30 ms, at 13.3 Mbit/s.
    assert crossing["bit_per_s"] == pytest.approx(13.3e6, rel=0.02)


@pytest.mark.parametrize(
    ("changed", "status", "said"),
    [
        ({"from": "2mbit", "to": "1mbit"}, 422, "'to' must be above 'from'"),
        ({"from": "quick"}, 422, "a bandwidth such as 500kbit"),
        ({"points": "1000"}, 422, "less than or equal to 17"),
        ({"link": "moon"}, 404, "known: edge-cloud, mobile-edge"),
        ({"subject": "nett"}, 404, "Did you mean 'net'?"),
    ],
)
def test_what_cannot_be_asked_is_a_problem(
    linked: int, client: Client, changed: dict[str, str], status: int, said: str
) -> None:
    response = client.get("/whatif", params={"subject": "net", "link": "edge-cloud", **changed})
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert said in response.json()["detail"]


def test_the_document_has_the_links_with_examples_and_problems(client: Client) -> None:
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/whatif"]["get"]
    assert {"from", "to", "link", "subject"} <= {parameter["name"] for parameter in operation["parameters"]}
    assert all(
        "examples" in parameter["schema"]
        for parameter in operation["parameters"]
        if parameter["name"] in ("from", "to", "link")
    )
    assert "application/problem+json" in operation["responses"]["422"]["content"]
    question = document["components"]["schemas"]["RecommendRequest"]
    assert "links" in question["properties"] and any("links" in example for example in question["examples"])


def test_the_median_of_a_prediction_is_that_of_a_question_about_it(linked: int, client: Client) -> None:
    rows = [ask(client, links={"edge-cloud": "20mbit"}, latency_percentile=percentile) for percentile in (50, 90)]
    of_median, of_p90 = (latencies(row)["edge-cloud"] for row in rows)
    assert of_median["predicted"] and of_p90["median_s"] == of_median["median_s"] == of_median["percentile_s"]
