"""Code digests: a change counts where it is named, and nowhere else."""

from __future__ import annotations

import ast
import dis
import importlib.metadata
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from textwrap import dedent
from types import CodeType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.closure import OURS, ROOT, Closure, Places, closure
from microtome.closure.source import EFFECTS
from tasks import registry
from tests.mutation import Mutant, Root, Tree, mutants

STAGES = tuple(stage.name for stage in registry.STAGES)
ROOTS = {stage.name: Root(stage.roots, stage.files) for stage in registry.STAGES}
ROOTS["creature_net"] = Root(("microtome.networks.small:creature_net",))


class Toy:
    """A package `toy` and a user's folder, written to disk and never imported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "user").mkdir()
        self.places = Places(root=folder, user=folder / "user", ours=("toy",))

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            place = self.folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(dedent(text), encoding="utf-8")

    def closure(self, *roots: str, **options: object) -> Closure:
        return closure(roots, self.places, **options)  # type: ignore[arg-type]

    def digest(self, *roots: str, **options: object) -> str:
        return self.closure(*roots, **options).digest


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path)


# Each: files of the package, then the edits that must count for `toy.main:run`, then those that must not; an edit is
# (file, old text, new text).
RULES = {
    "functions and constants of the same module": (
        {"main": "A = 1\nB = 2\ndef helper(): return A\ndef other(): return B\ndef run(): return helper()"},
        [("main", "A = 1", "A = 3"), ("main", "return helper()", "return helper() + 1")],
        [("main", "B = 2", "B = 3"), ("main", "return B", "return -B"), ("main", "def other", "def another")],
    ),
    "comments, docstrings, layout and order": (
        {
            "main": '''\
            """Module."""
            A = (1, 2)

            def run():
                """Function."""
                return Thing, A

            class Thing:
                """Class."""
                x = 1
                """Attribute."""
            ''',
        },
        [("main", "x = 1", "x = 2")],
        [
            ("main", "Module", "Anything"),
            ("main", "Function", "Anything"),
            ("main", "Class", "Anything"),
            ("main", "Attribute", "Anything"),
            ("main", "A = (1, 2)\n", "# why\nA = (\n    1,\n    2,\n)\n\n\n"),
            ("main", "A = (1, 2)\n", ""),  # moved to the end by the edit below
        ],
    ),
    "tuple targets, annotated and chained assignments, aliases": (
        {
            "main": """\
            A, (B, *C) = 1, (2, 3)
            D: int = 4
            E = F = 5
            G: int = 6
            def run(): return A, D, E
            """,
        },
        [("main", "1, (2, 3)", "1, (2, 4)"), ("main", "= 4", "= 5"), ("main", "F = 5", "F = 6")],
        [("main", "G: int = 6", "G: int = 7"), ("main", "D: int", "D: float")],
    ),
    "a name bound twice": (
        {"main": "A = 1\nB = A\nA = 2\nC = 0\ndef run(): return A"},
        [
            ("main", "A = 1", "A = 3"),
            ("main", "A = 2", "A = 3"),
            ("main", "A = 1\nB = A\nA = 2", "A = 2\nB = A\nA = 1"),
        ],
        [("main", "C = 0", "C = 1")],
    ),
    "what a name means in between": (
        {"main": "A = 1\nB = A\nA = 2\ndef run(): return B"},
        [("main", "B = A\nA = 2\n", "A = 2\nB = A\n")],
        [],
    ),
    "augmented assignment": (
        {"main": "A = [1]\nA += [2]\nB = [1]\nB += [2]\ndef run(): return A"},
        [("main", "A += [2]", "A += [3]")],
        [("main", "B += [2]", "B += [3]")],
    ),
    "a global that a function assigns": (
        {"main": "A = 1\ndef change():\n    global A\n    A = 2\ndef run(): return A\ndef other(): return 1"},
        [("main", "A = 2", "A = 3")],
        [("main", "return 1", "return 2")],
    ),
    "imports by name, renamed and relative": (
        {
            "main": "from toy.a import f as g\nfrom .b import h\nfrom . import c\ndef run(): return g(), h(), c.k()",
            "a": "def f(): return 1\ndef unused(): return 1",
            "b": "def h(): return 2\ndef unused(): return 2",
            "c": "def k(): return 3\ndef unused(): return 3",
        },
        [
            ("a", "def f(): return 1", "def f(): return 9"),
            ("b", "h(): return 2", "h(): return 9"),
            ("c", "k(): return 3", "k(): return 9"),
        ],
        [
            ("a", "unused(): return 1", "unused(): return 9"),
            ("b", "unused(): return 2", "unused(): return 9"),
            ("c", "unused(): return 3", "unused(): return 9"),
        ],
    ),
    "two imports change places": (
        {
            "main": "from toy.a import f as x, g as y\ndef run(): return x() - y()",
            "a": "def f(): return 1\ndef g(): return 2",
        },
        [("main", "f as x, g as y", "g as x, f as y")],
        [("main", "f as x, g as y", "g as y, f as x")],
    ),
    "an import from outside changes": (
        {"main": "from math import ceil as up\nimport math as m\ndef run(): return up(1), m.pi"},
        [("main", "ceil", "floor"), ("main", "import math", "import cmath")],
        [],
    ),
    "attributes of modules": (
        {
            "main": """\
                import toy.sub.a
                import toy.sub.b as b
                from toy import sub
                def run(): return toy.sub.a.f(), b.g(), sub.c.h()
                """,
            "sub/__init__": "",
            "sub/a": "def f(): return 1\nX = 1",
            "sub/b": "def g(): return 2\nX = 1",
            "sub/c": "def h(): return 3\nX = 1",
        },
        [("sub/a", "return 1", "return 9"), ("sub/b", "return 2", "return 9"), ("sub/c", "return 3", "return 9")],
        [("sub/a", "X = 1", "X = 2"), ("sub/b", "X = 1", "X = 2"), ("sub/c", "X = 1", "X = 2")],
    ),
    "an attribute of a module is assigned": (
        {"main": "from toy import a\ndef run():\n    a.X = 2\n    return 1", "a": "X = 1\nY = 1"},
        [("a", "X = 1", "X = 3")],
        [("a", "Y = 1", "Y = 3")],
    ),
    "a module as a value": (
        {
            "main": "from toy import a\ndef run(name): return getattr(a, name)",
            "a": "from toy.b import f\nX = 1",
            "b": "def f(): return 1\nY = 1",
        },
        [("a", "X = 1", "X = 2"), ("a", "X = 1", "X = 1\nZ = 1"), ("b", "return 1", "return 2")],
        [("b", "Y = 1", "Y = 2")],
    ),
    "a package as a value": (
        {
            "main": "from toy import sub\ndef run(): return vars(sub)",
            "sub/__init__": "",
            "sub/a": "X = 1",
            "a": "Y = 1",
        },
        [("sub/a", "X = 1", "X = 2")],
        [("a", "Y = 1", "Y = 2")],
    ),
    "imports inside functions": (
        {
            "main": """\
                def run():
                    import toy.a as a
                    from toy.b import g
                    def inner(): return g()
                    return a.f() + inner()
                """,
            "a": "def f(): return 1\nX = 1",
            "b": "def g(): return 2\nX = 1",
        },
        [("a", "return 1", "return 9"), ("b", "return 2", "return 9")],
        [("a", "X = 1", "X = 2"), ("b", "X = 1", "X = 2")],
    ),
    "re-exports by name": (
        {
            "main": "from toy.sub import f\ndef run(): return f()",
            "sub/__init__": "from toy.sub.a import f, unused\nfrom toy.sub.b import g\n__all__ = ['f', 'g']",
            "sub/a": "def f(): return 1\ndef unused(): return 1",
            "sub/b": "def g(): return 2",
        },
        [("sub/a", "def f(): return 1", "def f(): return 9"), ("sub/__init__", "f, unused", "unused as f")],
        [
            ("sub/a", "unused(): return 1", "unused(): return 9"),
            ("sub/b", "return 2", "return 9"),
            ("sub/__init__", "'f', 'g'", "'f'"),
        ],
    ),
    "a package that imports its own modules": (
        {
            "main": "from toy.sub import run_all\ndef run(): return run_all()",
            "sub/__init__": """\
                from toy.sub import a, b
                PAGES = (a.f,)
                def run_all(): return [page() for page in PAGES]
                """,
            "sub/a": "def f(): return 1",
            "sub/b": "def g(): return 2",
        },
        [("sub/a", "return 1", "return 9")],
        [("sub/b", "return 2", "return 9")],
    ),
    "lazy re-exports": (
        {
            "main": "from toy.sub import f\nfrom toy import sub\ndef run(): return f(), sub.h()",
            "sub/__init__": """\
            from typing import TYPE_CHECKING
            from toy.lazy import lazily
            if TYPE_CHECKING:
                from toy.sub.a import f
                from toy.sub.b import g, h
            __getattr__ = lazily(__name__)
            """,
            "sub/a": "def f(): return 1\nX = 1",
            "sub/b": "def g(): return 2\ndef h(): return 3",
            "lazy": "def lazily(name): return name",
        },
        [
            ("sub/a", "return 1", "return 9"),
            ("sub/b", "return 3", "return 9"),
            ("lazy", "return name", "return 1"),
            ("sub/__init__", "a import f", "a import X as f"),
        ],
        [("sub/a", "X = 1", "X = 2"), ("sub/b", "return 2", "return 9")],
    ),
    "stars": (
        {
            "main": "from toy.a import *\nfrom toy.b import *\ndef run(): return f(), len([])",
            "a": "def f(): return 1\nX = 1",
            "b": "def g(): return 1",
        },
        [
            ("a", "return 1", "return 2"),
            ("b", "def g(): return 1", "def f(): return 3"),
            ("b", "def g()", "def len(x)"),
        ],
        [("a", "X = 1", "X = 2"), ("b", "return 1", "return 2")],
    ),
    "a star over a name of one's own": (
        {"main": "A = 0\nfrom toy.a import *\ndef run(): return A", "a": "A = 1\nB = 1"},
        [("a", "A = 1", "A = 2"), ("main", "A = 0", "A = 3")],
        [("a", "B = 1", "B = 2")],
    ),
    "imports in a class body are not its methods'": (
        {
            "main": """\
            from toy.b import f
            class Thing:
                from toy.a import f
                def method(self): return f()
            def run(): return Thing()
            """,
            "a": "def f(): return 1",
            "b": "def f(): return 2",
        },
        [("b", "return 2", "return 9")],
        [("a", "return 1", "return 9")],
    ),
    "circles": (
        {
            "main": "from toy.a import f\nfrom toy.b import g\ndef run(): return f() + g()",
            "a": "from toy.b import g\ndef f(): return 1",
            "b": "from toy.a import f\ndef g(): return f() + 2",
        },
        [("a", "return 1", "return 3"), ("b", "+ 2", "+ 3")],
        [],
    ),
    "names that circle": (
        {
            "main": "from toy.b import f\nfrom toy.a import f as g\ndef run(): return f() + g()",
            "a": "from toy.b import f\ndef f(): return 1",
            "b": "from toy.a import f\nX = 1",
        },
        [("a", "return 1", "return 3")],
        [("b", "X = 1", "X = 2")],
    ),
    "imports with a fallback": (
        {
            "main": "try:\n    from toy.a import f\nexcept ImportError:\n    f = None\n    g = 1\ndef run(): return f",
            "a": "def f(): return 1\nX = 1",
        },
        [("a", "return 1", "return 2"), ("main", "f = None", "f = 0")],
        [("a", "X = 1", "X = 2")],
    ),
    "names that are bound nearer": (
        {
            "main": """\
            A = B = 0
            P = 1
            Q = 2
            R = 3
            S = 4
            T = 5
            U = 6
            V = 7
            W = 8
            X = 9
            Y = 10
            Z = 11
            def run(P, *Q, **R):
                for S in P: pass
                T = [U for U in Q if (V := U)]
                with R as W: pass
                try: pass
                except Exception as X: pass
                match T:
                    case [Y, *Z]: return Y, Z, S, U2(V), W, X
                return (lambda U: U)(1)
            def U2(x): return x
            """,
        },
        [("main", "return x", "return -x")],
        [
            ("main", f"{name} = {number}\n", f"{name} = 99\n")
            for name, number in zip("PQRSTUVWXYZ", range(1, 12), strict=True)
        ],
    ),
    "names that are not bound nearer": (
        {
            "main": """\
            A = 1
            B = [2]
            C = 3
            D = 4
            E = 5
            F = 6
            G = 7
            H = 8
            def run(x=A):
                values = [B for B in B]
                class Inner:
                    C = 0
                    def method(self): return C
                def reads(): return D
                def other():
                    D = 0
                    return D
                text = f"{E:{F}}"
                call = lambda y=G: y
                return values, Inner, reads, other, text, call, {k: H for k in values}
            """,
        },
        [
            ("main", f"\n{name} = {value}", f"\n{name} = {new}")
            for name, value, new in (
                ("B", "[2]", "[9]"),
                ("C", 3, 9),
                ("D", 4, 9),
                ("E", 5, 9),
                ("F", 6, 9),
                ("G", 7, 9),
                ("H", 8, 9),
            )
        ]
        + [("main", "A = 1", "A = 9")],
        [],
    ),
    "decorators, bases, keywords of a class": (
        {
            "main": """\
            from functools import wraps
            from toy.a import Base, Meta, mark, LIMIT, unused
            def run(): return Thing()
            @mark(LIMIT)
            class Thing(Base, metaclass=Meta): pass
            """,
            "a": """\
                class Base: x = 1
                class Meta(type): y = 2
                def mark(n): return lambda c: c
                LIMIT = 3
                def unused(): return 4
                """,
        },
        [("a", "x = 1", "x = 9"), ("a", "y = 2", "y = 9"), ("a", "c: c", "c: None"), ("a", "LIMIT = 3", "LIMIT = 9")],
        [("a", "return 4", "return 9")],
    ),
    "a class counts with all its methods": (
        {"main": "class A:\n    def one(self): return 1\n    def two(self): return B\nB = 2\ndef run(): return A()"},
        [("main", "return B", "return -B"), ("main", "B = 2", "B = 3")],
        [],
    ),
    "annotations of functions and variables run nothing": (
        {
            "main": """\
                from __future__ import annotations
                from toy.a import A, B, C
                D: B = 1
                def run(x: A, *y: A, z: A = 1, **w: A) -> B:
                    v: C = D
                    u: C
                    return v
                """,
            "a": "A = 1\nB = 2\nC = 3",
        },
        [("main", "z: A = 1", "z: A = 2")],
        [
            ("a", "A = 1", "A = 9"),
            ("a", "B = 2", "B = 9"),
            ("a", "C = 3", "C = 9"),
            ("main", "x: A", "x: B"),
            ("main", "v: C", "v: A"),
            ("main", "-> B", "-> A"),
            ("main", "D: B", "D: C"),
            ("main", "v: C = D", "v = D"),
        ],
    ),
    "annotations of class bodies count": (
        {
            "main": """\
            from __future__ import annotations
            from typing import TYPE_CHECKING, Annotated, Literal
            from toy.a import A, B, C, D
            if TYPE_CHECKING:
                from toy.b import E
            class Model:
                one: A
                two: "list[B]" = []
                three: Annotated[int, C(ge=1)]
                four: Literal["D"]
                five: "E"
                def method(self, x: D) -> D: ...
            def run(): return Model()
            """,
            "a": "class A: x = 1\nclass B: x = 2\ndef C(ge): return 3\nclass D: x = 4",
            "b": "class E: x = 5",
        },
        [
            ("a", "x = 1", "x = 9"),
            ("a", "x = 2", "x = 9"),
            ("a", "return 3", "return 9"),
            ("b", "x = 5", "x = 9"),
            ("main", "one: A", "one: B"),
            ("main", 'Literal["D"]', 'Literal["E"]'),
        ],
        [("a", "x = 4", "x = 9"), ("main", "x: D", "x: A")],
    ),
    "aliases of types, where a class body names them": (
        {
            "main": """\
                from typing import TypeAlias
                from toy.a import A
                Size: TypeAlias = 'A | None'
                class Model:
                    size: Size
                def run(): return Model
                """,
            "a": "class A: x = 1\nclass B: x = 2",
        },
        [("a", "x = 1", "x = 9"), ("main", "'A | None'", "'A'")],
        [("a", "x = 2", "x = 9")],
    ),
    "annotations that a decorator reads": (
        {
            "main": """\
                from functools import singledispatch
                from toy.a import A, B
                @singledispatch
                def run(x): return 0
                @run.register
                def _(x: A): return 1
                def other(x: B): return 2
                """,
            "a": "class A: x = 1\nclass B: x = 2",
        },
        [("a", "x = 1", "x = 9"), ("main", "return 1", "return 9"), ("main", "x: A", "x: B")],
        [("a", "x = 2", "x = 9"), ("main", "return 2", "return 9")],
    ),
    "statements with effects": (
        {
            "main": "from toy.a import REGISTRY\ndef run(): return REGISTRY",
            "a": """\
                import os
                from toy.b import helper
                REGISTRY = {}
                OTHER = {}
                REGISTRY['a'] = helper
                for x in range(3):
                    REGISTRY[x] = 1
                if os.environ.get('X'):
                    print(1)
                with open('x') as f:
                    pass
                """,
            "b": "def helper(): return 5\ndef unused(): return 6",
        },
        [
            ("a", "['a']", "['b']"),
            ("a", "range(3)", "range(4)"),
            ("a", "print(1)", "print(2)"),
            ("a", "open('x')", "open('y')"),
            ("b", "return 5", "return 9"),
        ],
        [("a", "OTHER = {}", "OTHER = {1: 2}"), ("b", "return 6", "return 9")],
    ),
    "effects of all modules that an import runs": (
        {
            "main": "from toy.a import f\ndef run(): return f()",
            "a": "from toy.c import unused\ndef f(): return 1",
            "c": "import toy.d.e\ndef unused(): return 1",
            "d/__init__": "print(2)",
            "d/e": "print(3)",
            "f": "print(4)",
        },
        [("d/__init__", "print(2)", "print(9)"), ("d/e", "print(3)", "print(9)")],
        [("f", "print(4)", "print(9)"), ("c", "return 1", "return 9")],
    ),
    "effects of imports inside functions": (
        {
            "main": "def run():\n    import toy.a\n    return 1\ndef other():\n    import toy.b",
            "a": "print(1)",
            "b": "print(1)",
        },
        [("a", "print(1)", "print(2)")],
        [("b", "print(1)", "print(2)")],
    ),
    "guards": (
        {
            "main": """\
                from typing import TYPE_CHECKING
                if TYPE_CHECKING:
                    from toy.a import X
                def run(): return 1
                if __name__ == '__main__':
                    print(run())
                """,
            "a": "X = 1\nprint(2)",
        },
        [],
        [("a", "X = 1", "X = 2"), ("a", "print(2)", "print(3)"), ("main", "print(run())", "print(0)")],
    ),
    "decorators of ours register": (
        {
            "main": """\
                from toy.a import HANDLERS, handler
                from functools import cache
                @handler
                def one(): return 1
                @cache
                def two(): return 2
                def run(): return HANDLERS
                """,
            "a": "HANDLERS = []\ndef handler(f): return f",
        },
        [("main", "return 1", "return 9")],
        [("main", "return 2", "return 9")],
    ),
    "what is compiled is entered nowhere": (
        {
            "main": """\
                from microtome.compiling import compiled
                @compiled
                def one(): return 1
                @compiled
                def two(): return 2
                def run(): return two()
                """,
        },
        [("main", "return 2", "return 9")],
        [("main", "return 1", "return 9")],
    ),
    "whoever calls globals may name anything": (
        {"main": "A = 1\ndef run(x): return globals()[x]", "a": "B = 1"},
        [("main", "A = 1", "A = 2")],
        [("a", "B = 1", "B = 2")],
    ),
    "a name that is not there yet": (
        {"main": "from toy.a import f\nfrom toy import later\ndef run(): return f() + later.g()", "a": "X = 1"},
        [("a", "X = 1", "def f(): return 1")],
        [("a", "X = 1", "X = 2")],
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_rules(rule: str, toy: Toy):
    files, counting, idle = RULES[rule]
    written = {f"toy/{name}.py": dedent(text) for name, text in files.items()}
    toy.write({"toy/__init__.py": "", **written})
    before = toy.digest("toy.main:run")
    for edits, changes in ((counting, True), (idle, False)):
        for name, old, new in edits:
            file = f"toy/{name}.py"
            assert old in written[file], "the edit edits nothing"
            edited = written[file].replace(old, new)
            if not new:
                edited += f"\n{old}"
            ast.parse(edited)
            toy.write({file: edited})
            assert (toy.digest("toy.main:run") != before) is changes, f"{name}: {old!r} -> {new!r}"
            toy.write({file: written[file]})
    assert toy.digest("toy.main:run") == before


def test_what_a_callable_takes_is_no_part(toy: Toy):
    main = "from typing import Callable\nfrom toy.a import A\nclass K:\n    f: Callable[[A], A]\ndef run(): return K"
    toy.write({"toy/__init__.py": "", "toy/main.py": main, "toy/a.py": "class A: x = 1"})
    assert set(toy.closure("toy.main:run").definitions) == {"toy.main:run", "toy.main:K"}


def test_circles_end_alike_in_whatever_order_names_are_read(toy: Toy):
    toy.write({f"toy/{name}.py": text for name, text in RULES["names that circle"][0].items()})
    code = "from microtome.closure import Places, closure; from pathlib import Path; import sys\n"
    code += "print(closure(['toy.main:run'], Places(Path(sys.argv[1]), ours=('toy',))).digest)"
    said = {in_process(code, toy.folder, seed) for seed in range(6)}
    assert said == {toy.digest("toy.main:run") + "\n"}


def in_process(code: str, place: Path, seed: int) -> str:
    env = {"PYTHONHASHSEED": str(seed), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-c", code, str(place)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


def test_who_names_a_definition_is_told(toy: Toy):
    main = "from toy.a import f\ndef run(): return f()"
    toy.write({"toy/__init__.py": "", "toy/main.py": main, "toy/a.py": "X = 1\ndef f(): return X"})
    assert toy.closure("toy.main:run").named_by == {"toy.a:f": "toy.main:run", "toy.a:X": "toy.a:f"}


def test_a_module_that_appears_counts(toy: Toy):
    toy.write({"toy/__init__.py": "", "toy/main.py": "from toy import later\ndef run(): return later.g()"})
    before = toy.closure("toy.main:run")
    assert before.definitions["toy:later"] == "missing"
    toy.write({"toy/later.py": "def g(): return 1"})
    after = toy.closure("toy.main:run")
    assert after.digest != before.digest
    assert "toy.later:g" in after.definitions


def test_annotations_of_an_entry_point_count_when_they_are_asked_for(toy: Toy):
    main = """\
    from __future__ import annotations
    from dataclasses import dataclass
    from toy.a import Options, Reader
    @dataclass
    class Inputs:
        maps: Reader
    def run(options: Options, inputs: "Inputs"): return inputs.maps.read()
    """
    toy.write({"toy/__init__.py": "", "toy/main.py": main})
    toy.write({"toy/a.py": "class Reader:\n    def read(self): return 1\nclass Options: x = 2"})
    every = [((), False, False), (("inputs",), True, False), (("inputs", "options"), True, True)]
    for parameters, reader, options in every:
        assert ("toy.a:Reader" in self_of(toy, parameters).definitions) is reader
        assert ("toy.a:Options" in self_of(toy, parameters).definitions) is options
    toy.write({"toy/main.py": dedent(main).replace('"Inputs"', "Options")})
    assert "toy.a:Reader" not in self_of(toy, ("inputs",)).definitions


def self_of(toy: Toy, parameters: tuple[str, ...]) -> Closure:
    return toy.closure("toy.main:run", follow_annotations_of_roots=parameters)


def test_files_count_by_content(toy: Toy):
    toy.write(
        {"toy/__init__.py": "", "toy/main.py": "def run(): return 1", "toy/pages/a.html": "<p>", "toy/b.css": "p"}
    )
    options = {"files": ["toy/pages", "toy/b.css", "toy/c.css"]}
    found = toy.closure("toy.main:run", **options)
    assert set(found.definitions) == {"toy.main:run", "toy/pages/a.html", "toy/b.css", "toy/c.css"}
    assert found.definitions["toy/c.css"] == "missing"
    toy.write({"toy/pages/a.html": "<b>"})
    assert toy.digest("toy.main:run", **options) != found.digest


def test_versions_of_what_computes(toy: Toy, monkeypatch: pytest.MonkeyPatch):
    toy.write(
        {
            "toy/__init__.py": "",
            "toy/main.py": """\
            import numpy as np
            import pyarrow
            import torch
            from PIL import Image
            def run(x: torch.Tensor): return np.mean(x), pyarrow.table({})
            def other(): return Image
            def absent():
                import nowhere_to_be_found as n
                return n.x
            """,
        }
    )
    assert toy.closure("toy.main:run").packages == {"numpy": importlib.metadata.version("numpy")}
    assert toy.closure("toy.main:other").packages == {"pillow": importlib.metadata.version("pillow")}
    assert toy.closure("toy.main:absent").packages == {}
    computing = {"pyarrow": "pyarrow", "nowhere_to_be_found": "nowhere"}
    named = Places(root=toy.folder, ours=("toy",), computing=computing)
    assert closure(["toy.main:run"], named).packages == {"pyarrow": importlib.metadata.version("pyarrow")}
    assert closure(["toy.main:absent"], named).packages == {"nowhere": "missing"}


def test_a_version_changes_the_digest():
    assert Closure({}, {"numpy": "1"}).digest != Closure({}, {"numpy": "2"}).digest
    assert Closure({"a": "b"}, {}).digest != Closure({}, {"a": "b"}).digest
    assert Closure({"a": "b", "c": "d"}, {}).digest == Closure({"c": "d", "a": "b"}, {}).digest


# --- a user's own modules ---

USER = {
    "user/nets.py": "import helper\nfrom pkg.a import f\ndef tiny(): return f()",
    "user/helper.py": "X = 1",
    "user/pkg/__init__.py": "",
    "user/pkg/a.py": """\
        from . import b
        from .sub.c import *
        def f():
            try:
                import inner
            except ImportError:
                pass
        """,
    "user/pkg/b.py": "X = 1",
    "user/pkg/sub/__init__.py": "",
    "user/pkg/sub/c.py": "X = 1",
    "user/pkg/unused.py": "X = 1",
    "user/inner.py": "X = 1",
    "user/unused.py": "X = 1",
}


def test_a_users_modules_count_whole(toy: Toy):
    toy.write(USER)
    found = toy.closure("nets:tiny")
    reached = {"nets", "helper", "pkg", "pkg.a", "pkg.b", "pkg.sub", "pkg.sub.c", "inner"}
    assert set(found.definitions) == reached
    assert found.packages == {}
    for file, text in USER.items():
        toy.write({file: text + "\n# a comment"})
        name = file.removeprefix("user/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        assert (toy.digest("nets:tiny") != found.digest) is (name in reached), file
        toy.write({file: text})


def test_ours_from_a_users_module(toy: Toy):
    toy.write({"toy/__init__.py": "", "toy/a.py": "def f(): return 1\ndef g(): return 2", "toy/b.py": "X = 1\nY = 2"})
    toy.write(
        {"user/named.py": "from toy.a import f", "user/whole.py": "import toy.b", "user/star.py": "from toy.a import *"}
    )
    assert set(toy.closure("named:x").definitions) == {"named", "toy.a:f"}
    assert {"toy.b:X", "toy.b:Y"} < set(toy.closure("whole:x").definitions)
    assert {"toy.a:f", "toy.a:g"} < set(toy.closure("star:x").definitions)


def test_every_distribution_that_a_user_imports(toy: Toy):
    toy.write(
        {"user/nets.py": "import json, os.path\nimport yaml\nfrom PIL import Image\ndef f():\n    import click.core"}
    )
    versions = {name: importlib.metadata.version(name) for name in ("pyyaml", "pillow", "click")}
    found = toy.closure("nets:f").packages
    assert {name.lower(): version for name, version in found.items()} == versions


def test_what_a_user_lacks_or_breaks_crashes_nothing(toy: Toy):
    toy.write({"user/nets.py": "import nowhere_to_be_found, broken\nfrom space import inside\nimport space.missing"})
    toy.write({"user/broken.py": "def f(:", "user/space/inside.py": "X = 1"})
    before = toy.closure("nets:tiny")
    assert set(before.definitions) == {"nets", "broken", "space.inside", "nowhere_to_be_found", "space.missing"}
    assert before.definitions["nowhere_to_be_found"] == before.definitions["space.missing"] == "missing"
    toy.write({"user/broken.py": "def f(): pass"})
    assert toy.digest("nets:tiny") != before.digest
    assert toy.closure("absent:tiny").definitions == {"absent": "missing"}


def test_a_users_module_comes_before_an_installed_one_and_a_bare_folder_after(toy: Toy):
    toy.write({"user/nets.py": "import yaml, click", "user/yaml.py": "X = 1", "user/click/picture.txt": ""})
    found = toy.closure("nets:tiny")
    assert set(found.definitions) == {"nets", "yaml"}
    assert set(found.packages) == {"click"}


def test_imports_made_at_run_time_reach_the_whole_package(toy: Toy):
    toy.write(
        {"user/nets.py": "from pkg.a import f", "user/pkg/__init__.py": "", "user/pkg/b.py": "X = 1", "user/c.py": ""}
    )
    toy.write({"user/pkg/a.py": "from importlib import import_module\ndef f(n): return import_module(n)"})
    assert set(toy.closure("nets:f").definitions) == {"nets", "pkg", "pkg.a", "pkg.b"}


def test_a_users_folder_that_is_the_projects_own():
    places = Places(user=ROOT)
    found = closure(["microtome.networks.small:creature_net"], places)
    assert set(found.definitions) == {"microtome.networks.small:creature_net"}
    assert found == closure(["microtome.networks.small:creature_net"])
    assert closure(["torchvision.models:resnet18"]).packages == {
        "torchvision": importlib.metadata.version("torchvision")
    }


# --- the project itself ---


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return Tree(tmp_path_factory.mktemp("closure"))


def test_a_digest_is_the_same_in_every_process_and_place(tree: Tree):
    code = "from microtome.closure import Places, closure; from pathlib import Path; import sys\n"
    code += "found = closure(['tasks.tally.work:run', 'tasks.report.work:run'], Places(Path(sys.argv[1])))\n"
    code += "print(found.digest, 'torch' in sys.modules)"
    said = {in_process(code, place, seed) for place, seed in ((ROOT, 1), (tree.root, 2))}
    assert said == {closure(["tasks.tally.work:run", "tasks.report.work:run"]).digest + " False\n"}


def one(tree: Tree, file: str, definition: str, description: str) -> Mutant:
    found = [m for m in mutants(tree.root / file) if m.definition == (definition,) and m.description == description]
    return found[0]


def test_wilson_counts_for_what_names_it(tree: Tree):
    mutant = one(tree, "microtome/quantify/intervals.py", "wilson", "4 -> 5")
    changed = tree.changed(mutant, {**ROOTS, "finetuning": Root(("tasks.finetuning.work:run",))})
    assert "finetuning" in changed
    assert not changed & {"thresholds", "index", "activations", "tally", "creature_net"}


def test_cell_centres_count_for_the_tree(tree: Tree):
    mutant = one(tree, "microtome/quantify/stability.py", "cell_centres", "Mult -> Add")
    changed = tree.changed(mutant, {**ROOTS, "tree": Root(("tasks.tree.work:run",))})
    assert "tree" in changed
    assert not changed & {"index", "thresholds", "tally", "null", "creature_net"}


def test_every_definition_that_is_reached_counts_and_no_other(tree: Tree):
    """One change in each definition of a sample of modules, against the closures' own lists."""
    reached = {name: root.closure(tree.places).definitions for name, root in ROOTS.items()}
    modules = sorted(file for package in OURS for file in (tree.root / package).rglob("*.py"))
    drawn = random.Random(11)
    counted = 0
    for file in drawn.sample(modules, 12):
        module = ".".join(file.relative_to(tree.root).with_suffix("").parts).removesuffix(".__init__")
        by_definition = {mutant.definition: mutant for mutant in mutants(file)}
        for names, mutant in drawn.sample(sorted(by_definition.items()), min(3, len(by_definition))):
            wanted = {root for root, found in reached.items() if any(f"{module}:{name}" in found for name in names)}
            assert tree.changed(mutant, ROOTS) == wanted, mutant
            counted += len(wanted)
    assert counted > 10


