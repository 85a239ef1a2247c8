"""Mined parts, and where they were found."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.parts import PartsOptions
from tasks.result import StageResult


@dataclass(frozen=True)
class Parts(StageResult):
    """Parts that were mined from a few boxes."""

    @property
    def options(self) -> PartsOptions:
        """What it was made with."""
        return PartsOptions.model_validate(self.parameters)
