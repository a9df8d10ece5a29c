"""A part in service: pre-processing, graph, post-processing, and the next tier where there is one, each timed.

Which files a command may name: any path where the launcher mounts them, or only those that a launch consists of.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tierserver import protocol
from tierserver.encoding import read_tensors
from tierserver.errors import CommandError, EngineError, NotFound, RequestError, TierError
from tierserver.limits import MEMORY
from tierserver.machine import peak_rss_bytes
from tierserver.messages import (
    Digest,
    DigestResult,
    Evaluate,
    EvaluateResult,
    ItemScore,
    Load,
    LoadResult,
    PartSpec,
    Postprocess,
    Preprocess,
    SampleLink,
    SamplePart,
)
from tierserver.protocol import Tensor
from tierserver.transport import Peer

if TYPE_CHECKING:
    from tierserver.engine import Session


class Files(Protocol):
    """What turns the names in commands into paths."""

    def path(self, name: str) -> Path:
        """Return the path of a named file; raise CommandError for one that may not be named."""
        ...


class MountedFiles:
    """Files of a container or of this machine, named by their paths."""

    def path(self, name: str) -> Path:
        return Path(name)


class LaunchFiles:
    """Exactly the files of one launch: their names are keys of a table, and no name is ever taken for a path."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = paths

    @classmethod
    def read(cls, manifest: Path) -> LaunchFiles:
        """Read the table that the server wrote for this launch."""
        return cls({name: Path(path) for name, path in json.loads(manifest.read_text()).items()})

    def path(self, name: str) -> Path:
        try:
            return self._paths[name]
        except KeyError:
            raise CommandError(f"this launch has no file {name[:80]!r}; it has {len(self._paths)} others") from None


Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class InferenceResult:
    """The final outputs, and what every tier and link on the way reports; `parts[0]` is this tier."""

    outputs: Arrays
    parts: tuple[SamplePart, ...]
    links: tuple[SampleLink, ...] = ()


class ServedPart:
    """One model file with what stands before and after it."""

    def __init__(self, spec: PartSpec, tier: str, path: Path | None = None) -> None:
        # Imported with the first part: a tier that only sends or relays starts sooner without the engine.
        from tierserver import imaging
        from tierserver.engine import Session

        self.spec = spec
        self.tier = tier
        self.session = Session(path or Path(spec.path), threads=spec.threads, providers=spec.providers)
        self._peer = Peer(tier, spec.next) if spec.next is not None else None
        self._read_image = imaging.preprocess
        _check(spec, self.session)

    def close(self) -> None:
        if self._peer is not None:
            self._peer.close()

    def run(self, tensors: Sequence[protocol.Tensor]) -> InferenceResult:
        """Take the client's tensors through this part and the following tiers to the final outputs."""
        started = time.perf_counter()
        feeds = self._feeds(tensors)
        prepared = time.perf_counter()
        results = self.session.run(feeds)
        computed = time.perf_counter()
        if self._peer is not None:
            return self._forward(self._peer, results, prepared - started, computed - prepared)
        outputs = results if self.spec.postprocess is None else postprocess(results, self.spec.postprocess)
        finished = time.perf_counter()
        times = (prepared - started, computed - prepared, finished - computed, 0.0)
        return InferenceResult(outputs, (SamplePart(self.tier, *times),))

    def run_graph(self, tensors: Sequence[protocol.Tensor]) -> InferenceResult:
        """Run the bare graph: arrays in, arrays out."""
        feeds = protocol.array_inputs(tensors)
        started = time.perf_counter()
        outputs = self.session.run(feeds)
        compute_s = time.perf_counter() - started
        return InferenceResult(outputs, (SamplePart(self.tier, 0.0, compute_s, 0.0, 0.0),))

    def metadata(self, *, bare: bool) -> dict[str, Any]:
        """Describe inputs and outputs as the protocol does."""
        inputs = [
            _described(model_input.name, model_input.dtype, model_input.shape) for model_input in self.session.inputs
        ]
        outputs = [_described(output.name, output.dtype, output.shape) for output in self.session.outputs]
        if bare:
            return {"inputs": inputs, "outputs": outputs}
        if self.spec.preprocess is not None:
            inputs = [{"name": "image", "datatype": "BYTES", "shape": [1]}]
        if self._peer is not None:
            # A client gets what the last part gives, which only that part's tier knows.
            outputs = self._peer.metadata(self.spec.name)["outputs"]
        elif self.spec.postprocess is not None and self.spec.postprocess.kind != "tensors":
            outputs = _postprocessed(self.spec.postprocess)
        return {"inputs": inputs, "outputs": outputs}

    def _feeds(self, tensors: Sequence[protocol.Tensor]) -> dict[str, NDArray[Any]]:
        if self.spec.preprocess is None:
            return protocol.array_inputs(tensors)
        if len(tensors) != 1 or tensors[0].name != "image" or len(tensors[0].elements) != 1:
            got = [tensor.name for tensor in tensors]
            raise RequestError(f"{self.spec.name} takes one input `image` BYTES [1] as binary data, got {got}")
        if self.spec.preprocess.kind == "tensors":
            return _named(read_tensors(tensors[0].elements[0]), self.session)
        return {self.session.inputs[0].name: self._read_image(tensors[0].elements[0], self.spec.preprocess)}

    def _forward(self, peer: Peer, results: Arrays, preprocess_s: float, compute_s: float) -> InferenceResult:
        started = time.perf_counter()
        body = protocol.encode_tensor_request(results, self.spec.codec)
        encode_s = time.perf_counter() - started
        answer = peer.infer(self.spec.name, body)
        # The wait for the answer is not part of it: that time belongs to the link and to the tiers behind it.
        own = SamplePart(self.tier, preprocess_s, compute_s, 0.0, encode_s + answer.decode_s)
        return InferenceResult(answer.outputs, (own, *answer.parts), answer.links)


