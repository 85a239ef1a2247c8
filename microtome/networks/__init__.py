"""Load a network safely, name its layers, capture their maps, and know where each cell looks.

A plan needs `NetworkSpec`, and should not wait for torch: each name is imported when it is first used.
"""

from typing import TYPE_CHECKING

from microtome.lazy import lazily

if TYPE_CHECKING:
    from microtome.networks.capture import Capture
    from microtome.networks.geometry import LayerGeometry, gradient_footprint, walk, walk_matching
    from microtome.networks.layers import match_layers
    from microtome.networks.load import NetworkSpec, load_network

__all__ = [
    "Capture",
    "LayerGeometry",
    "NetworkSpec",
    "gradient_footprint",
    "load_network",
    "match_layers",
    "walk",
    "walk_matching",
]

__getattr__ = lazily(__name__, __file__)
