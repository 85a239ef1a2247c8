"""Whom a change to our code must make run again, and whom it may: said by what stages ran and by Python's compiler.

Neither knows `microtome.closure`, whose digests are held against this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path

from microtome.datasets.formats import FORMATS
from tasks.registry import STAGES
from tests.compiled import EFFECTS, Definition, Project
from tests.executed import Called, module_of
from tests.mutation import Mutant, Root, Tree

_PAGES = tuple(sorted({root for s in STAGES if s.page for root in s.page.roots}))
STAGE_ROOTS = {s.name: Root(s.roots + (_PAGES if s.name == "pages" else ()), s.files) for s in STAGES}
"""Where each stage's code begins, in an audit that asks for all of them."""

OUTSIDE = {"network": Root(("microtome.networks.small:creature_net",))}
OUTSIDE |= {f"format {name}": Root((root,)) for name, root in FORMATS.items()}
"""Where the code of what stages read from outside begins; its digest is among what they read."""

NAMING = {("storage.stages", "StageKey"), ("tasks.stage", "Job"), ("tasks.options", "Options")}
"""What makes the names of outputs, and no output."""
DISK = {("storage.files", "LocalFiles"), ("storage.files", "HashingSink")}  # they say where bytes lie, not which
ROOTS = {**STAGE_ROOTS, **OUTSIDE}


class Why(Enum):
    """Why a stage runs again after a change."""

    RAN = "it ran the function, or named the definition in a function that it ran"
    PART = "it ran another function of the same class, or one beside it in the same function"
    NAMED = "what it ran or may run names the definition, which it did not run"
    NONE = "nothing that it may run names the definition"


@dataclass(frozen=True)
class Opinion:
    """What is known of the stages.

    Args:
        project: the code, unchanged.
        called: functions that each watched stage called.
        read_by_all: things outside that every watched stage read, directly or through others.
    """

    project: Project
    called: Mapping[str, Called]
    read_by_all: tuple[str, ...] = ("network", "format creatures")

    @cached_property
    def ran(self) -> dict[str, Called]:
        """Functions that each watched stage called and that determine what it writes."""
        left = NAMING | DISK
        return {
            stage: frozenset((module, path) for module, path in called if (module, path[0]) not in left)
            for stage, called in self.called.items()
        }

    @cached_property
    def touched(self) -> dict[str, frozenset[Definition]]:
        """Definitions that each watched stage ran a part of, or named in what it ran."""
        return {stage: self.project.touched(called) for stage, called in self.ran.items()}

    @cached_property
    def reached(self) -> dict[str, frozenset[Definition]]:
        """Definitions that each stage, and each thing outside, may come to."""
        return {name: self.project.reached(root.roots) for name, root in ROOTS.items()}

    def must(self, mutant: Mutant, root: Path) -> set[str]:
        """Watched stages that ran what was changed, or named it in what they ran."""
        module = module_of(mutant.file, root)
        if mutant.path and not self._is_class(module, mutant.path):
            return {stage for stage, called in self.ran.items() if (module, mutant.path) in called}
        changed = {(module, name) for name in mutant.definition}
        return {stage for stage, touched in self.touched.items() if changed & touched}

    def why(self, name: str, mutant: Mutant, root: Path) -> Why:
        """Why a stage, or a thing outside, should run again."""
        module = module_of(mutant.file, root)
        changed = {(module, bound) for bound in mutant.definition or (EFFECTS,)}
        if name in self.must(mutant, root):
            return Why.RAN
        if changed & self.touched.get(name, frozenset()):
            return Why.PART
        return Why.NAMED if changed & self._and_effects(name, changed) else Why.NONE

    def _and_effects(self, name: str, changed: set[Definition]) -> frozenset[Definition]:
        """What may be reached; a definition under a decorator of ours runs with its module."""
        reached = self.reached[name]
        return reached | {definition for definition in changed if self._runs_with_its_module(definition, reached)}

    def _runs_with_its_module(self, definition: Definition, reached: frozenset[Definition]) -> bool:
        module = self.project.module(definition[0])
        if module is None or (definition[0], EFFECTS) not in reached:
            return False
        effects = module.definitions[EFFECTS]
        return any(seen in effects for seen in module.definitions.get(definition[1], ()))

    def _is_class(self, module: str, path: tuple[str, ...]) -> bool:
        code = self.project.module(module)
        bodies = code.codes.get(path, []) if code else []
        return not any(body.co_flags & 0x1 for body in bodies)


@dataclass(frozen=True)
class Verdict:
    """What a change did.

    Args:
        changed: stages and things outside whose own code digest changed, and why each should.
        stayed: stages that ran what was changed, and would not run again for it.
    """

    changed: Mapping[str, Why]
    stayed: frozenset[str]


def judged(tree: Tree, mutant: Mutant, opinion: Opinion) -> Verdict:
    """Hold the digests after a change against the opinion.

    Args:
        tree: where the change is made.
        mutant: the change.
        opinion: of the unchanged code.
    """
    changed = tree.changed(mutant, ROOTS)
    read = bool(changed.intersection(opinion.read_by_all))
    stayed = set() if read else opinion.must(mutant, tree.root) - changed
    return Verdict({name: opinion.why(name, mutant, tree.root) for name in changed}, frozenset(stayed))
