"""What the report shows of ablation."""

from __future__ import annotations

from microtome.report.ablation import (
    AblationClassRow,
    AblationGroupRow,
    AblationLayerRow,
    AblationUnitRow,
    LayerAblation,
)
from tasks.ablation.work import Inputs
from tasks.pages.shown import Shown
from tasks.result import StageResult


def findings(shown: Shown) -> list[LayerAblation]:
    """Every layer."""
    seen, made = shown.inputs("ablation", Inputs), shown.result("ablation", StageResult)
    return [
        LayerAblation(
            made.typed("ablation_layers", AblationLayerRow, layer=layer.name)[0],
            made.typed("ablation_units", AblationUnitRow, layer=layer.name),
            made.typed("ablation_classes", AblationClassRow, layer=layer.name),
            made.typed("ablation_groups", AblationGroupRow, layer=layer.name),
        )
        for layer in seen.activations.layers
    ]
