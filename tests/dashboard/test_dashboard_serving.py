"""Where the page is served, who may come in, and how a lost connection comes back: real servers, a real browser."""

import asyncio
import base64
import json
import multiprocessing
import os
import re
import shutil
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.cookiejar import CookieJar
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlencode, urlparse
from urllib.request import HTTPCookieProcessor, HTTPRedirectHandler, Request, build_opener

import pytest
from browsing import needs_chromium, watched
from lab import free_port
from pydantic import ValidationError
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from pickcal.dashboard.serving import login
from pickcal.dashboard.serving.login import allowed_user, read_passwords
from pickcal.dashboard.serving.server import open_to_others, serve
from pickcal.dashboard.serving.settings import ServeSettings
from pickcal.errors import InputError, MissingFileError

NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
PASSWORD = "right horse"
# one process imports what takes seconds, each server is a fork of it
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pytest", "pickcal.dashboard.serving.server", "bokeh.plotting", "panel.template"])


def page():
    import numpy as np
    import panel as pn
    from bokeh.plotting import figure

    text, count = pn.pane.HTML("pressed 0 times"), [0]
    button = pn.widgets.Button(name="Press")

    def press(event):
        count[0] += 1
        text.object = f"pressed {count[0]} times"

    button.on_click(press)
    template = pn.template.BootstrapTemplate(title="a page")
    plot = figure(width=300, height=200)
    plot.scatter(np.arange(50.0), np.arange(50.0))
    template.main.append(pn.Column(button, text, plot, pn.pane.HTML(f"visitor: {pn.state.user}")))
    return template


def run_server(path, settings, environment, output):
    """What the server's process does: all it prints goes to `output`."""
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    output.close()
    os.environ.clear()
    os.environ.update(environment)
    login.WRONG_PASSWORD_WAIT = 0.01
    serve(page, path, ServeSettings(**settings))


@contextmanager
def served(project, env=None, start="fork", **settings):
    """Serve a page until the block ends; yields its address and a list of what the server printed.

    A server to be started "fresh" finds its environment before it imports anything.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PANEL_", "BOKEH_", "PICKCAL_"))}
    environment = clean | (env or {})
    reader, writer = multiprocessing.Pipe(duplex=False)
    context = FORKS if start == "fork" else multiprocessing.get_context("spawn")
    given = {"show": False} | settings
    process = context.Process(target=run_server, args=(str(project.path), given, environment, writer))
    with mock.patch.dict(os.environ, environment, clear=True):
        process.start()
    writer.close()
    printed = os.fdopen(os.dup(reader.fileno()))
    reader.close()
    lines, found = [], None
    for line in printed:
        lines.append(line)
        if found := re.search(r"dashboard at (\S+)", line):
            break
    assert found, "".join(lines)
    rest = threading.Thread(target=lambda: lines.extend(printed))
    rest.start()
    try:
        yield found[1], lines
    finally:
        process.terminate()
        process.join(20)
        rest.join(20)
        printed.close()
    assert process.exitcode == 0, "".join(lines)


class Visitor:
    """A browser without screen: keeps cookies, follows redirects."""

    def __init__(self, address):
        self.address = address
        self.cookies = CookieJar()
        self.opener = build_opener(HTTPCookieProcessor(self.cookies))

    def get(self, path="", headers=None, data=None):
        """Status, address arrived at, text and headers."""
        request = Request(self.address + path, data, headers or {})
        try:
            with self.opener.open(request, timeout=30) as answer:
                return answer.status, answer.url, answer.read().decode(), answer.headers
        except HTTPError as error:
            with error:
                return error.code, error.url, error.read().decode(), error.headers

    def log_in(self, password=PASSWORD, name="ada", **more):
        return self.get("login", data=urlencode({"username": name, "password": password} | more).encode())

    def websocket(self, origin, token=None):
        """Whether a websocket opens, as (status, it then answers)."""
        token = token or re.search(r'"token":"([^"]+)"', self.get()[2])[1]
        headers = {"Origin": origin, "Sec-WebSocket-Protocol": f"bokeh, {token}"}
        headers["Cookie"] = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.cookies)
        request = HTTPRequest(self.address.replace("http", "ws", 1) + "ws", headers=headers)

        async def answer():
            try:
                connection = await websocket_connect(request)
            except HTTPClientError as error:
                return error.code, False
            said = await connection.read_message()
            connection.close()
            return 101, said is not None

        # the browser of other tests keeps an event loop in this thread
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, answer()).result()


@pytest.fixture
def visit(browser):
    """A page in a browser without cookies, with the lists of console errors and of requests to other hosts."""
    with browser.new_context() as context:
        page = context.new_page()
        yield page, *watched(page)


def press(page, times):
    page.get_by_role("button", name="Press").click()
    page.get_by_text(f"pressed {times} times").wait_for()


class Forwarder:
    """A stand-in for a reverse proxy: passes bytes on, and can be cut and mended."""

    def __init__(self, port, target):
        self.port, self.target, self.ends = port, target, []
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.mend()

    def _do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    def mend(self):
        async def listen():
            self.server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)

        self._do(listen())

    def cut(self):
        async def close():
            self.server.close()
            for end in self.ends:
                end.transport.abort()
            self.ends.clear()

        self._do(close())

    def stop(self):
        self.cut()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(20)
        self.loop.close()

    async def _pass(self, from_browser, to_browser):
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self.target)
        self.ends += [to_browser, to_server]

        async def pump(source, sink):
            try:
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            except OSError:
                pass
            sink.close()

        await asyncio.gather(pump(from_browser, to_server), pump(from_server, to_browser))


NGINX_CONFIG = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; user root;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
  server {{
    listen 127.0.0.1:{port};
    location /pickcal/ {{
      proxy_pass http://127.0.0.1:{target};
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Real-IP $remote_addr;
    }}
  }}
}}
"""


