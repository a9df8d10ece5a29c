"""Nothing that is stored stays behind: every column of the evidence has its field in the document."""

import pytest
from pydantic import BaseModel
from sqlmodel import SQLModel

from catalog.evidence import tables
from catalog.exchange import document

# What the document says by its own structure, or what belongs to the database that holds it.
ELSEWHERE = {"id", "measurement_id", "environment_id", "imported_file_id", "updated_at", "created_at"}


@pytest.mark.parametrize(
    ("table", "entry"),
    [
        (tables.Measurement, document.MeasurementEntry),
        (tables.TierRun, document.TierRunEntry),
        (tables.LinkProbe, document.LinkProbeEntry),
        (tables.Strategy, document.StrategyEntry),
        (tables.Artifact, document.ArtifactEntry),
        (tables.Environment, document.EnvironmentEntry),
    ],
)
def test_every_column_is_exported(table: type[SQLModel], entry: type[BaseModel]) -> None:
    missing = set(table.model_fields) - set(entry.model_fields) - ELSEWHERE
    assert missing == set()