def postprocess(results: Arrays, spec: Postprocess) -> dict[str, NDArray[Any]]:
    """Return class numbers and scores, or a map of labels, from the graph's first output or the declared one."""
    if spec.kind == "tensors":
        return dict(results)
    first = next(iter(results.values())) if spec.output is None else results[spec.output]
    if spec.kind == "label_map" and spec.threshold is not None:
        plane = first[0, 0] if spec.layout == "nchw" else first[0, ..., 0]
        return {"labels": (plane > spec.threshold).astype(np.uint8)}
    if spec.kind == "label_map":
        axis = 0 if spec.layout == "nchw" else -1
        # `_check_postprocess` has refused more than 256 classes, so that a label fits into 8 bits.
        return {"labels": _label_map(first[0].argmax(axis=axis).astype(np.uint8), spec)}
    scores = first[:, -1].reshape(-1) if spec.last else first.reshape(-1)
    if spec.softmax:
        # The shift keeps exp from overflowing and cancels out in the quotient.
        scores = np.exp(scores - scores.max())
        scores /= scores.sum()
    # Stable: among equal scores the lower class comes first on every machine.
    classes = np.argsort(-scores, kind="stable")[: spec.k].astype(np.int64)
    return {"classes": classes, "scores": scores[classes].astype(np.float32)}


def _label_map(labels: NDArray[np.uint8], spec: Postprocess) -> NDArray[np.uint8]:
    """Lay the labels of dense upsampling out as a map: [cell, cell, h, w] to [h * cell, w * cell]."""
    if spec.height is None or spec.width is None:
        return labels
    height, width = spec.height // spec.cell, spec.width // spec.cell
    cells = labels.reshape(spec.cell, spec.cell, height, width)
    return np.ascontiguousarray(cells.transpose(2, 0, 3, 1)).reshape(spec.height, spec.width)


def _postprocessed(spec: Postprocess) -> list[dict[str, Any]]:
    if spec.kind == "label_map":
        return [{"name": "labels", "datatype": "UINT8", "shape": [-1, -1]}]
    return [
        {"name": "classes", "datatype": "INT64", "shape": [spec.k]},
        {"name": "scores", "datatype": "FP32", "shape": [spec.k]},
    ]


