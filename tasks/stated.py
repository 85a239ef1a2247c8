"""What timm's configurations state of networks, remembered: asking timm imports torch, and a plan should not wait."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from microtome.closure.outside import version
from microtome.networks.preprocessing import Preprocessing
from microtome.networks.zoo import timm_preprocessing
from storage import Files
from storage.small import Kind


@dataclass(frozen=True)
class Stated:
    """What was stated, by network, version of timm, and size that was asked for."""

    networks: dict[str, Preprocessing] = field(default_factory=dict)


_NAME = "preprocessing.json"
MEMO = Kind[Stated]("memo of preprocessing", Stated, "timm is asked again", sealed=True)


def stated_preprocessing(load: str, arguments: Mapping[str, object], files: Files) -> Preprocessing:
    """What timm's configuration of a network states, from a memo in the workspace where it was asked before.

    Args:
        load: `timm:NAME`.
        arguments: of the factory.
        files: the workspace.

    Raises:
        InputError: see `timm_preprocessing`.
    """
    key = json.dumps([load, version("timm"), arguments.get("img_size")])
    known = (MEMO.load(files, _NAME) or Stated()).networks
    if key not in known:
        known = {**known, key: timm_preprocessing(load, arguments)}
        with contextlib.suppress(OSError):  # a full disk, a workspace that may only be read
            MEMO.save(files, _NAME, Stated(known))
    return known[key]
