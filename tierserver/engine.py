"""ONNX Runtime sessions; the one module that imports it, and where its exceptions end."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tierserver.errors import EngineError, RequestError, TooLarge

# Since 1.29 the Linux builds report each session to their maker's server and keep an identifier on disk. Both
# disturb a measurement, and the user has agreed to neither; the library reads the switch when it is loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

VERSION: str = ort.__version__
_NUMPY_TYPES: Mapping[str, type[np.generic]] = {
    "tensor(bool)": np.bool_,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
}
_LARGE_BYTES = 16 * 2**20
_ORT_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    TypeError,
    *(value for value in vars(ort_errors).values() if isinstance(value, type) and issubclass(value, Exception)),
)

# What the runtime writes before the reason itself: its own name, the file's, a place and a signature in its source.
_PREAMBLE = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed:\s*"
    r"|/onnxruntime_src/\S+:\d+ .*?\)(?: const)?(?: \[with[^\]]*\])? "
)


@dataclass(frozen=True)
class TensorInfo:
    """A graph input or output; -1 stands for a dimension that is free."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def check(self, array: NDArray[Any]) -> None:
        """Refuse an array the graph cannot take."""
        # ONNX Runtime reports an input without a declared shape, which takes anything, as one without axes.
        fits = not self.shape or (
            len(array.shape) == len(self.shape)
            and all(size in (-1, length) for size, length in zip(self.shape, array.shape, strict=True))
        )
        if array.dtype != self.dtype or not fits:
            raise RequestError(
                f"input {self.name!r}: got {array.dtype} {list(array.shape)}, "
                f"the model takes {self.dtype} {list(self.shape)} (-1: any)"
            )


class Session:
    """One model, ready to run; `cold_start_s` is the time its creation took."""

    def __init__(self, path: Path, *, threads: int, providers: Sequence[str]) -> None:
        _check_providers(providers)
        if not path.is_file():
            raise EngineError(f"no model file at {path}; check the mount and the part's path")
        started = time.perf_counter()
        try:
            # A launcher may link files into the tier; the runtime takes no external data of a body through a link.
            real = str(path.resolve())
            self._session = ort.InferenceSession(real, _options(threads), providers=list(providers))
        except _ORT_ERRORS as error:
            raise EngineError(f"{path.name} is not a model this runtime ({VERSION}) loads: {_brief(error)}") from error
        self.cold_start_s = time.perf_counter() - started
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        if self.providers[0] != providers[0]:
            raise EngineError(f"{path.name}: asked for {providers[0]}, the runtime fell back to {self.providers[0]}")
        self.inputs = tuple(_info(model_input, path) for model_input in self._session.get_inputs())
        self.outputs = tuple(_info(output, path) for output in self._session.get_outputs())
        # Only with free sizes does the memory of a run depend on more than the model.
        self.has_free_sizes = any(-1 in model_input.shape for model_input in (*self.inputs, *self.outputs))
        self._has_grown = False
        self._output_names = [output.name for output in self.outputs]
        self.provider_nodes = _provider_nodes(self._session)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph; an input that it cannot process raises RequestError."""
        for info in self.inputs:
            if info.name not in feeds:
                raise RequestError(
                    f"input {info.name!r} is missing; needed: {[model_input.name for model_input in self.inputs]}"
                )
            info.check(feeds[info.name])
        if len(feeds) != len(self.inputs):
            names = [model_input.name for model_input in self.inputs]
            raise RequestError(f"unknown inputs {sorted(set(feeds) - set(names))}; the model takes {names}")
        # The runtime keeps the memory of a run for the next one, unless a run is configured to give it back.
        options = _shrinking_options() if self._has_grown else None
        self._has_grown = self.has_free_sizes
        try:
            results = self._session.run(self._output_names, dict(feeds), options)
        except MemoryError as error:
            raise TooLarge("the model's outputs on this input take more memory than this tier has left") from error
        except _ORT_ERRORS as error:
            raise RequestError(f"the model cannot run on this input: {_brief(error)}") from error
        self._has_grown = self.has_free_sizes and sum(result.nbytes for result in results) > _LARGE_BYTES
        return dict(zip(self._output_names, results, strict=True))


def _shrinking_options() -> Any:
    options = ort.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def available_providers() -> tuple[str, ...]:
    return tuple(ort.get_available_providers())


def _options(threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # 3 is ERROR: the log tail of a tier that died should hold its reason, not warnings about the graph.
    options.log_severity_level = 3
    # A spinning thread eats the quota that the next inference needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def _provider_nodes(session: Any) -> dict[str, int]:
    """Count the nodes per execution provider, as the runtime assigned them; older runtimes do not report it."""
    assignment = getattr(session, "get_provider_graph_assignment_info", None)
    nodes: dict[str, int] = {}
    for subgraph in () if assignment is None else assignment():
        nodes[subgraph.ep_name] = nodes.get(subgraph.ep_name, 0) + len(subgraph.get_nodes())
    return nodes


def _check_providers(providers: Sequence[str]) -> None:
    available = ort.get_available_providers()
    if not providers or (unknown := [provider for provider in providers if provider not in available]):
        got = list(providers) if not providers else unknown
        raise EngineError(f"execution providers {got} are not in this tier; available: {available}")


def _info(value: Any, path: Path) -> TensorInfo:
    if value.type not in _NUMPY_TYPES:
        raise EngineError(f"{path.name}: {value.name!r} is a {value.type}; served are {', '.join(_NUMPY_TYPES)}")
    shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    return TensorInfo(value.name, np.dtype(_NUMPY_TYPES[value.type]), shape)


def _brief(error: Exception) -> str:
    """Return the first line of the runtime's message, without its preamble."""
    text = _PREAMBLE.sub("", str(error).strip())
    return text.splitlines()[0][:300] if text else type(error).__name__
