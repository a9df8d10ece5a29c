"""Whether an output [1, N] is scores of classes or other values, such as an embedding: read from the model's end.

The shape alone does not say. What is assumed is said with its reason, and `output: scores` or `output: values` in the
catalog declares it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx

from runner.graph.model_file import read_model

OutputMeaning = Literal["scores", "values"]

# What changes no number, or no order of numbers.
_TRANSPARENT = frozenset(
    {"Cast", "DequantizeLinear", "Dropout", "Flatten", "Identity", "QuantizeLinear", "Reshape", "Squeeze", "Transpose"}
    | {"Unsqueeze"}
)
# Parts of names, and short words that are parts of too many others (`age` of `image`).
_VALUES = re.compile(
    r"angle|audio|bbox|boxes|coord|descriptor|embed|encod|feat|hidden|keypoint|landmark|latent|offset|pooler|regress"
    r"|vector|waveform"
)
_VALUE_WORDS = frozenset(
    {"age", "box", "code", "codes", "delta", "kps", "loc", "mean", "pose", "repr", "state", "states", "std", "style"}
    | {"value", "values"}
)
_SCORES = re.compile(r"categor|class|label|logit|predict|prob|score|softmax")
_SCORE_WORDS = frozenset({"cls", "pred", "preds"})
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
# Networks end in these with features or with numbers that stand each for itself, not with one score for each class.
_VALUE_ENDS = frozenset(
    {"BatchNormalization", "InstanceNormalization", "LayerNormalization", "LpNormalization", "Relu", "Sigmoid", "Tanh"}
)
# Widths of features are multiples of this; numbers of classes hardly ever are.
_FEATURES = 64


@dataclass(frozen=True)
class OutputGuess:
    """What an output is taken for, and why."""

    meaning: OutputMeaning
    reason: str


def guess_output(path: Path, name: str, width: int) -> OutputGuess:
    """Return what an output [1, width] of a model is likely to be.

    Notes
    -----
    Asked in this order: a name of values (`embedding`), an end in Softmax, a name of scores (`logits`), an end in a
    normalization or an activation, a width as features have it. What none of these decides is taken for scores.

    Examples
    --------
    >>> from runner.subjects.embedded.registry import BUILTIN
    >>> guess_output(BUILTIN / "fashion-resnet.onnx", "embedding", 10)
    OutputGuess(meaning='values', reason='its name is embedding')
    """
    words = {word.lower() for word in _WORD.findall(name)}
    names_scores = bool(_SCORES.search(name.lower()) or words & _SCORE_WORDS)
    if not names_scores and (_VALUES.search(name.lower()) or words & _VALUE_WORDS):
        return OutputGuess("values", f"its name is {name}")
    end = _End(read_model(path).graph, name)
    if end.is_softmax:
        return OutputGuess("scores", "it ends in a Softmax")
    if names_scores:
        return OutputGuess("scores", f"its name is {name}")
    if end.is_normalized:
        return OutputGuess("values", "it ends in a division by its length")
    if end.kind in _VALUE_ENDS:
        return OutputGuess("values", f"it ends in {end.kind}")
    if width % _FEATURES == 0:
        return OutputGuess("values", f"features are often {width} wide, and nothing names it scores")
    return OutputGuess("scores", "nothing says otherwise")


class _End:
    """The node that computes an output, behind those that only reshape it."""

    def __init__(self, graph: onnx.GraphProto, output: str) -> None:
        self._makers: Mapping[str, onnx.NodeProto] = {name: node for node in graph.node for name in node.output}
        self._node = self._maker(output)

    @property
    def kind(self) -> str:
        """Return the op_type; empty where an input of the model goes out."""
        return self._node.op_type if self._node else ""

    @property
    def is_softmax(self) -> bool:
        """Return whether it is a Softmax, also one in parts: exponentials divided by their sum."""
        if self.kind in ("Softmax", "LogSoftmax", "Hardmax"):
            return True
        return self.kind == "Div" and [self._input_kind(index) for index in (0, 1)] == ["Exp", "ReduceSum"]

    @property
    def is_normalized(self) -> bool:
        """Return whether a vector is divided by its length."""
        if self.kind != "Div" or self._node is None:
            return False
        divisor = self._maker(self._node.input[1])
        for _ in range(3):  # torch puts a Clip or a Max and an Expand between
            if divisor is None or divisor.op_type in ("ReduceL2", "Sqrt"):
                break
            divisor = self._maker(divisor.input[0])
        return divisor is not None and divisor.op_type in ("ReduceL2", "Sqrt")

    def _input_kind(self, index: int) -> str:
        maker = self._maker(self._node.input[index]) if self._node else None
        return maker.op_type if maker else ""

    def _maker(self, name: str) -> onnx.NodeProto | None:
        node = self._makers.get(name)
        while node is not None and node.op_type in _TRANSPARENT:
            node = self._makers.get(node.input[0])
        return node
