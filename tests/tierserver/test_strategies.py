"""The measuring client against real tiers, on every route of the design."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from tests.tierserver.conftest import CommandFailed
from tierserver import pipeline
from tierserver.messages import (
    Evaluate,
    LinkProbe,
    Load,
    LoadResult,
    Measure,
    MeasureResult,
    Postprocess,
    Probe,
    Sample,
    Stats,
    StatsResult,
    SteadyWarmup,
    Unload,
)
from tierserver.pipeline import ServedPart, Tier, evaluate, postprocess


def measured(tier, inputs, url=None, *, repetitions=2, codec="raw"):
    ids = tuple(sorted(path.name for path in inputs.iterdir()))
    command = Measure("net", str(inputs), ids, url=url, repetitions=repetitions, warmup=1, codec=codec)
    result = MeasureResult.from_json(tier.call(command.to_json()))
    assert result.samples == repetitions * len(ids)
    assert [(s.seq, s.repetition, s.input_id) for s in result.warmup] == [(i - 4, -1, id) for i, id in enumerate(ids)]
    samples = [Sample.from_json(event["sample"]) for event in tier.events]
    assert [sample.seq for sample in samples] == list(range(repetitions * len(ids)))
    assert [(s.repetition, s.input_id) for s in samples] == [(r, i) for r in range(repetitions) for i in ids]
    for sample in samples:
        inside = sum(p.preprocess_s + p.compute_s + p.postprocess_s + p.serialise_s for p in sample.parts)
        assert 0 < inside <= sample.latency_s
    return samples


def digests(samples):
    return [sample.output_digest for sample in samples]


@pytest.fixture
def alone(tiers, part, inputs):
    """What the mobile tier alone gives: every other route must give the same bits."""
    tiers.mobile.load(part())
    return digests(measured(tiers.mobile, inputs))


def test_a_warm_up_until_steady_sends_one_input_and_then_repeats_another(tiers, part, inputs):
    tiers.mobile.load(part())
    first, repeated, *_ = ids = tuple(sorted(path.name for path in inputs.iterdir()))
    steady = SteadyWarmup(first, repeated, least_s=0.0)
    command = Measure("net", str(inputs), ids, repetitions=0, warmup=0, steady=steady)
    result = MeasureResult.from_json(tiers.mobile.call(command.to_json()))
    count = len(result.warmup)
    assert 5 <= count <= steady.most and result.samples == 0 and result.steady in (True, False)
    assert [sample.input_id for sample in result.warmup] == [first, *[repeated] * (count - 1)]
    assert [(sample.seq, sample.repetition) for sample in result.warmup] == [
        (-index, -1) for index in range(count, 0, -1)
    ]
    long = replace(steady, least_s=0.2)
    lasted = MeasureResult.from_json(tiers.mobile.call(replace(command, steady=long).to_json()))
    assert len(lasted.warmup) > steady.most, "a tiny model's ten inferences end before its controller's first periods"


def test_a_warm_up_until_steady_sends_only_inputs_of_the_round(tiers, part, inputs):
    tiers.mobile.load(part())
    ids = tuple(sorted(path.name for path in inputs.iterdir()))
    command = Measure("net", str(inputs), ids, repetitions=0, warmup=0, steady=SteadyWarmup(ids[0], "../elsewhere"))
    with pytest.raises(CommandFailed, match="among those that are measured"):
        tiers.mobile.call(command.to_json())


def test_mobile_alone_uses_no_network(tiers, part, inputs, alone):
    loaded = tiers.mobile.load(part())
    assert loaded["cold_start_s"]["net"] > 0 and len(loaded["model_sha256"]["net"]) == 64
    samples = measured(tiers.mobile, inputs)
    assert all(s.links == () and [p.tier for p in s.parts] == ["mobile"] for s in samples)
    assert digests(samples) == alone and len(set(alone)) == 4


def test_edge_is_asked_over_one_link(tiers, part, inputs, alone):
    tiers.edge.load(part())
    samples = measured(tiers.mobile, inputs, tiers.edge.url)
    assert digests(samples) == alone
    for sample in samples:
        assert [p.tier for p in sample.parts] == ["mobile", "edge"]
        assert sample.parts[0].compute_s == 0 < sample.parts[1].preprocess_s
        (link,) = sample.links
        image_bytes = (inputs / sample.input_id).stat().st_size
        assert link.link == "mobile-edge" and image_bytes < link.sent_bytes < image_bytes + 600
        assert 150 < link.received_bytes < 1500


def test_cloud_is_asked_through_the_relay(tiers, part, inputs, alone):
    tiers.edge.load(cloud=tiers.cloud.url)
    tiers.cloud.load(part())
    samples = measured(tiers.mobile, inputs, tiers.edge.url + "/tiers/cloud")
    assert digests(samples) == alone
    for sample in samples:
        assert [p.tier for p in sample.parts] == ["mobile", "cloud"]
        near, far = sample.links
        assert (near.link, far.link) == ("mobile-edge", "edge-cloud")
        assert abs(near.sent_bytes - far.sent_bytes) < 100 and 0 < near.received_bytes - far.received_bytes < 100


def test_a_partition_gives_the_whole_models_bits(tiers, part, inputs, alone):
    tiers.edge.load(part("tail", preprocess=None))
    tiers.mobile.load(part("head", postprocess=None, next=tiers.edge.url))
    samples = measured(tiers.mobile, inputs)
    assert digests(samples) == alone
    assert [p.tier for p in samples[0].parts] == ["mobile", "edge"]
    assert [link.link for link in samples[0].links] == ["mobile-edge"]
    assert samples[0].links[0].sent_bytes > 4 * 8 * 8 * 4


def test_a_partition_reaches_through_a_relay(tiers, part, inputs, alone):
    tiers.cloud.load(part("tail", preprocess=None))
    tiers.edge.load(cloud=tiers.cloud.url)
    tiers.mobile.load(part("head", postprocess=None, next=tiers.edge.url + "/tiers/cloud"))
    samples = measured(tiers.mobile, inputs)
    assert digests(samples) == alone
    assert [p.tier for p in samples[0].parts] == ["mobile", "cloud"]
    assert [link.link for link in samples[0].links] == ["mobile-edge", "edge-cloud"]


def test_a_partition_of_edge_and_cloud_is_asked_from_mobile(tiers, part, inputs, alone):
    tiers.cloud.load(part("tail", preprocess=None))
    tiers.edge.load(part("head", postprocess=None, next=tiers.cloud.url))
    samples = measured(tiers.mobile, inputs, tiers.edge.url)
    assert digests(samples) == alone
    assert [p.tier for p in samples[0].parts] == ["mobile", "edge", "cloud"]
    assert [link.link for link in samples[0].links] == ["mobile-edge", "edge-cloud"]


@pytest.mark.parametrize("codec", ["base64-json", "shuffle-zlib"])
def test_every_codec_gives_the_same_bits_on_every_link(tiers, part, inputs, alone, codec):
    tiers.cloud.load(part("tail", preprocess=None))
    tiers.edge.load(part("head", postprocess=None, next=tiers.cloud.url, codec=codec))
    samples = measured(tiers.mobile, inputs, tiers.edge.url, codec=codec)
    assert digests(samples) == alone
    raw_bytes = 4 * 8 * 8 * 4
    sent = [sample.links[1].sent_bytes for sample in samples]
    if codec == "base64-json":
        assert all(raw_bytes * 4 / 3 < size < raw_bytes * 4 / 3 + 500 for size in sent)
    else:
        assert all(size < raw_bytes + 500 for size in sent)


def test_a_failing_input_is_named(tiers, part, tmp_path, failure, image):
    tiers.edge.load(part())
    (tmp_path / "good.png").write_bytes(image(1))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    for url in (tiers.edge.url, "http://127.0.0.1:9"):
        with pytest.raises(failure, match=r"input 'bad.png'"):
            tiers.mobile.call(Measure("net", str(tmp_path), ("bad.png", "good.png"), url=url).to_json())
    with pytest.raises(failure, match=r"missing\.png"):
        tiers.mobile.call(Measure("net", str(tmp_path), ("missing.png",)).to_json())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"path": "/nowhere.onnx"}, "no readable model file"),
        ({"providers": ("CUDAExecutionProvider",)}, "available"),
        ({"postprocess": Postprocess("top_k", k=9)}, "top_k of 9"),
        ({"postprocess": Postprocess("label_map")}, "label_map needs"),
        ({"next": "http://127.0.0.1:9"}, "belongs to the last part"),
    ],
)
def test_a_part_that_cannot_work_is_refused_when_loaded(tiers, part, failure, changes, says):
    spec = part()
    broken = type(spec)(**{**{name: getattr(spec, name) for name in spec.__dataclass_fields__}, **changes})
    with pytest.raises(failure, match=says):
        tiers.mobile.load(broken)


@pytest.mark.parametrize(
    ("size", "says"), [((10, 8), "its multiples, got 10 x 8"), ((8, 8), r"needs an output \[1, classes, 64\]")]
)
def test_a_map_of_cells_that_the_graph_does_not_give_is_refused(tiers, part, failure, size, says):
    with pytest.raises(failure, match=says):
        tiers.mobile.load(part("segment", postprocess=Postprocess("label_map", cell=4, height=size[0], width=size[1])))


def test_a_file_that_is_no_model_is_refused(tiers, part, failure, tmp_path, models):
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x09 not a model")
    models["broken"] = str(tmp_path / "broken.onnx")
    with pytest.raises(failure, match=r"EngineError: broken\.onnx is not a model"):
        tiers.mobile.load(part("broken"))


def write_items(path, images, **truth):
    offset = np.cumsum([0, *map(len, images)])
    ids = np.array([f"i{n}" for n in range(len(images))])
    np.savez(path, item_id=ids, image=np.frombuffer(b"".join(images), np.uint8), offset=offset, **truth)
    return str(path)


def test_classification_is_scored_per_item(tiers, part, image, tmp_path):
    images = [image(seed) for seed in range(6)]
    tiers.mobile.load(part(postprocess=Postprocess("top_k", k=5)))
    scores = []
    for label in range(5):
        file = write_items(tmp_path / f"{label}.npz", images, label=np.full(6, label))
        scores.append(tiers.mobile.call(Evaluate("net", file, k=5).to_json())["items"])
    assert tiers.mobile.events[-1]["done"] == tiers.mobile.events[-1]["total"] == 6
    assert [item["item_id"] for item in scores[0]] == [f"i{n}" for n in range(6)]
    assert all(item["top5"] for items in scores for item in items)
    assert [sum(items[n]["top1"] for items in scores) for n in range(6)] == [1] * 6  # one label is right for each


def test_segmentation_is_scored_per_class(tiers, part, image, tmp_path):
    tiers.mobile.load(part("segment", postprocess=Postprocess("label_map")))
    masks = np.zeros((2, 8, 8), np.uint8)
    masks[1, 0] = 255  # does not count
    file = write_items(tmp_path / "items.npz", [image(1), image(2)], mask=masks)
    items = tiers.mobile.call(Evaluate("net", file).to_json())["items"]
    for item, counted in zip(items, (64, 56), strict=True):
        assert item["unions"][0] == counted  # every counted pixel is class 0 in truth
        assert item["intersections"][0] + sum(item["unions"][1:]) == counted
        assert sum(item["intersections"][1:]) == 0 and "top1" not in item


def test_dense_upsampling_is_laid_out_as_a_map():
    cells = np.arange(16, dtype=np.uint8).reshape(2, 2, 2, 2)  # [row in cell, column in cell, cell row, cell column]
    scores = np.eye(16, dtype=np.float32)[cells.ravel()].T[np.newaxis]
    labels = postprocess({"out": scores}, Postprocess("label_map", cell=2, height=4, width=4))["labels"]
    np.testing.assert_array_equal(labels, [[0, 4, 1, 5], [8, 12, 9, 13], [2, 6, 3, 7], [10, 14, 11, 15]])


def test_loading_tells_the_nodes_of_each_execution_provider(tiers, part):
    for model, kinds in (("whole", 4), ("head", 2)):
        result = LoadResult.from_json(tiers.mobile.load(part(model, postprocess=None)))
        (nodes,) = result.provider_nodes.values()
        assert set(nodes) == {"CPUExecutionProvider"} and 0 < nodes["CPUExecutionProvider"] <= kinds


def test_items_scored_at_once_have_the_scores_and_the_order_of_one_after_the_other(models, part, image, tmp_path):
    images = [image(seed) for seed in range(40)]
    file = write_items(tmp_path / "items.npz", images, label=np.arange(40) % 5)
    results, progress = [], []
    for threads in (1, 4):
        tier = Tier("mobile")
        tier.load(Load((part(threads=threads, postprocess=Postprocess("top_k", k=5)),)))
        results.append(evaluate(tier, Evaluate("net", file), lambda done, total: progress.append((done, total))))
        tier.unload()
    assert results[0] == results[1] and [item.item_id for item in results[1].items] == [f"i{n}" for n in range(40)]
    assert progress[-1] == (40, 40)


def test_as_many_items_are_scored_at_once_as_threads_and_memory_allow(part, monkeypatch):
    served = ServedPart(part(threads=4, postprocess=Postprocess("top_k", k=5)), "mobile")
    monkeypatch.setattr(pipeline, "peak_rss_bytes", lambda: 2**20)
    monkeypatch.setattr(pipeline.MEMORY, "_limit_bytes", 100 * 2**20)
    assert pipeline._workers(served) == 4
    monkeypatch.setattr(pipeline.MEMORY, "_limit_bytes", 5 * 2**20)
    assert pipeline._workers(served) == 2
    monkeypatch.setattr(pipeline.MEMORY, "_limit_bytes", 2**20)
    assert pipeline._workers(served) == 1


def test_an_items_file_that_is_none_is_refused(tiers, part, failure, tmp_path, image):
    tiers.mobile.load(part())
    (tmp_path / "junk.npz").write_bytes(b"junk")
    with pytest.raises(failure, match="not an items file"):
        tiers.mobile.call(Evaluate("net", str(tmp_path / "junk.npz")).to_json())
    short = write_items(tmp_path / "short.npz", [image(1)], label=np.array([1, 2]))
    with pytest.raises(failure, match="offsets and 1 of label or mask"):
        tiers.mobile.call(Evaluate("net", short, k=3).to_json())


def test_counters_are_read(tiers):
    stats = StatsResult.from_json(tiers.mobile.call(Stats().to_json()))
    assert stats.cpu_seconds > 0 and stats.peak_rss_bytes > 2**20 and stats.threads > 1


def test_a_probe_passes_a_relay(tiers):
    tiers.edge.load(cloud=tiers.cloud.url)
    probe = Probe(tiers.edge.url + "/tiers/cloud", small_bytes=1000, large_bytes=40_000_000)
    probed = LinkProbe.from_json(tiers.mobile.call(probe.to_json()))
    assert probed.up.rate_bit_per_s > 1e7 and probed.down.rate_bit_per_s > 1e7 and 0 < probed.rtt_s < 0.5


def test_nothing_is_served_after_unload(tiers, part, failure, inputs):
    tiers.mobile.load(part())
    tiers.mobile.call(Unload().to_json())
    with pytest.raises(failure, match="unknown model 'net'; served: none"):
        tiers.mobile.call(Measure("net", str(inputs), ("0001.png",)).to_json())


def test_the_end_of_stdin_ends_the_tier_even_in_the_middle(start, part, inputs):
    with start("--name", "lone", "--port", "0") as tier:
        tier.load(part())
        command = Measure("net", str(inputs), ("0001.png",), repetitions=10**6)
        tier.process.stdin.write(f'{{"id": 9, {json.dumps(command.to_json())[1:]}\n')
        tier.process.stdin.flush()
        time.sleep(0.3)
        tier.process.stdin.close()
        while tier.process.stdout.read(65536):
            pass
        assert tier.process.wait(5) == 0


def test_sigterm_ends_the_tier(start):
    with start("--name", "lone", "--port", "0") as tier:
        os.kill(tier.ready["pid"], signal.SIGTERM)
        assert tier.process.wait(5) == 0


def test_a_tier_writes_nothing_to_disk(tmp_path):
    environment = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-B", "-m", "tierserver", "--name", "lone", "--port", "0"]
    ended = subprocess.run(command, input="", capture_output=True, text=True, env=environment, timeout=30, check=True)
    assert json.loads(ended.stdout)["event"] == "ready" and ended.stderr == ""
    assert list(tmp_path.rglob("*")) == []
