"""Load a network safely, name its layers, capture their maps, and know where each cell looks."""

from importlib import import_module
from typing import Any

_HOMES = {
    "Capture": "capture",
    "LayerGeometry": "geometry",
    "gradient_footprint": "geometry",
    "walk": "geometry",
    "match_layers": "layers",
    "NetworkSpec": "load",
    "load_network": "load",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Names are imported when first used: a plan needs `NetworkSpec`, and should not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
