"""Transport at the limit of the link: `python -m benchmarks.transport` (needs a Docker engine, about three minutes).

In containers as the product starts and shapes them: the slope of time over payload bytes against the declared rate,
directly (mobile-edge) and through the relay (mobile-edge-cloud), at 1, 10 and 200 Mbit/s; the fixed cost of an empty
round trip; the other codecs and the study's Flask with Base64 in JSON beside it. Then, on a link wider than the tiers'
CPUs, 100 MB to a tier, to Starlette's `request.body()`, to Flask and to a bare socket, in seconds and CPU seconds.

Flask and Starlette are no dependencies: they are installed once into a directory that the containers mount, and run
inside the edge tier's container, under the same limits and behind the same shaping. Prints JSON with `--json`,
Markdown otherwise. Exit code 1 when a raw slope is more than 3 % off the declared rate.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import docker
import onnx
from onnx import TensorProto, helper

from runner.launchers.base import Deployment, LinkLimits, Mount, TierLimits
from runner.launchers.docker import DockerLauncher
from runner.launchers.engine import Engine
from tierserver.messages import Load, PartSpec

RATES = (1_000_000, 10_000_000, 200_000_000)
WIDE_BIT_PER_S = 20_000_000_000
SLOPE_S = (0.25, 1.0)
SMALL_BYTES = (1_000, 10_000)
TOLERANCE = 0.03
CPUS = 0.5
LARGE_BYTES = 100_000_000
PORTS = {"starlette": 8101, "flask": 8102, "socket": 8103}
INSIDE = "/tierwise/benchmark/transport_inside.py"
HERE = Path(__file__).parent
CACHE = HERE.parent / ".tierwise" / "benchmark-packages"

FIND = """
import sys
from pathlib import Path
for each in Path("/proc").glob("[0-9]*/cmdline"):
    if sys.argv[1] in each.read_bytes().replace(b"\\0", b" ").decode():
        if "-c" not in each.read_bytes().decode().split("\\0"):
            print(each.parent.name)
"""


@dataclass(frozen=True)
class Slope:
    """One way of sending over one route at one rate."""

    kind: str
    route: str
    declared_bit_per_s: int
    measured_bit_per_s: float
    seconds: Mapping[str, float]  # by payload bytes, the median

    @property
    def deviation(self) -> float:
        return self.measured_bit_per_s / self.declared_bit_per_s - 1


@dataclass(frozen=True)
class Bulk:
    """100 MB to one kind of server over a link wider than its CPUs."""

    kind: str
    seconds: float
    cpu_s_per_mb: float


class Bench:
    """Running tiers, and what is run inside them."""

    def __init__(self, client: docker.DockerClient, deployment: Deployment) -> None:
        self._client = client
        self._deployment = deployment

    def container(self, tier: str) -> Any:
        running: Any = self._deployment.tiers[tier]
        return self._client.containers.get(running.container)

    def serve(self, kind: str) -> None:
        command = ["python", INSIDE, "serve", kind, str(PORTS[kind])]
        environment = {"PYTHONPATH": "/tierwise/packages", "PYTHONDONTWRITEBYTECODE": "1"}
        self.container("edge").exec_run(command, environment=environment, detach=True)
        wait = f"import socket; socket.create_connection(('127.0.0.1', {PORTS[kind]}), 1).close()"
        deadline = time.monotonic() + 60
        while self.container("edge").exec_run(["python", "-c", wait]).exit_code:
            if time.monotonic() > deadline:
                sys.exit(f"the {kind} server does not come up")
            time.sleep(0.3)

    def time(self, kind: str, url: str, sizes: list[int], repetitions: int) -> dict[int, list[float]]:
        job = json.dumps({"kind": kind, "url": url, "sizes": sizes, "repetitions": repetitions})
        timings = json.loads(self._said("mobile", [INSIDE, "time", job]))
        return {int(size): seconds for size, seconds in timings.items()}

    def _said(self, tier: str, arguments: list[str]) -> str:
        """What a Python in a tier's container prints; asked again, as engines under load lose output."""
        for _ in range(5):
            answer = self.container(tier).exec_run(["python", *arguments], demux=True)
            if answer.exit_code:
                sys.exit(f"{arguments[:3]} in {tier} failed: {(answer.output[1] or b'').decode()}")
            if answer.output[0]:
                return str(answer.output[0].decode())
        sys.exit(f"{arguments[:3]} in {tier} said nothing")

    def url(self, kind: str, target: str) -> str:
        if kind in PORTS:
            return f"http://edge:{PORTS[kind]}"
        return self._deployment.url("mobile", target)

    def cpu_s(self, kind: str) -> float:
        """User and system time of the server's process in the edge tier."""
        pid = "1"
        if kind in PORTS:
            (pid,) = self._said("edge", ["-c", FIND, f"serve {kind}"]).split()
        ask = f"print(open('/proc/{pid}/stat').read().rpartition(')')[2])"
        fields = self._said("edge", ["-c", ask]).split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def tiers(rate: int, cpus: float) -> Iterator[Bench]:
    """Mobile, edge and cloud, both links at one rate; its part takes any tensor and computes next to nothing."""
    with tempfile.TemporaryDirectory() as directory, contextlib.closing(docker.from_env()) as client:
        mounts = _mounts(Path(directory))
        limits = [TierLimits(name, cpus, 4 << 30, 1) for name in ("mobile", "edge", "cloud")]
        ends = (("mobile", "edge"), ("edge", "cloud"))
        links = [LinkLimits(f"{near}-{far}", near, far, rate, rate) for near, far in ends]
        everywhere = {limit.name: mounts for limit in limits}
        with DockerLauncher(Engine.connect()).launch(limits, links, everywhere) as deployment:
            part = PartSpec("net", "/tierwise/model/shape.onnx")
            for name, tier in deployment.tiers.items():
                tier.call(Load((part,), deployment.routes(name)).to_json(), deadline_s=60)
            yield Bench(client, deployment)


