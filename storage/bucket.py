"""An object store, as little of it as a workspace needs, and its errors in words.

Objects are put, fetched, listed, copied and removed; nothing is renamed, nothing is changed in place. Where it is and
who may come in is said by the environment, as its users expect (storage/providers). What the library says of an error
never goes further: it could hold a token. Only its number, and the store's own word for it, do.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from storage.files import FileStamp, StoreError
from storage.providers import PROVIDERS

if TYPE_CHECKING:
    from obstore.store import BackoffConfig, ClientConfig, RetryConfig

SCHEMES = tuple(PROVIDERS)
_PART = 8 << 20  # bytes of a part of a large upload
_REMOVED = 8  # objects at once, where a request removes one
_AT_ONCE = 2  # parts of one upload that are on their way; several files are, too
_PROFILES = ("AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")


def is_remote(place: str) -> bool:
    """Whether a place is named by an address, not by a path."""
    return "://" in place


def cache_folder() -> Path:
    """Where this user's copies of what lies in object stores are: below `XDG_CACHE_HOME`, or `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "microtome"


@dataclass(frozen=True)
class Stored:
    """What a listing says of an object: size in bytes, time of change in nanoseconds, and the tag of its content."""

    size: int
    changed: int
    tag: str


class Bucket:
    """A bucket, or the objects of one whose names begin with a prefix.

    Args:
        url: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
        settings: of the store; what they do not say the environment does.

    Raises:
        ValueError: no such address, or obstore is not installed.
        StoreError: the settings, or the environment's, cannot be used.
    """

    def __init__(self, url: str, settings: Mapping[str, str] = {}) -> None:
        self.url = _checked(url)
        self._provider = PROVIDERS[self.url.partition(":")[0]]
        self._settings = {**self._provider.environment(os.environ), **settings}
        self.endpoint = self._settings.get(self._provider.endpoint, "")
        self._store = self._opened(patient=True)

    def _opened(self, *, patient: bool) -> Any:
        try:
            from obstore.store import from_url
        except ModuleNotFoundError as error:
            raise ValueError(
                f"{self.url}: object stores need the package obstore; install it: pip install 'microtome[s3]'"
            ) from error
        client: ClientConfig = {"connect_timeout": "3s", "allow_http": self.endpoint.startswith("http:")}
        client |= {"read_timeout": "30s", "timeout": "3h"} if patient else {"timeout": "4s"}
        retry: RetryConfig = {"max_retries": 1, "retry_timeout": timedelta(seconds=4)}
        if patient:
            pause: BackoffConfig = {
                "init_backoff": timedelta(seconds=1),
                "max_backoff": timedelta(seconds=10),
                "base": 3,
            }
            retry = {"max_retries": 20, "retry_timeout": timedelta(seconds=60), "backoff": pause}
        known: dict[str, Any] = dict(self._settings)
        if self.url.startswith("s3:"):
            known |= {"credential_provider": found} if (found := self._profile()) else {}
        with self._worded(""):
            return from_url(self.url, client_options=client, retry_config=retry, **known)

    def _profile(self) -> Any:
        """Credentials of a profile of ~/.aws, where nothing else says them and boto3 is there to read it."""
        said = "access_key_id" in self._settings or "AWS_ACCESS_KEY_ID" in os.environ
        if said or not ((Path.home() / ".aws").is_dir() or any(name in os.environ for name in _PROFILES)):
            return None
        try:
            from boto3 import Session
            from obstore.auth.boto3 import Boto3CredentialProvider
        except ModuleNotFoundError:
            return None
        session = Session()
        return Boto3CredentialProvider(session) if session.get_credentials() else None

    def check(self) -> None:
        """Return if the bucket is there and may be read. Raises StoreError, within seconds."""
        store = self._opened(patient=False)
        with self._worded(""):
            next(iter(store.list(chunk_size=1)), None)

    def get(self, name: str) -> bytes:
        """A whole object. Raises FileNotFoundError."""
        with self._worded(name):
            return bytes(self._store.get(name).bytes())

    def fetch(self, name: str, out: IO[bytes]) -> str:
        """Write an object's bytes to a stream; gives the tag of the content. Raises FileNotFoundError."""
        with self._worded(name):
            found = self._store.get(name)
            for block in found.stream(min_chunk_size=_PART):
                out.write(memoryview(block))
            return str(found.meta["e_tag"] or "").strip('"')

    def put(self, name: str, content: bytes) -> None:
        """Write or replace an object."""
        with self._worded(name):
            self._store.put(name, content)

    def put_once(self, name: str, content: bytes) -> None:
        """Write an object, unless it is there: then nothing changes, where the store has conditional puts."""
        from obstore.exceptions import AlreadyExistsError, NotSupportedError

        with self._worded(name):
            try:
                self._store.put(name, content, mode="create")
            except AlreadyExistsError:
                pass
            except NotSupportedError:
                self._store.put(name, content)

    def send(self, place: Path, name: str) -> None:
        """Write or replace an object with a file's bytes; large ones go in parts, and are seen when all are there."""
        with self._worded(name):
            self._store.put(name, place, chunk_size=_PART, max_concurrency=_AT_ONCE)

    def copy(self, source: str, name: str) -> None:
        """Within the store. Raises FileNotFoundError."""
        with self._worded(source):
            self._store.copy(source, name)

    def stamp(self, name: str) -> FileStamp | None:
        """Size and time of last change; None where there is no such object."""
        try:
            with self._worded(name):
                found = self._store.head(name)
        except FileNotFoundError:
            return None
        return FileStamp(found["size"], round(found["last_modified"].timestamp() * 1e9))

    def list(self, folder: str) -> dict[str, Stored]:
        """All objects below a folder, sorted by name."""
        with self._worded(folder):
            found = [meta for part in self._store.list(folder or None) for meta in part]
        stored = {
            meta["path"]: Stored(
                meta["size"], round(meta["last_modified"].timestamp() * 1e9), str(meta["e_tag"] or "").strip('"')
            )
            for meta in found
        }
        return dict(sorted(stored.items()))

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; no error where there is none."""
        wanted = list(names)
        if wanted and self._provider.removes_many:
            with self._worded(""):
                self._remove_all(wanted)
        elif wanted:
            with ThreadPoolExecutor(_REMOVED) as pool:
                list(pool.map(self._remove, wanted))

    def _remove_all(self, names: Sequence[str]) -> None:
        """In one request, made once more if it fails: the library does not repeat what it takes for a change, and to
        remove twice is to remove once."""
        from obstore.exceptions import BaseError

        try:
            self._store.delete(names)
        except BaseError:
            self._store.delete(names)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._worded(name):
            self._store.delete(name)

    @property
    def digest(self) -> str:
        """Tells this bucket from others: the same at every user and machine."""
        where = self.endpoint or self._settings.get("account_name", "")  # names of containers are an account's own
        return hashlib.sha256(f"{where}\0{self.url}".encode()).hexdigest()[:12]

    @contextlib.contextmanager
    def _worded(self, name: str) -> Iterator[None]:
        """Errors of the library as ours, without its words."""
        from obstore.exceptions import BaseError

        try:
            yield
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "is not there", f"{self.url}/{name}") from None
        except BaseError as error:
            number, why = self._provider.reason(str(error), self.endpoint)
            raise StoreError(number, f"{self.url}: {why}") from None


def _checked(url: str) -> str:
    """An address without a slash at its end. Raises ValueError, which does not repeat what could be a secret."""
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES:
        raise ValueError(f"must be one of {', '.join(f'{known}://' for known in SCHEMES)}, got {scheme!r:.20}://")
    if any(letter in rest for letter in "@?#") or not rest.isprintable():
        raise ValueError(
            f"{scheme}://...: an address must hold no credentials or options (no `@`, `?`, `#`); the environment does"
        )
    parts = rest.rstrip("/").split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"must be {scheme}://{PROVIDERS[scheme].called}/prefix, got {url!r:.80}")
    return f"{scheme}://{'/'.join(parts)}"
