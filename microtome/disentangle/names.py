"""Names of what a fine-tuning makes: its networks, and their layers."""

from __future__ import annotations

from typing import Literal

Phase = Literal["interpretable", "twin", "plain"]
"""The network with filter loss and masks, and its controls: masks without filter loss, and neither."""

INTERPRETABLE: Phase = "interpretable"
TWIN: Phase = "twin"
PLAIN: Phase = "plain"
TOP_MAP, EXTRA_MAP = "top_map", "extra_map"
LAYERS = (TOP_MAP, EXTRA_MAP)  # the two interpretable layers' maps, before their masks
