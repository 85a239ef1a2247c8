"""Weights that torchvision fetches from the net once, and keeps."""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from microtome.errors import InputError
from microtome.importing import said

if TYPE_CHECKING:
    import torch
    from torchvision.models import WeightsEnum

_HASH = re.compile(r"-([a-f0-9]{8,})\.")  # in the file's name: how its SHA-256 begins


def fetched(weights: WeightsEnum) -> dict[str, torch.Tensor]:
    """The tensors of torchvision weights; nothing else in their file is loaded.

    Raises:
        InputError: they cannot be fetched, are cut short, or the file that is kept is not what it was.
    """
    import torch

    url = str(weights.url)
    place = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if place.is_file() and not _is_whole(place):
        raise _damaged(weights, place, "its SHA-256 is not the one in its name")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where torch says that it downloads
            return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except Exception as error:  # no net, no such page, a hash that is wrong, a full disk, of a damaged file any kind
        if place.is_file():
            raise _damaged(weights, place, _line(error)) from error
        raise InputError(
            f"network.weights: {weights.name} must be fetched from {url}, which failed: {_line(error)}; try again "
            f"where it can be reached, or put the file at {place}"
        ) from error


def _damaged(weights: WeightsEnum, place: Path, why: str) -> InputError:
    return InputError(
        f"network.weights: {weights.name} lies at {place}, which is damaged: {why}; remove it, and it is fetched again"
    )


def _is_whole(place: Path) -> bool:
    named = _HASH.search(place.name)
    if named is None:
        return True
    with place.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest().startswith(named[1])


def _line(error: BaseException) -> str:
    if "invalid hash value" in str(error):
        return "what came was cut short or altered"
    return ascii(said(error))[1:-1][:200]
