"""Carry a job out, or find it done."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from functools import cached_property
from types import NoneType
from typing import Any, get_args, get_type_hints

from microtome import __version__
from microtome.errors import Interrupted
from microtome.memory import keep_freed
from storage import Artifact, Draft, StageStore
from storage.claims import making
from storage.stages import PARTS, FileEntry
from tasks.freed import give_back
from tasks.result import AnyResult
from tasks.session import Session
from tasks.stage import External, Job

Around = Callable[[Job, Session], AbstractContextManager[None]]
"""What is entered around a stage's work: a wait for the device, for example."""
Carry = Callable[[Job, Session], Artifact]
"""Whoever carries a job out whose inputs are finished: this process, others, or a worker that is handed the stage."""
Each = Callable[["InHand", Sequence[str]], Generator["Written", None, None]]
"""Whoever carries parts of a job out, and gives what they wrote as they end: `here`, or other processes."""
Written = Mapping[str, FileEntry]
"""The files that a part wrote, with their checksums."""
WHOLE = ""
"""Name of the part that is `run`: the whole work, or the merge of its shards."""
_MARK = "done/"
PACKAGES = ("torch", "numpy", "pyarrow", "pillow")


def nothing_around(_job: Job, _session: Session) -> AbstractContextManager[None]:
    """Work that waits for nothing."""
    return nullcontext()


class InHand:
    """A job in hand, in the process that carries it out: its inputs, and so the network, stay for all of its parts.

    Args:
        job: whose inputs are finished.
        session: the run's.
    """

    def __init__(self, job: Job, session: Session) -> None:
        self.job, self.session = job, session.of(job)

    @cached_property
    def inputs(self) -> Any:
        """Typed readers of what the job reads."""
        artifacts = {name: _finished(self.session.store, read) for name, read in self.job.jobs.items()}
        return inputs_of(self.job, artifacts, self.session)

    @cached_property
    def shard(self) -> Callable[[Draft, str], None]:
        """What carries the job's shards out."""
        return self.job.stage.shard(self.job.options, self.inputs, self.session)

    def draft(self) -> Draft:
        """The stage begun, or taken up: what an interrupted run finished of it."""
        return self.session.store.draft(self.job.key, self.job.stage.written)

    def shards(self, draft: Draft) -> dict[str, int]:
        """The shards that are to be done, with their sizes. What belongs to no finished shard of this plan goes."""
        done = {_shard_of(name): _files_of(draft, name) for name in draft.finished(f"{PARTS}{_MARK}")}
        done = {name: files for name, files in done.items() if all(map(draft.has, files))}
        names = self.job.stage.shards(self.job.options, self.inputs, sorted(done))
        kept = {file for name in names for file in done.get(name, ())}
        for file in draft.finished():
            if file not in kept:
                draft.discard(file)
        return names

    def work(self, name: str, draft: Draft | None = None) -> Written:
        """Carry out a shard, or the whole; one that is done costs a look.

        Args:
            name: of the shard, or WHOLE.
            draft: of the stage, where it was begun in this process.
        """
        stage = self.job.stage
        keep_freed()
        with ExitStack() as stack:
            if stage.threads != "none":
                import torch

                from microtome.arithmetic import computing

                torch.set_num_threads(self.session.threads if stage.threads == "all" else 1)
                stack.enter_context(computing())
            return self._whole(draft) if name == WHOLE else self._part(name)

    def _whole(self, draft: Draft | None) -> Written:
        stage = self.job.stage
        mine = draft or (self.session.store.part(self.job.key, stage.written) if stage.sharded else self.draft())
        stage.run(self.job.options, self.inputs, mine, self.session)
        give_back()
        return mine.entries

    def _part(self, name: str) -> Written:
        stage = self.job.stage
        mine, mark = self.session.store.part(self.job.key, stage.written), _mark(name)
        if not (mine.look([mark]) and mine.look(_files_of(mine, mark))):
            mine = self.session.store.part(self.job.key, stage.written)
            self.shard(mine, name)
            mine.write(mark, json.dumps([*mine.entries, mark]).encode())
        return mine.entries


def _mark(name: str) -> str:
    """A file that is there when a shard is done: the list of its files."""
    return f"{PARTS}{_MARK}{name}.json"


def _shard_of(mark: str) -> str:
    return mark.removeprefix(f"{PARTS}{_MARK}").removesuffix(".json")


def _files_of(draft: Draft, mark: str) -> list[str]:
    with draft.read(mark) as source:
        files: list[str] = json.loads(source.read())
    return files


def here(hand: InHand, names: Sequence[str]) -> Generator[Written, None, None]:
    """In this process, one after the other."""
    for name in names:
        yield hand.work(name)


def execute(
    job: Job,
    session: Session,
    *,
    refresh: bool = False,
    around: Around = nothing_around,
    carry: Carry | None = None,
) -> tuple[Artifact, bool]:
    """Carry a job out, or find it done.

    Whatever goes wrong, what was read may be to blame: a damaged input is made again, and this stage once more.

    Args:
        job: whose inputs are finished.
        session: the run's.
        refresh: carry it out even if it is done; what was done is kept until it is made anew.
        around: entered around the work, where there is some.
        carry: who does the work; this process where left out.

    Returns:
        the artifact, and whether it was there already.
    """
    carry = carry or carried_out
    found = None if refresh else session.store.find(job.key)
    if found is not None:
        return found, True
    session.check()
    with making(session.files, job.key.folder, _waiting(job, session)):
        session.store.bring_back(job.key)  # what somebody put by who is no more
        found = None if refresh else session.store.find(job.key)  # by whoever was waited for
        if found is not None:
            return found, True
        with _anew(job, session) if refresh else nullcontext(), around(job, session):
            return _made(job, session, carry), False