def _described(name: str, dtype: np.dtype[Any], shape: Sequence[int]) -> dict[str, Any]:
    return {"name": name, "datatype": protocol.datatype_of(dtype), "shape": list(shape)}


def _check(spec: PartSpec, session: Session) -> None:
    """Refuse, when a part is loaded, a declaration that could only fail later."""
    if spec.next is not None and spec.postprocess is not None:
        raise EngineError(f"part {spec.name!r}: postprocess belongs to the last part, this one has a next")
    if spec.preprocess is not None:
        _check_preprocess(spec.name, spec.preprocess, session)
    if spec.postprocess is not None:
        _check_postprocess(spec.name, spec.postprocess, session)


def _named(arrays: Sequence[NDArray[Any]], session: Session) -> dict[str, NDArray[Any]]:
    """Pair the arrays with the graph's inputs, whose order they are in."""
    names = [model_input.name for model_input in session.inputs]
    if len(arrays) != len(names):
        raise RequestError(f"got {len(arrays)} tensors; the model takes {len(names)}: {', '.join(names)}")
    return dict(zip(names, arrays, strict=True))


def _check_preprocess(name: str, spec: Preprocess, session: Session) -> None:
    if spec.kind == "tensors":
        return
    from tierserver import imaging

    try:
        imaging.check(spec)
        if len(session.inputs) != 1:
            raise RequestError(f"preprocess fills one input, the graph has {len(session.inputs)}")
        channels = 1 if spec.color == "gray" else 3
        plane = (spec.height, spec.width)
        shape = (1, channels, *plane) if spec.layout == "nchw" else (1, *plane, channels)
        # A broadcast scalar has the shape without taking the memory of a picture.
        session.inputs[0].check(np.broadcast_to(np.zeros((), spec.dtype), shape))
    except RequestError as error:
        raise EngineError(f"part {name!r}: {error}") from error


def _check_postprocess(name: str, spec: Postprocess, session: Session) -> None:
    chosen = [output for output in session.outputs if spec.output in (None, output.name)]
    if not chosen:
        raise EngineError(f"part {name!r}: postprocess reads the output {spec.output!r}, which the graph does not give")
    shape = chosen[0].shape
    # ONNX Runtime says of an output without a declared shape that it has no axes: what it gives shows when it runs.
    if not shape:
        return
    channels = shape[1 if spec.layout == "nchw" else -1] if len(shape) >= 3 else 0
    if spec.kind == "label_map" and (len(shape) < 3 or channels > 256):
        raise EngineError(f"part {name!r}: label_map needs an output [1, classes <= 256, ...], got {list(shape)}")
    if spec.kind == "label_map" and (spec.cell, spec.height, spec.width) != (1, None, None):
        _check_cells(name, spec, shape)
    # A free size (-1) is known only when the graph runs; what may be enough passes here.
    scores = math.prod(shape) if all(size > 0 for size in shape) else max(shape[-1], 0) or spec.k
    if spec.kind == "top_k" and (spec.k < 1 or scores < spec.k):
        raise EngineError(f"part {name!r}: top_k of {spec.k} needs that many classes, the output is {list(shape)}")


def _check_cells(name: str, spec: Postprocess, shape: Sequence[int]) -> None:
    height, width = spec.height or 0, spec.width or 0
    if spec.cell < 1 or height < 1 or width < 1 or height % spec.cell or width % spec.cell:
        raise EngineError(
            f"part {name!r}: cell {spec.cell} needs a height and a width that are its multiples, got "
            f"{spec.height} x {spec.width}"
        )
    if len(shape) != 3 or shape[2] not in (-1, height * width):
        raise EngineError(
            f"part {name!r}: a map of {height} x {width} needs an output [1, classes, {height * width}], "
            f"got {list(shape)}"
        )


GRAPH_SUFFIX = ".graph"


@dataclass(frozen=True)
class Serving:
    """Swapped whole, so that a request sees one state."""

    parts: Mapping[str, ServedPart] = field(default_factory=dict)
    routes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """A part, or the bare graph of one."""

    part: ServedPart
    bare: bool


