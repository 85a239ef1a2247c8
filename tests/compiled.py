"""What definitions name, as Python's own compiler sees it: a second opinion on `microtome.closure`, from bytecode.

It is coarse where that does no harm: a module that is handed on as a value counts whole, and so does one that a
function imports under a longer name. Code that is named by strings is not seen, but for the annotations of class
bodies. Imports must be absolute, as ours are.
"""

from __future__ import annotations
import __future__

import ast
import dis
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import CodeType

from microtome.closure import OURS

EFFECTS = "<effects>"
_CALLABLE = re.compile(r"Callable\[(?:[^\[\]]|\[(?:[^\[\]]|\[[^\[\]]*\])*\])*\]")
Definition = tuple[str, str]  # module and name
Chain = tuple[str, ...]  # a name, and the attributes asked of it
Origin = tuple[str, Chain]  # a module, and what is asked of it


@dataclass
class Seen:
    """What bytecode names and binds."""

    chains: set[Chain] = field(default_factory=set)  # looked up in the module
    origins: set[Origin] = field(default_factory=set)  # imported inside
    imports: dict[str, Origin] = field(default_factory=dict)  # bound in the module by an import
    modules: set[str] = field(default_factory=set)  # that imports run
    bound: set[str] = field(default_factory=set)  # in the module, otherwise


class Compiled:
    """A module of ours, compiled a statement at a time.

    Args:
        name: dotted.
        file: its source.
    """

    def __init__(self, name: str, file: Path) -> None:
        self.name = name
        text = file.read_text(encoding="utf-8")
        flags = __future__.annotations.compiler_flag if "from __future__ import annotations" in text else 0
        self.definitions: dict[str, list[Seen]] = {}
        self.imports: dict[str, list[Origin]] = {}
        self.modules: set[str] = set()
        self.codes: dict[tuple[str, ...], list[CodeType]] = {}
        for node in ast.parse(text).body:
            code = compile(ast.Module([node], []), str(file), "exec", flags=flags, dont_inherit=True)
            self._statement(node, code)

    def _statement(self, node: ast.stmt, code: CodeType) -> None:
        seen = seen_in(code, Seen(), top=True)
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            self.modules |= seen.modules
        for name, origin in seen.imports.items():
            self.imports.setdefault(name, []).append(origin)
        for name in seen.bound:
            self.definitions.setdefault(name, []).append(seen)
        if _has_effects(node, self.imports, self.definitions):
            self.definitions.setdefault(EFFECTS, []).append(seen)
        for inner, path in _codes(code, ()):
            self.codes.setdefault(path, []).append(inner)


def _has_effects(node: ast.stmt, imports: Mapping[str, list[Origin]], ours: Collection[str]) -> bool:
    """Whether it does more than bind names: a call by itself, an assignment into something, a decorator of ours but
    for `compiled`, which enters nothing anywhere.
    """
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Assign):
        return not all(isinstance(target, ast.Name | ast.Tuple) for target in node.targets)
    for decorator in getattr(node, "decorator_list", ()):
        names = [inner.id for inner in ast.walk(decorator) if isinstance(inner, ast.Name) and inner.id != "compiled"]
        homes = {module.partition(".")[0] for name in names for module, _ in imports.get(name, ())}
        if homes & set(OURS) or set(names) & set(ours):
            return True
    return isinstance(node, ast.For | ast.While | ast.With)


def _codes(code: CodeType, path: tuple[str, ...]) -> Iterator[tuple[CodeType, tuple[str, ...]]]:
    """Code inside code, with the names of what is around it; lambdas and comprehensions belong to that."""
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            here = path if inner.co_name.startswith("<") else (*path, inner.co_name)
            yield inner, here
            yield from _codes(inner, here)


def seen_in(code: CodeType, seen: Seen, *, top: bool, deep: bool = True) -> Seen:
    """What code names.

    Args:
        code: of a statement at the top of a module, or of anything inside one.
        seen: where it is noted.
        top: whether what it stores is bound in the module.
        deep: follow the code inside, too.
    """
    chain: list[str] = []
    module, asked = "", ""
    before: list[dis.Instruction] = []
    for step in [*dis.get_instructions(code), None]:
        name = step.argval if step is not None else None
        kind = step.opname if step is not None else ""
        if chain and kind in ("LOAD_ATTR", "LOAD_METHOD"):
            chain.append(name)
            continue
        if chain:
            seen.chains.add(tuple(chain))
            chain = []
        if step is None:
            break
        if kind in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_CLASSDEREF"):
            chain = [name]
        elif kind == "IMPORT_NAME":
            module, asked = name, ""
            seen.modules.add(module)
        elif kind == "IMPORT_FROM":
            asked = name
            seen.modules.add(f"{module}.{name}")
            if not top:
                seen.origins.add((module, (name,)))
        elif kind.startswith("STORE_") and module:
            _import(seen, name, (module, asked), top=top and kind == "STORE_NAME")
            module, asked = ("", "") if not asked else (module, "")
        elif kind == "POP_TOP":
            module = ""
        elif (kind == "STORE_NAME" and top) or kind == "STORE_GLOBAL":
            seen.bound.add(name)
        elif kind == "STORE_SUBSCR" and not top:  # a module's own variables are annotated for nobody
            _annotation(before, seen)
        before = [*before[-2:], step]
    for inner in code.co_consts if deep else ():
        if isinstance(inner, CodeType):
            seen_in(inner, seen, top=False)
    return seen


