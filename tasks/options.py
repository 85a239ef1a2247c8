"""What an audit file may say of a stage: a pydantic model for each, and the kinds of values that they share."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field


class Outside:
    """Mark of an option that says where something is or how it is carried out, and so does not determine a result."""


OUTSIDE = Outside()
DatasetName = Annotated[str, OUTSIDE]
Share = Annotated[float, Field(gt=0, lt=1)]
MANY = 1_000_000_000  # more is a slip of the finger, and more than some libraries can count
Count = Annotated[int, Field(ge=1, le=MANY)]
Several = Annotated[int, Field(ge=2, le=MANY)]
Number = Annotated[int, Field(ge=0, le=MANY)]
Positive = Annotated[float, Field(gt=0)]
Word = Annotated[str, Field(min_length=1)]
Words = Annotated[list[Word], Field(min_length=1)]
Resamples = Annotated[int, Field(ge=0, le=1_000_000)]  # more would only take for ever
Side = Annotated[int, Field(ge=1, le=16384)]
Size = tuple[Side, Side]  # height, width in pixels
AnyOptions = TypeVar("AnyOptions", bound="Options")


class Strict(BaseModel):
    """A part of the audit file: frozen, and without keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Options(Strict):
    """Options of a stage. Every one is part of the result's name, but those marked as `OUTSIDE`."""

    def determining(self) -> dict[str, object]:
        """The options that determine the result, as JSON values."""
        outside = {name for name, field in type(self).model_fields.items() if OUTSIDE in field.metadata}
        return self.model_dump(mode="json", exclude=outside)

    def narrowed(self, kind: type[AnyOptions]) -> AnyOptions:
        """The part of the options that another stage has, too."""
        return kind(**{name: getattr(self, name) for name in kind.model_fields})


class Lighting(Options):
    """How a unit's map becomes a mask of the pixels that it lights."""

    tail: Share = 0.005
    """Share of a unit's values, over all pictures and places, that lie above its threshold."""
    align: Literal["receptive-field", "half-pixel"] = "receptive-field"
    """Where a map's cells lie in the picture: at the centres of their receptive fields, or evenly spread."""
    inclusive: bool = False
    """Whether a value that equals the threshold counts as above it."""
