"""Who may come in: passwords, OAuth accounts, and the pages for login and logout."""

from __future__ import annotations

import ast
import asyncio
import hmac
import importlib
import json
import logging
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import panel as pn
from panel.auth import BasicAuthProvider, BasicLoginHandler, LogoutHandler, OAuthProvider
from tornado.web import Finish, HTTPError, RequestHandler
from tornado.websocket import WebSocketHandler

from pickcal.dashboard.serving.settings import Provider, ServeSettings
from pickcal.errors import InputError, MissingFileError

log = logging.getLogger(__name__)

TITLE = "pickcal: inspect picks"
LOGIN_PAGE = Path(__file__).with_name("login.html")
ERROR_PAGE = LOGIN_PAGE.with_name("login_error.html")
COOKIES = ("user", "id_token", "access_token", "refresh_token", "oauth_expiry", "is_guest")
WRONG_PASSWORD_WAIT = 1.0
PASSWORD_ENV = "PICKCAL_PASSWORD"


def login_provider(settings: ServeSettings, note: Callable[[str], None]) -> BasicAuthProvider | OAuthProvider | None:
    """Make what decides who may come in.

    With OAuth, Panel's configuration is set on the way.

    Parameters
    ----------
    settings
        Where the password or the OAuth client is found; the environment adds to it.
    note
        Called with a warning when others can read a secret file, or tokens are not encrypted.

    Returns
    -------
    panel.auth.BasicAuthProvider or panel.auth.OAuthProvider or None
        None when neither a password nor OAuth is asked for.

    Raises
    ------
    MissingFileError, InputError
        If a secret file is missing, or what is given is incomplete or does not fit together.
    """
    oauth = settings.oauth_provider or os.environ.get("PANEL_OAUTH_PROVIDER")
    password = settings.password_file is not None or PASSWORD_ENV in os.environ
    if oauth and password:
        raise InputError(
            f"expected a password or OAuth, got both (--password-file or {PASSWORD_ENV}, and --oauth-provider or "
            "PANEL_OAUTH_PROVIDER); take one away"
        )
    if oauth:
        _configure_oauth(settings, oauth, note)
        return _AccountProvider(settings.prefix, settings.allow_user)
    _refuse_unused(settings)
    return _PasswordProvider(settings.prefix, read_passwords(settings.password_file, note)) if password else None


def _refuse_unused(settings: ServeSettings) -> None:
    given = [name for name in type(settings).model_fields if name.startswith(("oauth_", "allow_user"))]
    if unused := [f"--{name.replace('_', '-')}" for name in given if getattr(settings, name)]:
        raise InputError(f"{', '.join(unused)}: expected with --oauth-provider, got no provider; add it or leave these")


def read_passwords(path: Path | None, note: Callable[[str], None]) -> str | dict[str, str]:
    """Read one password for everybody, or one per user.

    Parameters
    ----------
    path
        Text file of one line, or JSON object of user: password; None reads the environment variable PICKCAL_PASSWORD.
    note
        Called with a warning when others can read the file.

    Raises
    ------
    MissingFileError, InputError
        If there is no file, or no password in it.
    """
    where = PASSWORD_ENV if path is None else str(path)
    text = os.environ.get(PASSWORD_ENV, "") if path is None else _secret_file(path, "the password", note)
    if path is None or not text.startswith("{"):
        if not text.strip() or "\n" in text:
            raise InputError(
                f"{where}: expected one password on one line, or JSON of user: password in a file; got "
                f"{'several lines' if text.strip() else 'nothing'}"
            )
        return text
    try:
        users = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: expected JSON of user: password, got text that is not JSON ({error})") from None
    if not users or not all(user and isinstance(word, str) and word for user, word in users.items()):
        raise InputError(f'{where}: expected JSON such as {{"ada": "her password"}}, got an empty name or password')
    return dict(users)


def _secret_file(path: Path, what: str, note: Callable[[str], None]) -> str:
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingFileError(f"{path}: expected a file with {what}, found none") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a text file with {what} ({error})") from None
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        note(f"{path}: others on this machine can read {what}; do: chmod 600 {path}")
    text = text.strip("\r\n")
    if not text.strip():
        raise InputError(f"{path}: expected {what}, got an empty file")
    return text