@contextmanager
def proxied(kind, folder, port, target):
    """Run a reverse proxy from `port` to `target`; yields the stand-in, or None for nginx."""
    if kind == "stand-in":
        proxy = Forwarder(port, target)
        try:
            yield proxy
        finally:
            proxy.stop()
        return
    (folder / "nginx.conf").write_text(NGINX_CONFIG.format(folder=folder, port=port, target=target))
    process = subprocess.Popen(
        [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "early")]
    )
    try:
        wait_for(port)
        yield None
    finally:
        process.terminate()
        process.wait(20)


def wait_for(port):
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        threading.Event().wait(0.05)
    raise AssertionError(f"nothing listens on port {port}")


PROXIES = {"stand-in": free_port(), "nginx": free_port()}


@pytest.fixture(scope="module")
def plain(project):
    with served(project, allow_origin=[f"127.0.0.1:{PROXIES['stand-in']}"]) as (address, lines):
        yield address
    assert any("no password" in line for line in lines)


@pytest.fixture(scope="module")
def guarded(project):
    # an empty cookie secret counts as none
    with served(project, {"PICKCAL_PASSWORD": PASSWORD, "PANEL_COOKIE_SECRET": ""}) as (address, lines):
        yield address
    assert not any("can use the page" in line or "can read" in line for line in lines)


@pytest.fixture(scope="module")
def prefixed(project):
    """A server under a prefix, with an environment that would open Panel's own login and ask other hosts."""
    environment = {"PICKCAL_PASSWORD": PASSWORD, "PANEL_OAUTH_OPTIONAL": "1", "BOKEH_RESOURCES": "cdn"}
    origins = [f"127.0.0.1:{port}" for port in PROXIES.values()]
    with served(project, environment, "fresh", prefix="pickcal/", allow_origin=origins) as (address, lines):
        yield address
    assert not any("Traceback" in line for line in lines), "".join(lines)


@needs_chromium
def test_a_visitor_logs_in_with_name_and_password_by_keyboard(guarded, visit):
    page, errors, strangers = visit
    page.goto(f"{guarded}?view=3")
    assert page.get_by_label("Name").evaluate("it => it === document.activeElement")
    styles = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        styles[scheme] = page.get_by_role("main").evaluate("it => getComputedStyle(it).backgroundColor")
    assert styles["light"] != styles["dark"]
    page.keyboard.type("ada")
    page.keyboard.press("Tab")
    assert page.get_by_label("Password").evaluate("it => getComputedStyle(it).outlineStyle") == "solid"
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("button", name="Press").count() == 0
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_text("visitor: ada").wait_for()
    assert page.url == f"{guarded}?view=3"
    press(page, 1)
    page.goto(f"{guarded}logout")
    page.get_by_role("link", name="Log in again").click()
    page.get_by_label("Password").wait_for()
    page.goto(guarded)
    page.get_by_label("Password").wait_for()
    assert errors == []
    assert strangers == []


