"""Commands in this process: their exit status and words, without the time that a process of its own takes."""

from __future__ import annotations

import contextlib
import io
import signal
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

import click

from flows.claiming import claiming
from flows.cli import cli, main
from flows.console import Lines
from flows.plan import Plan, Request
from flows.run import carry_out, from_cache
from microtome.errors import InputError
from tasks.session import Session


def status(*arguments) -> tuple[int, str, str]:
    """Exit status of a command in this process, and what it said; what is not meant for users goes on as it is."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            ended = cli.main(list(arguments), standalone_mode=False)
        except (InputError, click.ClickException) as error:
            return 2, out.getvalue(), err.getvalue() + str(error)
    return ended or 0, out.getvalue(), err.getvalue()


def left(*arguments: object) -> CompletedProcess[str]:
    """What a process of `microtome ...` would leave: of the entry point, called in this process.

    Neither how a process starts and ends nor Prefect is seen by it: for a command that needs no server. Where it wants
    one, its status is 3.
    """
    out, err = io.StringIO(), io.StringIO()
    unserved = patch("flows.called.with_prefect", side_effect=AssertionError("it needs a process of its own"))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), unserved:
            main(list(map(str, arguments)))
    except SystemExit as end:
        return CompletedProcess(arguments, end.code, out.getvalue(), err.getvalue())
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    raise AssertionError("the entry point leaves the process")


def audited(file: Path, *, verify: bool = False) -> str:
    """An audit without a server; gives what it said. Only the stages that are damaged run."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        plan = Plan(Request(file, verify=verify))
        with claiming(plan):
            plan.preflight()
            if from_cache(plan) is None:
                session = Session(plan.files, plan.settings, Lines(said))
                for job in plan.jobs:
                    carry_out(job, session, refresh=False)
                assert from_cache(Plan(Request(file))) is not None
    return said.getvalue()
