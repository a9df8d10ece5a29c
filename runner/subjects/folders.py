"""Data sets that are folders of image files: what the layouts of ImageNet, COCO and Cityscapes have in common.

Nothing is read before it is needed, and planning needs only names and sizes: a fingerprint is the hash of the kind, of
the relative names and sizes of the judged and the calibration pictures, and of the bytes of the labels. A picture
changed in place without changing its size goes unnoticed.
"""

import hashlib
import json
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from catalog.foreign import lack_of, read_regular, require_regular
from catalog.units import counted
from runner.errors import SubjectError
from runner.subjects.dataset import OnItem, Picture, Truth, unwatched, write_items

if TYPE_CHECKING:
    from catalog.statistics.input_draw import Pool

Value = TypeVar("Value")

CALIBRATION_POOL = 512
_RESERVED_SHARE = 10  # at most every tenth picture, if calibration has to come out of the validation part
# Fixed, because the choice decides which pictures are judged, and so the content keys.
_SEED = 20261129
# The layouts with a label for each picture; masks are many bytes and are counted when they are written.
_LABELLED = frozenset({"images", "imagenet"})
_MEDIA_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
}

_ADVICE = "put it back as it was, or start the command again, which measures the folder as it is then"


class FolderLayout(Protocol):
    """The places where a kind of data set keeps its pictures and their truth."""

    @property
    def kind(self) -> str:
        """Return the layout's name in fingerprints."""

    @property
    def root(self) -> Path:
        """Return the folder; ids are relative to it."""

    @property
    def expected(self) -> str:
        """Return what the folder should hold, for messages."""

    def validation(self) -> Sequence[Path]:
        """Return the pictures for judging and timing."""

    def training(self, count: int) -> Sequence[Path]:
        """Return at most `count` pictures of the training part, chosen with a fixed seed; none without such a part."""

    def labels(self) -> Mapping[str, bytes]:
        """Return everything that determines the truth, by name: it is hashed, not parsed."""

    def truth(self, pictures: Sequence[Path]) -> Truth:
        """Return the labels or masks of these pictures."""


@runtime_checkable
class MaskedLayout(Protocol):
    """A layout with a mask for each picture, in a folder of the user's."""

    def check_masks(self) -> None:
        """Raise SubjectError where a mask is missing; none is read."""


