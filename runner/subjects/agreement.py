"""Without labels, identity's answers stand for them: how often an operator answers the same is its `agreement`.

For classes it is the share of items, for maps of labels the share of pixels. It is not an accuracy: an operator
that corrects a wrong answer of identity counts as disagreeing.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.foreign import read_regular
from runner.errors import SubjectError
from runner.subjects.dataset import OnItem, Truth, unwatched
from runner.subjects.folders import choose
from runner.subjects.layouts.own import Images
from runner.subjects.tensors import TensorDataset
from tierserver.errors import TierError
from tierserver.messages import PartSpec, Postprocess, Preprocess
from tierserver.pipeline import ServedPart
from tierserver.protocol import Tensor

# An agreement of 99 % is known to 0.2 percentage points by then, and a model may take a tenth of a second for each.
MOST_JUDGED = 10_000


@dataclass(frozen=True)
class Predictor:
    """The untouched model with its pre- and post-processing."""

    model: Path
    sha256: str
    preprocess: Mapping[str, object]
    postprocess: Mapping[str, object]

    def fingerprint(self) -> bytes:
        """Return what determines every answer."""
        # The order in which settings were declared must not matter.
        return json.dumps([self.sha256, dict(self.preprocess), dict(self.postprocess)], sort_keys=True).encode()

    def classes(self, encoded: Iterator[bytes]) -> Iterator[int]:
        """Yield the first class for each item, computed by this machine's runtime."""
        return (int(answers["classes"][0]) for answers in self._answers(encoded))

    def label_maps(self, encoded: Iterator[bytes], shape: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
        """Yield the map of labels for each item; every map must have the given shape."""
        for answers in self._answers(encoded):
            labels = answers["labels"]
            if labels.shape != shape:
                raise SubjectError(f"identity gives a map of labels {list(labels.shape)}, expected {list(shape)}")
            yield labels

    def _answers(self, encoded: Iterator[bytes]) -> Iterator[Mapping[str, NDArray[Any]]]:
        settings = Preprocess.from_json(self.preprocess)
        after = Postprocess.from_json(self.postprocess)
        try:
            part = ServedPart(PartSpec("identity", str(self.model), preprocess=settings, postprocess=after), "runner")
            for item in encoded:
                yield part.run((Tensor("image", None, (memoryview(item),)),)).outputs
        except TierError as error:
            raise SubjectError(f"identity's answers cannot be computed: {error}") from error


@dataclass(frozen=True)
class AgreementLayout:
    """A folder of images whose labels, or masks of the given shape, are identity's answers."""

    images: Images
    predictor: Predictor
    mask_shape: tuple[int, int] | None = None
    kind: str = "agreement"

    @property
    def root(self) -> Path:
        return self.images.root

    @property
    def expected(self) -> str:
        return self.images.expected

    def validation(self) -> Sequence[Path]:
        return self.images.validation()

    def training(self, count: int) -> Sequence[Path]:
        # A user's folder has no training part; `FolderDataset` keeps a share of it for calibration.
        return ()

    def labels(self) -> Mapping[str, bytes]:
        return {"identity": self.predictor.fingerprint()}

    def truth(self, pictures: Sequence[Path]) -> Truth:
        # Read one at a time: a folder may be larger than memory.
        encoded = map(read_regular, pictures)
        if self.mask_shape is not None:
            return Truth("mask", self.mask_shape, np.uint8, self.predictor.label_maps(encoded, self.mask_shape))
        answers = self.predictor.classes(encoded)
        return Truth("label", (), np.int64, (np.asarray(answer, np.int64) for answer in answers))


class AgreeingTensors(TensorDataset):
    """Tensors whose labels are identity's answers."""

    def __init__(self, tensors: TensorDataset, predictor: Predictor) -> None:
        super().__init__(tensors.file, tensors.inputs, labels_apart=tensors.labels_apart, declared=tensors.declared)
        self._predictor = predictor

    def fingerprint(self) -> str:
        # Labels are identity's answers, so its model and settings determine them.
        return hashlib.sha256(super().fingerprint().encode() + self._predictor.fingerprint()).hexdigest()

    @property
    def items(self) -> list[int]:
        """Return the samples that are judged: of very many, always the same ones."""
        judgeable = super().items
        return judgeable if len(judgeable) <= MOST_JUDGED else sorted(choose(judgeable, MOST_JUDGED))

    def judged_in_words(self) -> str | None:
        """Return how many samples are judged where not all are; None where all are that do not calibrate."""
        judgeable = len(super().items)
        if judgeable <= MOST_JUDGED:
            return None
        return (
            f"{judgeable:,} samples have no labels; how often operators agree with identity is judged on "
            f"{MOST_JUDGED:,} of them, always the same ones"
        )

    def item_count(self) -> int:
        return len(self.items)

    def write_items(self, path: Path) -> int:
        return self.write_watched_items(path, unwatched)

    def write_watched_items(self, path: Path, on_item: OnItem) -> int:
        """Write the items file, and report each item that identity has answered."""
        items = self.items
        answers: list[int] = []
        for answer in self._predictor.classes(map(self.sample, items)):
            on_item(len(answers), len(items))
            answers.append(answer)
        self.write_judged(path, np.array(answers, np.int64))
        return len(items)