def digest(tier: Tier, command: Digest) -> DigestResult:
    """Hash the files that can be read."""
    digests: dict[str, str] = {}
    for path in command.paths:
        with suppress(CommandError, EngineError):
            digests[path] = file_sha256(tier.files.path(path))
    return DigestResult(digests)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file; raise EngineError if it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise EngineError(f"no readable model file at {path}; check the mount and the part's path") from error


class Tier:
    """One tier by name, and the files that its commands may name."""

    def __init__(self, name: str, files: Files | None = None) -> None:
        self.name = name
        self.files = files or MountedFiles()
        self.serving = Serving()

    def load(self, command: Load) -> LoadResult:
        """Replace everything served; after a failure nothing is served."""
        # Before anything is created: two models at once may exceed the tier's memory.
        self.unload()
        parts: dict[str, ServedPart] = {}
        digests: dict[str, str] = {}
        for spec in command.parts:
            if spec.name in parts or spec.name.endswith(GRAPH_SUFFIX) or not spec.name or "/" in spec.name:
                raise CommandError(
                    f"part name {spec.name!r}: must be unique, without '/', not ending in {GRAPH_SUFFIX}"
                )
            # Hashing first also brings the file into the page cache, so that `cold_start_s` depends less on the disk.
            path = self.files.path(spec.path)
            digests[spec.name] = file_sha256(path)
            parts[spec.name] = ServedPart(spec, self.name, path)
        self.serving = Serving(parts, dict(command.routes))
        return LoadResult(
            {name: part.session.cold_start_s for name, part in parts.items()},
            digests,
            {name: part.session.provider_nodes for name, part in parts.items()},
        )

    def unload(self) -> None:
        for part in self.serving.parts.values():
            part.close()
        self.serving = Serving()

    def find(self, model: str) -> Target:
        name = model.removesuffix(GRAPH_SUFFIX)
        part = self.serving.parts.get(name)
        if part is None:
            raise NotFound(f"unknown model {model[:80]!r}; served: {', '.join(self.model_names()) or 'none'}")
        return Target(part, bare=name != model)

    def model_names(self) -> list[str]:
        return [name + suffix for name in self.serving.parts for suffix in ("", GRAPH_SUFFIX)]


# The label of void pixels in PASCAL VOC and in Cityscapes' training ids.
IGNORED_LABEL = 255
_PROGRESS_S = 1.0


@dataclass(frozen=True)
class Items:
    """A validation set: encoded images one after the other, and labels [n] or masks [n, H, W]."""

    item_id: tuple[str, ...]
    image: memoryview
    offset: NDArray[np.int64]
    label: NDArray[np.int64] | None
    mask: NDArray[np.uint8] | None

    def encoded(self, index: int) -> memoryview:
        return self.image[int(self.offset[index]) : int(self.offset[index + 1])]


@dataclass(frozen=True)
class Overlap:
    """Pixels per class: in both maps, and in either."""

    intersection_px: NDArray[np.int64]
    union_px: NDArray[np.int64]


def evaluate(tier: Tier, command: Evaluate, on_progress: Callable[[int, int], None]) -> EvaluateResult:
    """Score every item through the part's own pre- and post-processing (and its next part, if it has one)."""
    part, items = tier.find(command.model).part, read_items(tier.files.path(command.items_file))
    total, reported_s = len(items.item_id), time.monotonic()

    def score(index: int) -> ItemScore:
        try:
            return _score(items, index, _outputs(part, items.encoded(index)), command.k)
        except TierError as error:
            raise CommandError(f"item {items.item_id[index]!r}: {error}") from error

    scores = [score(0)]
    with ThreadPoolExecutor(_workers(part)) as pool:
        # Nothing is timed here, so that items may share the tier's threads.
        for scored in pool.map(score, range(1, total)):
            scores.append(scored)
            if time.monotonic() - reported_s >= _PROGRESS_S:
                reported_s = time.monotonic()
                on_progress(len(scores), total)
    on_progress(total, total)
    return EvaluateResult(_trimmed(scores))