class FolderDataset:
    """A `Dataset` over a layout; without `judged` it has pictures only, and its labels are not used.

    Calibration pictures come from the training part. Without one, they are a seeded choice from the validation
    part (every tenth, at most 512), which is then not judged on.
    If a data set may be small (`few`), calibration takes what there is.
    With `timed`, its pictures are sent and calibrate, whether or not they have a label: neither the inputs nor what is
    calibrated with them depends on labels then, so that labels may be added later.
    Of more pictures than `at_most`, so many are judged, always the same ones.
    """

    def __init__(
        self,
        layout: FolderLayout,
        *,
        judged: bool = True,
        few: bool = False,
        timed: FolderLayout | None = None,
        at_most: int | None = None,
    ) -> None:
        self._layout = layout
        self._judged = judged
        self._few = few
        self._at_most = at_most
        self._timed = layout if timed is None else timed
        self._labels_apart = timed is not None

    def absent(self) -> str | None:
        """Return what is missing on this machine."""
        return None if self._layout.root.is_dir() else _missing(self._layout)

    def fingerprint(self) -> str:
        return self._fingerprint

    def inputs_fingerprint(self) -> str:
        return self._inputs_fingerprint

    def calibration_fingerprint(self) -> str:
        if not self._labels_apart:  # keys from before labels were kept apart stay what they are
            return self._fingerprint
        return _hash(self._timed.kind, "calibration", _listed(self._calibration))

    def write_items(self, path: Path) -> int:
        return self.write_watched_items(path, unwatched)

    def write_watched_items(self, path: Path, on_item: OnItem) -> int:
        """Write the items file, and report each item whose truth is known."""
        if not self._judged:
            raise SubjectError(f"{self._layout.root}: the subject's task is `any`, so there is nothing to judge by")
        if not self._items:
            raise SubjectError(
                f"{self._layout.root}: every labelled picture is among the {len(self._calibration)} that calibrate, "
                "which are not judged; label more of them"
            )
        truth = self._layout.truth([picture.path for picture in self._items])
        try:
            write_items(path, self._items, truth, on_item)
        except OSError as error:
            # What cannot be written is another fault, with another advice.
            if error.filename is None or not Path(error.filename).is_relative_to(self._layout.root):
                raise
            raise SubjectError(f"{error.filename} cannot be read any more: {error.strerror}; {_ADVICE}") from error
        return len(self._items)

    def judged_in_words(self) -> str | None:
        """Return how many pictures are judged where not all are; None where all are that do not calibrate."""
        if self._at_most is None or len(self._judgeable) <= self._at_most:
            return None
        return (
            f"{len(self._judgeable):,} pictures have no labels; how often operators agree with identity is judged on "
            f"{self._at_most:,} of them, always the same ones"
        )

    def item_count(self) -> int:
        return len(self._items) if self._judged else 0

    def label_counts(self) -> Mapping[str, int]:
        """Return of how many judged items each class is the declared label; empty where they have no labels."""
        if not self._judged or self._layout.kind not in _LABELLED:
            return {}
        return Counter(str(int(label)) for label in self._layout.truth([item.path for item in self._items]).values)

    def check_truth(self) -> None:
        if self._judged and isinstance(self._layout, MaskedLayout):
            self._layout.check_masks()
        self.label_counts()

    def calibration(self, count: int) -> list[bytes]:
        if not 0 < count <= len(self._calibration) and not self._few:
            raise SubjectError(
                f"{self._layout.root}: asked for {count} calibration pictures; allowed: 1 to {len(self._calibration)}"
            )
        return [_unchanged(picture) for picture in self._calibration[:count]]

    def calibration_file(self, index: int) -> Path:
        """Return the file that the calibration picture of this index was read from."""
        return self._calibration[index].path

    def input_ids(self) -> list[str]:
        return list(self._inputs)

    def write_inputs(self, directory: Path, ids: Sequence[str]) -> None:
        for name in ids:
            if name not in self._inputs:
                raise SubjectError(f"{self._layout.root}: no picture {name!r}; the folder has changed since planning")
            (directory / name).write_bytes(_unchanged(self._inputs[name]))

    def input_pool(self) -> "Pool":
        from catalog.statistics.input_draw import Pool, PoolInput

        pictures = self._inputs.values()
        return Pool([PoolInput(entry.id, entry.size_bytes, _MEDIA_TYPES[entry.suffix]) for entry in pictures])

    def largest(self, count: int) -> list[str]:
        if not 0 < count <= len(self._inputs):
            raise SubjectError(f"{self._layout.root}: asked for {count} inputs; allowed: 1 to {len(self._inputs)}")
        # Equal sizes by id, so that the choice is the same on every file system.
        order = sorted(self._inputs.values(), key=lambda picture: (-picture.size_bytes, picture.id))
        return [picture.id for picture in order[:count]]

    @cached_property
    def _inputs(self) -> Mapping[str, Picture]:
        """Every picture that may be sent, by its id."""
        return self._pictures_of(self._timed)

    def _pictures_of(self, layout: FolderLayout) -> Mapping[str, Picture]:
        if not layout.root.is_dir():
            raise SubjectError(_missing(layout))
        pictures = list(_pictures(layout.root, layout.validation()))
        twice = [name for name, count in Counter(picture.id for picture in pictures).items() if count > 1]
        if twice:
            raise SubjectError(f"{layout.root}: two pictures are both called {twice[0]!r}; rename one")
        if len(pictures) < 2:
            raise SubjectError(f"{layout.root} holds {counted(len(pictures), 'picture')}; expected {layout.expected}")
        # By id, because every file system lists in an order of its own.
        return {picture.id: picture for picture in sorted(pictures, key=lambda picture: picture.id)}

    @cached_property
    def _training(self) -> tuple[Picture, ...]:
        inputs = self._inputs  # a folder that is not there is reported before its training part is searched
        return tuple(_pictures(self._layout.root, self._layout.training(CALIBRATION_POOL))) if inputs else ()

    @cached_property
    def _calibration(self) -> tuple[Picture, ...]:
        if self._training:
            return self._training
        reserved = min(CALIBRATION_POOL, max(1, len(self._inputs) // _RESERVED_SHARE))
        return tuple(random.Random(_SEED).sample(list(self._inputs.values()), reserved))

    @cached_property
    def _items(self) -> tuple[Picture, ...]:
        """The pictures that are judged."""
        if self._at_most is None or len(self._judgeable) <= self._at_most:
            return self._judgeable
        return tuple(self._judgeable[index] for index in sorted(choose(range(len(self._judgeable)), self._at_most)))

    @cached_property
    def _judgeable(self) -> tuple[Picture, ...]:
        """The pictures that may be judged: all, less those that calibrate."""
        # A training part is apart from the pictures that are judged, so nothing has to be kept back.
        reserved = {picture.id for picture in self._calibration} if not self._training else set()
        pictures = self._pictures_of(self._layout) if self._labels_apart else self._inputs
        return tuple(picture for name, picture in pictures.items() if name not in reserved)

    @cached_property
    def _fingerprint(self) -> str:
        listed = (_listed(self._items), _listed(self._calibration))
        labels = self._layout.labels() if self._judged else {}
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in labels.items()}
        return _hash(self._layout.kind, *listed, digests, self._judged)

    @cached_property
    def _inputs_fingerprint(self) -> str:
        return _hash(self._timed.kind, _listed(self._inputs.values()))


def _hash(*contents: object) -> str:
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def _unchanged(picture: Picture) -> bytes:
    """Return a picture's bytes; raise SubjectError if it is gone or has another size than when it was listed."""
    try:
        encoded = read_regular(picture.path)
    except OSError as error:
        raise SubjectError(f"{picture.path} cannot be read any more: {error.strerror}; {_ADVICE}") from error
    if len(encoded) != picture.size_bytes:
        changed = f"{picture.path} has {len(encoded)} bytes and had {picture.size_bytes} when this run began"
        raise SubjectError(f"{changed}; {_ADVICE}")
    return encoded


def is_image_name(name: str) -> bool:
    """Return whether a file's name ends as those of pictures do that a tier decodes."""
    return Path(name).suffix.lower() in _MEDIA_TYPES


def images_in(directory: Path) -> list[Path]:
    """List the image files directly in a directory, by name."""
    if not directory.is_dir():
        return []
    with os.scandir(directory) as entries:
        names = [entry.name for entry in entries if is_image_name(entry.name)]
    return [directory / name for name in sorted(names)]


def folders_in(directory: Path) -> list[Path]:
    """List the directories directly in a directory, by name."""
    return sorted(path for path in directory.iterdir() if path.is_dir()) if directory.is_dir() else []


def choose(values: Sequence[Value], count: int) -> list[Value]:
    """Choose at most `count` values, always the same ones, from anywhere in the list."""
    return random.Random(_SEED).sample(list(values), min(count, len(values)))


def _missing(layout: FolderLayout) -> str:
    return f"{lack_of('folder', layout.root)}; expected {layout.expected}"


def _pictures(root: Path, paths: Iterable[Path]) -> Iterator[Picture]:
    for path in paths:
        # An id is a file name (`write_inputs`), so the folders become part of it.
        name = "_".join(path.relative_to(root).parts)
        yield Picture(name, path, _size(path))


def _size(path: Path) -> int:
    """Return the size of a picture; raise SubjectError for what is no file that can be sent and judged."""
    try:
        size_bytes = require_regular(path).st_size
        # Ids are stored as text, and in archives of arrays.
        path.name.encode()
    except UnicodeEncodeError as error:
        raise SubjectError(f"{path}: its name is not UTF-8; rename it, or take it out") from error
    except OSError as error:
        raise SubjectError(f"{path} cannot be read: {error.strerror}; repair it, or take it out") from error
    return size_bytes


def _listed(pictures: Iterable[Picture]) -> list[tuple[str, int]]:
    return [(picture.id, picture.size_bytes) for picture in pictures]
