"""Objects of a store: one client per process and bucket, bounded in time, and its errors in plain words.

Each process opens its own client from a URL and the environment, so that no credentials travel. Every request ends
after `TIMEOUT` seconds and is sent again at most `RETRIES` times.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, partial
from typing import Any, Literal, TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    GenericError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, GCSStore, S3Store

from pickcal.errors import InputError, MissingFileError, PickcalError, ProjectError
from pickcal.stores.credentials import profile_options, redacted
from pickcal.stores.places import Url

T = TypeVar("T")
Client = S3Store | GCSStore | AzureStore

CONNECT_TIMEOUT = 5.0
"""Seconds until a service that does not answer counts as away."""
TIMEOUT = 60.0
"""Seconds that one request may take, with its data."""
RETRIES = 8
"""How often the client itself sends a request again that failed."""
LONGEST_RETRY = 150.0
"""Seconds after which a request that keeps failing is given up."""
ATTEMPTS = 4
"""How often a request is made that gets no answer."""
KEPT_CLIENTS = 32
"""Clients, with their open connections, that a process keeps."""
ALLOW_HTTP = {"s3": "AWS_ALLOW_HTTP", "gs": "GOOGLE_ALLOW_HTTP", "az": "AZURE_ALLOW_HTTP"}
"""Variables that allow addresses without TLS."""


class Changed(Exception):
    """An object is there already, or is not the one that it was expected to be."""


@dataclass(frozen=True)
class Stat:
    """What a store says of an object.

    Attributes
    ----------
    size
        Bytes.
    mark
        ETag, in quotation marks: another one whenever the content is another.
    version
        Generation, where the store counts them.
    written
        Seconds since 1970, by the store's clock.
    """

    size: int
    mark: str
    version: str | None
    written: float


def client_of(url: Url) -> Client:
    """Open the store of a URL, its key being the root; the same client for the same place and environment.

    Raises
    ------
    InputError
        If what the environment says of the store cannot be used.
    """
    watched = sorted(f"{k}={v}" for k, v in os.environ.items() if k.startswith(("AWS_", "AZURE_", "GOOGLE_", "HOME")))
    return _client(url, hashlib.sha256("\n".join(watched).encode()).hexdigest())


def _bucket(url: Url) -> Client:
    """One client for all objects of a bucket, so that connections are used again."""
    return client_of(Url(url.scheme, url.bucket, "", url.options))


@lru_cache(maxsize=KEPT_CLIENTS)
def _client(url: Url, environment: str) -> Client:
    options = dict(url.options)
    timeout = float(options.pop("timeout", TIMEOUT))
    retries = int(options.pop("retries", RETRIES))
    endpoint = options.pop("endpoint", None)
    http: dict[str, Any] = {
        "timeout": timedelta(seconds=timeout),
        "connect_timeout": timedelta(seconds=min(CONNECT_TIMEOUT, timeout)),
    }
    if (endpoint or "").startswith("http://") or os.environ.get(ALLOW_HTTP[url.scheme], "").lower() in ("true", "1"):
        http["allow_http"] = True
    backoff = {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2}
    shared: dict[str, Any] = {
        "prefix": url.key or None,
        "client_options": http,
        "retry_config": {
            "max_retries": retries,
            "retry_timeout": timedelta(seconds=min(LONGEST_RETRY, timeout * (retries + 1))),
            "backoff": backoff,
        },
    }
    given: dict[str, Any] = {}
    if options.get("anonymous") == "true":
        given["skip_signature"] = True
    try:
        if url.scheme == "gs":
            given |= {"base_url": endpoint} if endpoint else {}
            return GCSStore(url.bucket, **shared, **given)
        if url.scheme == "az":
            given |= {"account_name": options["account"]} if "account" in options else {}
            given |= {"endpoint": endpoint} if endpoint else {}
            return AzureStore(url.bucket, **shared, **given)
        found = {} if given else profile_options()
        if "endpoint_url" in found:
            found["endpoint"] = found.pop("endpoint_url")
        if endpoint:
            found["endpoint"] = endpoint
        if "region" in options:
            found["region"] = options["region"]
        if "virtual_hosted" in options:
            found["virtual_hosted_style_request"] = options["virtual_hosted"] == "true"
        return S3Store(url.bucket, **shared, **given, **found)
    except (BaseError, ValueError, TypeError) as error:
        if isinstance(error, PickcalError):
            raise
        raise InputError(f"{url}: the store cannot be opened ({short_reason(error)}); see docs/stores.md") from None


def short_reason(error: BaseException) -> str:
    """One line of what a store said, without its answers' small print and without secrets."""
    text = str(error).partition("Debug source")[0]
    parts = []
    if status := re.search(r"status code: (\d{3} ?[A-Za-z ]*)", text):
        parts.append(status[1].strip())
    if code := re.search(r"<Code>(\w+)</Code>", text):
        parts.append(code[1])
    if not parts:
        line = " ".join(text.split())
        parts.append(line if len(line) <= 300 else line[:300] + " ...")
    return redacted(", ".join(parts))