@needs_chromium
@pytest.mark.parametrize("kind", ["stand-in", "nginx"])
def test_the_page_works_under_a_prefix_behind_a_reverse_proxy(prefixed, visit, tmp_path, kind):
    if kind == "nginx" and NGINX is None:
        pytest.skip("no nginx")
    port = PROXIES[kind]
    page, errors, strangers = visit
    with proxied(kind, tmp_path, port, urlparse(prefixed).port):
        page.goto(f"http://127.0.0.1:{port}/pickcal/")
        page.get_by_label("Name").fill("ada")
        page.get_by_label("Password").fill(PASSWORD)
        page.keyboard.press("Enter")
        page.get_by_text("visitor: ada").wait_for()
        assert page.url == f"http://127.0.0.1:{port}/pickcal/"
        press(page, 1)
        press(page, 2)
        assert {cookie["path"] for cookie in page.context.cookies()} == {"/pickcal"}
    assert errors == []
    assert strangers == []


@needs_chromium
def test_a_lost_connection_comes_back_to_the_same_session(plain, visit):
    (page, errors, strangers), port = visit, PROXIES["stand-in"]
    with proxied("stand-in", None, port, urlparse(plain).port) as proxy:
        page.goto(f"http://127.0.0.1:{port}/")
        press(page, 1)
        assert errors == []
        proxy.cut()
        page.get_by_text("The connection to pickcal is lost").wait_for()
        proxy.mend()
        page.get_by_text("The connection to pickcal is lost").wait_for(state="detached")
        press(page, 2)  # counted on by the server, so its session lived on
        assert page.get_by_role("button", name="Press").count() == 1
        assert not any("repull" in error for error in errors)
    assert strangers == []


@needs_chromium
def test_after_a_restart_the_page_loads_anew_without_login_when_the_cookie_secret_is_kept(project, visit):
    page, _, strangers = visit
    environment, port = {"PICKCAL_PASSWORD": PASSWORD, "PANEL_COOKIE_SECRET": "s" * 32}, free_port()
    with served(project, environment, port=port):
        page.goto(f"http://127.0.0.1:{port}/?view=3")
        page.get_by_label("Name").fill("ada")
        page.get_by_label("Password").fill(PASSWORD)
        page.keyboard.press("Enter")
        press(page, 1)
    # Bokeh tries five times, over half a minute; each attempt is to look like the last, after which our part begins
    page.evaluate(
        """() => {
          const events = Bokeh.documents[0].event_manager, send = events.send_event;
          events.send_event = (event) => {
            if (event.event_name === "connection_lost") event.timeout = null;
            send.call(events, event);
          };
        }"""
    )
    with served(project, environment, port=port):
        page.get_by_text("pressed 0 times").wait_for()
        assert page.url.endswith("/?view=3")
        assert page.get_by_text("visitor: ada").is_visible()
        press(page, 1)
    assert strangers == []


def test_a_websocket_from_a_foreign_origin_is_refused(plain):
    visitor, own = Visitor(plain), urlparse(plain)
    for name in (own.netloc, f"localhost:{own.port}", f"127.0.0.1:{PROXIES['stand-in']}"):
        assert visitor.websocket(f"http://{name}") == (101, True)
    for stranger in ("http://example.org", "http://127.0.0.1:1", f"http://example.org:{own.port}"):
        assert visitor.websocket(stranger) == (403, False)


def test_sessions_that_the_page_did_not_give_out_are_refused(plain):
    payload = base64.urlsafe_b64encode(json.dumps({"session_id": "mine", "session_expiry": 9e12}).encode()).decode()
    assert Visitor(plain).websocket(f"http://{urlparse(plain).netloc}", payload.rstrip("=")) == (101, False)


def test_without_the_password_nothing_but_the_health_address_answers(guarded):
    stranger, visitor = Visitor(guarded), Visitor(guarded)
    assert visitor.log_in()[1] == guarded
    text = visitor.get()[2]
    assert "a page" in text
    token = re.search(r'"token":"([^"]+)"', text)[1]
    for path in ("", "?view=3", "autoload.js?bokeh-autoload-element=x", "metadata"):
        _, arrived, text, _ = stranger.get(path)
        assert urlparse(arrived).path == "/login", path
        assert "token" not in text
    assert stranger.websocket(f"http://{urlparse(guarded).netloc}", token) == (403, False)
    status, _, text, _ = stranger.get("liveness")
    assert status == 200
    assert json.loads(text)["/liveness"] is True


