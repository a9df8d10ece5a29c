"""The typed client against a real server."""

import socket
from collections.abc import Callable

import httpx
import pytest

from recommender.client import RecommenderClient, ServiceProblem
from recommender.schemas import RecommendRequest

KEY = "0123456789abcdef-key"


def test_every_resource_comes_back_typed(live: Callable[..., str]) -> None:
    address = live(api_key=KEY)
    with RecommenderClient(address, api_key=KEY) as service:
        answer = service.recommend(RecommendRequest(subject="net", max_latency_s=0.15))
        assert answer.recommendation is not None and answer.recommendation.operator == "quantized"
        first, second = service.recommend_batch([RecommendRequest(subject="net"), RecommendRequest(subject="x")])
        assert first.answer is not None and second.problem is not None and second.problem.status == 404
        assert service.subjects().subjects[0].subject == "net"
        assert len(service.strategies("net").strategies) == 4
        strategy = service.strategy("net:identity:edge")
        assert strategy.latency_evidence_id is not None and strategy.accuracy_evidence_id is not None
        assert service.evidence(strategy.latency_evidence_id).kind == "latency"
        assert service.evidence(strategy.accuracy_evidence_id).kind == "accuracy"
        assert len(service.leaderboard("net", percentile=50).strategies) == 4
        assert len(service.pareto("net").strategies) == 2
        assert [link.link for link in service.links("net").links] == ["mobile-edge"]
        with pytest.raises(ServiceProblem, match="'moon' is not in the evidence; known: mobile-edge"):
            service.whatif("net", "moon", low="2mbit", high="4mbit")
        assert len(service.whatif("net", "mobile-edge").unpredictable) == 4
        assert service.coverage().coverage[0].complete == 4
        assert service.slos().slos[0].name == "interactive"
        assert service.ready().subjects == 1
        with pytest.raises(ServiceProblem, match="Did you mean 'net'") as refused:
            service.recommend(RecommendRequest(subject="nett"))
        assert refused.value.problem is not None and refused.value.problem.known == ["net"]
    with RecommenderClient(address) as stranger, pytest.raises(ServiceProblem, match="API key"):
        stranger.subjects()


def test_silence_and_strangers_are_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    absent = RecommenderClient(f"http://127.0.0.1:{port}")
    with absent, pytest.raises(ServiceProblem, match="does not answer"):
        absent.subjects()
    other = httpx.MockTransport(lambda request: httpx.Response(502, text="<h1>Bad gateway</h1>"))
    proxy = RecommenderClient("http://other", transport=other)
    with proxy, pytest.raises(ServiceProblem, match="answered 502 without a problem document"):
        proxy.subjects()