def _configure_oauth(settings: ServeSettings, provider: str, note: Callable[[str], None]) -> None:
    config = pn.config
    if provider not in Provider.__args__:  # type: ignore[attr-defined]
        known = ", ".join(Provider.__args__)  # type: ignore[attr-defined]
        raise InputError(f"PANEL_OAUTH_PROVIDER: expected one of {known}; got {provider!r}")
    if not settings.allow_user:
        raise InputError(
            "oauth_provider: expected --allow-user ACCOUNT (or @domain, or '*'), got none; without it everybody with "
            f"an account at {provider} could come in"
        )
    key = _either(settings.oauth_key, "PANEL_OAUTH_KEY", "--oauth-key")
    secret = _file_or_env(settings.oauth_secret_file, "PANEL_OAUTH_SECRET", "--oauth-secret-file", note)
    if not key or not (secret or provider == "auth_code"):
        raise InputError(
            f"oauth_provider: {provider} needs the client id (--oauth-key or PANEL_OAUTH_KEY) and the client secret "
            "(--oauth-secret-file or PANEL_OAUTH_SECRET); one is missing"
        )
    config.oauth_provider, config.oauth_key, config.oauth_secret = provider, key, secret
    config.oauth_extra_params = _extra(settings)
    config.oauth_redirect_uri = _either(settings.oauth_redirect, "PANEL_OAUTH_REDIRECT_URI", "--oauth-redirect")
    encryption = _file_or_env(settings.oauth_encryption_file, "PANEL_OAUTH_ENCRYPTION", "--oauth-encryption-file", note)
    pn.state.encryption = _fernet(encryption) if encryption else None
    if not encryption:
        note("no PANEL_OAUTH_ENCRYPTION: visitors' OAuth tokens are signed, not encrypted, in their own cookies")


def _either(flag: str | None, variable: str, name: str) -> str | None:
    found = os.environ.get(variable)
    if flag and found and flag != found:
        raise InputError(f"expected {name} or {variable}, got both, and they differ; take one away")
    return flag or found or None


def _file_or_env(path: Path | None, variable: str, name: str, note: Callable[[str], None]) -> str | None:
    return _either(_secret_file(path, f"what {name} names", note).strip() if path else None, variable, name)


def _extra(settings: ServeSettings) -> dict[str, Any]:
    found = os.environ.get("PANEL_OAUTH_EXTRA_PARAMS")
    given = dict(pair.split("=", 1) for pair in settings.oauth_extra)
    if not found:
        return given
    if given:
        raise InputError("expected --oauth-extra or PANEL_OAUTH_EXTRA_PARAMS, got both; take one away")
    try:
        return dict(ast.literal_eval(found))
    except (ValueError, SyntaxError, TypeError):
        raise InputError(
            f"PANEL_OAUTH_EXTRA_PARAMS: expected a dict such as {{'tenant': '...'}}, got {found!r}"
        ) from None


def _fernet(key: str) -> Any:
    try:
        fernet = importlib.import_module("cryptography.fernet").Fernet
    except ImportError:
        raise InputError(
            "PANEL_OAUTH_ENCRYPTION: expected the package cryptography, which is not installed; "
            "do: pip install cryptography"
        ) from None
    try:
        return fernet(key.encode())
    except ValueError:
        raise InputError("PANEL_OAUTH_ENCRYPTION: expected a key as made by: panel oauth-secret") from None


class _SafeCookies(RequestHandler):
    def set_cookie(self, name: str, value: str | bytes, *args: Any, **options: Any) -> None:
        options.setdefault("samesite", "Lax")
        options.setdefault("secure", self.request.protocol == "https")
        super().set_cookie(name, value, *args, **options)

    def page(self, **shown: Any) -> None:
        """Write the page for login or logout; it has no scripts and asks nobody."""
        self.set_header("Cache-Control", "no-store")
        self.set_header(
            "Content-Security-Policy",
            "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; frame-ancestors 'none'",
        )
        values = {"out": False, "wrong": False, "name": "", "next": ""}
        self.render(str(LOGIN_PAGE), title=TITLE, **(values | shown))


