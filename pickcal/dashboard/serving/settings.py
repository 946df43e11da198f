"""The settings of `pickcal inspect`; nothing of the web is imported here, so that the command line starts at once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from pydantic import Field, field_validator

from pickcal.settings import Settings

Provider = Literal[
    "auth0", "auth_code", "azure", "azurev2", "bitbucket", "generic", "github", "gitlab", "google", "okta"
]


class ServeSettings(Settings):
    """How `pickcal inspect` is served."""

    port: int = Field(0, ge=0, le=65535, description="Port number, no unit; 0 takes a free one.")
    address: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address of this machine to listen on; others than loopback need a password or OAuth, and "
        "--allow-origin.",
    )
    show: bool = Field(True, description="Open a browser.")
    read_only: Annotated[bool, Parameter(negative="")] = Field(False, description="Visitors can look, not save.")
    prefix: str = Field("", description="Path of the page behind a reverse proxy, such as /pickcal.")
    allow_origin: tuple[str, ...] = Field(
        (), description="HOST[:PORT] as people type it in the browser, when it is not this machine."
    )
    password_file: Path | None = Field(
        None,
        description="File with the password, or with JSON of user: password; or set PICKCAL_PASSWORD. "
        "There is no flag for the password itself: others see command lines.",
    )
    oauth_provider: Provider | None = Field(None, description="Log in with accounts of this OAuth provider.")
    oauth_key: str | None = Field(None, min_length=1, description="OAuth client id; or set PANEL_OAUTH_KEY.")
    oauth_secret_file: Path | None = Field(
        None, description="File with the OAuth client secret; or set PANEL_OAUTH_SECRET."
    )
    oauth_encryption_file: Path | None = Field(
        None, description="File with the key that encrypts OAuth tokens; or set PANEL_OAUTH_ENCRYPTION."
    )
    oauth_extra: tuple[str, ...] = Field(
        (), description="KEY=VALUE for the provider, such as tenant=...; or set PANEL_OAUTH_EXTRA_PARAMS."
    )
    oauth_redirect: str | None = Field(
        None, pattern="^https?://", description="Address that the provider sends visitors back to; default: the page's."
    )
    allow_user: tuple[str, ...] = Field(
        (), description="With OAuth: account that may come in, @domain for all of a domain, or '*' for every account."
    )
    keep_minutes: float = Field(
        15.0, ge=0.1, le=1440, description="Minutes that a visitor's page waits for a lost connection to come back."
    )

    @field_validator("prefix")
    @classmethod
    def _path(cls, prefix: str) -> str:
        path = prefix.strip("/")
        if path and not re.fullmatch(r"[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*", path):
            raise ValueError(f"prefix: expected a path such as /pickcal, got {prefix!r}")
        return f"/{path}" if path else ""

    @field_validator("allow_origin")
    @classmethod
    def _hosts(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not re.fullmatch(r"[A-Za-z0-9.-]+(:\d{1,5})?", origin):
                raise ValueError(
                    f"allow_origin: expected HOST or HOST:PORT without scheme, path or '*', got {origin!r}; for "
                    "https://em.example.org/pickcal give em.example.org"
                )
        return tuple(origin.lower() for origin in origins)

    @field_validator("oauth_extra")
    @classmethod
    def _pairs(cls, extra: tuple[str, ...]) -> tuple[str, ...]:
        for pair in extra:
            if not pair.partition("=")[0] or "=" not in pair:
                raise ValueError(f"oauth_extra: expected KEY=VALUE, got {pair!r}")
        return extra
