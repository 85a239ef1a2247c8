"""Commands in this process: their exit status and words, without the time that a process of its own takes."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import click

from flows.claiming import claiming
from flows.cli import cli
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
