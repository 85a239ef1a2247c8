"""Rows that pages read by name are rows of the tables that stages declare."""

import types
from typing import Union, get_args, get_origin, get_type_hints

import pyarrow as pa
import pytest

from microtome.report.ablation import AblationClassRow, AblationGroupRow, AblationLayerRow, AblationUnitRow
from microtome.report.adversarial import AttackedRow, AttackRow
from microtome.report.dictionary import BasisRow, DirectionRow, SteadyRow
from microtome.report.dissection import LayerRow, NearestRow, UnitRow
from microtome.report.drift import DriftLayerRow, DriftUnitRow
from microtome.report.features import FeatureRow
from microtome.report.fields import MinimalRow, OcclusionRow
from microtome.report.formulas import CurveRow, FormulaLayerRow, FormulaRow
from microtome.report.imported import ImportedRow, LabelRow, TalliedRow, TalliedUnitRow
from microtome.report.saliency import FaithfulnessRow, MethodRow, ReliabilityRow
from microtome.report.scores import ScoreAgreementRow, ScoreLabelRow, ScoreLayerRow, ScoreTestRow
from microtome.report.tree import TreeMetricRow
from tasks.registry import STAGES

TABLES = {table.name: table for stage in STAGES for table in stage.tables}
KINDS = {pa.int32(): int, pa.int64(): int, pa.float32(): float, pa.float64(): float, pa.string(): str, pa.bool_(): bool}


def kind(hint: object) -> type:
    """What a value is where it is not null; a choice of words is text."""
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (inner for inner in get_args(hint) if inner is not type(None))
    return hint if isinstance(hint, type) else type(get_args(hint)[0])


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("units", UnitRow),
        ("layers", LayerRow),
        ("nearest", NearestRow),
        ("drift_units", DriftUnitRow),
        ("drift_layers", DriftLayerRow),
        ("ablation_units", AblationUnitRow),
        ("ablation_classes", AblationClassRow),
        ("ablation_groups", AblationGroupRow),
        ("ablation_layers", AblationLayerRow),
        ("formulas", FormulaRow),
        ("formula_layers", FormulaLayerRow),
        ("formula_curve", CurveRow),
        ("dictionary_bases", BasisRow),
        ("dictionary_stability", SteadyRow),
        ("dictionary", DirectionRow),
        ("imported", ImportedRow),
        ("layers", TalliedRow),
        ("units", TalliedUnitRow),
        ("labels", LabelRow),
        ("score_tests", ScoreTestRow),
        ("score_agreement", ScoreAgreementRow),
        ("score_labels", ScoreLabelRow),
        ("score_layers", ScoreLayerRow),
        ("reliability", ReliabilityRow),
        ("saliency_methods", MethodRow),
        ("reliability_methods", MethodRow),
        ("faithfulness", FaithfulnessRow),
        ("tree_metrics", TreeMetricRow),
        ("adversarial", AttackRow),
        ("attacked_images", AttackedRow),
        ("occlusion", OcclusionRow),
        ("minimal_images", MinimalRow),
        ("features", FeatureRow),
    ],
)
def test_a_page_reads_columns_that_are_declared(table, row):
    columns = TABLES[table].columns
    hints = get_type_hints(row)
    assert hints
    declared = {name: KINDS[columns[name].type] for name in hints if name in columns}
    assert {name: kind(hint) for name, hint in hints.items()} == declared
