"""A Prefect server that does not answer: said after some seconds, with what is done meanwhile and until when.

Prefect itself goes on asking for minutes, and says nothing.
"""

from __future__ import annotations

import os
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException

from flows.console import progress
from flows.run import BODY
from microtome.errors import InputError, Interrupted
from microtome.importing import said

SILENT = 4.0  # s without an answer after which it is said
START = 15.0  # s within which a server must answer before an audit begins
END = 120.0  # s that it has, when the audit has ended, to be told how; Prefect asks for some two minutes, if refused
_EVERY = 1.0  # s between two questions
_TIMEOUT = 3.0  # s for an answer


def server_place() -> str:
    """Address of the server's API, from the environment or the profile."""
    if place := os.environ.get("PREFECT_API_URL"):
        return place
    from prefect.settings import get_current_settings

    return str(get_current_settings().api.url)


def unanswered(place: str) -> str:
    """Why a server cannot be said to be there; empty where it answers, whatever it says."""
    try:
        urllib.request.urlopen(f"{place.rstrip('/')}/health", timeout=_TIMEOUT).close()
    except urllib.error.HTTPError:
        return ""
    except urllib.error.URLError as error:
        return "" if isinstance(error.reason, ssl.SSLError) else str(error.reason)
    except (OSError, HTTPException, ValueError) as error:
        return said(error)
    return ""


def await_server(place: str, stop: threading.Event) -> None:
    """Return as soon as the server answers.

    Args:
        place: address of its API.
        stop: set when the user asked to stop.

    Raises:
        InputError: it does not within START.
        Interrupted: the user asked to stop.
    """
    began, told = time.monotonic(), False
    while why := unanswered(place):
        if stop.is_set():
            raise Interrupted("stopped by the user while it waited for Prefect's server")
        waited = time.monotonic() - began
        if waited > START:
            raise InputError(
                f"PREFECT_API_URL: no Prefect server answers at {place}, asked for {START:.0f} s ({why}); start it, or "
                "unset PREFECT_API_URL, and the audit starts one of its own"
            )
        if waited > SILENT and not told:
            progress().say(_away(place, f"waiting for it until {_clock(START - waited)}, then the audit ends"))
            told = True
        stop.wait(_EVERY)


class Watch:
    """Asks a server, while a flow goes on, whether it is there, and says when it is not and what comes of that.

    Args:
        place: address of its API.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self.gave_up = threading.Event()
        """Set when the server has not answered for END, and the flow's body has ended so long ago, or never began."""
        self._over = threading.Event()
        self._told: set[str] = set()

    @contextmanager
    def looking(self) -> Iterator[None]:
        """In a thread of its own."""
        thread = threading.Thread(target=self._look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()

    def _look(self) -> None:
        answered = working = time.monotonic()
        while not self._over.wait(_EVERY):
            now = time.monotonic()
            if BODY.begun and not BODY.ended:
                working = now
            if not unanswered(self.place):
                answered = now
                self._back()
            elif now - answered > SILENT:
                self._away(END - (now - max(answered, working)))

    def _back(self) -> None:
        if self._told:
            progress().say(f"the Prefect server at {self.place} answers again")
        self._told.clear()

    def _away(self, left: float) -> None:
        """Say what is done; `left` are the seconds that the server has where nothing but it is waited for."""
        if BODY.begun and not BODY.ended:
            self._say("the audit goes on, and tells it later", "")
            return
        what = "the run is recorded; trying to tell the server" if BODY.ended else "trying to begin the run there"
        self._say(what, f" until {_clock(left)}")
        if left < 0:
            self.gave_up.set()

    def _say(self, what: str, until: str) -> None:
        if what not in self._told and not self._over.is_set():
            self._told.add(what)
            progress().say(_away(self.place, what + until))


def _away(place: str, then: str) -> str:
    return f"the Prefect server at {place} does not answer; {then}"


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(time.time() + max(seconds, 0.0)))
