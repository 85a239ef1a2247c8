"""Blocks of Prefect that say where a workspace is, read as they are stored: no package is needed for their class.

`block://s3-bucket/NAME` is prefect-aws's, `block://azure-blob-storage-container/NAME` prefect-azure's,
`block://remote-file-system/NAME` and `block://local-file-system/NAME` are Prefect's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from microtome.errors import InputError, suggest
from storage.providers import connection_settings

Place = tuple[str, dict[str, str]]
"""A workspace, and the settings of its store."""
_Block = Mapping[str, Any]
_Said = tuple[str, _Block]
_UNREAD = ("profile_name", "assume_role_arn", "account_url")  # of credentials, which only their own library can follow


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
    keys = _keys(block)
    client = keys.get("aws_client_parameters") or {}
    return _address("s3", block["bucket_name"], block.get("bucket_folder")), {
        "access_key_id": keys.get("aws_access_key_id") or keys.get("minio_root_user"),
        "secret_access_key": keys.get("aws_secret_access_key") or keys.get("minio_root_password"),
        "session_token": keys.get("aws_session_token"),
        "region": keys.get("region_name"),
        "endpoint": client.get("endpoint_url"),
    }


def _azure_container(block: _Block) -> _Said:
    said = connection_settings(str(_keys(block).get("connection_string") or ""))
    return _address("az", block["container_name"], block.get("base_folder")), said


def _keys(block: _Block) -> _Block:
    keys: _Block = block.get("credentials") or {}
    unread = [name for name in _UNREAD if keys.get(name) and not keys.get("connection_string")]
    if unread:
        raise InputError(
            "workspace: of a block's credentials only keys, or a connection string, are taken, got "
            f"{unread[0]}; set the environment"
        )
    return keys


def _address(scheme: str, holder: str, folder: str | None) -> str:
    return "/".join(filter(None, (f"{scheme}://{holder}", (folder or "").strip("/"))))


def _remote_file_system(block: _Block) -> _Said:
    """The settings are those of fsspec: of s3fs, or of adlfs."""
    place = str(block["basepath"])
    scheme = place.partition("://")[0]
    if scheme not in _FSSPEC:
        raise InputError(
            f"workspace: the base path of a block of type remote-file-system must be at s3:// or az://, got {scheme:.20}://"
        )
    return place, _FSSPEC[scheme](block.get("settings") or {})


def _of_adlfs(told: _Block) -> _Block:
    return {
        "account_name": told.get("account_name"),
        "account_key": told.get("account_key"),
        **connection_settings(str(told.get("connection_string") or "")),
    }


def _of_s3fs(told: _Block) -> _Block:
    client = told.get("client_kwargs") or {}
    return {
        "access_key_id": told.get("key"),
        "secret_access_key": told.get("secret"),
        "session_token": told.get("token"),
        "region": client.get("region_name"),
        "endpoint": told.get("endpoint_url") or client.get("endpoint_url"),
    }


_FSSPEC: Mapping[str, Callable[[_Block], _Block]] = {"s3": _of_s3fs, "az": _of_adlfs}


def _local_file_system(block: _Block) -> _Said:
    return str(block["basepath"]), {}


_PLACES: Mapping[str, Callable[[_Block], _Said]] = {
    "s3-bucket": _s3_bucket,
    "azure-blob-storage-container": _azure_container,
    "remote-file-system": _remote_file_system,
    "local-file-system": _local_file_system,
}
