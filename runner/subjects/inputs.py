"""What a model of one's own takes: pre-processing of images, read from its input where nothing is declared."""

from pathlib import Path

import numpy as np

from catalog.declaration import PreprocessSpec
from runner.errors import SubjectError
from runner.subjects.model_interface import Taken
from tierserver.errors import RequestError
from tierserver.imaging import MAX_PIXELS, check
from tierserver.messages import Preprocess
from tierserver.tensors import write_tensors

_RESIZE = {"stretch": "stretch", "crop": "shorter_side_crop", "pad": "pad"}
_DTYPES = ("float32", "float16", "uint8")


def image_settings(path: Path, inputs: tuple[Taken, ...], spec: PreprocessSpec) -> Preprocess:
    """Pre-processing, from the model's one input and what is declared; raises SubjectError where they do not fit."""
    taken = inputs[0]
    if len(inputs) != 1 or len(taken.shape) != 4 or taken.shape[0] not in (None, 1) or str(taken.dtype) not in _DTYPES:
        raise SubjectError(
            f"{path.name} takes {'; '.join(map(str, inputs))}; allowed for images: one input [1, channels, height, "
            "width] or "
            f"[1, height, width, channels] of {', '.join(_DTYPES)}. Give the inputs as dataset: {{tensors: FILE.npz}}"
        )
    layout = spec.layout or ("nhwc" if taken.shape[3] in (1, 3) and taken.shape[1] not in (1, 3) else "nchw")
    channels, *plane = (taken.shape[index] for index in ((3, 1, 2) if layout == "nhwc" else (1, 2, 3)))
    if channels not in (None, 1, 3) or (channels == 1 and spec.channel_order):
        raise SubjectError(
            f"{path.name} takes {taken} (read as {layout}); allowed: 1 channel (gray, without channel_order) or 3. "
            "Declare preprocess: {layout: nhwc} or {layout: nchw} if it was read wrongly, or give tensors"
        )
    height, width = _plane(path, taken, plane, spec)
    settings = Preprocess(
        color="gray" if channels == 1 else spec.channel_order or "rgb",
        height=height,
        width=width,
        resize=_RESIZE[spec.resize],  # type: ignore[arg-type]
        shorter_side=spec.shorter_side,
        padding=spec.padding,
        scale=spec.scale if spec.scale is not None else 1 / 255,
        mean=spec.mean,
        std=spec.std,
        layout=layout,
        dtype=str(taken.dtype),  # type: ignore[arg-type]
    )
    try:
        check(settings)
    except RequestError as error:
        raise SubjectError(str(error)) from error
    return settings


def _plane(path: Path, taken: Taken, plane: list[int | None], spec: PreprocessSpec) -> tuple[int, int]:
    """Height and width: the model's, or, where these are free, the declared ones."""
    wanted = spec.size or (plane[0], plane[1])
    height, width = wanted
    if height is None or width is None:
        raise SubjectError(
            f"{path.name} takes {taken}: its height and width are free; declare which to measure, such as "
            "preprocess: {size: [224, 224]}"
        )
    if any(fixed not in (None, want) for fixed, want in zip(plane, wanted, strict=True)):
        raise SubjectError(f"preprocess.size is {list(wanted)}, {path.name} takes {taken}; allowed: its own size")
    if height * width > MAX_PIXELS:
        raise SubjectError(
            f"{path.name} takes {taken}: {height} x {width} pixels; allowed: {MAX_PIXELS}. Export it for a smaller "
            "size, or give the inputs as dataset: {tensors: FILE.npz}"
        )
    return height, width


def blank_image(settings: Preprocess, dtype: np.dtype[np.generic]) -> bytes:
    """A black picture as the model takes it, encoded for a trial."""
    channels = 1 if settings.color == "gray" else 3
    plane = (settings.height, settings.width)
    shape = (1, channels, *plane) if settings.layout == "nchw" else (1, *plane, channels)
    return write_tensors([np.zeros(shape, dtype)])
