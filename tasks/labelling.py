"""What an audit file says of `dissection`: the stages that judge its labels in other ways read it, too."""

from __future__ import annotations

from tasks.null import NullOptions
from tasks.options import DatasetName, Resamples
from tasks.redrawn import RedrawnOptions


class DissectionOptions(NullOptions, RedrawnOptions):
    """Network Dissection: which unit detects which concept."""

    dataset: DatasetName = "main"
    """Data set of the audit file whose concepts the units are compared with."""
    bootstrap: Resamples = 1000
    """Resamples of the pictures, for intervals; 0 for none."""
