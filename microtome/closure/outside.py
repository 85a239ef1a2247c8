"""Versions of what is installed."""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

# Packages that compute, and the distribution that each comes from.
COMPUTING: Mapping[str, str] = MappingProxyType(
    {
        "torch": "torch",
        "torchvision": "torchvision",
        "numpy": "numpy",
        "scipy": "scipy",
        "PIL": "pillow",
        "captum": "captum",
        "sklearn": "scikit-learn",
        "skimage": "scikit-image",
        "networkx": "networkx",
        "numba": "numba",
    }
)
MISSING = "missing"


@cache
def version(distribution: str) -> str:
    """Version of an installed distribution, or `missing`."""
    from importlib import metadata  # slow to import, and not needed by every reader of this module

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return MISSING


def distributions(package: str) -> dict[str, str]:
    """Every distribution that a package comes from, with its version.

    Args:
        package: the first part of an imported name, such as `PIL`.
    """
    likely = COMPUTING.get(package, package)
    if version(likely) != MISSING:
        return {likely: version(likely)}
    return {name: version(name) for name in sorted(set(_owners().get(package, ())))}


@cache
def _owners() -> Mapping[str, list[str]]:
    from importlib import metadata

    return metadata.packages_distributions()


def is_standard(package: str) -> bool:
    """Whether it comes with Python."""
    return package in sys.stdlib_module_names or package in sys.builtin_module_names


def found_at(package: str) -> Path | None:
    """The folder from which a package would be imported, without importing it; None where there is none."""
    spec = importlib.machinery.PathFinder.find_spec(package)
    for finder in sys.meta_path if spec is None else ():
        find = getattr(finder, "find_spec", None)
        spec = find(package, None) if find else None
        if spec is not None:
            break
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).parent
    return Path(spec.origin).parent if spec.origin and spec.has_location else None


def is_installed(folder: Path) -> bool:
    """Whether a folder is one where installers put packages."""
    return bool({"site-packages", "dist-packages"} & set(folder.parts))