def test_formats_are_apart():
    reader = {form: closure([f"microtome.datasets.{form}"]).definitions for form in ("broden:Broden", "coco:Coco")}
    assert not any(key.startswith("microtome.datasets.coco") for key in reader["broden:Broden"])
    assert not any(key.startswith("microtome.datasets.broden") for key in reader["coco:Coco"])


# --- a second opinion, from Python's own compiler ---


def file_of(module: str) -> Path:
    place = ROOT.joinpath(*module.split("."))
    return place / "__init__.py" if (place / "__init__.py").is_file() else place.with_suffix(".py")


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse(file_of(module).read_text())


@cache
def imports_of(name: str) -> frozenset[str]:
    """Names that a module imports anywhere in it: of modules, and of whatever may be one."""
    found = set()
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def imported_modules(name: str, seen: set[str]) -> set[str]:
    """Modules of ours that a module imports anywhere in it, transitively; literal and coarse."""
    if name in seen or not file_of(name).is_file() or name.partition(".")[0] not in OURS:
        return seen
    seen.add(name)
    for imported in imports_of(name):
        imported_modules(imported, seen)
    return seen


@cache
def reached_by(stage: str) -> Mapping[str, str]:
    return closure(ROOTS[stage].roots).definitions


@pytest.mark.parametrize("stage", STAGES)
def test_no_definition_lies_outside_the_modules_that_are_imported(stage: str):
    allowed: set[str] = set()
    for root in ROOTS[stage].roots:
        imported_modules(root.partition(":")[0], allowed)
    assert {key.partition(":")[0] for key in reached_by(stage)} <= allowed


