"""What goes over a connection, below the protocol."""

import math
import socket
import threading

import pytest

from tierserver import transport
from tierserver.errors import PeerError
from tierserver.transport import Arrivals, Connection


def test_more_pieces_than_the_kernel_takes_at_once_are_sent() -> None:
    pieces = [bytes([number % 256]) for number in range(3000)]
    sending, receiving = socket.socketpair()
    with sending, receiving:
        sender = threading.Thread(target=transport._send, args=(sending, pieces))
        sender.start()
        received = b""
        while len(received) < len(pieces):
            received += receiving.recv(65536)
        sender.join(timeout=10)
    assert received == b"".join(pieces)


@pytest.mark.parametrize("length", ["\u00b2", "-1", "+1", "1_0", "9" * 5000])
def test_a_length_that_is_no_whole_number_is_no_answer_of_a_tier(length: str) -> None:
    connection = Connection("http://127.0.0.1:1")
    with pytest.raises(PeerError, match="does not answer as a tier does"):
        connection._parse(f"HTTP/1.1 200 OK\r\nContent-Length: {length}".encode("latin-1"))


class Clock:
    """Times that a test sets."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def arrivals(points: list[tuple[int, float]]) -> Arrivals:
    clock = Clock()
    noted = Arrivals(clock)
    for received_bytes, clock.now_s in points:
        noted.add(received_bytes)
    return noted


def test_the_rate_of_arrivals_ignores_their_start_and_single_late_wake_ups() -> None:
    # 1 MB/s after a second in which nothing came and 5 kB came for free; one reader woke up 10 ms late.
    points = [(5000 + 1000 * index, 1.0 + 0.001 * index) for index in range(41)]
    points[20] = (points[20][0], points[20][1] + 0.01)
    timed = arrivals(points).after(8000)
    assert timed.rate_bit_per_s == pytest.approx(8e6)
    assert (timed.small_bytes, timed.large_bytes) == (8000, 45_000)
    assert (timed.small_s, timed.large_s) == pytest.approx((1.003, 1.04))


@pytest.mark.parametrize("points", [[(50_000, 0.001)], [(40_000, 0.0005), (50_000, 0.001)]], ids=["once", "twice"])
def test_a_body_that_arrives_at_once_is_as_fast_as_its_whole_time_says(points: list[tuple[int, float]]) -> None:
    assert arrivals(points).after(10_000).rate_bit_per_s > 8 * 50_000 / 0.0011


def test_a_body_without_time_has_a_finite_rate() -> None:
    assert math.isfinite(arrivals([(50_000, 0.0)]).after(10_000).rate_bit_per_s)