def _workers(part: ServedPart) -> int:
    """Return how many items may be scored at once, as far as the first one shows."""
    peak_bytes = peak_rss_bytes()
    # The connection to a next part serves one request at a time.
    if part.spec.next is not None or peak_bytes is None:
        return 1
    # Each run takes at most what the tier held during the first; half of the memory is left for larger items.
    return max(1, min(part.spec.threads, MEMORY.limit_bytes // (2 * peak_bytes)))


def hits(classes: NDArray[np.int64], label: int, k: int) -> tuple[bool, bool]:
    """Return whether the label is the first class, and whether it is among the first k."""
    return bool(classes[0] == label), bool(label in classes[:k])


def overlap(predicted: NDArray[np.uint8], truth: NDArray[np.uint8]) -> Overlap:
    """Count intersections and unions for each of 256 classes; pixels whose truth is 255 do not count."""
    if predicted.shape != truth.shape:
        raise CommandError(f"the label map is {list(predicted.shape)}, the mask {list(truth.shape)}; they must agree")
    counted = truth != IGNORED_LABEL
    seen, true = predicted[counted], truth[counted]
    both = np.bincount(true[seen == true], minlength=256)
    # Inclusion and exclusion: the union is the sum of both less what they share.
    either = np.bincount(seen, minlength=256) + np.bincount(true, minlength=256) - both
    return Overlap(both, either)


def read_items(path: Path) -> Items:
    """Read and check an items file (.npz)."""
    try:
        # A pickle may run code while it is read.
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, NDArray[Any]] = {name: file[name] for name in file.files}
        items = Items(
            item_id=tuple(map(str, arrays["item_id"])),
            image=np.ascontiguousarray(arrays["image"], np.uint8).data,
            offset=arrays["offset"].astype(np.int64),
            label=arrays["label"].astype(np.int64) if "label" in arrays else None,
            mask=arrays.get("mask"),
        )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CommandError(
            f"{path} is not an items file: {error}; it needs item_id, image, offset, label|mask"
        ) from error
    truth = items.label if items.label is not None else items.mask
    count = len(items.item_id)
    if truth is None or len(truth) != count or items.offset.shape != (count + 1,) or count == 0:
        raise CommandError(f"{path}: {count} item_id need {count + 1} offsets and {count} of label or mask")
    if items.offset[0] < 0 or (np.diff(items.offset) < 0).any() or items.offset[-1] > len(items.image):
        raise CommandError(f"{path}: offsets must rise and stay within the {len(items.image)} bytes of image")
    return items


def _outputs(part: ServedPart, encoded: memoryview) -> Arrays:
    return part.run((Tensor("image", None, (encoded,)),)).outputs


def _score(items: Items, index: int, outputs: Arrays, k: int) -> ItemScore:
    item_id = items.item_id[index]
    if items.label is not None:
        if "classes" not in outputs or len(outputs["classes"]) < k:
            raise CommandError(f"labels need a top_k post-processing with k >= {k}; outputs are {sorted(outputs)}")
        top1, top5 = hits(outputs["classes"], int(items.label[index]), k)
        return ItemScore(item_id, top1=top1, top5=top5)
    if items.mask is None or "labels" not in outputs:
        raise CommandError(f"masks need a label_map post-processing; outputs are {sorted(outputs)}")
    pixels = overlap(outputs["labels"], items.mask[index])
    return ItemScore(item_id, intersections=_ints(pixels.intersection_px), unions=_ints(pixels.union_px))


def _ints(counts: NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(counts.tolist())


def _trimmed(scores: list[ItemScore]) -> tuple[ItemScore, ...]:
    """Drop the classes above the highest that any item has, in truth or prediction."""
    unions = [score.unions for score in scores if score.unions is not None]
    if not unions:
        return tuple(scores)
    # Class 0 stays even where no item has it, so that no list becomes empty.
    size = 1 + max(index for union in unions for index, count in enumerate(union) if count or index == 0)
    return tuple(
        ItemScore(score.item_id, intersections=(score.intersections or ())[:size], unions=(score.unions or ())[:size])
        for score in scores
    )
