"""Real tiers as subprocesses on loopback, and tiny real models."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tierserver.messages import Load, PartSpec, Postprocess, Preprocess

GRAY = Preprocess("gray", 8, 8, scale=1 / 255, mean=(0.5,), std=(0.5,))
TOP3 = Postprocess("top_k", k=3, softmax=True)


class CommandFailed(Exception):
    """A command was answered with ok: false."""


@dataclass
class RunningTier:
    """A `python -m tierserver` process and its control channel."""

    process: subprocess.Popen[str]
    ready: dict[str, Any]
    events: list[dict[str, Any]] = field(default_factory=list)
    last_id: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ready['port']}"

    def call(self, command: dict[str, Any]) -> dict[str, Any]:
        self.last_id += 1
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"id": self.last_id, **command}) + "\n")
        self.process.stdin.flush()
        self.events = []
        while True:
            line = json.loads(self.process.stdout.readline())
            assert line["id"] == self.last_id
            if "event" in line:
                self.events.append(line)
            elif line["ok"]:
                return dict(line["result"])
            else:
                raise CommandFailed(f"{line['error']['type']}: {line['error']['message']}")

    def load(self, *parts: PartSpec, **routes: str) -> dict[str, Any]:
        return self.call(Load(parts, routes).to_json())


@contextlib.contextmanager
def running(*arguments: str, module: str = "tierserver") -> Iterator[RunningTier]:
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield RunningTier(process, json.loads(process.stdout.readline()))
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@dataclass(frozen=True)
class Tiers:
    mobile: RunningTier
    edge: RunningTier
    cloud: RunningTier


@pytest.fixture(scope="session")
def tiers() -> Iterator[Tiers]:
    with contextlib.ExitStack() as stack:
        names = ("mobile", "edge", "cloud")
        yield Tiers(*(stack.enter_context(running("--name", name, "--port", "0")) for name in names))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """`whole` = `head` then `tail`, a classifier of 8 x 8 gray images; `segment` and `free`, a net of any height."""
    directory = tmp_path_factory.mktemp("models")
    rng = np.random.default_rng(7)
    weights = {
        "w1": rng.normal(size=(4, 1, 3, 3)).astype(np.float32),
        "w2": rng.normal(size=(5, 4, 8, 8)).astype(np.float32),
        "w3": rng.normal(size=(5, 4, 1, 1)).astype(np.float32),
    }
    first = [helper.make_node("Conv", ["x", "w1"], ["c"], pads=[1] * 4), helper.make_node("Relu", ["c"], ["cut"])]
    second = [helper.make_node("Conv", ["cut", "w2"], ["s"]), helper.make_node("Flatten", ["s"], ["y"])]
    labels = [helper.make_node("Conv", ["cut", "w3"], ["map"])]
    x, cut = ("x", [1, 1, 8, 8]), ("cut", [1, 4, 8, 8])
    y, seg = ("y", [1, 5]), ("map", [1, 5, 8, 8])
    return {
        "whole": _write(directory / "whole.onnx", first + second, x, y, weights),
        "head": _write(directory / "head.onnx", first, x, cut, weights),
        "tail": _write(directory / "tail.onnx", second, cut, y, weights),
        "segment": _write(directory / "segment.onnx", first + labels, x, seg, weights),
        "types": _write_types(directory / "types.onnx"),
        "free": _write(directory / "free.onnx", first, ("x", [1, 1, "h", 8]), ("cut", [1, 4, "h", 8]), weights),
    }


def _write_types(path: Path) -> str:
    """One input and one output of each type, of any length, passed on as they are."""
    integers = [f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)]
    types = ["BOOL", *integers, "FLOAT16", "FLOAT", "DOUBLE"]
    values = {name.lower(): getattr(TensorProto, name) for name in types}
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in values],
        path.stem,
        [helper.make_tensor_value_info(name, kind, ["n"]) for name, kind in values.items()],
        [helper.make_tensor_value_info(f"{name}_out", kind, ["n"]) for name, kind in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return str(path)


def _write(path: Path, nodes: list[Any], image: Any, gives: Any, weights: dict[str, Any]) -> str:
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info(image[0], TensorProto.FLOAT, image[1])],
        [helper.make_tensor_value_info(gives[0], TensorProto.FLOAT, gives[1])],
        [numpy_helper.from_array(value, name) for name, value in weights.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return str(path)


def encoded_image(seed: int, *, size: tuple[int, int] = (24, 16), kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("inputs")
    for seed in range(4):
        (directory / f"{seed:04d}.png").write_bytes(encoded_image(seed))
    return directory


@pytest.fixture(scope="session")
def part(models: dict[str, str]) -> Callable[..., PartSpec]:
    """Makes a part named `net` of one of the model files."""

    def make(file: str = "whole", **changes: Any) -> PartSpec:
        settings: dict[str, Any] = {"preprocess": GRAY, "postprocess": TOP3, **changes}
        return PartSpec("net", models[file], **settings)

    return make


@pytest.fixture(scope="session")
def image() -> Callable[..., bytes]:
    return encoded_image


@pytest.fixture(scope="session")
def start() -> Callable[..., contextlib.AbstractContextManager[RunningTier]]:
    """Starts `python -m MODULE ARGUMENTS` and reads its ready line."""
    return running


@pytest.fixture
def failure() -> type[Exception]:
    return CommandFailed
