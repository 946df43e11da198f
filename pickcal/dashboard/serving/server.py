"""The server of the page: the addresses and ports it listens on, and the origins that may connect."""

from __future__ import annotations

import argparse
import ipaddress
import os
import secrets
import signal
import socket
import sys
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import panel as pn
from bokeh.settings import settings as bokeh_settings
from panel.io.server import get_server
from tornado.web import RedirectHandler, RequestHandler

from pickcal.dashboard.serving.login import PASSWORD_ENV, TITLE, login_provider
from pickcal.dashboard.serving.recovery import HEALTH, Health, recovering
from pickcal.dashboard.serving.settings import ServeSettings
from pickcal.errors import InputError
from pickcal.project import Project
from pickcal.stores.places import Url

TOKEN_DAYS = 7
TUNNEL = "Or keep 127.0.0.1 and tunnel from the other machine: ssh -L 5006:127.0.0.1:PORT HOST"


def serve(
    page: Callable[[], Any],
    project_path: Path | Url | str,
    settings: ServeSettings = ServeSettings(),
    on_start: Callable[[str], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> None:
    """Serve the page until SIGINT or SIGTERM.

    Cookies are signed with PANEL_COOKIE_SECRET; without it a random secret is made at each start, so that visitors
    must log in again after a restart. The address `PREFIX/liveness` answers without login.

    Parameters
    ----------
    page
        Builds what one visitor sees; called once per visit, inside of the visit's document.
    project_path
        The project store; it must exist.
    settings
        Where to listen and who may come in.
    on_start
        Called with the page's address once it can be opened; default: print it.
    note
        Called with each warning (a password file that others can read, a password without encryption on the way);
        default: print it to standard error.

    Raises
    ------
    MissingFileError, ProjectError
        If there is no project, or no secret file.
    InputError
        If the page would be open to others without login, a secret is not usable, or the port is taken.
    """
    note = note or (lambda text: print(f"pickcal: {text}", file=sys.stderr, flush=True))
    Project.open(project_path)
    provider = login_provider(settings, note)
    _check_reach(settings, provider is not None, note)
    port = _free_port(settings.address, settings.port)
    server = _server(page, settings, port, provider)
    url = f"http://{_shown_host(settings.address)}:{port}{settings.prefix}/"
    if on_start is None:
        print(f"pickcal dashboard at {url} (Ctrl-C ends it)", flush=True)
    else:
        on_start(url)
    if settings.show:
        server.io_loop.add_callback(webbrowser.open, url)
    _run(server)


def _server(page: Callable[[], Any], settings: ServeSettings, port: int, provider: Any) -> Any:
    bokeh_settings.resources = "server"  # BOKEH_RESOURCES=cdn would ask other hosts
    pn.config.reconnect = True
    secret = _cookie_secret()
    identity = secrets.token_hex(8)
    try:
        return get_server(
            {"/": recovering(page, settings, identity)},
            port=port,
            address=settings.address,
            title=TITLE,
            websocket_origin=_origins(settings, port),
            prefix=settings.prefix,
            root_path=f"{settings.prefix}/",
            cookie_path=settings.prefix or "/",
            cookie_secret=secret,
            use_xheaders=bool(settings.prefix or settings.allow_origin),
            extra_patterns=_extra_addresses(settings.prefix, identity),
            # without signatures, a visitor could open a session that the page never gave out
            sign_sessions=True,
            secret_key=secrets.token_hex(32).encode(),
            session_token_expiration=TOKEN_DAYS * 86_400,
            unused_session_lifetime_milliseconds=round(settings.keep_minutes * 60_000),
            **({} if provider is None else {"auth_provider": provider}),
        )
    except OSError as error:
        raise _port_error(settings.address, port, error) from None


def _cookie_secret() -> str:
    for name in ("PANEL_COOKIE_SECRET", "BOKEH_COOKIE_SECRET"):
        if not (found := os.environ.get(name)):
            os.environ.pop(name, None)  # Panel would sign with the empty secret
            continue
        if len(found) < 32:
            raise InputError(f"{name}: expected at least 32 characters, got {len(found)}; do: openssl rand -hex 32")
        return found
    return secrets.token_hex(32)


def _extra_addresses(prefix: str, identity: str) -> list[tuple[str, type[RequestHandler], dict[str, str]]]:
    addresses: list[tuple[str, type[RequestHandler], dict[str, str]]] = [(HEALTH, Health, {"identity": identity})]
    if prefix:  # Bokeh has its icon at the root alone, where Panel's templates do not look
        icon = f"{prefix}/static/extensions/panel/images/favicon.ico"
        addresses.append(("/favicon.ico", RedirectHandler, {"url": icon}))
    return addresses


def _run(server: Any) -> None:
    def end(*_: Any) -> None:
        server.io_loop.asyncio_loop.call_soon_threadsafe(server.io_loop.stop)

    with suppress(ValueError):  # only the main thread has signals
        signal.signal(signal.SIGTERM, end)
    server.start()
    try:
        server.io_loop.start()
    finally:
        server.stop(wait=False)


def _origins(settings: ServeSettings, port: int) -> list[str]:
    hosts = {"127.0.0.1", "localhost"}
    if ":" not in settings.address and _loopback(settings.address):
        hosts.add(settings.address)
    own = {f"{host}:{port}" for host in hosts}
    # a host without port is behind a proxy at 80 or 443, or is asked directly
    named = {o if ":" in o else f"{o}:{p}" for o in settings.allow_origin for p in (80, port)}
    return sorted(own | named)


def _shown_host(address: str) -> str:
    if address in ("0.0.0.0", "::", "::1"):
        return "localhost"
    return f"[{address}]" if ":" in address else address


def _loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def open_to_others(command: Sequence[str], login: bool) -> str:
    """Say why a page under `panel serve`, whose server listens on all addresses unless told, is not to be shown.

    Parameters
    ----------
    command
        The command line of the server, as `sys.orig_argv` has it.
    login
        Whether all visitors must log in.

    Returns
    -------
    str
        What was expected and what to do; "" where only this machine can come, or visitors log in.

    Examples
    --------
    >>> open_to_others(["panel", "serve", "page.py", "--address", "127.0.0.1", "--args", "p.zarr"], login=False)
    ''
    """
    options = [*command, "--args"]
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--address")
    address = parser.parse_known_args(options[: options.index("--args")])[0].address
    if login or (address is not None and _loopback(address)):
        return ""
    listens = "on all addresses of this machine" if address is None else f"on {address}"
    return (
        f"This page is open to other machines without a login: its server listens {listens}. Start it with "
        "`--address 127.0.0.1`, or with a login (`--basic-auth FILE --cookie-secret SECRET`), or use `pickcal inspect`."
    )


def _free_port(address: str, port: int) -> int:
    """Find the port to listen on: its number is part of the origins that may connect, so it must be known before."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise _port_error(address, port, error) from None
        return int(probe.getsockname()[1])


def _port_error(address: str, port: int, error: OSError) -> InputError:
    return InputError(
        f"port: cannot listen on {address} port {port} ({error}); expected an address of this machine and a free port, "
        "choose another, or --port 0 for any"
    )


def _check_reach(settings: ServeSettings, login: bool, note: Callable[[str], None]) -> None:
    if os.environ.get("BOKEH_ALLOW_WS_ORIGIN"):
        raise InputError(
            "BOKEH_ALLOW_WS_ORIGIN is set and would overrule who may connect; unset it and give --allow-origin HOST"
        )
    if _loopback(settings.address):
        if settings.allow_origin and not login:
            note("no password: everybody whom the proxy lets through can use the page (--password-file sets one)")
        return
    missing = []
    if not login:
        missing.append(f"a password (--password-file FILE or {PASSWORD_ENV}) or OAuth (--oauth-provider NAME)")
    if not settings.allow_origin:
        missing.append("the address that people type in the browser (--allow-origin HOST[:PORT])")
    if missing:
        raise InputError(
            f"address: {settings.address!r} is open to other machines, so expected also {' and '.join(missing)}, "
            f"got none. {TUNNEL}"
        )
    note(
        f"{settings.address}: this server does not encrypt; people should come through an https proxy or a tunnel, "
        "else others on the network can read the password"
    )
