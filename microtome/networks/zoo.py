"""Networks of timm by name, `timm:NAME` or `timm:NAME.TAG`, and the preprocessing that timm's configuration states.

timm is an extra: nothing else needs it. No weights are ever fetched; a tag only chooses the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import ModuleType

from microtome.datasets.frame import FILTERS
from microtome.errors import InputError, suggest
from microtome.networks.preprocessing import Preprocessing

TIMM = "timm:"
_NAME = re.compile(r"timm:[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")
_FETCHES = ("pretrained", "checkpoint_path", "pretrained_cfg_overlay", "pretrained_cfg", "cache_dir")
_MODES = {"center": "shortest-side-crop", "squash": "squash"}


def is_timm(load: str) -> bool:
    """Whether a reference means a network of timm's."""
    return load.startswith(TIMM)


def is_timm_name(load: str) -> bool:
    """Whether a reference is a network of timm's by its plain name, and by nothing that is fetched."""
    return bool(_NAME.fullmatch(load))


def timm_factory(load: str, arguments: Mapping[str, object]) -> Callable[..., object]:
    """The factory of a network of timm's.

    Args:
        load: `timm:NAME`.
        arguments: that it will be called with.

    Raises:
        InputError: timm is not installed, has no such network, or the arguments would fetch weights.
    """
    timm, name = _timm(load), load.removeprefix(TIMM)
    _configuration(timm, load)
    fetching = [key for key in _FETCHES if key in arguments]
    if fetching:
        raise InputError(
            f"network.arguments: {fetching[0]} must be left out: weights come from the file that "
            "network.weights names, and are random without one"
        )

    def factory(**given: object) -> object:
        return timm.create_model(name, pretrained=False, **given)

    return factory


def timm_preprocessing(load: str, arguments: Mapping[str, object]) -> Preprocessing:
    """What timm's configuration of a network states.

    Args:
        load: `timm:NAME`.
        arguments: of the factory; `img_size` goes before the configuration's size.

    Raises:
        InputError: timm is not installed or has no such network; or states what is not offered here.
    """
    timm = _timm(load)
    stated = timm.data.resolve_data_config({}, pretrained_cfg=_configuration(timm, load))
    mode, interpolation = str(stated["crop_mode"]), str(stated["interpolation"])
    faults = {"resize": mode not in _MODES, "interpolation": interpolation not in FILTERS}
    if any(faults.values()):
        raise InputError(
            f"network.input: timm's configuration of {load.removeprefix(TIMM)} has crop_mode {mode} and interpolation "
            f"{interpolation}; give {' and '.join(key for key, wrong in faults.items() if wrong)} in the audit file"
        )
    share = float(stated["crop_pct"])
    resize = _MODES[mode]
    return Preprocessing(
        size=_size(arguments.get("img_size"), stated["input_size"]),
        mean=tuple(map(float, stated["mean"])),  # type: ignore[arg-type]  # of as many channels as pictures have
        std=tuple(map(float, stated["std"])),  # type: ignore[arg-type]  # likewise
        resize=resize,
        crop_share=None if resize == "squash" and share == 1 else share,
        interpolation=interpolation,
    )


def timm_classes(load: str) -> list[str] | None:
    """What timm says the outputs of a network's own weights stand for, ImageNet's classes; None where it does not.

    Args:
        load: `timm:NAME`.

    Raises:
        InputError: timm is not installed or has no such network.
    """
    timm = _timm(load)
    subset = timm.data.infer_imagenet_subset(_configuration(timm, load))
    return list(timm.data.ImageNetInfo(subset).label_descriptions()) if subset else None


def _size(asked: object, stated: tuple[int, int, int]) -> tuple[int, int]:
    if isinstance(asked, int):
        return asked, asked
    if isinstance(asked, list | tuple) and len(asked) == 2:
        return int(asked[0]), int(asked[1])
    return stated[1], stated[2]


def _timm(load: str) -> ModuleType:
    """The package. Raises InputError where it is not installed."""
    try:
        import timm
        import timm.data
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "timm":
            raise
        raise InputError(
            f"network.load: {load} needs the package timm, which is not installed; install it: "
            "pip install 'microtome[timm]'"
        ) from error
    return timm


def _configuration(timm: ModuleType, load: str) -> dict[str, object]:
    """timm's configuration of a network, as plain values. Raises InputError where it has no such network."""
    name = load.removeprefix(TIMM)
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        raise InputError(f"network.load: timm has no network {base!r}{suggest(base, timm.list_models())}")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        raise InputError(f"network.load: timm's {base} has no tag {tag!r}{suggest(tag, tags)}")
    found: dict[str, object] = timm.get_pretrained_cfg(name).to_dict()
    return found
