"""The command line. Results go to stdout, progress and errors to stderr.

Exit status: 0 done and every gate passed; 1 a gate failed, or `verify` found something that is not as it was; 2 bad
usage or input; 3 a stage failed; 130 stopped.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from flows.completion import known_runs, known_stages
from microtome import __version__
from microtome.errors import InputError, Interrupted
from microtome.importing import blamed, said
from microtome.missing import needing

if TYPE_CHECKING:
    from prefect.states import State

    from flows.plan import Request
    from flows.run import Outcome
    from storage import Files, RunRecord

FILE = click.argument("file", type=click.Path(path_type=Path))
WORKSPACE = click.option("--workspace", metavar="W", help="Workspace, a folder or s3://..., not the audit file's.")
DEVICE = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Instead of the audit file's.")
OUT = click.Path(path_type=Path, dir_okay=False)
AT_A_GLANCE = 8  # headline figures that an audit ends with
SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Replace a value: stages.dissection.tail=0.01"
)
RUN = click.argument("run", required=False, shell_complete=known_runs)
THIS_RUN = click.argument("run", shell_complete=known_runs)
WHERE = click.option(
    "--workspace", default=".microtome", show_default=True, metavar="W", help="Workspace: a folder, s3://..."
)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: run a command and leave with its exit status."""
    if "_MICROTOME_COMPLETE" in os.environ:  # a shell asks what could come next
        cli.main(prog_name="microtome")
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill is a Ctrl-C
    try:
        with needing(" ".join(["microtome", *arguments[:1]])):
            status = cli.main(arguments, prog_name="microtome", standalone_mode=False)
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        if debug:
            raise
        status = _explain(error)
    for number in (signal.SIGINT, signal.SIGTERM):  # it is over: nothing more to tell
        signal.signal(number, signal.SIG_DFL)
    _leave(status if isinstance(status, int) else 0)


def _leave(status: int) -> NoReturn:
    """End the process; at once where Prefect's threads would keep it, which ask for a server that is away."""
    sys.stdout.flush()
    sys.stderr.flush()
    called = sys.modules.get("flows.called")
    if called and called.ABANDONED.is_set():
        os._exit(status)
    sys.exit(status)


def _explain(error: BaseException) -> int:
    """Tell what went wrong; gives the exit status."""
    if isinstance(error, click.ClickException):
        error.show()
        return 2
    if isinstance(error, InputError):
        for fault in error.faults:
            print(f"error: {fault}", file=sys.stderr)
        return 2
    if any(isinstance(cause, Interrupted | KeyboardInterrupt | click.Abort) or _cut(cause) for cause in _causes(error)):
        print("stopped; everything finished is kept", file=sys.stderr)
        return 130
    if isinstance(error, SystemExit):  # not ours: some code that was called wants the process to end
        print(f"error: {blamed(error) or said(error)}; nothing was finished by it", file=sys.stderr)
        return 2
    from flows.run import StageFailed
    from storage.files import StoreError

    known = isinstance(error, StageFailed | StoreError)
    text = str(error) if known else f"{type(error).__name__}: {error}"
    print(f"error: {text}\n(--debug shows where)", file=sys.stderr)
    return 3


def _cut(error: BaseException) -> bool:
    """Whether it is how DuckDB tells of a Ctrl-C during a query."""
    return isinstance(error, RuntimeError) and str(error) == "Query interrupted"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from: a Ctrl-C while a class is made comes as a RuntimeError before Python 3.12."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="microtome")
def cli() -> None:
    """Audit trained vision networks: which units detect which concepts, and how far to trust each answer.

    --debug, anywhere, shows tracebacks.
    """