class _Login(_SafeCookies, BasicLoginHandler):  # type: ignore[misc]
    """Panel's own form asks cdn.holoviz.org for its logo, forgets the view after a wrong password, lets empty names by.

    Also, Panel takes a password that is the name of a file for that file, and compares in a time that tells.
    """

    prefix = ""
    passwords: str | Mapping[str, str] = ""

    def get(self) -> None:
        self.page(login=f"{self.prefix}/login", next=self._next())

    async def post(self) -> None:
        name = self.get_body_argument("username", "").strip()[:64]
        if name and self._fits(name, self.get_body_argument("password", "", strip=False)):
            self.set_current_user(name)
            self.redirect(self._next())
            return
        log.warning("wrong password for %r from %s", name, self.request.remote_ip)
        await asyncio.sleep(WRONG_PASSWORD_WAIT)
        self.page(login=f"{self.prefix}/login", next=self._next(), wrong=True, name=name)

    def _fits(self, name: str, password: str) -> bool:
        users = self.passwords
        expected = users if isinstance(users, str) else users.get(name)
        fits = hmac.compare_digest((expected or "").encode(), password.encode())
        return fits and bool(expected)

    def _next(self) -> str:
        """Where the visitor wanted to go; only within this page, so that no link can lead elsewhere after login."""
        wanted = self.get_argument("next", "")
        inside = wanted.startswith((f"{self.prefix}/", f"{self.prefix}?")) and not wanted.startswith(("//", "/\\"))
        return wanted if inside else f"{self.prefix}/"


class _Logout(_SafeCookies, LogoutHandler):  # type: ignore[misc]
    prefix = ""

    def get(self) -> None:
        for name in COOKIES:
            self.clear_cookie(name, path=self.prefix or "/")
        self.page(login=f"{self.prefix}/login", out=True)


class _PasswordProvider(BasicAuthProvider):  # type: ignore[misc]
    def __init__(self, prefix: str, passwords: str | Mapping[str, str]) -> None:
        self._prefix, self._passwords = prefix, passwords
        super().__init__()

    def _allow_guest(self, uri: str) -> bool:
        return False  # PANEL_OAUTH_OPTIONAL in the environment would let everybody in

    @property
    def get_user(self) -> None:
        return None

    @property
    def get_user_async(self) -> Callable[[Any], Any]:
        known = super().get_user

        async def get_user(handler: Any) -> Any:
            _to_the_page(handler, self._prefix)
            return _or_closed(handler, known(handler))

        return get_user

    @property
    def login_handler(self) -> type[_Login]:
        return type("Login", (_Login,), {"prefix": self._prefix, "passwords": self._passwords})

    @property
    def logout_handler(self) -> type[_Logout]:
        return type("Logout", (_Logout,), {"prefix": self._prefix})


class _AccountProvider(OAuthProvider):  # type: ignore[misc]
    def __init__(self, prefix: str, allowed: tuple[str, ...]) -> None:
        self._prefix, self._allowed = prefix, allowed
        super().__init__(error_template=str(ERROR_PAGE))

    def _allow_guest(self, uri: str) -> bool:
        return False

    @property
    def get_user_async(self) -> Callable[[Any], Any]:
        known = super().get_user_async

        async def get_user(handler: Any) -> Any:
            _to_the_page(handler, self._prefix)
            user = await known(handler)
            if user and not allowed_user(user, self._allowed):
                raise HTTPError(403, reason=f"This account may not come in. Log out at {self._prefix}/logout first")
            return _or_closed(handler, user)

        return get_user

    @property
    def logout_handler(self) -> type[_Logout]:
        return type("Logout", (_Logout,), {"prefix": self._prefix})


def _to_the_page(handler: Any, prefix: str) -> None:
    """Send /pickcal to /pickcal/: from the first, Panel's relative way to the login leads out of the prefix."""
    if prefix and handler.request.path == prefix:
        handler.redirect(f"{prefix}/" + (f"?{handler.request.query}" if handler.request.query else ""))
        raise Finish


def _or_closed(handler: Any, user: Any) -> Any:
    """Refuse a websocket without login before it opens: it cannot be sent to the login page."""
    if not user and isinstance(handler, WebSocketHandler):
        raise HTTPError(403)
    return user


def allowed_user(user: str, allowed: tuple[str, ...]) -> bool:
    """Whether an account may come in.

    Parameters
    ----------
    user
        Name or address that the provider gives.
    allowed
        Names, '@domain' for every account of a domain, or '*' for every account; case does not count.
    """
    name = user.casefold()
    return any(a == "*" or a.casefold() == name or (a[:1] == "@" and name.endswith(a.casefold())) for a in allowed)