@contextmanager
def _anew(job: Job, session: Session) -> Iterator[None]:
    """Where a stage is made anew: if it cannot be, it is what it was."""
    session.store.put_by(job.key)
    try:
        yield
    finally:
        session.store.bring_back(job.key)


def _made(job: Job, session: Session, carry: Carry) -> Artifact:
    try:
        return carry(job, session)
    except Interrupted:
        raise
    except Exception:
        damaged = [needed for needed in _read_by(job) if session.store.damaged(needed.key)]
        if not damaged:
            raise
        for needed in damaged:
            execute(needed, session, carry=carry)
        return carry(job, session)


def _read_by(job: Job) -> list[Job]:
    """What a job reads, each after what it reads itself, which maps that are not stored are made from."""
    below = [read for needed in job.jobs.values() for read in (*needed.jobs.values(), needed)]
    return list({read.key.folder: read for read in below}.values())


def _waiting(job: Job, session: Session) -> Callable[[], None]:
    """Says once that another process makes the stage, for as long as nobody asks to stop."""
    said: list[str] = []

    def waiting() -> None:
        session.check()
        if not said:
            said.append(f"{job.name}: waiting until another process has made it")
            session.progress.say(said[0])

    return waiting


def carried_out(job: Job, session: Session, each: Each = here) -> Artifact:
    """Do a job's work: its shards, where it has some, then the merge, and make it visible.

    Args:
        job: whose inputs are finished.
        session: the run's.
        each: who carries its parts out.
    """
    hand = InHand(job, session)
    whole_elsewhere = each is not here and not job.stage.sharded  # then only they know what they took up
    draft = session.store.part(job.key, job.stage.written) if whole_elsewhere else hand.draft()
    if job.stage.sharded:
        names = hand.shards(draft)
        hand.session.begin(sum(names.values()), job.stage.sharded)
        _sharded(hand, draft, names, each)
    if each is here:
        hand.work(WHOLE, draft)
    else:
        for written in each(hand, [WHOLE]):
            draft.learn(written)
    return draft.commit(environment=environment(session))


def _sharded(hand: InHand, draft: Draft, names: Mapping[str, int], each: Each) -> None:
    done = [name for name in names if draft.has(_mark(name))]
    hand.session.progress.advance(hand.session.name, sum(names[name] for name in done))
    parts = each(hand, [name for name in names if name not in done])
    with closing(parts):  # whoever does not go on to the end leaves nothing begun
        for written in parts:
            draft.learn(written)
            hand.session.advance(sum(names.get(_shard_of(file), 0) for file in written))


def inputs_of(job: Job, artifacts: Mapping[str, Artifact], session: Session) -> Any:
    """A job's typed inputs: for each field of its stage's `Inputs` a reader of what the job reads under that name.

    Args:
        job: whose.
        artifacts: the finished stages among what it reads, by those names.
        session: in which what is not stored is made again.

    Raises:
        TypeError: the job reads something that `Inputs` does not name, or the other way round.
    """
    kind = job.stage.inputs
    if hasattr(kind, "of"):
        return kind.of(job, artifacts)
    readers = {name: next(a for a in (*get_args(hint), hint) if a is not NoneType) for name, hint in _hints(kind)}
    unknown = set(job.reads) - set(readers)
    if unknown:
        raise TypeError(f"{kind.__module__}.Inputs must name {', '.join(sorted(unknown))}, which {job.name} reads")
    found: dict[str, object] = {}
    for name, read in job.reads.items():
        found[name] = result_of(readers[name], read, artifacts[name], session) if isinstance(read, Job) else read
    return kind(**found)


def result_of(kind: type[AnyResult], job: Job, artifact: Artifact, session: Session) -> AnyResult:
    """What a job wrote, as a reader of it.

    Args:
        kind: of the reader.
        job: that is finished.
        artifact: what it wrote.
        session: in which what is not stored is made again.
    """
    return kind.of(artifact, outside_of(job), InHand(job, session))


def outside_of(job: Job) -> dict[str, External]:
    """The outside things that a job reads."""
    return {name: read for name, read in job.reads.items() if not isinstance(read, Job)}


def _hints(kind: type[Any]) -> list[tuple[str, Any]]:
    return [(name, hint) for name, hint in get_type_hints(kind).items() if name in kind.__dataclass_fields__]


def environment(session: Session) -> dict[str, object]:
    """Versions, machine and device: what is recorded beside every result."""
    return {
        "microtome": __version__,
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": session.settings.device,
        "threads": session.threads,
    }


def _finished(store: StageStore, job: Job) -> Artifact:
    artifact = store.find(job.key)
    if artifact is None:
        raise RuntimeError(f"{job.name} must be finished before it is read; its directory is {job.key.folder}")
    return artifact