@cache
def compiled(module: str) -> tuple[CodeType, ...]:
    """What a module defines at its top."""
    constants = compile(parsed(module), module, "exec").co_consts
    return tuple(constant for constant in constants if isinstance(constant, CodeType))


def globals_of(code: CodeType) -> Iterator[str]:
    """Names that compiled code looks up in its module when it runs."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from globals_of(constant)


@pytest.mark.parametrize("stage", STAGES)
def test_the_compiler_finds_no_name_that_was_missed(stage: str):
    """Whatever a reached function or class looks up in its module is reached as well, where the module defines it."""
    found = reached_by(stage)
    assert "missing" not in found.values()
    checked = 0
    for module in {key.partition(":")[0] for key in found}:
        defined = {node.name for node in parsed(module).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        for code in compiled(module):
            if f"{module}:{code.co_name}" in found:
                missed = {name for name in globals_of(code) if name in defined and f"{module}:{name}" not in found}
                assert not missed, (module, code.co_name)
                checked += 1
    assert checked > 5


@cache
def words_of(module: str) -> dict[str, set[str]]:
    """Of each name that a module defines at its top, the names in its definition; the last one's, where it has more."""
    found: dict[str, set[str]] = {}
    for node in parsed(module).body:
        targets = getattr(node, "targets", [getattr(node, "target", node)])
        targets = [part for target in targets for part in getattr(target, "elts", [target])]
        words = {getattr(inner, "id", getattr(inner, "attr", "")) for inner in ast.walk(node)}
        for name in (getattr(node, "name", None), *(getattr(target, "id", None) for target in targets)):
            if name is not None:
                found[name] = words
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_reached_is_written_somewhere(stage: str):
    """Every definition but the entry point stands, by its name, in the code of another that is reached."""
    found = reached_by(stage)
    words: dict[str, set[str]] = {}
    for key in found:
        module, _, name = key.partition(":")
        if name in words_of(module):
            words[key] = words_of(module)[name]
    renamed = {"science", "__getattr__", EFFECTS}  # what runs when a module is imported has no name
    for key in set(found) - set(ROOTS[stage].roots):
        name = key.partition(":")[2]
        assert name in renamed or any(name in said for other, said in words.items() if other != key), key


