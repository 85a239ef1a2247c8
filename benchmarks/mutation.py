"""Every small change to our code, one at a time: whether all stages that ran it would run again, and no others.

    python benchmarks/mutation.py [--share 0.1] [--processes N] > benchmarks/results/mutation.md

Each constant and operator of every module below `microtome`, `storage` and `tasks` is changed by itself, and the code
digests of all stages are made again from the changed files. What must change say the stages: each is watched in a
process of its own while it works in small forms of the example audits (tests/executed.py). What may change says
Python's compiler (tests/compiled.py). Words are changed too, all those of a module at once, which must change no
digest. For changes to the declarations of the stages the audits are planned anew (tests/planned.py), and keys are held
against what is declared. Writes a page; ends with 1 if any digest stays that must change, or changes that must not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.dissection import device_name
from microtome.closure import ROOT, Places
from tasks.registry import STAGES
from tests.compiled import Project
from tests.executed import evidence, module_of
from tests.mutation import Mutant, Tree, mutants, reworded, schemas
from tests.opinion import DISK, NAMING, OUTSIDE, ROOTS, Opinion, Why, judged

PACKAGES = ("microtome", "storage", "tasks")
CREATURES = {"format": "creatures", "count": 60}
AUDIT = {  # all stages, with their defaults wherever they have any
    "name": "all",
    "network": {
        "load": "microtome.networks.small:creature_net",
        "layers": ["features.12"],
        "input": {"size": [96, 96]},
    },
    "datasets": {name: {**CREATURES, "seed": seed} for seed, name in enumerate(("main", "others"))},
    "stages": {name: {} for name in ("dissection", "stability", "parts", "saliency", "reliability", "features")}
    | {name: {} for name in ("occlusion", "adversarial")}
    | {name: {"category": "bird"} for name in ("tree", "graph")}
    | {"finetuning": {"negatives": "others"}},
    "gates": [{"metric": "layers.detectors", "min": 1}],
}
COLUMNS = (Why.RAN, Why.PART, Why.NAMED, Why.NONE)


@dataclass
class Tally:
    """What changes did."""

    changes: int = 0
    words: int = 0
    worded: int = 0
    why: Counter[tuple[str, Why]] = field(default_factory=Counter)
    stayed: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Take another one in."""
        self.changes += other.changes
        self.words += other.words
        self.worded += other.worded
        self.why += other.why
        self.stayed += other.stayed
        self.faults += other.faults


def chosen(found: Iterable[Mutant], share: float, seed: str) -> list[Mutant]:
    """A share of the changes, the same whenever it is drawn."""
    drawn = random.Random(seed)
    return [mutant for mutant in found if share >= 1 or drawn.random() < share]


def said(mutant: Mutant, root: Path) -> str:
    """A change in a line."""
    return f"{mutant.file.relative_to(root)}:{mutant.line}: {mutant.description}"


_opinions: list[Opinion] = []  # each process inherits it; what Python compiled cannot be sent to one


def of_file(task: tuple[str, float]) -> Tally:
    """All changes of one module, in a copy of the project."""
    (name, share), opinion = task, _opinions[-1]
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(Path(folder))
        file = tree.root / name
        for mutant in chosen(mutants(file), share, name):
            verdict = judged(tree, mutant, opinion)
            tally.changes += 1
            tally.why.update(verdict.changed.items())
            tally.stayed.update(verdict.stayed)
            idle = [of for of, why in verdict.changed.items() if why is Why.NONE]
            tally.faults += [f"{said(mutant, tree.root)} stays for {of}" for of in sorted(verdict.stayed)]
            tally.faults += [f"{said(mutant, tree.root)} reruns {of}" for of in idle]
        other, count = reworded(file)
        worded = tree.changed(other, ROOTS)
        tally.words += count
        tally.worded += count if worded else 0
        tally.faults += [f"{said(other, tree.root)} reruns {of}" for of in worded]
    return tally


@dataclass
class Declared:
    """What changes to declarations did."""

    changes: int = 0
    refused: int = 0  # with which no audit can be planned
    meant: int = 0  # that change what is declared of a job, or what it reads
    idle: int = 0  # that change neither that nor any code that a job runs
    faults: list[str] = field(default_factory=list)