@pytest.mark.parametrize(
    ("name", "word"), [("ada", "wrong"), ("", PASSWORD), ("ada", ""), ("ada", f"{PASSWORD} "), ("ada", "login.html")]
)
def test_wrong_passwords_and_empty_names_stay_outside(guarded, name, word):
    visitor = Visitor(guarded)
    assert "do not fit" in visitor.log_in(word, name)[2]
    assert urlparse(visitor.get()[1]).path == "/login"


def test_forged_cookies_stay_outside(guarded):
    assert urlparse(Visitor(guarded).get(headers={"Cookie": "user=ada; is_guest=1"})[1]).path == "/login"


@pytest.mark.parametrize("wanted", ["https://example.org/", "//example.org/", "/\\example.org/", "/elsewhere"])
def test_login_never_leads_elsewhere(guarded, prefixed, wanted):
    arrived = Visitor(prefixed).log_in(next=wanted)[1]
    assert arrived == prefixed
    assert urlparse(Visitor(guarded).log_in(next=wanted)[1]).netloc == urlparse(guarded).netloc


def test_under_a_prefix_everything_is_below_it(prefixed):
    assert urlparse(prefixed).path == "/pickcal/"
    assert json.loads(Visitor(prefixed).get("liveness")[2])["/pickcal/liveness"] is True
    bare = Visitor(prefixed.rstrip("/"))
    assert urlparse(bare.get("?view=3")[1]).path == "/pickcal/login"
    arrived = [Visitor(prefixed).log_in(next=wanted)[1] for wanted in ("/pickcal", "/pickcal/?view=3")]
    assert arrived == [prefixed, f"{prefixed}?view=3"]


def test_pages_and_cookies_are_safe_whatever_the_environment(prefixed):
    visitor = Visitor(prefixed)
    _, arrived, text, headers = visitor.get()
    assert arrived.startswith(f"{prefixed}login")  # PANEL_OAUTH_OPTIONAL=1 opens Panel's own login
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "//" not in text
    visitor.log_in()
    text = visitor.get()[2]
    assert "static/js/bokeh" in text
    assert not re.search(r'(?:src|href)="(?:https?:)?//', text)  # BOKEH_RESOURCES=cdn
    body = urlencode({"username": "ada", "password": PASSWORD}).encode()
    request = Request(f"{prefixed}login", body, {"X-Forwarded-Proto": "https"})
    with build_opener(_Stay).open(request, timeout=30) as answer:
        cookies = [cookie for cookie in answer.headers.get_all("Set-Cookie") if cookie.startswith("user=")]
    assert cookies
    assert all(mark in cookie for cookie in cookies for mark in ("Secure", "SameSite=Lax", "HttpOnly"))


class _Stay(HTTPRedirectHandler):
    """Take a redirect as the answer."""

    def http_error_302(self, request, response, *rest):
        return response


@pytest.mark.parametrize(
    ("settings", "environment", "expected"),
    [
        ({"address": "0.0.0.0"}, {}, "(?s)password-file.*oauth-provider.*allow-origin.*ssh -L"),
        ({"address": "0.0.0.0", "allow_origin": ("em.example.org",)}, {}, "a password"),
        ({"address": "192.168.1.2"}, {"PICKCAL_PASSWORD": PASSWORD}, "--allow-origin"),
        ({"address": "nowhere.invalid"}, {}, "--allow-origin"),
        ({}, {"PICKCAL_PASSWORD": ""}, "PICKCAL_PASSWORD: expected one password"),
        ({}, {"PICKCAL_PASSWORD": "x", "PANEL_OAUTH_PROVIDER": "github"}, "got both"),
        ({"oauth_provider": "github"}, {"PICKCAL_PASSWORD": "x"}, "got both"),
        ({"oauth_provider": "github"}, {}, "--allow-user"),
        ({"oauth_provider": "github", "allow_user": ("ada",)}, {}, "PANEL_OAUTH_SECRET"),
        ({"oauth_provider": "github", "allow_user": ("ada",), "oauth_key": "k"}, {"PANEL_OAUTH_KEY": "j"}, "differ"),
        ({"allow_user": ("ada",)}, {}, "--allow-user: expected with --oauth-provider"),
        ({"allow_user": ("ada",)}, {"PANEL_OAUTH_PROVIDER": "pam"}, "PANEL_OAUTH_PROVIDER: expected one of"),
        ({}, {"PANEL_COOKIE_SECRET": "short"}, "PANEL_COOKIE_SECRET: expected at least 32"),
        ({}, {"BOKEH_ALLOW_WS_ORIGIN": "*"}, "BOKEH_ALLOW_WS_ORIGIN"),
    ],
)
def test_what_would_be_open_or_half_set_is_refused(project, monkeypatch, settings, environment, expected):
    for name in [name for name in os.environ if name.startswith(("PANEL_", "BOKEH_", "PICKCAL_"))]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=expected):
        serve(lambda: None, project.path, ServeSettings(show=False, **settings), on_start=pytest.fail)