def _import(seen: Seen, name: str, what: tuple[str, str], *, top: bool) -> None:
    module, asked = what
    if top:
        renamed = name != module.partition(".")[0]
        seen.imports[name] = (module, (asked,)) if asked else (module if renamed else name, ())
    elif not asked:
        seen.origins.add((module, ()))


def _annotation(before: list[dis.Instruction], seen: Seen) -> None:
    """`__annotations__[name] = text`, in a class body; no value is an instance of what a `Callable` takes or gives."""
    if len(before) == 3 and before[1].argval == "__annotations__" and isinstance(before[0].argval, str):
        text = _CALLABLE.sub("Callable", before[0].argval)
        seen_in(compile(text, "annotation", "eval"), seen, top=False)


class Project:
    """All of our modules, compiled.

    Args:
        root: folder of our packages.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._modules: dict[str, Compiled | None] = {}

    def module(self, name: str) -> Compiled | None:
        """A module of ours; None where there is none."""
        if name not in self._modules:
            place = self._root.joinpath(*name.split("."))
            files = (place / "__init__.py", place.with_suffix(".py"))
            file = next((file for file in files if file.is_file()), None)
            ours = file is not None and name.partition(".")[0] in OURS
            self._modules[name] = Compiled(name, file) if file is not None and ours else None
        return self._modules[name]

    def names(self, definition: Definition) -> frozenset[Definition]:
        """Definitions that a definition names itself: those that a jump from its text leads to."""
        module = self.module(definition[0])
        return frozenset(self._named(definition[0], module.definitions.get(definition[1], ()) if module else ()))

    def reached(self, roots: Iterable[str]) -> frozenset[Definition]:
        """All definitions that `module:name` roots name, and that these name in turn."""
        waiting = [found for root in roots for found in self._asked(*_split(root))]
        found: set[Definition] = set()
        loaded: set[str] = set()
        while waiting:
            definition = waiting.pop()
            if definition not in found:
                found.add(definition)
                module = self.module(definition[0])
                seen = module.definitions[definition[1]] if module else []
                waiting += self._named(definition[0], seen)
                waiting += self._run({definition[0], *(name for one in seen for name in one.modules)}, loaded)
        return frozenset(found)

    def touched(self, called: Iterable[tuple[str, tuple[str, ...]]]) -> frozenset[Definition]:
        """Definitions that called functions are, or name; and what the values of named assignments and classes name.

        Args:
            called: module and path of each.
        """
        waiting: list[Definition] = []
        for name, path in called:
            module = self.module(name)
            waiting.append((name, path[0]))
            for code in module.codes.get(path, ()) if module else ():
                waiting += self._named(name, [seen_in(code, Seen(), top=False, deep=False)])
        found: set[Definition] = set()
        while waiting:
            definition = waiting.pop()
            if definition not in found:
                found.add(definition)
                waiting += self._named(definition[0], self._made(definition))
        return frozenset(found)

    def _made(self, definition: Definition) -> list[Seen]:
        """What the value of an assignment, or the body of a class, names when it runs."""
        module = self.module(definition[0])
        if module is None or definition[1] not in module.definitions:
            return []
        bodies = module.codes.get((definition[1],))
        if bodies is None:
            return module.definitions[definition[1]]
        classes = [body for body in bodies if not body.co_flags & 0x1]
        return [seen_in(body, Seen(), top=False, deep=False) for body in classes]

    def _named(self, module: str, seen: Iterable[Seen]) -> list[Definition]:
        chains = {chain for one in seen for chain in one.chains}
        origins = {origin for one in seen for origin in one.origins}
        found = [self._resolved(module, chain) for chain in chains]
        found += [self._asked(name, chain) for name, chain in origins]
        return [definition for part in found for definition in part]

    @cache  # noqa: B019  # a project lives as long as its test
    def _resolved(self, module: str, chain: Chain) -> tuple[Definition, ...]:
        """What a name in a module stands for."""
        code = self.module(module)
        if code is None:
            return ()
        own = [(module, chain[0])] if chain[0] in code.definitions else []
        for name, asked in code.imports.get(chain[0], ()):
            own += self._asked(name, (*asked, *chain[1:]))
        return tuple(own)

    @cache  # noqa: B019
    def _asked(self, module: str, chain: Chain) -> tuple[Definition, ...]:
        """What attributes of a module stand for."""
        code = self.module(module)
        if code is None:
            return ()
        if not chain:
            return tuple((module, name) for name in code.definitions)
        if self.module(f"{module}.{chain[0]}") is not None and chain[0] not in code.definitions:
            return self._asked(f"{module}.{chain[0]}", chain[1:])
        lazy = ("__getattr__",) if "__getattr__" in code.definitions and chain[0] not in code.definitions else ()
        return (*self._resolved(module, chain), *((module, name) for name in lazy))

    def _run(self, names: Iterable[str], loaded: set[str]) -> list[Definition]:
        """What runs when modules are imported."""
        found: list[Definition] = []
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            module = self.module(name)
            if module is None or name in loaded:
                continue
            loaded.add(name)
            waiting += [name.rpartition(".")[0], *module.modules]
            if EFFECTS in module.definitions:
                found.append((name, EFFECTS))
        return found


def _split(root: str) -> tuple[str, Chain]:
    module, _, name = root.partition(":")
    return module, (name,) if name else ()
