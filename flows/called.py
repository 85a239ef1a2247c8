"""A flow called by a command: in a thread, with a server that may go away."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from flows.embedded import start_server
from flows.run import BODY, STOP, GateFailed, Outcome, StageFailed, await_heeding_signals, server_configured, stoppable
from flows.server import Watch, await_server, server_place
from microtome.errors import InputError, Interrupted
from microtome.importing import said

if TYPE_CHECKING:
    from prefect.states import State

_CLIENTS = ("httpx", "httpcore")  # packages by which Prefect asks its server
ABANDONED = threading.Event()
"""Set when Prefect still asks for a server that is away: this process must end without waiting for it."""


def with_prefect(call: Callable[[], State[Outcome]]) -> Outcome:
    """Call a flow in a thread, so that the main one is free for signals: Prefect replaces handlers where it can.

    Raises:
        InputError: no server answers. Else what the flow raised.
    """
    with stoppable():
        if server_configured():
            await_server(server_place(), STOP)
        else:
            start_server(STOP)
        watch = Watch(server_place())
        with watch.looking():
            called = _begun(call)
            await_heeding_signals(called, watch.gave_up.is_set)
    if not called.done():
        ABANDONED.set()
        return _despite(TimeoutError("it is asked no more"))
    try:
        return called.result().result(raise_on_failure=True)
    except GateFailed as failed:
        return failed.outcome
    except (InputError, Interrupted, StageFailed):
        raise
    except Exception as error:
        return _despite(error)


def _begun(call: Callable[[], State[Outcome]]) -> Future[State[Outcome]]:
    """In a thread that does not keep the process when it hangs in Prefect's asking for a server that is away."""
    called: Future[State[Outcome]] = Future()

    def run() -> None:
        try:
            called.set_result(call())
        except BaseException as error:
            called.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return called


def _despite(error: Exception) -> Outcome:
    """What came of a flow whose body ended although Prefect failed: its server went away, or its disk is full.

    Raises:
        InputError: no body began, since no server answers. Else what the body raised, or what Prefect did.
    """
    if error is BODY.failure:
        raise error
    if BODY.outcome is None and BODY.failure is None:
        if _unanswered(error):
            raise InputError(
                f"PREFECT_API_URL: no Prefect server answers at {server_place()} ({said(error)})"
            ) from error
        raise error
    print(f"warning: Prefect could not be told how the run ended: {said(error)}", file=sys.stderr)
    if BODY.outcome is None or BODY.failure is not None:
        raise BODY.failure or error
    return BODY.outcome


def _unanswered(error: BaseException | None) -> bool:
    """Whether an error comes of a server that cannot be reached."""
    if error is None or isinstance(error, TimeoutError) or type(error).__module__.split(".")[0] in _CLIENTS:
        return error is not None
    return _unanswered(error.__cause__ or error.__context__)
