"""What sets the object stores of Amazon, Microsoft and Google apart: the variables that their users set, and what is
said of errors.

obstore reads most of these variables itself; here are those that it does not know, and those that tell one store from
another.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_METADATA = re.compile(r"169\.254\.169\.254|/latest/api/token|token request: Error performing GET ")
"""Who is asked for a machine's role, where the environment has no credentials."""
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_DENIED = ("401", "403")


@dataclass(frozen=True)
class Provider:
    """A kind of store.

    Args:
        called: what holds objects there.
        endpoint: the setting that says where a store is that is not the provider's own.
        environment: settings, as obstore calls them, that the environment says.
        lacking: what is said where there are no credentials.
        wrong: what is said of settings that cannot be used, by a word of the library for it.
        removes_many: whether one request removes many objects, none of which need be there.
    """

    called: str
    endpoint: str
    environment: Callable[[Mapping[str, str]], dict[str, str]]
    lacking: str
    wrong: Mapping[str, str]
    removes_many: bool = False

    def reason(self, text: str, endpoint: str) -> tuple[int, str]:
        """What an error of the library means: its number, and in words that hold none of the library's, which could
        hold a token.
        """
        for word, said in self.wrong.items():
            if word in text:
                return errno.EACCES, said
        if _METADATA.search(text):
            return errno.EACCES, self.lacking
        if "token request" in text:
            return errno.EACCES, "its credentials were refused: no token is given for them"
        status, code = _STATUS.search(text), _CODE.search(text)
        if status is None:
            return errno.EIO, f"the object store does not answer{f' at {endpoint}' if endpoint else ''}"
        words = dict.fromkeys(_DENIED, "access was denied") | {"404": f"there is no such {self.called}"}
        why = words.get(status[1], f"the object store answered {status[1]}")
        return errno.EACCES if status[1] in _DENIED else errno.EIO, f"{why}{f' ({code[1]})' if code else ''}"


def connection_settings(text: str) -> dict[str, str]:
    """What a connection string of Azure says: `AccountName=...;AccountKey=...;BlobEndpoint=...`."""
    said = dict(part.split("=", 1) for part in text.split(";") if "=" in part)
    account, suffix = said.get("AccountName", ""), said.get("EndpointSuffix", "core.windows.net")
    its_own = f"{said.get('DefaultEndpointsProtocol', 'https')}://{account}.blob.{suffix}" if account else ""
    return _without_gaps(
        account_name=account,
        account_key=said.get("AccountKey"),
        endpoint=said.get("BlobEndpoint") or its_own,
    )


def _amazon(environment: Mapping[str, str]) -> dict[str, str]:
    return _without_gaps(endpoint=_first(environment, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"))


def _microsoft(environment: Mapping[str, str]) -> dict[str, str]:
    """A connection string counts first, as with `az storage`, whose own names of the others are taken, too."""
    said = _without_gaps(
        account_name=_first(environment, "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"),
        account_key=_first(environment, "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY"),
        endpoint=_first(environment, "AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
    )
    return said | connection_settings(environment.get("AZURE_STORAGE_CONNECTION_STRING", ""))


def _google(environment: Mapping[str, str]) -> dict[str, str]:
    return _without_gaps(base_url=environment.get("GOOGLE_BASE_URL"))


def _first(environment: Mapping[str, str], *names: str) -> str:
    return next(filter(None, map(environment.get, names)), "")


def _without_gaps(**settings: str | None) -> dict[str, str]:
    return {name: value for name, value in settings.items() if value}


_NO_FILE = (
    "the file of credentials that the environment names cannot be read, or is none; GOOGLE_APPLICATION_CREDENTIALS"
)
_NO_FILE += " must name a service account's, as Google made it"
PROVIDERS: Mapping[str, Provider] = {
    "s3": Provider(
        "bucket",
        "endpoint",
        _amazon,
        "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or install boto3 where they are in a profile "
        "of ~/.aws",
        {},
        removes_many=True,
    ),
    "gs": Provider(
        "bucket",
        "base_url",
        _google,
        "no credentials; set GOOGLE_APPLICATION_CREDENTIALS to a service account's file, or run `gcloud auth "
        "application-default login`",
        dict.fromkeys(("OpenCredentials", "DecodeCredentials", "ReadPem"), _NO_FILE),
    ),
    "az": Provider(
        "container",
        "endpoint",
        _microsoft,
        "no credentials; set AZURE_STORAGE_ACCOUNT_KEY beside AZURE_STORAGE_ACCOUNT_NAME, or "
        "AZURE_STORAGE_CONNECTION_STRING",
        {
            "MissingAccount": "no storage account; set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or "
            "AZURE_STORAGE_CONNECTION_STRING",
            "InvalidAccessKey": "the storage account's key must be in base64, as Azure shows it; it is not",
        },
    ),
}
