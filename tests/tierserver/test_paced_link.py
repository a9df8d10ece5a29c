"""The link in user space keeps its rate, in both directions and for all connections together."""

import concurrent.futures
import json
import subprocess
import sys
import time

import pytest

from tierserver.messages import Probe
from tierserver.transport import Connection


@pytest.fixture
def link(tiers, start):
    def make(up, down, *more):
        to = f"127.0.0.1:{tiers.cloud.ready['port']}"
        rates = ("--up-bit-per-s", str(up), "--down-bit-per-s", str(down))
        return start("--to", to, *rates, *more, module="tierserver.paced_link")

    return make


@pytest.mark.parametrize("rate", [1_000_000, 20_000_000, 200_000_000])
def test_half_a_second_takes_half_a_second(link, rate):
    with link(rate, rate) as proxy:
        connection = Connection(proxy.url)
        connection.request("GET", "/probe")
        body = bytes(rate // 16)
        for method, path, pieces in (("POST", "/probe", (body,)), ("GET", f"/probe?bytes={len(body)}", ())):
            started = time.perf_counter()
            assert connection.request(method, path, pieces=pieces).status == 200
            assert time.perf_counter() - started == pytest.approx(0.5, rel=0.05)
        connection.close()


def test_the_directions_have_their_own_rates_and_delay(link, tiers):
    with link(8_000_000, 40_000_000, "--delay-s", "0.02") as proxy:
        answer = tiers.mobile.call(Probe(proxy.url, small_bytes=20_000, large_bytes=220_000).to_json())
        assert answer["up"]["rate_bit_per_s"] == pytest.approx(8e6, rel=0.05)
        assert answer["down"]["rate_bit_per_s"] == pytest.approx(40e6, rel=0.08)
        assert 0.04 <= answer["rtt_s"] < 0.06


def test_connections_share_the_link(link):
    with link(16_000_000, 16_000_000) as proxy, concurrent.futures.ThreadPoolExecutor(2) as pool:
        connections = [Connection(proxy.url) for _ in range(2)]
        started = time.perf_counter()
        list(pool.map(lambda connection: connection.request("POST", "/probe", pieces=(bytes(500_000),)), connections))
        assert time.perf_counter() - started == pytest.approx(0.5, rel=0.08)
        for connection in connections:
            connection.close()


def test_a_dead_end_closes_the_connection(start):
    rates = ("--up-bit-per-s", "1e6", "--down-bit-per-s", "1e6")
    with start("--to", "127.0.0.1:9", *rates, module="tierserver.paced_link") as proxy:
        connection = Connection(proxy.url)
        with pytest.raises(Exception, match="no answer"):
            connection.request("GET", "/probe")


def test_the_far_end_may_be_named_after_the_start(tiers):
    """A link starts beside its tiers, whose ports are not known yet."""
    rates = ("--up-bit-per-s", "1e9", "--down-bit-per-s", "1e9")
    command = [sys.executable, "-m", "tierserver.paced_link", *rates]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        process.stdin.write(f"127.0.0.1:{tiers.cloud.ready['port']}\n")
        process.stdin.flush()
        port = json.loads(process.stdout.readline())["port"]
        connection = Connection(f"http://127.0.0.1:{port}")
        assert connection.request("GET", "/v2/health/live").status == 200
        connection.close()
        process.stdin.close()
        assert process.wait(10) == 0
