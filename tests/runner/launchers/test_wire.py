"""The bytes a sample reports for each link are those that the kernel counted, less the headers of frames."""

import io
import json
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from runner.launchers.base import Deployment, LinkLimits, Mount, TierLimits
from runner.launchers.docker import DockerLauncher, launch_labels
from runner.launchers.engine import ContainerSpec, Engine
from tierserver.messages import Load, Measure, PartSpec, Postprocess, Preprocess, Sample

pytestmark = pytest.mark.docker

COUNTERS = """
import json
from pathlib import Path
names = ("tx_bytes", "rx_bytes")
print(json.dumps([sum(int((each / "statistics" / name).read_text()) for each in Path("/sys/class/net").glob("eth*"))
                  for name in names]))
"""
IMAGES, REPETITIONS = 3, 4
REQUESTS = IMAGES * (REPETITIONS + 1)  # one warm-up
# Frames of 1448 bytes carry 66 of headers; each request also causes acknowledgements, and names are looked up in ARP.
MOST_OVER, MOST_PER_REQUEST, MOST_APART = 1.05, 1500, 4000


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    directory = tmp_path_factory.mktemp("wire")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])
    graph = helper.make_graph([helper.make_node("Flatten", ["x"], ["y"])], "net", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), directory / "n.onnx")
    rng = np.random.default_rng(1)
    for number in range(IMAGES):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (200, 300), np.uint8)).save(stream, "PNG")
        (directory / f"{number}.png").write_bytes(stream.getvalue())
    model = Mount("model", {"n.onnx": directory / "n.onnx"}, "wire-test")
    images = Mount("inputs", {f"{n}.png": directory / f"{n}.png" for n in range(IMAGES)}, "wire-test")
    tiers = [TierLimits(name, 1.0, 256 << 20, 1) for name in ("mobile", "edge", "cloud")]
    ends = (("mobile", "edge"), ("edge", "cloud"))
    links = [LinkLimits(f"{near}-{far}", near, far, 10**9, 10**9) for near, far in ends]
    mounts = {"mobile": [images], "edge": [model], "cloud": [model]}
    with DockerLauncher(Engine.connect()).launch(tiers, links, mounts) as running:
        part = PartSpec(
            "net", "/tierwise/model/n.onnx", preprocess=Preprocess("gray", 8, 8), postprocess=Postprocess("top_k")
        )
        for name, tier in running.tiers.items():
            parts = () if name == "mobile" else (part,)
            tier.call(Load(parts, running.routes(name)).to_json(), deadline_s=60)
        yield running


def counted(deployment: Deployment, name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Bytes out and in of a tier, over all its links: read by another container in its network namespace."""
    tier: Any = deployment.tiers[name]
    engine = Engine.connect()
    (image,) = [item["Image"] for item in engine.list_containers("tierwise=1") if item["Id"] == tier.container]
    looking = ContainerSpec(
        image=image,
        command=["python", "-I", "-S", "-c", COUNTERS],
        name=f"tierwise-count-{uuid.uuid4().hex[:12]}",
        labels=launch_labels(),
        network_mode=f"container:{tier.container}",
    )
    return np.array(json.loads(engine.run_to_end(looking)))


@pytest.mark.parametrize(("target", "links"), [("edge", ["mobile-edge"]), ("cloud", ["mobile-edge", "edge-cloud"])])
def test_reported_bytes_are_the_kernels(deployment: Deployment, target: str, links: list[str]) -> None:
    command = Measure(
        "net",
        "/tierwise/inputs",
        tuple(f"{number}.png" for number in range(IMAGES)),
        url=deployment.url("mobile", target),
        repetitions=REPETITIONS,
    )
    samples: list[Sample] = []
    # A link's far end is where nothing else goes: mobile has only its own, cloud only the last.
    ends = {"mobile-edge": "mobile", "edge-cloud": "cloud"}
    before = {link: counted(deployment, ends[link]) for link in links}

    def collect(event: Any) -> None:
        samples.append(Sample.from_json(event["sample"]))

    deployment.tiers["mobile"].call(command.to_json(), on_event=collect, deadline_s=60)
    for place, link in enumerate(links):
        out, into = counted(deployment, ends[link]) - before[link]
        sent, received = (out, into) if ends[link] == "mobile" else (into, out)
        assert [sample.links[place].link for sample in samples] == [link] * len(samples)
        for kernel, reported in (
            (sent, sum(sample.links[place].sent_bytes for sample in samples)),
            (received, sum(sample.links[place].received_bytes for sample in samples)),
        ):
            payload = reported * REQUESTS / len(samples)
            assert payload <= kernel <= MOST_OVER * payload + MOST_PER_REQUEST * REQUESTS + MOST_APART
    assert sum(sample.links[0].sent_bytes for sample in samples) > 50_000 * len(samples)
