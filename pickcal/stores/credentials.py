"""Credentials from the standard places, found by each process for itself; nothing here is ever stored or sent.

What obstore looks up by itself (environment, instance metadata, web identity; Google's and Azure's own places) is left
to it. The shared files of AWS's own tools are read here, because obstore does not.
"""

from __future__ import annotations

import configparser
import os
import re
from pathlib import Path
from typing import Any

from pickcal.errors import InputError

FROM_ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
SECRETS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SSE_CUSTOMER_KEY_BASE64",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_MASTER_KEY",
    "AZURE_STORAGE_TOKEN",
    "AZURE_STORAGE_ENCRYPTION_KEY",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_CLIENT_SECRET",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_BEARER_TOKEN",
)
"""Variables whose values no message may hold."""
SHORTEST_SECRET = 6
"""Characters: values that are shorter would be found in words that are none."""
IN_FILES = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
OTHER_WAYS = ("role_arn", "sso_session", "sso_start_url", "credential_process", "credential_source", "login_session")

IN_URLS = (
    re.compile(r"(?<=://)[^/?#\s'\"<>@]+(?=@[\w.\[-])"),
    re.compile(r"(?i)(?<=[?&])((?:x-(?:amz|goog)-(?:signature|credential|security-token)|sig|token)=)[^&\s'\"<>]+"),
)
"""Names and passwords before a host, and what signs an address."""

_seen: set[str] = set()


def profile_options() -> dict[str, Any]:
    """Keys, region and endpoint of the profile in AWS's shared files, as options of an `S3Store`; {} for none.

    The environment goes before the files. A profile that logs in or takes on a role is left to `boto3`, if it is
    installed.

    Raises
    ------
    InputError
        If AWS_PROFILE names a profile that is not there, a file is damaged, or the profile needs `boto3`.
    """
    if any(os.environ.get(name) for name in FROM_ENVIRONMENT):
        return {}
    wanted = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE")
    name = wanted or "default"
    credentials = _read("AWS_SHARED_CREDENTIALS_FILE", "credentials")
    config = _read("AWS_CONFIG_FILE", "config")
    sections = [
        dict(parsed.items(section, raw=True))
        for parsed, section in ((config, name), (config, f"profile {name}"), (credentials, name))
        if parsed.has_section(section)
    ]
    if not sections:
        if wanted:
            raise InputError(
                f"AWS_PROFILE: expected a profile of ~/.aws/config or ~/.aws/credentials, found no {name!r}"
            )
        return {}
    found = {key: value for section in sections for key, value in section.items()}
    options = {key: found[key] for key in ("region", "endpoint_url") if found.get(key)}
    if os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"):
        options.pop("region", None)
    if os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT_URL_S3"):
        options.pop("endpoint_url", None)
    keys = {key: found[key] for key in IN_FILES if found.get(key)}
    if keys:
        _seen.update(keys.values())
        return options | keys
    if any(way in found for way in OTHER_WAYS):
        return options | {"credential_provider": _boto3_provider(name)}
    return options


def redacted(text: str) -> str:
    """Return a text without the secrets that this process knows, and without those in URLs.

    Examples
    --------
    >>> redacted("no answer from https://someone:password@store.lab:9000/bucket?list&X-Amz-Signature=0f3e")
    'no answer from https://***@store.lab:9000/bucket?list&X-Amz-Signature=***'
    """
    known = {os.environ.get(name, "") for name in SECRETS} | _seen
    for secret in sorted((s for s in known if len(s) >= SHORTEST_SECRET), key=len, reverse=True):
        text = text.replace(secret, "***")
    user, signature = IN_URLS
    return signature.sub(r"\1***", user.sub("***", text))


def _read(variable: str, name: str) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None, default_section="")
    path = Path(os.environ.get(variable) or f"~/.aws/{name}").expanduser()
    try:
        parsed.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError, OSError) as error:
        # the parser's own words quote lines of the file
        raise InputError(f"{path}: cannot be read as a file of AWS profiles ({type(error).__name__})") from None
    return parsed


def _boto3_provider(profile: str) -> Any:
    try:
        import boto3.session
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        raise InputError(
            f"profile {profile!r} of ~/.aws/config logs in or takes on a role, for which boto3 is needed: "
            "pip install boto3, or put keys into the environment"
        ) from None
    return Boto3CredentialProvider(boto3.session.Session(profile_name=profile))
