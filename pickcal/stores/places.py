"""Places: what a user types for a project or a file becomes a path of this machine or the URL of an object store.

A URL is one word that names bucket, key and options, none of them secret, so that it may stand in task graphs, in logs
and in the project. Every process finds its credentials itself, see `stores.objects`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote, urlsplit

from cyclopts import Parameter
from pydantic import BeforeValidator, GetCoreSchemaHandler
from pydantic_core import core_schema

from pickcal.errors import InputError

SCHEMES = {"s3": "bucket", "gs": "bucket", "az": "container"}
"""Kinds of object stores, and what they call that which holds the objects."""
OPTIONS = {
    "endpoint": "address of the service, where it is not the one that everybody uses",
    "region": "region of the bucket",
    "account": "storage account (Azure)",
    "anonymous": "'true' reads public buckets without credentials",
    "virtual_hosted": "'true' puts the bucket into the host name",
    "timeout": "seconds that one request may take",
    "retries": "how often a request that failed is sent again",
}
"""What may follow the `?` of a URL."""
OF_ONE = {"region": "s3", "virtual_hosted": "s3", "account": "az"}
"""Options that only one kind of store has."""
FLAGS = ("anonymous", "virtual_hosted")
NUMBERS = ("timeout", "retries")
_LOOKS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(/{1,2})(.*)", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,220}[A-Za-z0-9]")


@dataclass(frozen=True)
class Url:
    """Place in an object store; it names objects as a path names files.

    Attributes
    ----------
    scheme
        One of `SCHEMES`.
    bucket
        Bucket or container.
    key
        Name within it, with `/` between its parts; "" for the bucket itself.
    options
        Pairs of `OPTIONS`, in the order of their names.

    Examples
    --------
    >>> url = place("s3://bucket/session/p.zarr?region=eu-west-1")
    >>> url.name, str(url.parent / "micrographs")
    ('p.zarr', 's3://bucket/session/micrographs?region=eu-west-1')
    """

    scheme: str
    bucket: str
    key: str = ""
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """Return it as it is typed."""
        query = "&".join(f"{name}={quote(value, safe='/:')}" for name, value in self.options)
        return f"{self.scheme}://{self.bucket}/{self.key}" + (f"?{query}" if query else "")

    def __truediv__(self, name: str | PurePosixPath) -> Url:
        """Join a name, as paths do; `..` and empty parts have no meaning in an object store and are refused."""
        return Url(self.scheme, self.bucket, _joined(self.key, str(name)), self.options)

    @property
    def name(self) -> str:
        """Last part of the key."""
        return PurePosixPath(self.key).name or self.bucket

    @property
    def suffix(self) -> str:
        """Ending of the name, with its dot."""
        return PurePosixPath(self.key).suffix

    @property
    def parent(self) -> Url:
        """What it is in; the bucket is in itself."""
        return Url(self.scheme, self.bucket, self.key.rpartition("/")[0], self.options)

    @property
    def parents(self) -> list[Url]:
        """What it is in, from the nearest to the bucket."""
        found = [self.parent] if self.key else []
        while found and found[-1].key:
            found.append(found[-1].parent)
        return found

    def with_name(self, name: str) -> Url:
        """Return what is beside it under another name."""
        return self.parent / name

    def absolute(self) -> Url:
        """Return itself, as a path that is absolute does."""
        return self

    def resolve(self) -> Url:
        """Return itself: an object store has no links."""
        return self

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Tell pydantic that it is stored as it is typed."""
        return core_schema.is_instance_schema(cls, serialization=core_schema.to_string_ser_schema())


Place = Path | Url


def place(text: str | Path | Url) -> Place:
    """Tell what a user typed: a path of this machine, or the URL of an object store.

    Parameters
    ----------
    text
        A path, or `s3://bucket/key`, `gs://bucket/key`, `az://container/key`, with `?name=value` of `OPTIONS` behind.

    Raises
    ------
    InputError
        If a URL is of another kind, names no bucket, has an option that is not known, or holds a password or key:
        those belong into the environment. The message does not repeat what is secret.
    """
    if isinstance(text, Url):
        return text
    found = _LOOKS.fullmatch(os.fspath(text))
    if found is None or (isinstance(text, Path) and found[1].lower() not in SCHEMES):
        return Path(text)
    if len(found[2]) == 1 and (not isinstance(text, Path) or text.exists()):
        return Path(text)
    scheme = found[1].lower()
    if scheme == "file":
        return Path(found[3])
    if scheme not in SCHEMES:
        raise InputError(
            f"{scheme}://...: expected a path of this machine, or a URL that begins with "
            f"{', '.join(f'{known}://' for known in SCHEMES)}"
        )
    return _url(scheme, found[3])


def _url(scheme: str, rest: str) -> Url:
    parts = urlsplit(f"//{rest}")
    kind = SCHEMES[scheme]
    if "@" in parts.netloc:
        raise InputError(
            f"{scheme}://...@...: expected no user name or password in a URL; credentials are taken from the "
            "environment, see docs/stores.md"
        )
    if parts.fragment:
        raise InputError(f"{scheme}://{parts.netloc}...: expected no '#' in a URL, found one; rename the object")
    if not _BUCKET.fullmatch(parts.netloc):
        raise InputError(f"{scheme}://{parts.netloc}: expected {scheme}://{kind.upper()}/NAME, found no {kind}")
    where = f"{scheme}://{parts.netloc}{parts.path}"
    options = tuple(sorted(_option(scheme, where, name, value) for name, value in parse_qsl(parts.query, True)))
    return Url(scheme, parts.netloc, _joined("", parts.path), options)


def _option(scheme: str, where: str, name: str, value: str) -> tuple[str, str]:
    if name not in OPTIONS:
        raise InputError(
            f"{where}?{name}=...: expected one of {', '.join(OPTIONS)}, found {name!r}; keys, tokens and signatures "
            "do not belong into a URL: they are taken from the environment, see docs/stores.md"
        )
    if OF_ONE.get(name, scheme) != scheme:
        raise InputError(f"{where}?{name}: expected with {OF_ONE[name]}:// alone ({OPTIONS[name]}); leave it out")
    if name in FLAGS and value not in ("true", "false"):
        raise InputError(f"{where}?{name}: expected true or false, got {value!r}")
    if name in NUMBERS and not re.fullmatch(r"\d{1,4}", value):
        raise InputError(f"{where}?{name}: expected a whole number ({OPTIONS[name]}), got {value!r}")
    if name == "endpoint" and (not re.match(r"https?://[^/?#]+", value) or "@" in value or re.search("[?#]", value)):
        raise InputError(f"{where}?endpoint: expected http(s)://HOST[:PORT] without user name, password and '?'")
    return name, value


def _joined(key: str, name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InputError(f"{name}: expected a name within the object store, found '..', which leads nowhere there")
    return "/".join([key, *parts] if key else parts)


def _one(_: Any, tokens: Sequence[Any]) -> Place:
    return place(tokens[0].value)


def _many(_: Any, tokens: Sequence[Any]) -> list[Place]:
    return [place(token.value) for token in tokens]


PlaceField = Annotated[Place, BeforeValidator(place), Parameter(converter=_one, n_tokens=1, accepts_keys=False)]
"""A place as a setting: flag, job-file key and Python argument."""
PlaceList = Annotated[list[Place], Parameter(converter=_many, accepts_keys=False, negative="")]
"""Places as an argument of a command."""
