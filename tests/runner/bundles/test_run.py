"""The bundle's script against the tier's own code: the same pre- and post-processing, bit by bit."""

import io
from dataclasses import asdict
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from runner.bundles import run
from runner.bundles.manifest import SessionEntry
from tierserver import imaging, pipeline
from tierserver.encoding import read_tensors, write_tensors
from tierserver.engine import _options
from tierserver.messages import Postprocess, Preprocess


def encoded(mode: str, size: tuple[int, int], seed: int, form: str = "PNG") -> bytes:
    random = np.random.default_rng(seed)
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "CMYK": (4,), "I;16": ()}[mode]
    if mode == "I;16":
        image = Image.fromarray(random.integers(0, 65536, (size[1], size[0]), dtype=np.uint16))
    else:
        image = Image.fromarray(random.integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8), mode)
    stream = io.BytesIO()
    image.save(stream, form)
    return stream.getvalue()


@st.composite
def specs(draw: st.DrawFn) -> Preprocess:
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    resize = draw(st.sampled_from(["stretch", "shorter_side_crop", "pad"]))
    shorter = draw(st.none() | st.integers(24, 40)) if resize == "shorter_side_crop" else None
    return Preprocess(
        color=draw(st.sampled_from(["gray", "rgb", "bgr"])),
        height=height,
        width=width,
        resize=resize,  # type: ignore[arg-type]
        shorter_side=shorter,
        scale=draw(st.sampled_from([1.0, 1 / 255])),
        mean=(draw(st.floats(-2, 2)),),
        std=(draw(st.floats(0.1, 2)),),
        center=draw(st.booleans()),
        layout=draw(st.sampled_from(["nchw", "nhwc"])),
        dtype=draw(st.sampled_from(["float32", "float16", "uint8"])),
        padding=draw(st.integers(0, 255)),
    )


@settings(max_examples=150, deadline=None)
@given(
    specs(),
    st.sampled_from(["L", "RGB", "RGBA", "I;16"]),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(0, 9),
)
def test_preprocessing_is_the_tiers(spec: Preprocess, mode: str, size: tuple[int, int], seed: int) -> None:
    picture = encoded(mode, size, seed)
    expected, got = imaging.preprocess(picture, spec), run.preprocess(picture, asdict(spec))
    assert (expected.dtype, expected.shape) == (got.dtype, got.shape)
    assert expected.tobytes() == got.tobytes()


def test_the_mean_of_an_image_is_summed_in_the_tiers_order() -> None:
    for seed in range(20):
        picture = encoded("RGB", (23, 19), seed)
        spec = Preprocess(height=19, width=23, scale=1 / 255, center=True)
        assert imaging.preprocess(picture, spec).tobytes() == run.preprocess(picture, asdict(spec)).tobytes()


def test_a_jpeg_of_four_inks_is_read_alike() -> None:
    picture = encoded("CMYK", (9, 7), 1, "JPEG")
    for color in ("gray", "rgb"):
        spec = Preprocess(color=color, height=5, width=5)  # type: ignore[arg-type]
        assert imaging.preprocess(picture, spec).tobytes() == run.preprocess(picture, asdict(spec)).tobytes()


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((1, 10), Postprocess("top_k", k=5, softmax=True)),
        ((1, 7, 1, 1), Postprocess("top_k", k=3)),
        ((1, 4, 6, 5), Postprocess("label_map")),
        ((1, 6, 5, 4), Postprocess("label_map", layout="nhwc")),
        ((1, 1, 6, 5), Postprocess("label_map", threshold=0.1)),
        ((1, 6, 5, 1), Postprocess("label_map", layout="nhwc", threshold=0.1)),
        ((1, 3, 48), Postprocess("label_map", cell=2, height=8, width=6)),
        ((2, 3), Postprocess("tensors")),
    ],
)
def test_postprocessing_is_the_tiers(shape: tuple[int, ...], spec: Postprocess) -> None:
    outputs: dict[str, Any] = {"scores": np.random.default_rng(0).normal(size=shape).astype(np.float32)}
    expected, got = pipeline.postprocess(outputs, spec), run.postprocess(outputs, asdict(spec))
    assert expected.keys() == got.keys()
    for name, array in expected.items():
        assert (array.dtype, array.shape, array.tobytes()) == (got[name].dtype, got[name].shape, got[name].tobytes())


def test_tensors_are_read_alike() -> None:
    arrays = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, np.int64), np.zeros((0, 2), np.uint8)]
    content = write_tensors(arrays)
    for one, other in zip(read_tensors(content), run.tensors(content), strict=True):
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def test_a_session_has_the_settings_of_a_tier() -> None:
    entry, options = SessionEntry(), _options(3)
    assert options.inter_op_num_threads == entry.inter_op_num_threads
    assert options.graph_optimization_level == getattr(
        onnxruntime.GraphOptimizationLevel, entry.graph_optimization_level
    )
    for name, value in entry.config.items():
        assert options.get_session_config_entry(name) == value
