"""Pictures, labels, masks and tensors that cannot be used."""

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from tests.hostile.cases import Case, Make, Section
from tests.hostile.project import FILL, edit, with_masks, with_tensors


def _picture(content: bytes) -> Make:
    return lambda folder: (folder / "images/03.png").write_bytes(content)


def _cut_short(folder: Path) -> None:
    path = folder / "images/03.png"
    path.write_bytes(path.read_bytes()[:120])


def _bomb() -> bytes:
    """Write a PNG of 140 bytes that promises 60 000 x 60 000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


def _no_images(folder: Path) -> None:
    for path in (folder / "images").iterdir():
        path.unlink()


def _labels(content: str | bytes) -> Make:
    encoded = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / "labels.csv").write_bytes(encoded)


def _mask(mask: Image.Image | None) -> Make:
    def make(folder: Path) -> None:
        with_masks(folder)
        path = folder / "masks/03.png"
        path.unlink() if mask is None else mask.save(path)

    return make


def _tensors(**arrays: np.ndarray) -> Make:
    def make(folder: Path) -> None:
        with_tensors(folder)
        np.savez(folder / "data.npz", **arrays)

    return make


def _file_of_tensors(content: bytes) -> Make:
    def make(folder: Path) -> None:
        with_tensors(folder)
        (folder / "data.npz").write_bytes(content)

    return make


def _terabytes() -> bytes:
    """Write an array whose header promises terabytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 3, 12, 16)}
    )
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr(zipfile.ZipInfo("x.npy"), header.getvalue())
    return archive.getvalue()


_X = np.zeros((12, 3, 12, 16), np.float32)
_LABELS = np.arange(12) % 3

PICTURES = (
    Case("does not decode", _picture(b"no picture"), "not a decodable image", FILL),
    Case("is empty", _picture(b""), "not a decodable image", FILL),
    Case("is cut short", _cut_short, "not a decodable image", FILL),
    Case("declares absurd dimensions", _picture(_bomb()), "60000 x 60000 pixels; allowed: 64000000", FILL),
    Case("is missing, like all others", _no_images, "expected", FILL),
    Case(
        "lies in a folder that is not there",
        lambda folder: edit(folder, "images: images", "images: gone"),
        "gone",
        FILL,
    ),
)
LABELS = (
    Case("are not there", lambda folder: (folder / "labels.csv").unlink(), "labels.csv", FILL),
    Case("are not text", _labels(b"\xff\xfe\x00"), "labels.csv", FILL),
    Case("are empty", _labels(""), "holds no picture that is used", FILL),
    Case("name a file that is not there", _labels("nowhere.png,0\n"), "labels 'nowhere.png', which is not in", FILL),
    Case("have a class that the model has not", _labels("00.png,3\n"), "from 0 to 2", FILL),
    Case("have a word for a class", _labels("00.png,cat\n"), "from 0 to 2", FILL),
    Case("have a line too short", _labels("00.png\n"), "expected", FILL),
    Case("name a file twice, with two classes", _labels("00.png,1\n00.png,2\n"), "is class 2, and was 1 above", FILL),
    Case("are a mask that is not there", _mask(None), "there is no mask for 03.png", FILL),
    Case("are a mask of another size than its image", _mask(Image.new("L", (5, 5))), "5 x 5 pixels", FILL),
    Case("are a mask in colour", _mask(Image.new("RGB", (20, 10))), "is a RGB image; allowed: one channel", FILL),
    Case(
        "are a mask with other values", _mask(Image.new("L", (20, 10), 7)), "holds the values 7; allowed: 0 to 2", FILL
    ),
)
TENSORS = (
    Case("are no file of tensors", _file_of_tensors(b"no archive"), "is not a readable file of tensors"),
    Case("declare terabytes", _file_of_tensors(_terabytes()), "is not a readable file of tensors"),
    Case("hold Python objects", _tensors(x=np.array([{}] * 12, object)), "is not a readable file of tensors"),
    Case("lack an input of the model", _tensors(y=_X), "there is no array 'x'"),
    Case("have another type", _tensors(x=_X.astype(np.float64), labels=_LABELS), "convert it with .astype"),
    Case("have another shape", _tensors(x=_X[:, :, :5], labels=_LABELS), "has the shape"),
    Case("have no labels", _tensors(x=_X), "has no array `labels`"),
    Case("have labels beyond the model's classes", _tensors(x=_X, labels=_LABELS + 1), "labels go from 1 to 3"),
    Case("have fewer labels than samples", _tensors(x=_X, labels=_LABELS[:5]), "allowed: one class number"),
)
SECTIONS = (
    Section(
        "Images",
        "`runner fill-catalog`. Every picture that is used is decoded once before the first measurement "
        "(`.tierwise/models/looked-at/` remembers it). One that cannot be used costs its subject alone: the fill says "
        "so at its start and at its end, keeps the subject's evidence, measures the other subjects, and ends with exit "
        "code 1.",
        ("the picture", "what is said"),
        PICTURES,
    ),
    Section(
        "Labels and masks", "`runner fill-catalog`, before the first measurement.", ("they", "what is said"), LABELS
    ),
    Section("Tensors", "`runner validate` and every command that measures.", ("the arrays", "what is said"), TENSORS),
)
