"""Blocks of Prefect that say where a workspace is, read as they are stored: no package is needed for their class.

`block://s3-bucket/NAME` is prefect-aws's, `block://remote-file-system/NAME` and `block://local-file-system/NAME` are
Prefect's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from microtome.errors import InputError, suggest

Place = tuple[str, dict[str, str]]
"""A workspace, and the settings of its store."""
_Block = Mapping[str, Any]
_Said = tuple[str, _Block]
_UNREAD = ("profile_name", "assume_role_arn")  # of credentials, which only AWS's own library can follow


def place_of_block(named: str) -> Place:
    """Where a block says that a workspace is.

    Args:
        named: `TYPE/NAME`, as Prefect's `load` takes it.

    Raises:
        InputError: no such block, none that says a place, or no server that could be asked.
    """
    kind, slash, name = named.partition("/")
    if not (kind and slash and name) or "/" in name:
        raise InputError(f"workspace: a block is named block://TYPE/NAME, got block://{named}")
    if kind not in _PLACES:
        raise InputError(f"workspace: a block of type {kind!r} says no place{suggest(kind, list(_PLACES))}")
    try:
        place, settings = _PLACES[kind](_stored(kind, name))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"workspace: block://{named} has not the fields of its type ({error})") from error
    return place, {key: str(value) for key, value in settings.items() if value}


def _stored(kind: str, name: str) -> _Block:
    """The content of a block, secrets included, from Prefect's server."""
    from flows.run import server_configured
    from flows.server import server_place, unanswered

    if not server_configured():
        raise InputError(
            f"workspace: block://{kind}/{name} is kept by a Prefect server; set PREFECT_API_URL, or name the address"
        )
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

    if why := unanswered(place := server_place()):
        raise InputError(
            f"workspace: the Prefect server at {place}, which keeps block://{kind}/{name}, is away ({why})"
        )
    try:
        with get_client(sync_client=True) as client:
            return client.read_block_document_by_name(name, kind, include_secrets=True).data
    except ObjectNotFound:
        raise InputError(f"workspace: the Prefect server at {place} has no block {kind}/{name}") from None
    except PrefectHTTPStatusError as error:
        code = error.response.status_code
        raise InputError(f"workspace: the Prefect server at {place} does not give {kind}/{name} ({code})") from None


def _s3_bucket(block: _Block) -> _Said:
    folder = str(block.get("bucket_folder") or "").strip("/")
    keys = block.get("credentials") or {}
    if unread := [name for name in _UNREAD if keys.get(name)]:
        raise InputError(
            f"workspace: of a block's credentials only keys are taken, got {unread[0]}; set the environment"
        )
    client = keys.get("aws_client_parameters") or {}
    return f"s3://{block['bucket_name']}{f'/{folder}' if folder else ''}", {
        "access_key_id": keys.get("aws_access_key_id") or keys.get("minio_root_user"),
        "secret_access_key": keys.get("aws_secret_access_key") or keys.get("minio_root_password"),
        "session_token": keys.get("aws_session_token"),
        "region": keys.get("region_name"),
        "endpoint": client.get("endpoint_url"),
    }


def _remote_file_system(block: _Block) -> _Said:
    """The settings are those of fsspec, and so of s3fs."""
    told = block.get("settings") or {}
    client = told.get("client_kwargs") or {}
    return str(block["basepath"]), {
        "access_key_id": told.get("key"),
        "secret_access_key": told.get("secret"),
        "session_token": told.get("token"),
        "region": client.get("region_name"),
        "endpoint": told.get("endpoint_url") or client.get("endpoint_url"),
    }


def _local_file_system(block: _Block) -> _Said:
    return str(block["basepath"]), {}


_PLACES: Mapping[str, Callable[[_Block], _Said]] = {
    "s3-bucket": _s3_bucket,
    "remote-file-system": _remote_file_system,
    "local-file-system": _local_file_system,
}
