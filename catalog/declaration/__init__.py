"""The catalog file: from YAML with line numbers to strategies with routes."""

from catalog.declaration.catalog import Catalog, Placement, Strategy, load_catalog, parse_catalog
from catalog.declaration.schema import (
    AccuracyTarget,
    AnalysisSpec,
    CatalogFile,
    DatasetFiles,
    ExperimentSpec,
    LinkSpec,
    PassSpec,
    PreprocessSpec,
    SloSpec,
    SubjectSpec,
    TestbedSpec,
    TierPlace,
    TierSpec,
)

__all__ = [
    "AccuracyTarget",
    "AnalysisSpec",
    "Catalog",
    "CatalogFile",
    "DatasetFiles",
    "ExperimentSpec",
    "LinkSpec",
    "PassSpec",
    "Placement",
    "PreprocessSpec",
    "SloSpec",
    "Strategy",
    "SubjectSpec",
    "TestbedSpec",
    "TierPlace",
    "TierSpec",
    "load_catalog",
    "parse_catalog",
]
