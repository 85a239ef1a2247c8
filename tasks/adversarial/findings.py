"""What the report shows of attacks."""

from __future__ import annotations

from microtome.report.adversarial import AttackedPicture, AttackedRow, AttackFindings, AttackKind, AttackRow
from microtome.visualize.measures import AttackMeasure
from tasks.adversarial import AdversarialOptions
from tasks.adversarial.work import Inputs
from tasks.pages.shown import Shown
from tasks.result import StageResult


def findings(shown: Shown) -> AttackFindings:
    """Figures by attack and measure, and the first pictures of each attack."""
    made, index = shown.result("adversarial", StageResult), shown.inputs("adversarial", Inputs).index
    figures = {
        (AttackKind(row["attack"], row["eps"]), AttackMeasure.read(row["measure"])): row
        for row in made.typed("adversarial", AttackRow)
    }
    pictures = [
        AttackedPicture(
            row,
            index.files[row["image"]],
            shown.thumbnail(index, row["image"]),
            shown.copied(made, f"{row['file']}-changed.webp"),
            shown.copied(made, f"{row['file']}-difference.webp"),
        )
        for row in made.typed("attacked_images", AttackedRow)
    ]
    return AttackFindings(figures, pictures, index.frame.size, AdversarialOptions.model_validate(made.parameters).steps)