class Planning:
    """A process that plans an audit of all stages anew after each change."""

    def __init__(self, folder: Path) -> None:
        self.tree = Tree(folder)
        audit = folder / "all.yaml"
        audit.write_text(json.dumps(AUDIT))  # which is YAML, too
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(ROOT / "tests/planned.py"), str(audit)],
            env={**os.environ, "PYTHONPATH": str(self.tree.root)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.before = self.jobs(self.tree.root / "tasks/options.py", (self.tree.root / "tasks/options.py").read_text())

    def jobs(self, file: Path, text: str) -> dict[str, dict[str, object]]:
        """All jobs with another text in a file, by audit and name; none where nothing can be planned."""
        self._process.stdin.write(json.dumps([str(file), text]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline()) or {}

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()


def declared(planning: Planning, opinion: Opinion, mutant: Mutant) -> Declared:
    """What one change to a declaration does to the keys of all jobs."""
    after = planning.jobs(mutant.file, mutant.source)
    if not after:
        return Declared(changes=1, refused=1)
    found = Declared(changes=1)
    meant: set[str] = set()
    for name, job in planning.before.items():
        audit = name.split()[0]
        now = after.get(name)
        if now is None:  # it is called otherwise, which is no part of a key
            continue
        if now["declared"] != job["declared"] or _read(after, name) != _read(planning.before, name):
            meant.add(name)
        if meant & {f"{audit} {read}" for read in job["reads"]}:
            meant.add(name)
        if name in meant and now["key"] == job["key"]:
            found.faults.append(f"{said(mutant, planning.tree.root)} stays for {name}")
    if _names_outputs(planning.tree.root, mutant):
        return replace(found, meant=1)
    moved = {name for name, job in planning.before.items() if name in after and after[name]["key"] != job["key"]}
    code = {of for of in ROOTS if opinion.why(of, mutant, planning.tree.root) is not Why.NONE}
    for name in moved - meant:
        reads = {f"{name.split()[0]} {read}" for read in planning.before[name]["reads"]}
        if planning.before[name]["stage"] not in code and not code & set(OUTSIDE) and not reads & moved:
            found.faults.append(f"{said(mutant, planning.tree.root)} reruns {name}")
    found.meant, found.idle = int(bool(meant)), int(not meant and not moved)
    return found


def _read(plan: Mapping[str, dict[str, str]], name: str) -> list[str]:
    """Keys of what a job reads, whatever the jobs there are called: a variant's name is no part of a key."""
    audit = name.split()[0]
    return sorted(plan[f"{audit} {read}"]["key"] for read in plan[name]["reads"])


def _names_outputs(root: Path, mutant: Mutant) -> bool:
    return any((module_of(mutant.file, root), name) in NAMING for name in mutant.definition)


def of_declarations(share: float, opinion: Opinion, processes: int) -> Declared:
    """All changes of the declarations of the stages, of what they share, and of their words."""
    files = sorted(["tasks/options.py", *(f"tasks/{stage.name}/__init__.py" for stage in STAGES)])
    total = Declared()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(processes) as pool:
        for found in pool.map(
            lambda number: _declarations(Path(folder) / str(number), share, opinion, files[number::processes]),
            range(processes),
        ):
            for name in ("changes", "refused", "meant", "idle", "faults"):
                setattr(total, name, getattr(total, name) + getattr(found, name))
    return total


def _declarations(folder: Path, share: float, opinion: Opinion, files: list[str]) -> Declared:
    folder.mkdir()
    planning, total = Planning(folder), Declared()
    for name in files:
        file = planning.tree.root / name
        changes = chosen([*mutants(file), *schemas(file)], share, name)
        for mutant in [*changes, reworded(file)[0]]:
            found = declared(planning, opinion, mutant)
            for part in ("changes", "refused", "meant", "idle", "faults"):
                setattr(total, part, getattr(total, part) + getattr(found, part))
    planning.close()
    return total


def of_code(share: float, opinion: Opinion, processes: int) -> Tally:
    """All changes of all modules, each module in a process of its own, which forgets what it has read."""
    files = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    files.sort(key=lambda file: file.stat().st_size, reverse=True)
    tasks = [(file.relative_to(ROOT).as_posix(), share) for file in files]
    total = Tally()
    for root in ROOTS.values():
        root.closure(Places())  # what is parsed here, no process parses again
    with get_context("fork").Pool(processes, _opinions.append, (opinion,), maxtasksperchild=1) as pool:
        for number, found in enumerate(pool.imap_unordered(of_file, tasks), 1):
            total.add(found)
            print(f"{number} of {len(tasks)} modules, {total.changes} changes", file=sys.stderr, flush=True)
    return total


def page(tally: Tally, plans: Declared, seconds: float, share: float) -> Iterator[str]:
    """The page, a paragraph or table at a time."""
    command = "make mutation" if share >= 1 else f"python benchmarks/mutation.py --share {share:g}"
    part = "Every change" if share >= 1 else f"A drawn share of {share:g} of all changes"
    yield "# Mutation of the code that stages reach"
    yield f"Made by `{command}`, {time.strftime('%d %B %Y')}, {device_name('cpu')}, {seconds / 60:.0f} minutes."
    yield (
        f"{part} of one constant or operator in the modules below {', '.join(f'`{name}`' for name in PACKAGES)}: "
        f"{tally.changes:,} changes, each held against the code digests of all stages. Digests that stay although the "
        f"stage ran what was changed: **{sum(tally.stayed.values())}**. Unrelated stages that would run again: "
        f"**{_unrelated(tally)}**. Of {tally.words:,} docstrings, annotations and words of declarations, changed all "
        f"at once in each module, those in modules where a digest changes: **{tally.worded}**. A change is in the own "
        f"code of {_mean(tally):.2f} of {len(STAGES)} stages on average."
    )
    yield "\n".join(_table(tally))
    yield "Why a stage runs again:"
    yield "\n".join(f"* {heading}: {why.value}." for heading, why in zip(HEADINGS, COLUMNS, strict=True))
    yield (
        f"Of the declarations of the stages (defaults, columns, names, words), {plans.changes:,} changes, an audit of "
        f"all stages planned anew after each: {plans.refused:,} leave nothing that could be planned, {plans.meant:,} "
        f"change what is declared of a job, {plans.idle:,} change neither that nor any code that runs, and no key. "
        f"Keys that stay or change against that: **{len(plans.faults)}**."
    )
    yield (
        "Left out of what must change, though stages call it: the classes that make names of outputs "
        f"({_listed(NAMING)}) and the disk ({_listed(DISK)})."
    )
    if faults := [*tally.faults, *plans.faults]:
        yield "What stays or changes against that, one by one:"
        yield "\n".join(f"* `{fault}`" for fault in faults)


def _table(tally: Tally) -> Iterator[str]:
    yield "| code of | runs again for | ran it | ran a part | names it, did not run it | unrelated | stayed |"
    yield "|-|-:|-:|-:|-:|-:|-:|"
    for name in ROOTS:
        counts = [tally.why[name, why] for why in COLUMNS]
        shown = counts if name not in OUTSIDE else ["", "", sum(counts[:3]), counts[3]]
        yield f"| {name} | {sum(counts):,} | {' | '.join(map(str, shown))} | {tally.stayed[name]} |"


def _listed(definitions: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"`{module}:{name}`" for module, name in sorted(definitions))


HEADINGS = ("ran it", "ran a part", "names it, did not run it", "unrelated")


def _unrelated(tally: Tally) -> int:
    return sum(count for (_, why), count in tally.why.items() if why is Why.NONE)


def _mean(tally: Tally) -> float:
    own = sum(count for (name, _), count in tally.why.items() if name not in OUTSIDE)
    return own / max(tally.changes, 1)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of all changes")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as workspace:
        opinion = Opinion(Project(ROOT), evidence(Path(workspace), [stage.name for stage in STAGES]))
    tally = of_code(asked.share, opinion, asked.processes)
    plans = of_declarations(asked.share, opinion, asked.processes)
    parts = page(tally, plans, time.monotonic() - began, asked.share)
    print("\n\n".join(textwrap.fill(part, 120) if "\n" not in part else part for part in parts))
    for fault in [*tally.faults, *plans.faults]:
        print(fault, file=sys.stderr)
    sys.exit(bool(tally.faults or plans.faults))


if __name__ == "__main__":
    main()
