"""What the docs say of the audit file, stages and tables, made from their declarations: `python -m flows.reference`.

Writes docs/audit-file.md, docs/stages.md and docs/tables.md between the marks that these files hold; a test holds that
nothing is stale.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from flows.auditfile import AuditModel
from tasks.options import MANY
from tasks.registry import STAGES
from tasks.stage import Stage

DOCS = Path(__file__).resolve().parent.parent / "docs"
HEAD = ("| key | meaning | values | default |", "|-|-|-|-|")
BEGIN, END = "<!-- made by `python -m flows.reference`: change the declarations in tasks/ -->", "<!-- end -->"


def tables() -> str:
    """Every table of every stage: what a row is, and each column's type and meaning."""
    return "\n".join(line for stage in STAGES for line in _tables(stage))


def audit_file() -> str:
    """Every key of the audit file outside of `stages:`."""
    keys = {name: field for name, field in AuditModel.model_fields.items() if name != "stages"}
    return "\n".join([*HEAD, *_options(keys), ""])


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
    for name, content in (("audit-file.md", audit_file()), ("stages.md", stages()), ("tables.md", tables())):
        page = DOCS / name
        yield page, renewed(page.read_text(encoding="utf-8"), content)


def _tables(stage: Stage) -> Iterator[str]:
    for table in stage.tables:
        writers = " and ".join(f"`{other.name}`" for other in STAGES if table in other.written)
        yield f"### {table.name}\n\n{table.about} Written by {writers}.\n\n| column | type | meaning |\n|-|-|-|"
        yield from (f"| `{name}` | {column.type} | {_cell(column.meaning)} |" for name, column in table.columns.items())
        yield ""


def _metrics(stage: Stage) -> Iterator[str]:
    """Figures that gates may ask for, those of one table together, with what tells its rows apart."""
    for keys, metrics in groupby(stage.metrics, lambda metric: (metric.keys, metric.nullable)):
        named = ", ".join(f"`{metric.table}.{metric.column}`" for metric in metrics)
        told = [f"`{name}`" for name in keys[0]] + [f"`{name}` (may be null)" for name in keys[1]]
        yield f"{named}, by {', '.join(told)}" if told else named


def _stage(stage: Stage) -> Iterator[str]:
    asked = "" if stage.plan or stage.page else " Other stages pull it in."  # what is shown was asked for
    yield f"## {stage.name}\n\n{stage.about}{asked}\n"
    if stage.plan:
        yield from (*HEAD, *_options(stage.options.model_fields), "")
    facts = {
        "Tables": ", ".join(f"[`{table.name}`](tables.md#{table.name})" for table in stage.written),
        "[Gates](gates.md) may ask for": "; ".join(_metrics(stage)),
        "Named by its options, what it reads, its code, and": ", ".join(sorted(stage.determined_by)),
        "[Many workers](workers.md) divide its": stage.sharded,
    }
    yield from (f"{name}: {value}.\n" for name, value in facts.items() if value)


def _options(fields: Mapping[str, FieldInfo], before: str = "") -> Iterator[str]:
    for name, field in fields.items():
        values = _values(field.annotation, field.metadata)
        yield f"| `{before}{name}` | {_cell(field.description or '')} | {_cell(values)} | {_default(field)} |"
        inner = _model(field.annotation)
        if inner is not None and get_origin(field.annotation) is not dict:
            listed = "[]" if get_origin(field.annotation) is list else ""
            yield from _options(inner.model_fields, f"{before}{name}{listed}.")


def _model(annotation: object) -> type[BaseModel] | None:
    """The model in an annotation: itself, one of a union's, a list's or a mapping's."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model(part))), None)


def _values(annotation: object, metadata: Sequence[object] = ()) -> str:
    """A type in words: `a | b`, `integer, at least 1`, `list of ...`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _values(inner[0], inner[1:])
    if origin is Literal:
        return " | ".join(f"`{value}`" for value in inner)
    if origin in (Union, UnionType):
        return " or ".join("nothing" if part is NoneType else _values(part) for part in inner)
    if origin is list or Ellipsis in inner:
        return f"list of {_values(inner[0])}"
    if origin is dict:
        return f"keys with {_values(inner[1])}"
    if origin is tuple:
        return f"{len(inner)} times {_values(inner[0])}"
    if annotation in (Any, object):
        return "any value"
    if _model(annotation):
        return "keys below"
    names: dict[object, str] = {int: "integer", float: "number", str: "text", bool: "`true` | `false`"}
    bounds = [text for item in metadata for text in _bounds(item)]
    return ", ".join([names.get(annotation, str(annotation)), *bounds])


def _bounds(item: object) -> Iterator[str]:
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    for part in (item, *getattr(item, "metadata", ())):
        for name, word in words.items():
            limit = getattr(part, name, None)
            if limit is not None and limit != MANY:
                yield f"{word} {limit:,}"


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "-"
    if isinstance(value, BaseModel):
        return "those below"
    if isinstance(value, (tuple, list, dict)):
        return f"`{json.dumps(value)}`"
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