@cli.command()
@FILE
@click.option(
    "--only",
    multiple=True,
    metavar="STAGE",
    shell_complete=known_stages,
    help="Only this stage and what it needs; may be repeated.",
)
@click.option(
    "--refresh",
    multiple=True,
    metavar="STAGE",
    shell_complete=known_stages,
    help="Run this stage even if it is done; may be repeated.",
)
@click.option("--verify", is_flag=True, help="First read every byte of its inputs and finished stages.")
@click.option("--junit", type=OUT, metavar="XML", help="Write the gates' verdicts as JUnit XML, a test case each.")
@click.option("--json", type=OUT, metavar="JSON", help="Write the gates' verdicts and the headline figures as JSON.")
@WORKSPACE
@DEVICE
@SET
def audit(file: Path, only: tuple[str, ...], refresh: tuple[str, ...], *, verify: bool, **options: Any) -> int:
    """Run the audit that FILE describes; what is done already is not done again."""
    from flows.called import with_prefect
    from flows.claiming import claiming
    from flows.plan import Plan, Request
    from flows.run import from_cache, prefect_environment, server_configured
    from flows.verdicts import Verdicts

    request = Request(file, only, refresh, options["workspace"], options["device"], options["overrides"], verify)
    verdicts = Verdicts(options["junit"], options["json"])
    verdicts.check()
    with verdicts.told(file):
        plan = Plan(request)
        with claiming(plan) as fault:
            outcome = from_cache(plan) if fault or not server_configured() else None
            if outcome is None:
                if plan.here:
                    plan.probe()  # before Prefect, which takes its time
                prefect_environment(plan)
                outcome = with_prefect(lambda: _flow("flows.audit", "audit")(**_arguments(request), return_state=True))
    verdicts.write(outcome.run)
    return _tell(outcome)


@cli.command()
@click.argument("stage", shell_complete=known_stages)
@FILE
@WORKSPACE
@DEVICE
@SET
def rerun(stage: str, file: Path, **options: Any) -> int:
    """Run one STAGE of an audit again, its inputs from the cache."""
    from flows.called import with_prefect
    from flows.claiming import claiming
    from flows.plan import Plan, Request
    from flows.run import prefect_environment

    plan = Plan(Request(file, (stage,), (stage,), options["workspace"], options["device"], options["overrides"]))
    name, _, variant = stage.partition(":")
    call = {"file": str(file), "stage": name, "variant": variant, **options}
    with claiming(plan):
        prefect_environment(plan)
        outcome = with_prefect(lambda: _flow("flows.stages", "rerun")(**call, return_state=True))
    return _tell(outcome)


@cli.command()
@FILE
@WORKSPACE
@DEVICE
@SET
def plan(file: Path, **options: Any) -> None:
    """Show what an audit would run, what is cached, and the bytes and time foreseen."""
    from flows.foresee import foresee, told
    from flows.plan import Plan, Request

    planned = Plan(Request(file, (), (), options["workspace"], options["device"], options["overrides"]))
    planned.preflight()
    rows = [[row.stage, row.state, row.size, row.seconds] for row in foresee(planned)]
    _table(["stage", "state", "bytes", "seconds"], rows)
    for sentence in told(planned):
        print(sentence, file=sys.stderr)  # not among the rows


@cli.command()
@WHERE
def runs(workspace: str) -> None:
    """List the runs of a workspace, the latest last."""
    from storage import RunStore

    rows = [
        [run.run_id, run.name, run.network, run.status, f"{run.seconds:.1f} s"]
        for run in RunStore(_open(workspace)).all()
    ]
    _table(["run", "audit", "network", "status", "time"], rows)


@cli.command()
@RUN
@WHERE
def show(run: str | None, workspace: str) -> None:
    """Show one RUN: its figures, gates and stages. The latest by default."""
    from flows.claiming import reading
    from flows.compare import shown

    files = _open(workspace)
    chosen = _run(files, run)
    with reading(files, [chosen]):
        print(shown(files, chosen))


@cli.command()
@click.argument("first", shell_complete=known_runs)
@click.argument("second", shell_complete=known_runs)
@WHERE
def compare(first: str, second: str, workspace: str) -> None:
    """Compare two runs, or the latest of two audits that match, over the same pictures. Writes a page."""
    from flows.claiming import reading
    from flows.compare import compared
    from flows.matching import matching

    files = _open(workspace)
    runs = matching(files, (_run(files, first), _run(files, second)), (first, second))
    with reading(files, runs):
        _tell_page(*compared(files, *runs))


