"""Score an exported model in ONNX Runtime on decoded items, as the manifests and cards state it."""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from runner.subjects.embedded.registry import Family
from runner.subjects.sources import Data


def normalise(pictures: NDArray[np.uint8], family: Family) -> NDArray[np.float32]:
    """Return what the declared pre-processing makes of pictures that already have the graph's size, [n, 1, h, w]."""
    scaled = (pictures.astype(np.float32) / 255 - family.mean) / family.std
    return scaled[:, None].astype(np.float32)


def score(path: Path, data: Data, family: Family) -> dict[str, float]:
    """Return top-1 and top-5, or mIoU, in percent, rounded to four decimals."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    outputs = (session.run(None, {"input": item[None]})[0][0] for item in normalise(data.pictures, family))
    if family.task == "segmentation":
        predicted = np.stack([output.argmax(0) for output in outputs])
        return {"miou_pct": round(miou_pct(predicted, data.targets, family.classes), 4)}
    order = np.argsort(-np.stack(list(outputs)), axis=1, kind="stable")[:, :5]
    hits = order == data.targets[:, None]
    return {
        "top1_pct": round(100 * float(hits[:, 0].mean()), 4),
        "top5_pct": round(100 * float(hits.any(1).mean()), 4),
    }


def miou_pct(predicted: NDArray[np.int64], masks: NDArray[np.int64], classes: int) -> float:
    """Average over the classes of summed intersections over summed unions of all items."""
    pairs = np.bincount((masks * classes + predicted).ravel(), minlength=classes**2)
    confusion = pairs.reshape(classes, classes)
    intersection = np.diag(confusion)
    return 100 * float((intersection / (confusion.sum(0) + confusion.sum(1) - intersection)).mean())
