"""A seeded sample of small changes to our code: whoever ran what was changed runs again, and nobody else does.

The whole is `make mutation` (benchmarks/mutation.py).
"""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import islice

import pytest

from flows.plan import Plan, Request
from microtome.closure import ROOT, closure
from tasks.execution import execute
from tasks.registry import STAGES
from tasks.session import Session
from tasks.stage import Stage, code_digest
from tests.compiled import Project
from tests.conftest import NETWORK, write_audit
from tests.executed import Silent, called_by, module_of
from tests.mutation import Mutant, Root, Tree, mutants, reworded, schemas
from tests.opinion import ROOTS, STAGE_ROOTS, Opinion, Why, judged

NAMES = [stage.name for stage in STAGES]


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Tree:
    return Tree(tmp_path_factory.mktemp("mutation"))


@pytest.fixture(scope="module")
def watched(tmp_path_factory, broden) -> Opinion:
    """What the stages of a tiny audit call."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "nets.py").write_text(NETWORK)
    content = {
        "name": "tiny",
        "network": {"load": "nets:tiny", "layers": ["4"], "input": {"size": [64, 64]}},
        "dataset": {"format": "broden", "root": str(broden), "limit": 12},
        "stages": {"dissection": {"bootstrap": 4, "permutations": 2}, "report": {"top_images": 1}},
    }
    plan = Plan(Request(write_audit(folder / "audit.yaml", content)))
    session = Session(plan.files, replace(plan.settings, threads=1), Silent())
    for job in plan.jobs:
        execute(job, session)
    called = {job.name: called_by(job, session) for job in plan.jobs}
    return Opinion(Project(ROOT), called, ("network", "format broden"))


@pytest.fixture(scope="module")
def read() -> Opinion:
    """What the compiler says; nobody was watched."""
    return Opinion(Project(ROOT), {})


def drawn(tree: Tree, changes, seed: int, *, among: set[str] | None = None, count: int = 12) -> list[Mutant]:
    """A change in each of as many modules, of all or among some."""
    files = sorted(file for name in ("microtome", "storage", "tasks") for file in (tree.root / name).rglob("*.py"))
    pick = random.Random(seed)
    wanted = [file for file in files if among is None or module_of(file, tree.root) in among]
    found = (list(changes(file)) for file in pick.sample(wanted, len(wanted)))
    return list(islice((pick.choice(of_file) for of_file in found if of_file), count))


def test_what_was_run_counts_and_what_cannot_be_reached_does_not(tree, watched):
    assert set(watched.called) == {
        "index",
        "activations",
        "thresholds",
        "tally",
        "null",
        "dissection",
        "pages",
        "report",
    }
    ran = {module for stage in watched.ran.values() for module, _ in stage}
    verdicts = [judged(tree, mutant, watched) for mutant in drawn(tree, mutants, 3, among=ran, count=24)]
    assert [verdict.stayed for verdict in verdicts if verdict.stayed] == []
    why = [reason for verdict in verdicts for reason in verdict.changed.values()]
    assert why.count(Why.NONE) == 0
    assert why.count(Why.RAN) > 10


def test_no_unrelated_stage_runs_again(tree, read):
    for mutant in drawn(tree, mutants, 5):
        changed = judged(tree, mutant, read).changed
        assert [name for name, why in changed.items() if why is Why.NONE] == [], mutant.description


def test_words_change_no_digest(tmp_path):
    """All words of all modules at once: more than six thousand."""
    tree, counted = Tree(tmp_path), 0
    before = {name: root.closure(tree.places).digest for name, root in ROOTS.items()}
    for file in sorted(tree.root.rglob("*.py")):
        mutant, count = reworded(file)
        file.write_text(mutant.source, encoding="utf-8")
        counted += count
    assert counted > 6000
    assert {name: root.closure(tree.places).digest for name, root in ROOTS.items()} == before


@pytest.mark.parametrize("stage", NAMES)
def test_the_closure_and_the_compiler_find_the_same_definitions(stage, read):
    """But for what annotations of variables name, which the compiler of an older module evaluates."""
    root = STAGE_ROOTS[stage]
    found = {tuple(key.split(":")) for key in closure(root.roots).definitions}
    assert found <= read.reached[stage]
    aliases = {"Bound", "_Rule", "Rule", "LevelMeasure", "Share", "TreeMeasure"}
    assert {name for _, name in read.reached[stage] - found} <= aliases


# --- what was found by it ---


@pytest.mark.parametrize("stage", NAMES)
def test_no_work_names_a_declaration(stage):
    """Its words would be part of the code: eight stages ran again when the meaning of a column was put better."""
    found = closure(STAGE_ROOTS[stage].roots).definitions
    assert [key for key in found if key.endswith(":STAGE")] == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("storage/tables.py", "return values.select(self.schema.names).cast(self.schema)"),
        ("storage/stages.py", "write_table(sink, content)"),
        ("tasks/session.py", "return self.settings.seed"),
    ],
)
def test_what_work_is_handed_counts_for_all_stages(tree, file, line):
    """Also where a stage's code names it in no more than an annotation of `run`, as half of them did not."""
    place = tree.root / file
    text = place.read_text()
    assert text.count(line) == 1
    mutant = Mutant(place, (), 0, line, text.replace(line, f"1; {line}"))
    assert set(NAMES) == tree.changed(mutant, STAGE_ROOTS)


def test_threads_that_sums_are_split_over_are_part_of_the_code():
    tally = next(stage for stage in STAGES if stage.name == "tally")
    fields = {name: getattr(tally, name) for name in Stage.__dataclass_fields__}
    assert code_digest(Stage(**fields)) == code_digest(tally)
    assert code_digest(Stage(**{**fields, "threads": "all"})) != code_digest(tally)


# --- the second opinion can be wrong, too ---


def test_a_digest_that_stays_is_seen(tree, watched):
    """With a root that leaves something out."""
    mutant = next(m for m in mutants(tree.root / "microtome/quantify/dissection.py") if m.path == ("tally",))
    assert "tally" in watched.must(mutant, tree.root)
    blind = Root(("tasks.tally.result:counts_file",))
    assert tree.changed(mutant, {"tally": blind}) == set()
    assert watched.must(mutant, tree.root) - tree.changed(mutant, {"tally": blind}) >= {"tally"}


def test_a_stage_that_is_unrelated_is_seen(tree, read):
    mutant = next(m for m in mutants(tree.root / "microtome/disentangle/decision_tree.py") if m.path)
    assert read.why("tree", mutant, tree.root) is Why.NAMED
    assert read.why("tally", mutant, tree.root) is Why.NONE


def test_columns_are_changed_one_at_a_time(tree):
    found = list(schemas(tree.root / "tasks/index/__init__.py"))
    assert len(found) == 2 * len(
        [column for s in STAGES if s.name == "index" for t in s.tables for column in t.columns]
    )
    for mutant in found[:4]:
        space: dict[str, object] = {"__name__": "tasks.index"}
        exec(compile(mutant.source, "index", "exec"), space)
        own = next(stage for stage in STAGES if stage.name == "index")
        assert code_digest(space["STAGE"]) != code_digest(own)
        assert len([pair for pair in zip(space["STAGE"].shape, own.shape, strict=True) if pair[0] != pair[1]]) == 1
