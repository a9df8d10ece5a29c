"""Runs inside neural-compressor's environment: a job's JSON in, a model file out. Imports nothing of ours."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class _Calibration:
    """The saved inputs in the form neural-compressor iterates over: (input or mapping of inputs, label)."""

    batch_size = 1

    def __init__(self, directory: Path, inputs: list[str]) -> None:
        self._files = sorted(directory.glob("*.npz"))
        self._inputs = inputs

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        import numpy as np

        for file in self._files:
            with np.load(file, allow_pickle=False) as content:
                # numpy.savez gives these names to arrays that come by position.
                arrays = [content[f"arr_{index}"] for index in range(len(self._inputs))]
            yield (arrays[0] if len(arrays) == 1 else dict(zip(self._inputs, arrays, strict=True))), 0


def _quantize(job: dict[str, Any]) -> Any:
    from neural_compressor import PostTrainingQuantConfig, quantization

    calibration = _Calibration(Path(job["calibration"]), job["inputs"])
    granularity = ["per_channel" if job["per_channel"] else "per_tensor"]
    in_float = {"activation": {"dtype": ["fp32"]}, "weight": {"dtype": ["fp32"]}}
    config = PostTrainingQuantConfig(
        approach="static",
        quant_format="QDQ" if job["format"] == "qdq" else "QOperator",
        calibration_sampling_size=[len(calibration)],
        op_type_dict={"Conv|MatMul|Gemm": {"weight": {"granularity": granularity}}},
        # The tool takes the keys for regular expressions.
        op_name_dict={re.escape(name): in_float for name in job["left"]} or None,
        reduce_range=job["reduce_range"],
        # The extended level fuses nodes into operators that only ONNX Runtime knows.
        recipes={"graph_optimization_level": "ENABLE_BASIC"},
    )
    return quantization.fit(job["source"], config, calib_dataloader=calibration)


def _drop_unused_domains(model: Any) -> None:
    """Drop the domains that no node uses: the tool declares every domain that ONNX Runtime knows."""
    used = {node.domain if node.domain != "ai.onnx" else "" for node in model.graph.node} | {""}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def main(path: str) -> int:
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    result = _quantize(job)
    if result is None:
        return 1
    _drop_unused_domains(result.model)
    result.save(job["target"])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
