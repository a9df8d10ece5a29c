"""Throw greedy and hostile requests at a tier in a container of 512 MiB: `python -m benchmarks.fuzz_container`

The tier is started as a fill starts it, with the memory limit of the engine; only its neighbour reaches it, so requests
are made here and sent from there. First each of those that become large (`benchmarks.greedy_requests`), then many from
the families of `benchmarks.fuzz_tier`, several at a time. A container that ended or was started again, a kill for
memory, a status of 500 or more, or a healthy request that fails makes the run fail (exit code 1). Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import pickle
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import docker
import onnx

from benchmarks import greedy_requests
from benchmarks.fuzz_tier import FAMILIES, IMAGE, PNG, RARE, TOP3, image_entry, infer
from runner.launchers.base import LinkLimits, Mount, TierLimits
from runner.launchers.docker import DockerLauncher, DockerTier
from runner.launchers.engine import Engine
from tierserver.messages import Load, PartSpec, Preprocess

MEMORY_BYTES = 512 * 2**20

# Runs in the neighbour: prints a JSON list with the family of each request and the statuses that came back.
_SEND = r"""
import json, pickle, re, socket, sys
from concurrent.futures import ThreadPoolExecutor

def send(family, raw, patience_s):
    answer = bytearray()
    try:
        with socket.create_connection(("far", 8000), timeout=patience_s) as connection:
            try:
                connection.sendall(raw)
            except (BrokenPipeError, ConnectionResetError):
                pass
            while len(answer) < 2**16 and (data := connection.recv(2**16)):
                answer += data
    except (TimeoutError, ConnectionResetError):
        pass
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", bytes(answer))]
    return family, statuses

def requests():
    with open(sys.argv[1], "rb") as file:
        while True:
            try:
                yield pickle.load(file)
            except EOFError:
                return

answers = []
with ThreadPoolExecutor(4) as pool:
    for family, raw, patience_s in requests():
        sent = pool.submit(send, family, raw, patience_s)
        answers.append(sent)
        if family == "greedy":
            sent.result()
print(json.dumps([sent.result() for sent in answers]))
"""


def write_requests(file: IO[bytes], count: int, seed: int, greedy: Iterable[str]) -> None:
    """Write everything that will be sent: family, bytes, and how long an answer is waited for."""
    for name in greedy:
        pickle.dump(("greedy", greedy_requests.raw(name), 60.0), file)
        greedy_requests.request.cache_clear()
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        (family,) = rng.choices(list(FAMILIES), [RARE.get(family, 1.0) for family in FAMILIES])
        raw = FAMILIES[family](rng).replace(b"/tiers/cloud", b"").replace(b"net.graph", b"gray.graph")
        raw = raw.replace(b"Host: tier\r\n", b"Host: tier\r\nConnection: close\r\n")
        pickle.dump((family, raw, 30.0 if family == "healthy" else 1.0), file)
    healthy = infer(IMAGE, image_entry(), len(PNG).to_bytes(4, "little") + PNG)
    pickle.dump(("healthy at last", healthy, 5.0), file)


def state(engine: Engine, tier: DockerTier) -> dict[str, Any]:
    """Return what must not change: the process, its kills for memory, and when it was started."""
    about = engine.inspect(tier.container)
    stats = tier.call({"cmd": "stats"}, deadline_s=60)
    kept = {name: about["State"][name] for name in ("Running", "OOMKilled", "StartedAt")}
    return {**kept, "instance": stats["instance"], "oom_kills": stats["memory"]["oom_kills"]}


def parts(tier: DockerTier) -> tuple[PartSpec, ...]:
    """What the tier loads: the models of the greedy requests, and `net` for the others."""
    greedy = greedy_requests.parts(tier.path("greedy"))
    gray = next(part for part in greedy if part.name == "gray")
    return (*greedy, PartSpec("net", gray.path, preprocess=Preprocess("gray", 8, 8), postprocess=TOP3))


def run(directory: Path) -> tuple[list[tuple[str, list[int]]], list[dict[str, Any]]]:
    """Send the requests in the directory; what came back, and the tier's state before and after."""
    key = f"fuzz-{time.time_ns()}"
    models = {path.name: path for path in directory.glob("*.onnx")}
    mounts = {
        "far": [Mount("greedy", models, f"{key}-models")],
        "near": [Mount("requests", {"requests": directory / "requests"}, f"{key}-requests")],
    }
    engine, client = Engine.connect(), docker.from_env()
    tiers = [TierLimits("near", 1.0, 2 * MEMORY_BYTES, 1), TierLimits("far", 1.0, MEMORY_BYTES, 1)]
    link = LinkLimits("near-far", "near", "far", 10**9, 10**9)
    try:
        with DockerLauncher(engine).launch(tiers, [link], mounts) as deployment:
            near, far = deployment.tiers["near"], deployment.tiers["far"]
            assert isinstance(near, DockerTier) and isinstance(far, DockerTier)
            far.call(Load(parts(far)).to_json(), deadline_s=60)
            states = [state(engine, far)]
            command = ["python", "-c", _SEND, f"{near.path('requests')}/requests"]
            said = client.containers.get(near.container).exec_run(command).output
            return json.loads(said), [*states, state(engine, far)]
    finally:
        client.close()


def fuzz(requests: int, seed: int, greedy: Iterable[str] = tuple(greedy_requests.REQUESTS)) -> dict[str, Any]:
    """Return the counts of what came back, and the faults."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for model, content in greedy_requests.models().items():
            onnx.save(content, directory / f"{model}.onnx")
        with (directory / "requests").open("wb") as file:
            write_requests(file, requests, seed, greedy)
        answers, states = run(directory)
    outcomes: dict[str, Counter[str]] = {}
    faults: list[str] = []
    for family, statuses in answers:
        outcomes.setdefault(family, Counter()).update(map(str, statuses or ["closed or waiting"]))
        allowed = {"greedy": {200, 400, 413}, "healthy": {200, 429}, "healthy at last": {200}}.get(family)
        if any(status >= 500 for status in statuses) or (allowed and not allowed & set(statuses)):
            faults.append(f"{family}: {statuses}")
    if states[0] != states[1]:
        faults.append(f"the container was {states[0]} and is {states[1]}")
    counts = {family: dict(sorted(counted.items())) for family, counted in outcomes.items()}
    return {"requests": requests, "seed": seed, "outcomes": counts, "faults": faults}


def main() -> None:
    parser = argparse.ArgumentParser(description="Throw greedy and hostile requests at a tier in a container.")
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    result = fuzz(options.requests, options.seed)
    print(json.dumps(result, indent=2))
    sys.exit(1 if result["faults"] else 0)


if __name__ == "__main__":
    main()