def plain_error(error: BaseException, url: Url | str = "") -> str:
    """Say what went wrong with a store, and what to do."""
    where = f"{url}: " if url else ""
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)):
        return (
            f"{where}the object store refuses access ({short_reason(error)}); are credentials where they are looked "
            "for (docs/stores.md), and do they allow this bucket?"
        )
    if "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
        return f"{where}there is no such bucket; make it first, or look at its name, region and endpoint"
    return f"{where}the object store failed ({short_reason(error)}); the same command goes on when it answers again"


def is_passing(error: BaseException) -> bool:
    """Whether a request may be made again: one that got no answer, and that the client did not send again itself.

    The client sends again what failed on the way or with a status of 500 and more; a request that hangs, only if it
    reads.
    """
    return isinstance(error, GenericError) and not re.search(r"after \d+ retr|status code: 4", str(error))


def again(request: Callable[[], T]) -> T:
    """Make a request, and make it again if it got no answer.

    Raises
    ------
    obstore.exceptions.BaseError
        If it fails for another reason, or `ATTEMPTS` times.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return request()
        except BaseError as error:
            if not is_passing(error):
                raise
    return request()


@contextmanager
def told(url: Url, kind: type[PickcalError] = ProjectError) -> Iterator[None]:
    """Turn a store's errors into one a user can act on; an object that is not there stays a FileNotFoundError.

    Raises
    ------
    Changed
        If a condition of the request was not met.
    PickcalError
        Of the given kind, for all else that the store says.
    """
    try:
        yield
    except BaseError as error:
        if isinstance(error, (AlreadyExistsError, PreconditionError)):
            raise Changed(str(url)) from None
        raise kind(plain_error(error, url)) from None


def read(url: Url) -> bytes:
    """Read an object.

    Raises
    ------
    MissingFileError, InputError
        If it is not there, or cannot be read.
    """
    try:
        with told(url, InputError):
            return again(lambda: bytes(obstore.get(_bucket(url), url.key).bytes()))
    except FileNotFoundError:
        raise MissingFileError(f"{url}: no such object") from None


def read_start(url: Url, length: int) -> tuple[bytes, int]:
    """Read the beginning of an object, and its whole size.

    Raises
    ------
    MissingFileError, InputError
        If it is not there, or cannot be read.
    """
    try:
        with told(url, InputError):
            return again(lambda: _start(url, length))
    except FileNotFoundError:
        raise MissingFileError(f"{url}: no such object") from None
    except InputError:
        known = stat(url)
        if known is not None and known.size == 0:  # no range of it can be given
            return b"", 0
        raise


def _start(url: Url, length: int) -> tuple[bytes, int]:
    found = obstore.get(_bucket(url), url.key, options={"range": (0, length)})
    return bytes(found.bytes()), int(found.meta["size"])


def read_range(url: Url, start: int, length: int) -> bytes:
    """Read part of an object.

    Raises
    ------
    MissingFileError, InputError
        If it is not there, or cannot be read.
    """
    try:
        with told(url, InputError):
            return again(lambda: bytes(obstore.get_range(_bucket(url), url.key, start=start, length=length)))
    except FileNotFoundError:
        raise MissingFileError(f"{url}: no such object") from None


def stat(url: Url) -> Stat | None:
    """Look at an object; None where there is none.

    Raises
    ------
    InputError
        If the store does not answer, or refuses.
    """
    try:
        with told(url, InputError):
            return again(lambda: _stat(obstore.head(_bucket(url), url.key)))
    except FileNotFoundError:
        return None


def write(url: Url, data: bytes, expected: Stat | Literal["none", "any"] = "any") -> Stat:
    """Write an object, whole or not at all.

    Parameters
    ----------
    url, data
        Which, and what.
    expected
        What must be there now: "none", a `Stat` that it must still have, or "any" (default).

    Raises
    ------
    Changed
        If something else is there than was expected.
    ProjectError
        If the store does not answer, or refuses.
    """
    mode: Any = "overwrite"
    if expected == "none":
        mode = "create"
    elif isinstance(expected, Stat):
        mode = {"e_tag": expected.mark} | ({} if expected.version is None else {"version": expected.version})
    for attempt in range(ATTEMPTS):
        try:
            return _written(url, data, mode, isinstance(expected, Stat))
        except (Changed, ProjectError) as error:
            # the client does not send a conditional request again that got no answer: it may have been carried out
            last = attempt == ATTEMPTS - 1
            if mode == "overwrite" or (isinstance(error, Changed) and not attempt):
                raise
            if (found := _ours(url, data)) is not None:
                return found
            if last or isinstance(error, Changed):
                raise
    raise AssertionError("unreachable")


def _written(url: Url, data: bytes, mode: Any, replaces: bool) -> Stat:
    try:
        with told(url):
            if mode == "overwrite":
                done = again(lambda: obstore.put(_bucket(url), url.key, data))
            else:
                done = obstore.put(_bucket(url), url.key, data, mode=mode)
    except FileNotFoundError:  # what was to be replaced is gone, or there is no such bucket
        if replaces:
            raise Changed(str(url)) from None
        raise ProjectError(f"{url}: there is no {url.scheme}://{url.bucket}; make it first") from None
    return Stat(len(data), _mark(done), done.get("version"), 0.0)


def _ours(url: Url, data: bytes) -> Stat | None:
    """Mark of an object that holds what was to be written, None where another one or none is there."""
    try:
        with told(url):
            found = obstore.get(_bucket(url), url.key)
            return _stat(found.meta) if bytes(found.bytes()) == data else None
    except FileNotFoundError:
        return None


def remove(url: Url) -> None:
    """Remove an object if it is there.

    Raises
    ------
    ProjectError
        If the store does not answer, or refuses.
    """
    try:
        with told(url):
            again(lambda: obstore.delete(_bucket(url), url.key))
    except FileNotFoundError:
        pass


def listed(url: Url, most: int | None = None) -> dict[str, Stat]:
    """List the objects within a place, by their names relative to it.

    Parameters
    ----------
    url
        What they are in.
    most
        Stop after about so many; default: all.

    Raises
    ------
    InputError
        If there is no such bucket, or the store does not answer, or refuses.
    """
    out: dict[str, Stat] = {}
    with told(url, InputError):
        again(lambda: _fill(out, url, most))
    return out


def _fill(out: dict[str, Stat], url: Url, most: int | None) -> None:
    start = len(url.key) + 1 if url.key else 0
    for chunk in obstore.list(_bucket(url), prefix=f"{url.key}/" if url.key else None):
        out.update((str(found["path"])[start:], _stat(found)) for found in chunk)
        if most is not None and len(out) >= most:
            break


def remove_within(url: Url, keep: tuple[str, ...] = ()) -> None:
    """Remove all objects within a place, but for those named.

    Parameters
    ----------
    url
        What they are in.
    keep
        Names relative to it.

    Raises
    ------
    InputError, ProjectError
        If there is no such bucket, or the store does not answer, or refuses.
    """
    names = [name for name in listed(url) if name not in keep]
    with told(url):
        for start in range(0, len(names), 1000):
            keys = [f"{url.key}/{name}" for name in names[start : start + 1000]]
            again(partial(obstore.delete, _bucket(url), keys))


def _stat(found: Any) -> Stat:
    return Stat(int(found["size"]), _mark(found), found.get("version"), found["last_modified"].timestamp())


def _mark(found: Any) -> str:
    """ETag as conditions take it: Azure's lists have it without the quotation marks that its other answers have."""
    mark = str(found.get("e_tag"))
    return mark if mark.endswith('"') else f'"{mark}"'