@cli.command()
@click.argument("name")
@WHERE
def history(name: str, workspace: str) -> None:
    """Show how every gate and headline figure of the audit NAME went from run to run. Writes a page, too."""
    from flows.history import history as told

    _tell_page(*told(_open(workspace), name))


@cli.command()
@click.option(
    "--keep", default=5, type=click.IntRange(min=1), show_default=True, help="Finished runs kept per audit, the latest."
)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@WHERE
def gc(keep: int, dry_run: bool, workspace: str) -> None:
    """Remove stages that neither the latest runs nor a running audit uses, and what ended audits left unfinished."""
    from flows.claiming import waiting
    from flows.collect import collect

    files = _open(workspace) if dry_run else _writable(workspace, "claims")
    for folder, size in collect(files, keep, dry_run=dry_run, waiting=waiting()):
        print(f"{'would remove' if dry_run else 'removed'} {folder} ({size / 1e6:.1f} MB)")


@cli.command()
@click.argument("run", metavar="[NAME]", required=False, shell_complete=known_runs)
@WHERE
def verify(run: str | None, workspace: str) -> int:
    """Read every byte of the finished stages, and of the files that they were made from; 1 if one is not as it was.

    NAME is a run, or an audit whose latest one is meant. Without it: every stage of the workspace, and the inputs of
    each audit's latest run. Stages that are damaged are marked, and the next audit makes them again.
    """
    from flows.claiming import reading
    from flows.console import progress
    from flows.text import printable
    from flows.verify import verified
    from storage import RunStore

    files = _open(workspace)
    runs = [_run(files, run)] if run else RunStore(files).latest()
    with reading(files, runs):
        found = verified(files, runs, everything=not run, progress=progress())
    for fault in found.faults:
        print(printable(fault))
    print(f"{found.stages} stages and {found.inputs} input files read, faults found: {len(found.faults)}")
    return 1 if found.faults else 0


@cli.command()
@click.argument("query")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json", "parquet"]), default="table")
@click.option("--run", default=None, metavar="RUN", help="A run, or `all`; the latest by default.")
@click.option(
    "--unsafe", is_flag=True, help="Permit any SQL. WARNING: it can then read and write every file that you can."
)
@WHERE
def sql(query: str, form: str, run: str | None, *, unsafe: bool, workspace: str) -> None:
    """Query the tables of a run with DuckDB's SQL: one SELECT, DESCRIBE, SUMMARIZE, SHOW or EXPLAIN.

    It reads the workspace's tables and nothing else, and writes nothing.
    """
    from flows.claiming import reading
    from flows.query import answer
    from storage import RunStore

    files = _open(workspace)
    chosen = RunStore(files).all() if run == "all" else [_run(files, run)]
    with reading(files, chosen):
        answer(files, chosen, query, form, out=sys.stdout, unsafe=unsafe)


@cli.command("open")
@RUN
@WHERE
def open_report(run: str | None, workspace: str) -> None:
    """Open the report of a RUN in the browser, and print where it is.

    RUN may be a page of `compare` or `history`, too: its name below reports/, or the start of it; the latest that fits.
    """
    from flows.reports import find_page
    from storage import RunStore

    files = _open(workspace)
    found = find_page(files, run) if run and RunStore(files).find(run) is None else None
    page = found or _report_page(files, _reported(files, run))
    print(page)
    if sys.stdout.isatty():
        click.launch(page.as_uri())


