"""The base class and the field types that all models share."""

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from catalog.evidence.records import PlacedOperator

CONDITIONS = "unloaded, single stream, closed loop"


# Lengths and counts are limited because clients choose them and messages repeat them.
Name = Annotated[str, Field(min_length=1, max_length=200)]
Names = Annotated[list[Name], Field(max_length=100)]
# Python's JSON parser takes NaN and Infinity, against which no limit holds.
# Every range has both its edges: a number next to an open one, such as 1e-300 s, is no budget, and overflows sums.
Seconds = Annotated[float, Field(ge=1e-9, le=1e9, allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Bytes = Annotated[float, Field(ge=1, le=1e18, allow_inf_nan=False)]
BytesByTier = Annotated[dict[Name, Bytes], Field(max_length=100)]


class Out(BaseModel, frozen=True):
    """A response model that refuses undeclared fields.

    Its validator is built at its first use: one answer needs few of the models. What it has in common with a row is
    declared in `catalog/evidence/records.py`, and comes before its own fields, but for those that `FIRST` names.
    """

    # An answer is sent with all its fields, those of rows that have a default too.
    model_config = ConfigDict(extra="forbid", defer_build=True, json_schema_serialization_defaults_required=True)
    FIRST: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Put the fields of a class in the order in which they are sent."""
        super().__pydantic_init_subclass__(**kwargs)
        declared = cls.__pydantic_fields__
        # Nothing is built of them yet (`defer_build`).
        for name in (*cls.FIRST, *(name for name in tuple(declared) if name not in cls.FIRST)):
            declared[name] = declared.pop(name)


class StrategyNameOut(Out, PlacedOperator, frozen=True):
    """A strategy of the subject that was asked about."""
