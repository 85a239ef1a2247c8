"""microtome: the science of an audit, importable without Prefect or storage.

Rooms follow the survey: `networks` and `datasets` are what is looked at, `quantify` is section 2, `visualize`
section 3, `disentangle` section 4, and `report` shows what came out.

The stages of an audit, on a network and a data set in memory, are functions of this package: `microtome.dissect(model,
dataset, layers=["layer4"])`, and likewise those in `DIRECT`.
"""

from typing import Any

__version__ = "0.1.0"

DIRECT = (
    "dissect", "formulas", "dictionary", "ablation", "scores", "stability", "tree", "graph", "parts", "saliency",
    "features", "reliability", "occlusion", "attack", "finetune",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    """The front door: `flows.direct` lies above this package, which takes nothing from there by itself."""
    if name in DIRECT:
        from importlib import import_module

        return getattr(import_module("flows.direct"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *DIRECT])
