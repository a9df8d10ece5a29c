"""A link in user space: a TCP proxy that paces both directions, for hosts without traffic shaping.

`python -m tierserver.paced_link --listen 127.0.0.1:0 --to HOST:PORT --up-bit-per-s N --down-bit-per-s N [--delay-s D]`

Without `--to` the first line on standard input names the far end, which may start at the same time.

Each chunk occupies the link from its arrival (or the end of the chunk before) for bits / rate. The finish times form a
chain that a late wake-up does not shift, so the rate holds however coarse the timers are, and an idle link saves no
credit. All connections share the link, as they would a wire.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import sys
import threading
import time
from dataclasses import dataclass

_GRAIN_S = 0.004  # a chunk takes about this long
_QUEUE_S = 0.05  # chunks wait up to this long: more than any wake-up is late
# The payload of one full Ethernet frame: 1500 less two headers of 20 and 12 of time stamps.
_MIN_CHUNK_BYTES = 1448
_MAX_CHUNK_BYTES = 65536


class Direction:
    """One direction of the link: its rate, its delay, and when it is free again."""

    def __init__(self, rate_bit_per_s: float, delay_s: float) -> None:
        self.bytes_per_s = rate_bit_per_s / 8
        self.delay_s = delay_s
        self.chunk_bytes = int(min(max(self.bytes_per_s * _GRAIN_S, _MIN_CHUNK_BYTES), _MAX_CHUNK_BYTES))
        # What is on its way during the delay counts as queued; without it a long delay would throttle the rate.
        self.queue_bytes = max(int(self.bytes_per_s * (_QUEUE_S + delay_s)), 2 * self.chunk_bytes)
        self._free_at = 0.0

    def due(self, count: int) -> float:
        """Return when `count` bytes that arrive now have left at the other end."""
        self._free_at = max(time.monotonic(), self._free_at) + count / self.bytes_per_s
        return self._free_at + self.delay_s


@dataclass(frozen=True)
class Endpoint:
    host: str
    port: int

    @staticmethod
    def parse(text: str) -> Endpoint:
        host, separator, port = text.rpartition(":")
        if not separator or not port.isdigit():
            raise argparse.ArgumentTypeError(f"{text!r}: expected HOST:PORT")
        return Endpoint(host.strip("[]"), int(port))


class Link:
    """The proxy: it accepts connections and paces them to the endpoint `to`."""

    def __init__(self, to: Endpoint, up: Direction, down: Direction) -> None:
        self._to = to
        self._up = up
        self._down = down

    async def serve(self, listen: Endpoint) -> asyncio.Server:
        return await asyncio.start_server(self._accept, listen.host, listen.port)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(self._to.host, self._to.port)
        except OSError:
            writer.close()
            return
        for end in (writer, far_writer):
            connection: socket.socket = end.get_extra_info("socket")
            # Nagle's algorithm (RFC 896) would hold short chunks back until an acknowledgement.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, far_writer, self._up))
                group.create_task(_pump(far_reader, writer, self._down))
        except* OSError:
            pass  # one side went away: both are closed below
        finally:
            writer.close()
            far_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
    """Read what arrives, note when it is due, write it then."""
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
    room = asyncio.Condition()
    queued_bytes = 0

    def has_room() -> bool:
        return queued_bytes < direction.queue_bytes

    async def deliver() -> None:
        nonlocal queued_bytes
        while True:
            due, chunk = await waiting.get()
            if (wait_s := due - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            if not chunk:
                # Half closed only: the other direction may still carry the answer.
                writer.write_eof()
                return
            writer.write(chunk)
            await writer.drain()
            async with room:
                queued_bytes -= len(chunk)
                room.notify()

    async def collect() -> None:
        nonlocal queued_bytes
        while chunk := await reader.read(direction.chunk_bytes):
            queued_bytes += len(chunk)
            waiting.put_nowait((direction.due(len(chunk)), chunk))
            async with room:
                await room.wait_for(has_room)
        # The end needs no due time: it stands in the queue behind the last chunk.
        waiting.put_nowait((0.0, b""))

    async with asyncio.TaskGroup() as group:
        group.create_task(deliver())
        group.create_task(collect())


async def _run(options: argparse.Namespace) -> None:
    up, down = Direction(options.up_bit_per_s, options.delay_s), Direction(options.down_bit_per_s, options.delay_s)
    to = options.to or Endpoint.parse(sys.stdin.readline().strip())
    server = await Link(to, up, down).serve(options.listen)
    print(json.dumps({"event": "ready", "port": server.sockets[0].getsockname()[1]}), flush=True)
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def watch() -> None:
        while sys.stdin.buffer.read(4096):
            pass
        # The loop may be closed already when stdin ends.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=watch, daemon=True).start()
    await ended.wait()
    server.close()


def _positive(text: str) -> float:
    if (value := float(text)) <= 0:
        raise argparse.ArgumentTypeError(f"{text}: a rate must be above 0")
    return value


def main() -> None:
    parser = argparse.ArgumentParser("tierserver.paced_link", description="Pace TCP connections in both directions.")
    parser.add_argument("--listen", type=Endpoint.parse, default=Endpoint("127.0.0.1", 0), help="HOST:PORT, 0 is free")
    parser.add_argument("--to", type=Endpoint.parse, help="HOST:PORT of the far end; default: a line on stdin")
    parser.add_argument("--up-bit-per-s", type=_positive, required=True)
    parser.add_argument("--down-bit-per-s", type=_positive, required=True)
    parser.add_argument("--delay-s", type=float, default=0.0, help="one way")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(options))


if __name__ == "__main__":
    main()
