"""Which code determines a result: everything that an entry point names, and all that this names in turn.

Results are cached under a digest of what determines them, code among it. This package finds that code without importing
it. Of our own packages it takes single definitions (a function, a class, an assignment), so that a change reruns
what names it and nothing else; of a user's own modules it takes whole files. Of what is installed it takes versions:
from our code, of the packages that compute; from a user's, of all that is imported.

What is followed: names at run time, through imports anywhere, `from` imports with or without a star, re-exports by
`__init__` files (the lazy ones too, where a module's `__getattr__` exports what stands under `if TYPE_CHECKING:`),
attributes of modules, decorators, default values, base classes, and the annotations of class bodies, which
dataclasses and pydantic read. A module handed on as a value counts whole. Statements at the top of a module that do
more than give a name a value count for all whose import runs them.

What is not: code named by strings, other than in class annotations; files that code reads; subclasses found by
`__subclasses__` or entered by `__init_subclass__`. Name such code and files as roots.
"""

from microtome.closure.walk import OURS, ROOT, Closure, Places, closure

__all__ = ["OURS", "ROOT", "Closure", "Places", "closure"]
