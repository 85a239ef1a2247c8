"""What a network's outputs stand for, where anybody says."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from microtome.networks.zoo import is_timm, timm_classes


def class_names(network: nn.Module, load: str, outputs: int) -> list[str] | None:
    """Names of a network's outputs.

    A network may say them itself: an attribute `classes`, a sequence of as many names as outputs. Of torchvision's
    and timm's networks they are those of their own weights, where these have as many outputs.

    Args:
        network: in hand.
        load: `module:factory` that it came from.
        outputs: how many it has.

    Returns:
        a name per output, or None where nobody says.
    """
    own = getattr(network, "classes", None)
    if _fits(own, outputs):
        return [str(name) for name in own]  # type: ignore[union-attr]
    if is_timm(load):
        stated = timm_classes(load)
        return stated if _fits(stated, outputs) else None
    module, _, factory = load.partition(":")
    if not module.startswith("torchvision.models"):
        return None
    from torchvision.models import get_model_weights

    try:
        known = get_model_weights(factory).DEFAULT.meta.get("categories")
    except (ValueError, AttributeError):
        return None
    return list(known) if _fits(known, outputs) else None


def _fits(names: object, outputs: int) -> bool:
    return isinstance(names, Sequence) and not isinstance(names, str) and len(names) == outputs
