"""Model files that are none, or none that this machine runs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.hostile.cases import Case, Make, Section
from tests.hostile.project import FILL, classifier, model_of, segmenter

_ANY = ("N", 3, 12, 16)


def _model(make: Callable[[], onnx.ModelProto]) -> Make:
    return lambda folder: (folder / "my.onnx").write_bytes(make().SerializeToString())


def _bytes(content: bytes) -> Make:
    return lambda folder: (folder / "my.onnx").write_bytes(content)


def _truncated(folder: Path) -> None:
    content = (folder / "my.onnx").read_bytes()
    (folder / "my.onnx").write_bytes(content[: len(content) // 2])


def _directory(folder: Path) -> None:
    (folder / "my.onnx").unlink()
    (folder / "my.onnx").mkdir()


def _terabytes() -> onnx.ModelProto:
    model = classifier()
    model.graph.initializer[0].dims[:] = [1 << 20, 1 << 22]
    return model


def _external(location: str) -> onnx.ModelProto:
    model = classifier()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return model


def _linked_outside(folder: Path) -> None:
    """Make the data file a link that leads out of the folder."""
    (folder / "weights.bin").symlink_to("/etc/passwd")
    _model(lambda: _external("weights.bin"))(folder)


def _terabytes_at_run_time() -> onnx.ModelProto:
    shape = numpy_helper.from_array(np.array([1 << 21, 1 << 21], np.int64), "shape")
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["one"], keepdims=0),
        helper.make_node("Add", ["x", "one"], ["scores"]),
    ]
    return model_of(nodes, [shape], gives=_ANY)


def _endless(folder: Path) -> None:
    """Nest ten thousand sub-graphs, each within the last: a parser that recurses without a limit ends its process."""
    node, attribute, graph = b"\x0a", b"\x2a", b"\x32"
    content = b""
    for _ in range(10_000):
        for tag in (attribute, node, graph):
            content = tag + _length(len(content)) + content
    path = folder / "my.onnx"
    graph_field = b"\x3a"
    inner = b"\x0a" + _length(len(content) + 1 + len(_length(len(content)))) + b"\x2a" + _length(len(content)) + content
    path.write_bytes(path.read_bytes() + graph_field + _length(len(inner)) + inner)


def _length(value: int) -> bytes:
    """Encode a base-128 number."""
    encoded = b""
    while value > 127:
        encoded += bytes((value & 127 | 128,))
        value >>= 7
    return encoded + bytes((value,))


def _circle() -> onnx.ModelProto:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    return model_of([*nodes, helper.make_node("Relu", ["b"], ["scores"])], [], gives=_ANY)


_UNREADABLE, _NOT_RUN = "is not a readable ONNX model", "allowed: operators and an opset"
CASES = (
    Case("is not there", lambda folder: (folder / "my.onnx").unlink(), "there is no model file", command=FILL),
    Case("is a folder", _directory, "is a folder, not a model file", command=FILL),
    Case("is truncated", _truncated, _UNREADABLE),
    Case("is not ONNX", _bytes(b"<html>not found</html>"), _UNREADABLE),
    Case("is empty", _bytes(b""), _UNREADABLE),
    Case("declares terabytes of weights", _model(_terabytes), _UNREADABLE),
    Case("keeps data outside its folder", _model(lambda: _external("../../../etc/passwd")), _UNREADABLE),
    Case("keeps data at an absolute path", _model(lambda: _external("/etc/passwd")), _UNREADABLE),
    Case("keeps data behind a link that leads out of its folder", _linked_outside, _UNREADABLE),
    Case("keeps data in a name with a zero byte", _model(lambda: _external("a\0b")), _UNREADABLE),
    Case("keeps data in a folder", _model(lambda: _external("images")), _UNREADABLE),
    Case("lacks its data file", _model(lambda: _external("weights.bin")), _UNREADABLE),
    Case("nests sub-graphs without end", _endless, "my.onnx"),
    Case("has a circle", _model(_circle), _NOT_RUN),
    Case("needs terabytes when it runs", _model(_terabytes_at_run_time), _NOT_RUN),
    Case("has an unknown operator", _model(lambda: classifier(op="NoSuchOperator")), _NOT_RUN),
    Case("has an opset of the future", _model(lambda: classifier(opset=99)), _NOT_RUN),
    Case("takes batches of four", _model(lambda: classifier(shape=(4, 3, 12, 16))), "allowed for images"),
    Case("takes five channels", _model(lambda: classifier(shape=(1, 5, 12, 16))), "1 channel"),
    Case("takes text", _model(lambda: classifier(kind=TensorProto.STRING)), "allowed"),
    Case(
        "leaves height and width free", _model(lambda: classifier(shape=(1, 3, "H", "W"))), "declare which to measure"
    ),
    Case("gives no scores of classes", _model(segmenter), "allowed for classification: scores"),
)
SECTION = Section(
    "Models",
    "`runner validate` and every command that measures. The file is read without its weights first; then the model is "
    "loaded and run once, in a process of its own that may use no more than the machine's memory, so that a model that "
    "brings the engine down does not bring the runner down. What came of it is kept in `.tierwise/models/tried/`.",
    ("the model", "what is said"),
    CASES,
)
