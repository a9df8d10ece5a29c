"""The base class and the field types that all models share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

CONDITIONS = "unloaded, single stream, closed loop"


# Lengths and counts are limited because clients choose them and messages repeat them.
Name = Annotated[str, Field(min_length=1, max_length=200)]
Names = Annotated[list[Name], Field(max_length=100)]
# Python's JSON parser takes NaN and Infinity, against which no limit holds.
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Bytes = Annotated[float, Field(gt=0, allow_inf_nan=False)]
BytesByTier = Annotated[dict[Name, Bytes], Field(max_length=100)]


class Out(BaseModel):
    """A response model that refuses undeclared fields.

    Its validator is built at its first use: one answer needs few of the models.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class StrategyNameOut(Out):
    """A strategy of the subject that was asked about."""

    operator: str
    placement: str