@cli.command()
@RUN
@click.option(
    "--single-file",
    type=click.Path(path_type=Path),
    metavar="OUT",
    required=True,
    help="One HTML file with everything in it.",
)
@WHERE
def report(run: str | None, single_file: Path, workspace: str) -> None:
    """Write the report of a RUN as one file."""
    from flows.claiming import reading
    from microtome.report.single import inline

    files = _open(workspace)
    chosen = _reported(files, run)
    with reading(files, [chosen]):
        page = _report_page(files, chosen)
        try:
            whole = inline(page.parent)
        except (OSError, ValueError) as error:
            raise InputError(
                f"run {chosen.run_id}: its report cannot be read: {said(error)}; `microtome verify` marks it, and the "
                "audit makes it again"
            ) from error
    try:
        single_file.write_text(whole, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--single-file: cannot be written: {error.strerror}, got {str(single_file)!r}") from error
    print(single_file)


@cli.command()
@THIS_RUN
@click.argument("image")
@WHERE
def explain(run: str, image: str, workspace: str) -> None:
    """Tell what the decision on IMAGE rests on: its path through RUN's decision tree. Writes its page, too.

    IMAGE is a file name of the data set, the end of one, or a number; or the path of a picture that the tree has never
    seen.
    """
    from flows.claiming import reading
    from flows.explain import explain as told

    files = _writable(workspace, "explained")
    chosen = _run(files, run)
    with reading(files, [chosen]):
        lines, page = told(files, chosen, image)
    print("\n".join(lines))
    print(f"page    {page}")


@cli.command()
@THIS_RUN
@click.argument("image")
@WHERE
def lookup(run: str, image: str, workspace: str) -> None:
    """Tell which patterns of RUN's explanatory graph IMAGE shows, and where. Writes its page, too.

    IMAGE is a file name of the data set, the end of one, or a number; or the path of a picture that the graph has never
    seen.
    """
    from flows.claiming import reading
    from flows.lookup import lookup as seen

    files = _writable(workspace, "explained")
    chosen = _run(files, run)
    with reading(files, [chosen]):
        rows, said, page = seen(files, chosen, image)
    _table(["layer", "node", "filter", "x", "y", "score", "on"], rows)
    for sentence in said:
        print(sentence)
    print(f"page    {page}")


@cli.group("import")
def import_() -> None:
    """Take what other tools published of a network's units into a run, which the other commands read as any."""


@import_.command()
@click.argument("place", metavar="FOLDER|FILE", type=click.Path(path_type=Path))
@click.option("--layer", help="Whose the tally is; left out, the file's name says it.")
@WHERE
def netdissect(place: Path, layer: str | None, workspace: str) -> int:
    """Import tallies of NetDissect or NetDissect-Lite: LAYER-result.csv, tally.csv, or all that a folder holds.

    Every IoU is computed again from its counts. Units, which are counted from one there, are counted from zero here.
    """
    from flows.published import import_tallies
    from flows.workspaces import open_workspace

    return _tell(import_tallies(open_workspace(workspace), place, layer))


@import_.command("clip-dissect")
@FILE
@WHERE
def clip_dissect(file: Path, workspace: str) -> int:
    """Import the labels that CLIP-Dissect gave: a CSV with layer, unit, description, similarity."""
    from flows.published import import_labels
    from flows.workspaces import open_workspace

    return _tell(import_labels(open_workspace(workspace), "clip-dissect", file))


@import_.command()
@FILE
@WHERE
def milan(file: Path, workspace: str) -> int:
    """Import the labels that MILAN gave: a CSV with layer, unit, description."""
    from flows.published import import_labels
    from flows.workspaces import open_workspace

    return _tell(import_labels(open_workspace(workspace), "milan", file))


@cli.command()
@click.argument("file", type=click.Path(path_type=Path), default=Path("audit.yaml"))
def init(file: Path) -> None:
    """Write a commented audit file to start from; folders on the way to it are made."""
    from flows.starter import starter

    if file.exists():
        raise InputError(f"{file}: is there already; name another file")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(starter(), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{file}: must be a place that can be written ({error.strerror})") from error
    print(file)


def _flow(module: str, name: str) -> Callable[..., State[Outcome]]:
    from importlib import import_module

    flow: Callable[..., State[Outcome]] = getattr(import_module(module), name)
    return flow


def _arguments(request: Request) -> dict[str, object]:
    return {
        "file": str(request.file),
        "only": request.only,
        "refresh": request.refresh,
        "workspace": request.workspace,
        "device": request.device,
        "overrides": request.overrides,
    }


def _tell(outcome: Outcome) -> int:
    """Say how a run ended; gives the exit status."""
    from flows.text import figure_line, printable
    from flows.verdicts import gate_lines

    run = outcome.run
    for figure in run.figures[:AT_A_GLANCE]:
        print(f"figure  {figure_line(figure)}")
    if len(run.figures) > AT_A_GLANCE:
        print(f"figure  ... and {len(run.figures) - AT_A_GLANCE} more: microtome history {run.name}")
    for line in gate_lines(run.gates):
        print(printable(line))
    if outcome.report:
        print(f"report  {outcome.report}")
    print(f"run     {run.run_id}  {run.status} in {run.seconds:.1f} s")
    return 1 if run.status == "gate failed" else 0


def _tell_page(text: str, page: Path | None) -> None:
    """Print a table, and where its page is."""
    print(f"{text}\n\npage    {page or 'not written, since the workspace is only read'}")


def _open(workspace: str) -> Files:
    from flows.workspaces import open_workspace

    if "://" not in workspace and not Path(workspace).is_dir():
        raise InputError(f"--workspace: no such folder, got {workspace!r}{_elsewhere()}")
    return open_workspace(workspace)


def _elsewhere() -> str:
    """Where workspaces lie near the current folder: an audit's lies beside its file."""
    near = sorted(Path().glob("*/.microtome/"))
    return f"; there is {str(near[0])!r}" if near else "; it lies beside the audit's file"


def _writable(workspace: str, name: str) -> Files:
    """The workspace, for a command that writes there. Raises InputError."""
    files = _open(workspace)
    if not files.writable(name):
        raise InputError(f"--workspace: must be writable for this command, got {files.address}")
    return files


def _run(files: Files, run_id: str | None) -> RunRecord:
    from microtome.errors import suggest
    from storage import RunStore

    store = RunStore(files)
    found = store.find(run_id)
    if found is None:
        names = sorted({name for run in store.all() for name in (run.run_id, run.name)})
        hint = suggest(run_id, names) if run_id and names else ""
        raise InputError(f"run: {f'no single run {run_id!r}' if run_id else 'no run'} in {files.address}{hint}")
    return found


def _reported(files: Files, wanted: str | None) -> RunRecord:
    """The run whose report is meant. Where none is named by its number and the latest has no report, as after a rerun,
    it is the latest that has one, and that is said.
    """
    from flows.console import warn
    from storage import RunStore

    chosen = _run(files, wanted)
    fault = _no_report(files, chosen)
    if not fault or wanted not in (None, chosen.name):
        return chosen
    others = [run for run in RunStore(files).all() if wanted in (None, run.name) and not _no_report(files, run)]
    if others:
        warn(f"{fault.partition(';')[0]}; this is the report of run {others[-1].run_id}, the latest that has one")
    return others[-1] if others else chosen


def _report_page(files: Files, run: RunRecord) -> Path:
    """The first page of a run's report, on this machine with all that belongs to it. Raises InputError."""
    from storage import StageStore
    from storage.files import Altered

    fault = _no_report(files, run)
    found = None if fault else StageStore(files).load(run.stages["report"]["folder"])
    if found is None:
        raise InputError(fault or f"run {run.run_id}: its report is not there any more; run the audit again")
    try:
        return Path(found.bring()) / "index.html"
    except Altered as error:
        raise InputError(f"run {run.run_id}: its report is damaged: {error}; run the audit again") from error


def _no_report(files: Files, run: RunRecord) -> str:
    """Why a run's report cannot be shown; empty where it can."""
    from storage import StageStore

    if "report" not in run.stages:
        return (
            f"run {run.run_id}: has no report, it was {run.status}; name another of `microtome runs`, or run the audit"
        )
    if files.stamp(f"{run.stages['report']['folder']}/index.html") is None:
        return f"run {run.run_id}: its report is not there any more; run the audit again"
    heard: list[str] = []
    if StageStore(files, heard.append).load(run.stages["report"]["folder"]) is None:
        why = heard[0].partition(";")[0] if heard else "it is not finished"
        return f"run {run.run_id}: its report is damaged: {why}; run the audit again"
    return ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from flows.text import text_table

    print(text_table(head, rows))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