def _mounts(directory: Path) -> list[Mount]:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "n"])
    y = helper.make_tensor_value_info("y", TensorProto.INT64, [2])
    graph = helper.make_graph([helper.make_node("Shape", ["x"], ["y"])], "shape", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, directory / "shape.onnx")
    inside = HERE / "transport_inside.py"
    packages = _packages()
    return [
        Mount("model", {"shape.onnx": directory / "shape.onnx"}, "transport-benchmark"),
        Mount("benchmark", {inside.name: inside}, hashlib.sha256(inside.read_bytes()).hexdigest()),
        Mount("packages", packages, f"transport-packages-{len(packages)}"),
    ]


def _packages() -> dict[str, Path]:
    """Flask and Starlette with what they need, installed once."""
    if not CACHE.is_dir():
        staging = CACHE.with_suffix(".new")
        requirements = ["flask==3.1.3", f"starlette=={importlib.metadata.version('starlette')}"]
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(staging), *requirements]
        subprocess.run(command, check=True)
        staging.rename(CACHE)
    files = (path for path in CACHE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(CACHE)): path for path in files}


def measure_rate(rate: int, cpus: float, repetitions: int) -> tuple[float, list[Slope]]:
    """The empty round trip, and every way of sending at this rate."""
    small, large = (int(rate * seconds / 8) // 4 * 4 for seconds in SLOPE_S)
    slopes = []
    with tiers(rate, cpus) as bench:
        bench.serve("flask")
        (empty,) = bench.time("down", bench.url("down", "edge"), [0], 20).values()
        ways = [("raw", "edge"), ("raw", "cloud"), ("down", "edge"), ("down", "cloud")]
        ways += [("base64-json", "edge"), ("shuffle-zlib", "edge"), ("flask", "edge")]
        for kind, target in ways:
            sizes = [*(SMALL_BYTES if kind in ("raw", "flask") else ()), small, large]
            judged = kind in ("raw", "down")
            timings = bench.time(kind, bench.url(kind, target), sizes, repetitions if judged else 2)
            seconds = {str(size): median(values) for size, values in timings.items()}
            measured = 8 * (large - small) / (seconds[str(large)] - seconds[str(small)])
            route = "mobile-edge" if target == "edge" else "mobile-edge-cloud"
            slopes.append(Slope(kind, route, rate, measured, seconds))
            _tell(f"{rate / 1e6:g} Mbit/s {kind} {route}: {slopes[-1].deviation:+.1%}")
    return median(empty), slopes


def measure_bulk(cpus: float, repetitions: int) -> list[Bulk]:
    """100 MB to each kind of server."""
    results = []
    with tiers(WIDE_BIT_PER_S, cpus) as bench:
        for kind in ("raw", "starlette", "socket", "base64-json", "flask"):
            if kind in PORTS:
                bench.serve(kind)
            rounds = repetitions if kind not in ("base64-json", "flask") else 1
            before = bench.cpu_s(kind)
            (seconds,) = bench.time(kind, bench.url(kind, "edge"), [LARGE_BYTES], rounds).values()
            cpu_s = bench.cpu_s(kind) - before
            # The transfer that opens the connection counts for the CPU, not for the time.
            results.append(Bulk(kind, median(seconds), cpu_s / ((rounds + 1) * LARGE_BYTES / 1e6)))
            _tell(f"100 MB {kind}: {results[-1].seconds:.3f} s, {1e3 * results[-1].cpu_s_per_mb:.2f} CPU ms per MB")
    return results


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


NAMES = {
    "raw": "tier, raw",
    "down": "tier, raw, answer",
    "base64-json": "tier, base64-json",
    "shuffle-zlib": "tier, shuffle-zlib (ReLU floats)",
    "flask": "Flask, Base64 in JSON",
    "starlette": "Starlette request.body()",
    "socket": "bare socket",
}


def markdown(result: Mapping[str, Any]) -> str:
    lines = [f"Load of the host before and after: {result['load_before']:.1f}, {result['load_after']:.1f}.", ""]
    lines += ["| link | way | route | slope ÷ declared | 1 kB | 10 kB | 0.25 s of link | 1 s of link |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for slope in result["slopes"]:
        seconds = list(slope["seconds"].values())
        cells = ["", ""] * (len(seconds) == 2) + [f"{1e3 * value:.1f} ms" for value in seconds]
        share = slope["measured_bit_per_s"] / slope["declared_bit_per_s"]
        link = f"{slope['declared_bit_per_s'] / 1e6:g} Mbit/s"
        lines.append("| " + " | ".join([link, NAMES[slope["kind"]], slope["route"], f"{share:.3f}", *cells]) + " |")
    for rate, seconds in result["empty_round_trip_s"].items():
        lines.append(f"\nEmpty round trip at {int(rate) / 1e6:g} Mbit/s: {1e3 * seconds:.2f} ms.")
    lines += ["", f"| server | 100 MB at {result['cpus']:g} CPU | CPU ms per MB |", "|---|---|---|"]
    for transfer in result["bulk"]:
        lines.append(
            f"| {NAMES[transfer['kind']]} | {1e3 * transfer['seconds']:.0f} ms | {1e3 * transfer['cpu_s_per_mb']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the transport between tiers.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rates", type=int, nargs="*", default=RATES, help="bit/s")
    parser.add_argument("--cpus", type=float, default=CPUS, help="of each tier")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--no-bulk", action="store_true")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    rates = {rate: measure_rate(rate, options.cpus, options.repetitions) for rate in options.rates}
    slopes = [slope for _, rate_slopes in rates.values() for slope in rate_slopes]
    bulk = [] if options.no_bulk else measure_bulk(options.cpus, options.repetitions)
    result = {
        "cpus": options.cpus,
        "load_before": load,
        "load_after": os.getloadavg()[0],
        "empty_round_trip_s": {str(rate): empty for rate, (empty, _) in rates.items()},
        "slopes": [asdict(slope) for slope in slopes],
        "bulk": [asdict(transfer) for transfer in bulk],
    }
    print(json.dumps(result, indent=2) if options.json else markdown(result))
    missed = [slope for slope in slopes if slope.kind in ("raw", "down") and abs(slope.deviation) > TOLERANCE]
    for slope in missed:
        _tell(f"off by {slope.deviation:+.1%}: {slope.kind} {slope.route} at {slope.declared_bit_per_s / 1e6:g} Mbit/s")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
