"""Labelled pictures: one contract, one file per format."""

from microtome.datasets.base import Annotation, Concept, Dataset, Landmark, Record
from microtome.datasets.formats import FORMATS, open_dataset
from microtome.datasets.frame import Frame, Placement

__all__ = ["FORMATS", "Annotation", "Concept", "Dataset", "Frame", "Landmark", "Placement", "Record", "open_dataset"]