@pytest.mark.parametrize(
    ("options", "login", "open_"),
    [
        ("", False, "on all addresses"),
        ("", True, ""),
        ("--address 0.0.0.0", False, "on 0.0.0.0"),
        ("--address 192.168.1.7 --port 5006", False, "on 192.168.1.7"),
        ("--address 0.0.0.0", True, ""),
        ("--port 5006 --address 127.0.0.1", False, ""),
        ("--address=localhost", False, ""),
        ("--address ::1", False, ""),
        ("--address 127.0.0.1 --address 0.0.0.0", False, "on 0.0.0.0"),
    ],
)
def test_a_page_under_panel_serve_is_for_this_machine_or_those_who_log_in(options, login, open_):
    command = ["python", "-m", "panel", "serve", "inspect_picks.py", *options.split()]
    for after in ([], ["--args", "p.zarr", "--address", "127.0.0.1"]):
        assert bool(found := open_to_others([*command, *after], login)) == bool(open_) and open_ in found


def test_a_port_in_use_and_a_missing_project_are_refused(project, tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        with pytest.raises(InputError, match="choose another"):
            serve(lambda: None, project.path, ServeSettings(port=holder.getsockname()[1]), on_start=pytest.fail)
    with pytest.raises(MissingFileError):
        serve(lambda: None, tmp_path / "none.zarr", on_start=pytest.fail)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"allow_origin": ("https://em.example.org/",)}, "without scheme"),
        ({"allow_origin": ("*",)}, "HOST or HOST:PORT"),
        ({"prefix": "/a b"}, "such as /pickcal"),
        ({"prefix": "/../x?y"}, "such as /pickcal"),
        ({"oauth_extra": ("tenant",)}, "KEY=VALUE"),
        ({"port": 70_000}, "less than or equal"),
        ({"password": "secret"}, "not permitted"),
    ],
)
def test_wrong_settings_are_refused(settings, expected):
    with pytest.raises(ValidationError, match=expected):
        ServeSettings(**settings)


def test_passwords_are_read_from_a_file_or_the_environment(tmp_path, monkeypatch):
    notes = []
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD} \n")
    path.chmod(0o600)
    assert read_passwords(path, notes.append) == f"{PASSWORD} "
    assert notes == []
    path.chmod(0o640)
    read_passwords(path, notes.append)
    assert f"chmod 600 {path}" in notes[0]
    path.write_text('{"ada": "a", "bob": "b"}')
    assert read_passwords(path, notes.append) == {"ada": "a", "bob": "b"}
    monkeypatch.setenv("PICKCAL_PASSWORD", '{"ada": "a"}')
    assert read_passwords(None, notes.append) == '{"ada": "a"}'
    with pytest.raises(MissingFileError, match="expected a file with the password"):
        read_passwords(tmp_path / "none", notes.append)
    for text in ("", "\n \n", "one\ntwo\n", '{"ada": ""}', '{"ada": 1}', "{}", '{"ada": "a"', '{"": "a"}'):
        path.write_text(text)
        with pytest.raises(InputError, match="expected"):
            read_passwords(path, notes.append)
    with pytest.raises(InputError, match="expected a text file"):
        read_passwords(tmp_path, notes.append)


