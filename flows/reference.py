"""What the docs say of stages and tables, made from their declarations: `python -m flows.reference`.

Writes docs/tables.md and docs/stages.md between the marks that these files hold. A test holds that nothing is stale.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tasks.registry import STAGES
from tasks.stage import Stage

DOCS = Path(__file__).resolve().parent.parent / "docs"
BEGIN, END = "<!-- made by `python -m flows.reference`: change the declarations in tasks/ -->", "<!-- end -->"


def tables() -> str:
    """Every table of every stage: what a row is, and each column's type and meaning."""
    return "\n".join(line for stage in STAGES for line in _tables(stage))


def stages() -> str:
    """Every stage: what it does, the keys of the audit file, what it writes, what gates may ask for."""
    return "\n".join(line for stage in STAGES for line in _stage(stage))


def renewed(page: str, content: str) -> str:
    """A page with what stands between its marks replaced.

    Raises:
        ValueError: it has no marks.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page must have the lines {BEGIN!r} and {END!r}, got none")
    return f"{head}{BEGIN}\n\n{content}\n{END}{tail}"


def pages() -> Iterator[tuple[Path, str]]:
    """Each page and what it should hold."""
    for name, content in (("tables.md", tables()), ("stages.md", stages())):
        page = DOCS / name
        yield page, renewed(page.read_text(encoding="utf-8"), content)


def _tables(stage: Stage) -> Iterator[str]:
    for table in stage.tables:
        yield f"### {table.name}\n\n{table.about} Written by `{stage.name}`.\n\n| column | type | meaning |\n|-|-|-|"
        yield from (f"| `{name}` | {column.type} | {_cell(column.meaning)} |" for name, column in table.columns.items())
        yield ""


def _stage(stage: Stage) -> Iterator[str]:
    asked = "" if stage.plan else " Other stages pull it in."
    yield f"## {stage.name}\n\n{stage.about}{asked}\n"
    if stage.plan:
        yield "| key | values | default |\n|-|-|-|"
        yield from _options(stage.options)
        yield ""
    facts = {
        "Tables": ", ".join(f"[`{table.name}`](tables.md#{table.name})" for table in stage.tables),
        "Gates may ask for": ", ".join(f"`{metric.table}.{metric.column}`" for metric in stage.metrics),
        "Named by its options, what it reads, its code, and": ", ".join(sorted(stage.determined_by)),
    }
    yield from (f"{name}: {value}.\n" for name, value in facts.items() if value)


def _options(model: type[BaseModel], before: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = _model(field.annotation)
        if inner is not None:
            yield f"| `{before}{name}` | {_cell(_doc(inner))} | {_default(field)} |"
            yield from _options(inner, f"{before}{name}.")
        else:
            yield f"| `{before}{name}` | {_cell(_values(field.annotation, field.metadata))} | {_default(field)} |"


def _model(annotation: object) -> type[BaseModel] | None:
    options = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and hasattr(a, "model_fields")]
    return options[0] if options else None


def _doc(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().splitlines()[0]


def _values(annotation: object, metadata: Sequence[object] = ()) -> str:
    """A type in words: `a | b`, `integer, at least 1`, `list of ...`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _values(inner[0], inner[1:])
    if origin is Literal:
        return " | ".join(f"`{value}`" for value in inner)
    if origin in (Union, UnionType):
        return " or ".join("nothing" if part is NoneType else _values(part) for part in inner)
    if origin is list:
        return f"list of {_values(inner[0])}"
    if origin is tuple:
        return f"({', '.join(_values(part) for part in inner)})"
    names: dict[object, str] = {int: "integer", float: "number", str: "text", bool: "`true` | `false`"}
    bounds = [text for item in metadata for text in _bounds(item)]
    return ", ".join([names.get(annotation, str(annotation)), *bounds])


def _bounds(item: object) -> Iterator[str]:
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    for part in (item, *getattr(item, "metadata", ())):
        for name, word in words.items():
            limit = getattr(part, name, None)
            if limit is not None:
                yield f"{word} {limit:,}"
    if description := getattr(item, "description", None):
        yield description


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "-"
    if hasattr(value, "model_dump"):
        return f"`{value.model_dump()}`"
    return "nothing" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Write the pages; with `--check`, only say whether they are stale (exit status 1)."""
    stale = [(page, content) for page, content in pages() if page.read_text(encoding="utf-8") != content]
    for page, content in stale:
        if "--check" not in sys.argv:
            page.write_text(content, encoding="utf-8")
        print(f"{'stale' if '--check' in sys.argv else 'written'}  {page.name}")
    sys.exit(1 if stale and "--check" in sys.argv else 0)


if __name__ == "__main__":
    main()