# --- code that is made up ---

NAMES = ("a", "b", "c", "d")


@st.composite
def functions(draw: st.DrawFn) -> str:
    """A function over module-level names, some of which it binds itself, in every way that binds."""
    shadowed = draw(st.sampled_from(NAMES))
    read = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3))
    form = draw(
        st.sampled_from(
            [
                "def run({s}): return [{r}]",
                "def run():\n    {s} = 1\n    return [{r}]",
                "def run():\n    for {s} in (): pass\n    return [{r}]",
                "def run():\n    import os as {s}\n    return [{r}]",
                "def run():\n    def {s}(): pass\n    return [{r}]",
                "def run():\n    return [[{r}] for {s} in ()]",
                "def run():\n    return lambda {s}: [{r}]",
                "def run():\n    class K:\n        {s} = 1\n        def m(self): return [{r}]\n    return K",
                "def run():\n    def inner({s}):\n        return lambda: [{r}]\n    return inner",
                "def run():\n    global {s}\n    {s} = 1\n    return [{r}]",
                "def run():\n    ({s} := 1)\n    return [{r}]",
                "def run():\n    try: pass\n    except E as {s}: pass\n    return [{r}]",
                "def run():\n    with x as {s}: return [{r}]",
                "def run():\n    def inner():\n        nonlocal {s}\n        {s} = 2\n    {s} = 1\n    return [{r}]",
                "def run(x={s}): return [{r}]",
                "def run():\n    return [[{r}] for x in {s}]",
                "def run():\n    match x:\n        case {{'k': {s}, **rest}}: return [{r}]",
            ]
        )
    )
    return form.format(s=shadowed, r=", ".join(read))


@given(functions())
@settings(max_examples=300, deadline=None)
def test_scopes_are_the_compilers(tmp_path_factory: pytest.TempPathFactory, text: str):
    """What counts as named at the top of the module is what the compiler looks up there."""
    from microtome.closure.names import named

    code = next(c for c in compile(text, "toy", "exec").co_consts if isinstance(c, CodeType))
    stored = {i.argval for i in dis.get_instructions(code) if i.opname == "STORE_GLOBAL"}
    around = {argument.id for argument in ast.parse(text).body[0].args.defaults}  # type: ignore[attr-defined]
    wanted = {*globals_of(code), *stored, *around} & set(NAMES)
    found = {
        reference.chain[0] for reference in named(ast.parse(text).body, "toy").references if reference.origin is None
    }
    assert found & set(NAMES) == wanted