def test_elsewhere_than_loopback_with_passwords_and_origins(project, tmp_path):
    path = tmp_path / "users.json"
    path.write_text(json.dumps({"ada": PASSWORD, "bob": "other horse"}))
    path.chmod(0o644)
    origins = ["em.example.org", "em.example.org:8443"]
    with served(project, address="0.0.0.0", allow_origin=origins, password_file=str(path)) as (address, lines):
        address = address.replace("localhost", "127.0.0.1")
        for name, word in (("ada", "other horse"), ("eve", PASSWORD), ("eve", "")):
            assert "do not fit" in Visitor(address).log_in(word, name)[2]
        visitor = Visitor(address)
        assert visitor.log_in("other horse", "bob")[1] == address
        for name in (*origins, f"em.example.org:{urlparse(address).port}"):
            assert visitor.websocket(f"https://{name}") == (101, True)
        assert visitor.websocket("https://example.org") == (403, False)
    assert any("chmod 600" in line for line in lines)
    assert any("does not encrypt" in line for line in lines)


class Provider(BaseHTTPRequestHandler):
    """A small OAuth provider where whoever comes is `account`."""

    account = "ada@lab.example"

    def do_GET(self):
        asked = {key: value[0] for key, value in parse_qs(urlparse(self.path).query).items()}
        if urlparse(self.path).path == "/user":
            self.answer({"email": self.account})
            return
        self.send_response(302)
        self.send_header("Location", f"{asked['redirect_uri']}?{urlencode({'code': 'c', 'state': asked['state']})}")
        self.end_headers()

    def do_POST(self):
        body = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        good = body["client_secret"] == ["the secret"] and body["code"] == ["c"]
        self.answer({"access_token": "t"} if good else {"error": "no"}, 200 if good else 401)

    def answer(self, content, status=200):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_):
        pass


def test_oauth_lets_in_the_accounts_that_are_named(project, tmp_path, monkeypatch):
    provider = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    threading.Thread(target=provider.serve_forever).start()
    own = f"http://127.0.0.1:{provider.server_port}"
    secret = tmp_path / "secret"
    secret.write_text("the secret\n")
    settings = {
        "oauth_provider": "generic",
        "oauth_key": "id",
        "oauth_secret_file": str(secret),
        "oauth_extra": [f"{name}_URL={own}/{name.lower()}" for name in ("AUTHORIZE", "TOKEN", "USER")],
        "allow_user": ["@lab.example"],
        "prefix": "/pickcal",
    }
    try:
        with served(project, **settings) as (address, _):
            ada = Visitor(address)
            status, arrived, text, _ = ada.get("?view=3")
            assert (status, urlparse(arrived).path) == (200, "/pickcal/")
            assert "a page" in text
            token = re.search(r'"token":"([^"]+)"', text)[1]
            assert ada.websocket(f"http://{urlparse(address).netloc}") == (101, True)
            monkeypatch.setattr(Provider, "account", "eve@lab.example.org")
            eve = Visitor(address)
            for path in ("", "autoload.js?bokeh-autoload-element=x", "metadata"):
                status, _, text, _ = eve.get(path)
                assert status == 403, path
                assert "token" not in text
            assert "This account may not come in" in eve.get()[2]
            assert eve.websocket(f"http://{urlparse(address).netloc}", token) == (403, False)
            assert "logged out" in eve.get("logout")[2]
            monkeypatch.setattr(Provider, "account", "ada@lab.example")
            assert eve.get()[0] == 200
            refused = Visitor(address).get("login?error=access_denied&error_description=<b>no</b>")
            assert refused[0] == 401 or "Log in failed" in refused[2]
            assert "googleapis" not in refused[2]
    finally:
        provider.shutdown()
        provider.server_close()


@pytest.mark.parametrize(
    ("user", "allowed", "expected"),
    [
        ("ada", ("ada",), True),
        ("Ada@Lab.example", ("ada@lab.EXAMPLE",), True),
        ("ada@lab.example", ("@lab.example",), True),
        ("ada@evil-lab.example", ("@lab.example",), False),
        ("ada@lab.example.org", ("@lab.example",), False),
        ("ada", ("",), False),
        ("ada", (), False),
        ("ada", ("*",), True),
    ],
)
def test_allowed_user(user, allowed, expected):
    assert allowed_user(user, allowed) is expected
