"""ONNX graphs read, understood and rewritten without touching the weights."""

from runner.graph.analysis import Block, Cut, Exit, GraphAnalysis, GraphTensor, Run, Segment, analyse, analyse_structure
from runner.graph.model_digest import model_sha256
from runner.graph.model_file import ModelFile, complete_model, has_external_data, read_model
from runner.graph.rewriting import NotRewirable, skip, split, whole, with_identity
from runner.graph.structure import Structure, read_structure
from runner.graph.writing import Part, data_file, stored_bytes, write_part

__all__ = [
    "Block",
    "Cut",
    "Exit",
    "GraphAnalysis",
    "GraphTensor",
    "ModelFile",
    "NotRewirable",
    "Part",
    "Run",
    "Segment",
    "Structure",
    "analyse",
    "analyse_structure",
    "complete_model",
    "data_file",
    "has_external_data",
    "model_sha256",
    "read_model",
    "read_structure",
    "skip",
    "split",
    "stored_bytes",
    "whole",
    "with_identity",
    "write_part",
]
