"""What decides between strategies, declared once: for the catalog's file, the settings of an analysis, and its row.

It stands apart from all three: the file is read where no database is, and evidence where no file is.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from catalog.units import parse_share, refuse_share

Share = Annotated[
    float,
    BeforeValidator(parse_share),
    Field(gt=0, le=1),
    WithJsonSchema({"type": "string", "examples": ["5%"]}),
]

# A number, not a text: 90 for p90.
# The validator comes last, so that it runs first and the published schema keeps the limits in JSON Schema's words.
Percentile = Annotated[float, Field(strict=True, ge=1, lt=100), BeforeValidator(refuse_share)]

Adjustment = Literal[
    "none",
    "bonferroni",
    "sidak",
    "holm",
    "holm-sidak",
    "simes-hochberg",
    "hommel",
    "fdr_bh",
    "fdr_by",
    "fdr_tsbh",
    "fdr_tsbky",
]


@dataclass(frozen=True, kw_only=True)
class AnalysisOptions:
    """A percentile to compare by, the margin within which it is equal, and how sure a difference must be."""

    percentile: Percentile = 50.0
    equivalent_within: Share = 0.05
    confidence_level: Annotated[float, Field(strict=True, gt=0.5, lt=1)] = 0.95
    adjustment: Adjustment = "holm"
