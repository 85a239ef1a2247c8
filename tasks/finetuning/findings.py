"""What the report shows of a fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy

from microtome.disentangle.names import EXTRA_MAP, INTERPRETABLE, LAYERS, PLAIN, TWIN, Phase
from microtome.quantify.intervals import paired_interval
from microtome.quantify.stability_summary import FilterOnLandmark, Judged
from microtome.report.finetuning import SHOWN_FILTERS, Apart, Compared, Epoch, FinetuningFindings, Learned
from microtome.report.stability import Pictured
from storage.tables import ReadRow
from tasks.finetuning.result import WEIGHTS, Finetuned
from tasks.finetuning.work import Inputs
from tasks.pages.shown import Shown
from tasks.stability import BEFORE
from tasks.stability.findings import pictured
from tasks.stability.result import Stability

NAME = "finetuning"
PHASES: Sequence[Phase | None] = (None, INTERPRETABLE, TWIN, PLAIN)


def findings(shown: Shown) -> FinetuningFindings:
    """The networks' training, and their stability where the audit measured it."""
    made = [shown.result(name, Finetuned) for name in shown.variants(NAME)]
    judged = {phase: shown.result(_job(phase), Stability) for phase in PHASES if shown.has(_job(phase))}
    return FinetuningFindings(
        training=[_epoch(row) for network in made for row in network.training],
        learned=[Learned(**network.summary) for network in made],
        compared=_compared(judged),
        filters=_filters(shown, judged),
        size=shown.inputs(NAME, Inputs).index.frame.size,
        network=_network(shown),
    )


def _job(phase: Phase | None) -> str:
    return f"stability:{phase or BEFORE}"


def _epoch(row: ReadRow) -> Epoch:
    return Epoch(**{name: value for name, value in row.items() if name in Epoch.__dataclass_fields__})


def _compared(judged: Mapping[Phase | None, Stability]) -> list[Compared]:
    """Every network, the interpretable and the plain one beside the twin."""
    twin = judged.get(TWIN)
    return [
        Compared(
            phase,
            item,
            _apart(made, twin, item) if twin and phase in (INTERPRETABLE, PLAIN) else None,
            list(made.shift(item.layer).values())[-1] if made.options.shift else None,
        )
        for phase, made in judged.items()
        for item in _together(made)
    ]


def _together(made: Stability) -> list[Judged]:
    """Over all categories as their mean; over the only one where there is one."""
    return [item for item in made.judged if item.rule == "mean"] or made.judged


def _apart(made: Stability, twin: Stability, item: Judged) -> Apart | None:
    """From the twin's same layer over the same resampled pictures."""
    over = item.layer, item.category, item.rule
    same = next((other for other in twin.judged if (other.layer, other.category, other.rule) == over), None)
    own, others = made.resamples(item), twin.resamples(item)
    value = item.summary.deviation
    if same is None or value is None or same.summary.deviation is None or not (len(own) and len(others)):
        return None
    return Apart(*paired_interval((value, same.summary.deviation), (own, others)))


def _filters(shown: Shown, judged: Mapping[Phase | None, Stability]) -> dict[Phase, list[Pictured]]:
    """The same filters of the new layer, in the interpretable network and in its twin."""
    if not {INTERPRETABLE, TWIN} <= set(judged):
        return {}
    own = [(item.r2, item) for item in judged[INTERPRETABLE].filters(EXTRA_MAP) if item.r2 is not None]
    best = sorted(own, key=lambda pair: (-pair[0], pair[1].filter))[:SHOWN_FILTERS]
    wanted = sorted(_key(item) for _, item in best)
    found: dict[Phase, list[Pictured]] = {}
    for phase in (INTERPRETABLE, TWIN):
        same = {_key(item): item for item in judged[phase].filters(EXTRA_MAP)}
        chosen = [same[key] for key in wanted if key in same]
        found[phase] = pictured(shown, _job(phase), EXTRA_MAP, chosen)
    return found


def _key(item: FilterOnLandmark) -> tuple[int, str, str]:
    return item.filter, item.category, item.landmark


def _network(shown: Shown) -> dict[str, object]:
    """The finished network, as an audit file names it."""
    made, seen = shown.result(NAME, Finetuned), shown.inputs(NAME, Inputs)
    about, scale, frame = made.about, seen.network.scale, seen.index.frame
    return {
        "load": about["load"],
        "arguments": {key: deepcopy(value) for key, value in about["arguments"].items() if value is not None},
        "weights": f"{made.artifact.folder}/{WEIGHTS}",
        "layers": list(LAYERS),
        "input": {
            "size": list(frame.size),
            "mean": list(scale.mean),
            "std": list(scale.std),
            "resize": frame.resize,
            **({"crop_share": frame.crop_share} if frame.crop_share else {}),
            "interpolation": frame.interpolation,
        },
    }
