"""Fashion-MNIST as its authors publish it: four gzipped idx files. Needed for training and shipping only."""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}


@dataclass(frozen=True)
class Data:
    """Pictures uint8 [n, h, w] and targets int64: labels [n] or masks [n, h, w]."""

    pictures: NDArray[np.uint8]
    targets: NDArray[np.int64]


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped idx file: two zero bytes, the type, the rank, big-endian sizes, then the data."""
    raw = gzip.decompress(path.read_bytes())
    sizes = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(tuple(sizes))


def load_data(directory: Path, part: str) -> Data:
    """Read the images and labels of "train" or "test"."""
    images, labels = (read_idx(directory / name) for name in FILES[part])
    return Data(images, labels.astype(np.int64))


def sha256(path: Path) -> str:
    """Hash a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
