"""Lists of input files: what a data set, or the weights, were made of when a run read them.

A list is named by its content and never changes: the runs that read the same files share it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from storage.files import Files
from storage.small import Kind, Sha256

_LAYOUT = 1  # of a list


class InputList(TypedDict):
    """Content digests of files by absolute path; `missing` where there was no such file."""

    layout: Annotated[int, Field(ge=1, le=_LAYOUT)]
    files: dict[str, Sha256 | Literal["missing"]]


INPUTS = Kind[InputList](
    "list of inputs", InputList, "whether those inputs changed cannot be told", layout=_LAYOUT, sealed=True
)


def keep_inputs(files: Files, digests: Mapping[str, str]) -> str:
    """Keep a list, unless it is there and good; gives its name in the workspace.

    Args:
        files: the workspace.
        digests: by absolute path.
    """
    name = f"inputs/{_digest(digests)}.json"
    if kept_inputs(files, name) is None:
        INPUTS.save(files, name, InputList(layout=_LAYOUT, files=dict(digests)))
    return name


def kept_inputs(files: Files, name: str) -> Mapping[str, str] | None:
    """Digests by absolute path; None where the list is not there, or damaged."""

    def fault(content: InputList) -> str:
        return "" if name == f"inputs/{_digest(content['files'])}.json" else "its content is not what was written"

    found = INPUTS.load(files, name, fault)
    return found["files"] if found else None


def _digest(digests: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps([_LAYOUT, dict(digests)], sort_keys=True).encode()).hexdigest()[:32]
