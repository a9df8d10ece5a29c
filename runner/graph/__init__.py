"""ONNX graphs read, understood and rewritten without touching the weights."""

from runner.graph.analysis import Analysis, Block, Cut, Exit, Run, Segment, Tensor, analyse, analyse_file
from runner.graph.model_file import ModelFile, read_model
from runner.graph.rewriting import NotRewirable, skip, split
from runner.graph.structure import Structure, read_structure
from runner.graph.writing import Part, data_file, write_part

__all__ = [
    "Analysis",
    "Block",
    "Cut",
    "Exit",
    "ModelFile",
    "NotRewirable",
    "Part",
    "Run",
    "Segment",
    "Structure",
    "Tensor",
    "analyse",
    "analyse_file",
    "data_file",
    "read_model",
    "read_structure",
    "skip",
    "split",
    "write_part",
]
