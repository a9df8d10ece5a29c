"""A user's model: defaults read from the file, and one clear error for everything that does not fit."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from catalog.declaration import SubjectSpec
from runner.errors import SubjectError
from runner.subjects.dataset import Subject, one_class_remark
from runner.subjects.declared import resolve_declared
from tierserver.messages import Evaluate, Load, PartSpec, Postprocess, Preprocess
from tierserver.pipeline import Tier, evaluate

RANDOM = np.random.default_rng(0)


def classifier(
    path: Path,
    shape: tuple[int | str, ...] = (1, 3, 12, 16),
    *,
    classes: int = 3,
    kind: int = TensorProto.FLOAT,
    op: str = "ReduceMean",
    opset: int = 17,
) -> Path:
    """Mean of each channel (rank 4, channels second), then a linear layer; `op` in place of the mean."""
    channels = shape[1] if isinstance(shape[1], int) else 3
    weights = numpy_helper.from_array(RANDOM.normal(size=(channels, classes)).astype(np.float32), "w")
    nodes = [
        helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT),
        helper.make_node(op, ["float"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["scores"]),
    ]
    return save(path, nodes, [("x", kind, shape)], "scores", [weights], opset)


def segmenter(path: Path, *, classes: int = 3, side: int = 8) -> Path:
    """Scores for every pixel: a 1 x 1 convolution."""
    weights = numpy_helper.from_array(RANDOM.normal(size=(classes, 3, 1, 1)).astype(np.float32), "w")
    return save(
        path,
        [helper.make_node("Conv", ["x", "w"], ["map"])],
        [("x", TensorProto.FLOAT, (1, 3, side, side))],
        "map",
        [weights],
    )


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[tuple[str, int, tuple[int | str, ...]]],
    output: str,
    weights: list[onnx.TensorProto],
    opset: int = 17,
) -> Path:
    taken = [helper.make_tensor_value_info(*model_input) for model_input in inputs]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", taken, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def pictures(folder: Path, count: int = 12, size: tuple[int, int] = (20, 10)) -> list[str]:
    folder.mkdir()
    names = [f"{index:02d}.png" for index in range(count)]
    for name in names:
        Image.fromarray(RANDOM.integers(0, 255, (size[1], size[0], 3), np.uint8)).save(folder / name)
    return names


def labelled(folder: Path, classes: int = 3) -> dict[str, str]:
    names = pictures(folder / "images")
    (folder / "labels.csv").write_text("".join(f"{name},{index % classes}\n" for index, name in enumerate(names)))
    return {"images": "images", "labels": "labels.csv"}


def resolve(folder: Path, dataset: object, task: str = "classification", **preprocess: object) -> Subject:
    spec = {"model": "./my.onnx", "task": task, "dataset": dataset}
    if preprocess:
        spec["preprocess"] = preprocess
    return resolve_declared("mine", SubjectSpec.model_validate(spec), base=folder, built=folder / "kept")


def scores(subject: Subject, folder: Path) -> list[Any]:
    """What a tier says of every item of the subject."""
    subject.prepare()
    subject.dataset.write_items(folder / "items.npz")
    tier = Tier("one")
    part = PartSpec(
        "mine",
        str(subject.model),
        preprocess=Preprocess.from_json(subject.preprocess),
        postprocess=Postprocess.from_json(subject.postprocess),
    )
    tier.load(Load((part,)))
    k = Postprocess.from_json(subject.postprocess).k
    return list(evaluate(tier, Evaluate("mine", str(folder / "items.npz"), k=k), lambda done, total: None).items)


@pytest.mark.parametrize(
    ("shape", "kind", "expected"),
    [
        ((1, 3, 12, 16), TensorProto.FLOAT, {"layout": "nchw", "color": "rgb", "dtype": "float32", "height": 12}),
        (("N", 1, 12, 16), TensorProto.FLOAT, {"layout": "nchw", "color": "gray", "dtype": "float32", "width": 16}),
        ((1, 12, 16, 3), TensorProto.UINT8, {"layout": "nhwc", "color": "rgb", "dtype": "uint8", "height": 12}),
        ((1, 3, 12, 16), TensorProto.FLOAT16, {"layout": "nchw", "color": "rgb", "dtype": "float16", "width": 16}),
    ],
)
def test_defaults_are_read_from_the_models_input(
    tmp_path: Path, shape: tuple[int, ...], kind: int, expected: dict[str, object]
) -> None:
    if shape[-1] == 3:
        nodes = [
            helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["float"], ["scores"], axes=[1, 2], keepdims=0),
        ]
        save(tmp_path / "my.onnx", nodes, [("x", kind, shape)], "scores", [])
    else:
        classifier(tmp_path / "my.onnx", shape, kind=kind)
    subject = resolve(tmp_path, labelled(tmp_path))
    assert subject.preprocess.items() >= expected.items()
    assert subject.classes == 3 and subject.postprocess == {"kind": "top_k", "k": 3}
    item_scores = scores(subject, tmp_path)
    assert len(item_scores) == 11 and {score.top5 for score in item_scores} == {True}  # one of twelve calibrates


def test_declared_pre_processing_is_what_the_model_gets(tmp_path: Path) -> None:
    """Blue first, less a mean, over a deviation: computed by hand for one picture."""
    classifier(tmp_path / "my.onnx", (1, 3, 12, 16))
    declared = {"channel_order": "bgr", "mean": [0.1, 0.2, 0.3], "std": 0.5, "resize": "pad", "padding": 7}
    subject = resolve(tmp_path, labelled(tmp_path), **declared)
    from tierserver.imaging import preprocess

    picture = Image.new("RGB", (16, 6), (255, 0, 51))
    picture.save(tmp_path / "one.png")
    values = preprocess((tmp_path / "one.png").read_bytes(), Preprocess.from_json(subject.preprocess))
    np.testing.assert_allclose(values[0, :, 6, 8], [(0.2 - 0.1) / 0.5, (0 - 0.2) / 0.5, (1 - 0.3) / 0.5], rtol=1e-5)
    np.testing.assert_allclose(values[0, 0, 0, 0], (7 / 255 - 0.1) / 0.5, rtol=1e-5)


def test_a_free_size_is_declared(tmp_path: Path) -> None:
    classifier(tmp_path / "my.onnx", ("N", 3, "H", "W"))
    dataset = labelled(tmp_path)
    with pytest.raises(SubjectError, match=r"height and width are free; declare .*size: \[224, 224\]"):
        resolve(tmp_path, dataset)
    subject = resolve(tmp_path, dataset, size=[9, 11])
    assert (subject.preprocess["height"], subject.preprocess["width"]) == (9, 11)
    assert len(scores(subject, tmp_path)) == 11


def test_without_labels_identity_agrees_with_itself_and_another_model_does_not(tmp_path: Path) -> None:
    classifier(tmp_path / "my.onnx")
    pictures(tmp_path / "images", 30)
    subject = resolve(tmp_path, {"images": "images"}, "any")
    assert subject.metric == "agreement" and subject.task == "any"
    assert all(score.top1 for score in scores(subject, tmp_path))
    model = onnx.load(tmp_path / "my.onnx")
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(-numpy_helper.to_array(model.graph.initializer[0]), "w")
    )
    before = subject.dataset.fingerprint()
    onnx.save(model, tmp_path / "other.onnx")
    subject = Subject(**{**vars(subject), "model": tmp_path / "other.onnx"})
    assert not any(score.top1 for score in scores(subject, tmp_path))
    (tmp_path / "other.onnx").replace(tmp_path / "my.onnx")
    assert resolve(tmp_path, {"images": "images"}, "any").dataset.fingerprint() != before


def test_without_masks_the_map_of_identity_is_agreed_with_pixel_by_pixel(tmp_path: Path) -> None:
    segmenter(tmp_path / "my.onnx")
    pictures(tmp_path / "images")
    subject = resolve(tmp_path, {"images": "images"}, "segmentation")
    assert subject.metric == "agreement" and subject.task == "any"
    item_scores = scores(subject, tmp_path)
    assert item_scores and all(score.top1 is None and score.intersections == score.unions for score in item_scores)


def test_an_output_that_is_no_scores_is_timed_only(tmp_path: Path) -> None:
    segmenter(tmp_path / "my.onnx")
    pictures(tmp_path / "images")
    assert resolve(tmp_path, {"images": "images"}, "any").metric is None


def test_masks_are_read_as_class_numbers_or_gray_levels(tmp_path: Path) -> None:
    """Pixels are one-hot by colour, so the right mask is known: mIoU is 100 %."""
    weights = numpy_helper.from_array(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1), "w")
    node = helper.make_node("Conv", ["x", "w"], ["map"])
    save(tmp_path / "my.onnx", [node], [("x", TensorProto.FLOAT, (1, 3, 8, 8))], "map", [weights])
    for folder in ("images", "masks", "grays"):
        (tmp_path / folder).mkdir()
    for index in range(6):
        numbers = RANDOM.integers(0, 3, (8, 8)).astype(np.uint8)
        Image.fromarray(np.eye(3, dtype=np.uint8)[numbers] * 255).save(tmp_path / f"images/{index}.png")
        Image.fromarray(numbers).save(tmp_path / f"masks/{index}.png")
        Image.fromarray(np.array([0, 128, 200], np.uint8)[numbers]).save(tmp_path / f"grays/{index}.png")
    own = resolve(tmp_path, {"images": "images", "masks": "masks"}, "segmentation")
    grays = {"images": "images", "masks": "grays", "mask_values": [0, 128, 200]}
    for subject in (own, resolve(tmp_path, grays, "segmentation")):
        for score in scores(subject, tmp_path):
            assert score.intersections == score.unions and sum(score.unions) == 64
    with pytest.raises(SubjectError, match=r"holds the values 0, 128, 200; allowed: 0 to 2"):
        resolve(tmp_path, {"images": "images", "masks": "grays"}, "segmentation").prepare()


def test_labels_of_one_class_are_remarked(tmp_path: Path) -> None:
    classifier(tmp_path / "my.onnx")
    dataset = labelled(tmp_path)
    assert one_class_remark(resolve(tmp_path, dataset)) is None
    names = [path.name for path in sorted((tmp_path / "images").iterdir())]
    (tmp_path / "labels.csv").write_text("".join(f"{name},2\n" for name in names))
    remark = f"all {len(names) - 1} items are of class 2: an accuracy on one class says nothing"
    assert one_class_remark(resolve(tmp_path, dataset)) == remark
    # Identity's answers are not known before a fill.
    assert one_class_remark(resolve(tmp_path, {"images": "images"}, "any")) is None
    (tmp_path / "labels.csv").write_text("cat,2\n")
    assert one_class_remark(resolve(tmp_path, dataset)) is None


def test_labels_of_one_class_beside_tensors_are_remarked(tmp_path: Path) -> None:
    save(tmp_path / "my.onnx", [helper.make_node("Relu", ["a"], ["b"])], [("a", TensorProto.FLOAT, ("N", 4))], "b", [])
    rows = RANDOM.normal(size=(20, 4)).astype(np.float32)
    for labels, remark in ((np.arange(20) % 4, None), (np.full(20, 1), "all 18 items are of class 1: an accuracy on")):
        np.savez(tmp_path / "data.npz", a=rows, labels=labels)
        text = one_class_remark(resolve(tmp_path, {"tensors": "data.npz"}))
        assert text == remark if remark is None else text is not None and text.startswith(remark)


def test_tensors_go_in_as_they_are(tmp_path: Path) -> None:
    """Two inputs, one of free length; the label is the argmax of their sum over the length."""
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("ReduceMean", ["sum"], ["scores"], axes=[1], keepdims=0),
    ]
    kinds: list[tuple[str, int, tuple[int | str, ...]]] = [
        ("a", TensorProto.FLOAT, ("N", "T", 4)),
        ("b", TensorProto.FLOAT, ("N", "T", 4)),
    ]
    save(tmp_path / "my.onnx", nodes, kinds, "scores", [])
    a, b = RANDOM.normal(size=(2, 20, 7, 4)).astype(np.float32)
    labels = (a + b).mean(1).argmax(1)
    np.savez(tmp_path / "data.npz", a=a, b=b, labels=labels)
    judged = resolve(tmp_path, {"tensors": "data.npz"})
    assert all(score.top1 for score in scores(judged, tmp_path)) and judged.postprocess["k"] == 4
    agreeing = resolve(tmp_path, {"tensors": "data.npz"}, "any")
    assert agreeing.metric == "agreement" and all(score.top1 for score in scores(agreeing, tmp_path))
    np.savez(tmp_path / "data.npz", a=a, b=b, labels=labels + 1)
    with pytest.raises(SubjectError, match=r"labels go from \d to 4; allowed: 0 to 3"):
        resolve(tmp_path, {"tensors": "data.npz"})
    np.savez(tmp_path / "data.npz", a=a.astype(np.float64), b=b)
    with pytest.raises(SubjectError, match=r"a is float64, the model takes float32"):
        resolve(tmp_path, {"tensors": "data.npz"}, "any")


def truncated(path: Path) -> None:
    content = classifier(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])


def terabytes(path: Path) -> None:
    model = onnx.load(classifier(path))
    model.graph.initializer[0].dims[:] = [1 << 20, 1 << 22]
    onnx.save(model, path)


def outside(path: Path) -> None:
    model = onnx.load(classifier(path))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    path.write_bytes(model.SerializeToString())


def huge_at_run_time(path: Path) -> None:
    shape = numpy_helper.from_array(np.array([1 << 21, 1 << 21], np.int64), "shape")
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["one"], keepdims=0),
        helper.make_node("Add", ["x", "one"], ["scores"]),
    ]
    save(path, nodes, [("x", TensorProto.FLOAT, (1, 3, 12, 16))], "scores", [shape])


def sequence(path: Path) -> None:
    """The scores in pieces, as a sequence, such as the ZipMap of a scikit-learn pipeline gives."""
    model = onnx.load(classifier(path))
    model.graph.node.append(helper.make_node("SplitToSequence", ["scores"], ["pieces"], axis=1))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_sequence_value_info("pieces", TensorProto.FLOAT, None))
    onnx.save(model, path)


def names(path: Path) -> None:
    """The name of the class, beside the scores."""
    model = onnx.load(classifier(path))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    model.graph.node.append(helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0))
    encoder = helper.make_node(
        "LabelEncoder",
        ["best"],
        ["name"],
        domain="ai.onnx.ml",
        keys_int64s=[0, 1, 2],
        values_strings=["cat", "cow", "dog"],
    )
    model.graph.node.append(encoder)
    model.graph.output.append(helper.make_tensor_value_info("name", TensorProto.STRING, [1]))
    onnx.save(model, path)


MODELS = {
    "gives a sequence": (sequence, r"outputs are such tensors.*'zipmap': False"),
    "gives text": (names, r"tensor\(string\).*outputs are such tensors"),
    "takes text": (lambda path: classifier(path, kind=TensorProto.STRING), r"takes string; .*with token numbers"),
    "takes bfloat16": (lambda path: classifier(path, kind=TensorProto.BFLOAT16), "takes bfloat16; allowed: numbers"),
    "truncated": (truncated, "not a readable ONNX model"),
    "not ONNX": (lambda path: path.write_bytes(b"<html>not found</html>"), "not a readable ONNX model"),
    "empty": (lambda path: path.write_bytes(b""), "not a readable ONNX model"),
    "terabytes declared": (terabytes, "not a readable ONNX model"),
    "data outside its folder": (outside, "not a readable ONNX model"),
    "terabytes at run time": (huge_at_run_time, "allowed: operators and an opset"),
    "unknown operator": (lambda path: classifier(path, op="NoSuchOperator"), "allowed: operators and an opset"),
    "opset of the future": (lambda path: classifier(path, opset=99), "allowed: operators and an opset"),
    "no scores": (segmenter, r"allowed for classification: scores"),
    "batches of four": (lambda path: classifier(path, (4, 3, 12, 16)), "allowed for images"),
    "five channels": (lambda path: classifier(path, (1, 5, 12, 16)), "1 channel .*or 3"),
}


@pytest.mark.parametrize("case", MODELS)
def test_a_model_that_cannot_be_used_is_one_clear_error(tmp_path: Path, case: str) -> None:
    make, says = MODELS[case]
    make(tmp_path / "my.onnx")
    dataset = labelled(tmp_path)
    with pytest.raises(SubjectError, match=says) as caught:
        resolve(tmp_path, dataset)
    message = str(caught.value)
    assert message.startswith("subject mine: ") and "\n" not in message and "allowed" in message


def bomb(path: Path) -> None:
    """A PNG header that promises 60 000 x 60 000 pixels."""
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:120])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.write_bytes(b"no picture"), r"03\.png: not a decodable image .*allowed: JPEG"),
        (cut_short, r"03\.png: not a decodable image"),
        (bomb, r"03\.png: the image has 60000 x 60000 pixels; allowed: 64000000"),
    ],
)
def test_a_picture_that_cannot_be_used_is_named_before_anything_is_measured(
    tmp_path: Path, spoil: Any, says: str
) -> None:
    classifier(tmp_path / "my.onnx")
    dataset = labelled(tmp_path)
    spoil(tmp_path / "images/03.png")
    with pytest.raises(SubjectError, match=says):
        resolve(tmp_path, dataset).prepare()


def test_unusual_pictures_are_fed_as_a_person_sees_them(tmp_path: Path) -> None:
    classifier(tmp_path / "my.onnx")
    dataset = labelled(tmp_path)
    folder = tmp_path / "images"
    Image.new("CMYK", (8, 6), (0, 255, 255, 0)).save(folder / "cmyk.jpg")
    Image.fromarray(np.full((6, 8), 65_535, np.uint16)).save(folder / "deep.png")
    frames = [Image.new("P", (8, 6), index) for index in (0, 1)]
    frames[0].save(folder / "moving.webp", save_all=True, append_images=frames[1:])
    turned = Image.new("RGB", (8, 6))
    turned.paste((255, 255, 255), (0, 0, 8, 3))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "turned.jpg", exif=exif)
    with (tmp_path / "labels.csv").open("a") as labels:
        labels.writelines(f"{name},0\n" for name in ("cmyk.jpg", "deep.png", "moving.webp", "turned.jpg"))
    subject = resolve(tmp_path, dataset)
    subject.prepare()
    from tierserver.imaging import preprocess

    settings = Preprocess.from_json(subject.preprocess)
    values = {
        name: preprocess((folder / name).read_bytes(), settings)[0] for name in ("cmyk.jpg", "deep.png", "turned.jpg")
    }
    red = values["cmyk.jpg"].mean(axis=(1, 2))
    assert red[0] > 0.9 and red[1] < 0.1
    assert values["deep.png"].min() == pytest.approx(1.0)
    assert (
        values["turned.jpg"][:, :, -3:].mean() > 0.9 and values["turned.jpg"][:, :, :3].mean() < 0.1
    )  # a quarter turn


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("nowhere.png,0\n", r"labels 'nowhere\.png', which is not in .*1 of 1 names"),
        ("00.png,3\n", r"line 1: got '00\.png,3'; expected .* from 0 to 2"),
        ("00.png,cat\n", r"line 1: got '00\.png,cat'; expected"),
        ("00.png,1\n00.png,2\n", r"line 2: 00\.png is class 2, and was 1 above"),
        ("", "holds no picture that is used"),
    ],
)
def test_labels_that_do_not_match_are_named(tmp_path: Path, lines: str, says: str) -> None:
    classifier(tmp_path / "my.onnx")
    dataset = labelled(tmp_path)
    (tmp_path / "labels.csv").write_text(lines)
    with pytest.raises(SubjectError, match=says):
        resolve(tmp_path, dataset).prepare()


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (Image.new("L", (5, 5)), r"5 x 5 pixels and its image 20 x 10"),
        (Image.new("RGB", (20, 10)), r"is a RGB image; allowed: one channel"),
        (Image.new("L", (20, 10), 7), r"holds the values 7; allowed: 0 to 2"),
        (None, r"there is no mask for 03\.png"),
    ],
)
def test_masks_that_do_not_match_are_named(tmp_path: Path, mask: Image.Image | None, says: str) -> None:
    segmenter(tmp_path / "my.onnx")
    (tmp_path / "masks").mkdir()
    for name in pictures(tmp_path / "images"):
        Image.new("L", (20, 10), 1).save(tmp_path / "masks" / name)
    path = tmp_path / "masks/03.png"
    path.unlink() if mask is None else mask.save(path)
    with pytest.raises(SubjectError, match=says):
        resolve(tmp_path, {"images": "images", "masks": "masks"}, "segmentation").prepare()


def test_what_was_found_sound_is_not_looked_at_again(tmp_path: Path) -> None:
    classifier(tmp_path / "my.onnx")
    dataset = labelled(tmp_path)
    resolve(tmp_path, dataset).prepare()
    (marker,) = (tmp_path / "kept/looked-at").iterdir()
    (answer,) = (tmp_path / "kept/tried").iterdir()
    assert json.loads((answer / "manifest.json").read_text())["content"]["shape"] == [1, 3]
    written = marker.stat().st_mtime_ns
    resolve(tmp_path, dataset).prepare()
    assert marker.stat().st_mtime_ns == written
    (tmp_path / "images/03.png").write_bytes(b"spoilt later")
    with pytest.raises(SubjectError, match="not a decodable image"):
        resolve(tmp_path, dataset).prepare()


@pytest.mark.parametrize("text", ["", "{}", None])
def test_a_trial_run_that_was_changed_is_made_again(tmp_path: Path, text: str | None) -> None:
    classifier(tmp_path / "my.onnx")
    dataset = labelled(tmp_path)
    assert resolve(tmp_path, dataset).classes == 3
    (answer,) = (tmp_path / "kept/tried").iterdir()
    manifest = answer / "manifest.json"
    manifest.write_text(manifest.read_text().replace("3", "2") if text is None else text)
    assert resolve(tmp_path, dataset).classes == 3


def test_a_network_out_of_the_onnx_package_runs(tmp_path: Path) -> None:
    """SqueezeNet as the package ships it for its own tests: an old opset, scores [1, 1000, 1, 1], filled weights."""
    source = Path(onnx.__file__).parent / "backend/test/data/light/light_squeezenet.onnx"
    (tmp_path / "my.onnx").write_bytes(source.read_bytes())
    pictures(tmp_path / "images", 3)
    (tmp_path / "labels.csv").write_text("00.png,1\n01.png,2\n02.png,999\n")
    subject = resolve(tmp_path, {"images": "images", "labels": "labels.csv"})
    assert (subject.classes, subject.preprocess["height"], subject.preprocess["layout"]) == (1000, 224, "nchw")
    assert len(scores(subject, tmp_path)) == 2


def test_models_out_of_the_onnxruntime_package_take_tensors(tmp_path: Path) -> None:
    """A fixed batch of three: the file's samples have an axis of their own; nothing to agree on, so it is timed "
    "only."""
    import onnxruntime

    source = Path(onnxruntime.__file__).parent / "datasets/sigmoid.onnx"
    (tmp_path / "my.onnx").write_bytes(source.read_bytes())
    np.savez(tmp_path / "data.npz", x=RANDOM.normal(size=(6, 3, 4, 5)).astype(np.float32))
    subject = resolve(tmp_path, {"tensors": "data.npz"}, "any")
    assert subject.metric is None and len(subject.dataset.input_ids()) == 6
    np.savez(tmp_path / "data.npz", x=np.zeros((6, 3, 4), np.float32))
    with pytest.raises(SubjectError, match=r"x has the shape \[6, 3, 4\], and one sample of the model is x: float32"):
        resolve(tmp_path, {"tensors": "data.npz"}, "any")
