"""The site builds offline and strictly, asks nothing of other hosts, leads nowhere wrong, leaves out no public name."""

import importlib
import inspect
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import pytest

import pickcal
from pickcal import schema
from pickcal.cli import app
from pickcal.dashboard.serving.settings import ServeSettings
from pickcal.job_file import Job
from pickcal.settings import Settings

sys.path.insert(0, str(Path(__file__).parents[2] / "docs/site"))
import links
from kinds import all_of

pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install 'pickcal[docs]'")

ROOT = Path(__file__).parents[2]
CHROMIUM = Path("/usr/bin/chromium")
LOADS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "embed": "src",
}
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s#]+)(#[^)\s]*)?\)")


class Page(HTMLParser):
    """What a page loads, links to, and can be linked to."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.links, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if values.get("id"):
            self.anchors.add(values["id"])
        if tag == "link" and values.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(values.get("href"))
        if tag in LOADS and values.get(LOADS[tag]):
            self.loads.append(values[LOADS[tag]])
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Folder of the site, built strictly with every way out barred."""
    folder = tmp_path_factory.mktemp("site")
    nowhere = "http://127.0.0.1:9"
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "http_proxy": nowhere, "https_proxy": nowhere}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    command += ["--config-file", str(ROOT / "docs/site/mkdocs.yml"), "--site-dir", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    """Every page by its name."""
    return {
        path.relative_to(site).as_posix(): Page(path.read_text(encoding="utf-8"))
        for path in site.rglob("*.html")
    }  # fmt: skip


@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no Chromium at {CHROMIUM}")
def test_the_search_finds_in_pages_opened_from_the_disk(site):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((site / "guides/blobs.html").as_uri())
        page.locator(".md-search__input").click()
        page.keyboard.type("median_of")
        page.locator(".md-search-result__link").first.wait_for()
        found = [link.get_attribute("href") for link in page.locator(".md-search-result__link").all()]
        browser.close()
    assert errors == []
    assert any("reference/settings.html" in link for link in found), found


def text_of(site, name):
    return (site / name).read_text(encoding="utf-8")


def test_nothing_is_loaded_from_other_hosts(site, pages):
    loaded = [(name, what) for name, page in pages.items() for what in page.loads if what]
    assert any(what.endswith(".css") for _, what in loaded)
    assert any(what.endswith(".js") for _, what in loaded)
    assert [(name, what) for name, what in loaded if urlparse(what).netloc] == []
    for sheet in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", sheet.read_text(encoding="utf-8")) == [], sheet


def test_every_link_within_the_site_leads_to_a_page_and_a_place(site, pages):
    wrong, count = [], 0
    for name, page in pages.items():
        if name == "404.html":  # its links are for wherever it is shown
            continue
        for link in page.links:
            address, anchor = urldefrag(link)
            if urlparse(address).scheme:
                continue
            count += 1
            target = (site / name).parent / unquote(address) if address else site / name
            if target.suffix == ".ipynb" and target.is_file():
                continue
            if target.is_dir():
                target /= "index.html"
            found = pages.get(os.path.relpath(target, site))
            if found is None or (anchor and anchor != "__top" and unquote(anchor) not in found.anchors):
                wrong.append(f"{name}: {link}")
    assert wrong == []
    assert count > 1000


def test_formulas_are_mathml_that_stands_alone(site):
    text = text_of(site, "method.html")
    assert text.count("<math ") > 30
    assert 'display="block"' in text
    assert "arithmatex" not in text
    assert "$$" not in text


def test_every_public_name_has_its_place_and_a_docstring_that_tells_its_parameters(site, pages):
    anchors = pages["reference/python.html"].anchors
    missing = [name for name in pickcal.__all__ if f"pickcal.{name}" not in anchors]
    assert missing == []
    for name in pickcal.__all__:
        assert undocumented(getattr(pickcal, name), name) == []


def undocumented(found, name):
    """What a class or function does not tell of itself: docstrings, and its parameters by name."""
    if not callable(found):
        return []
    if not (inspect.getdoc(found) or "").strip():
        return [name]
    if inspect.isclass(found):
        inner = [(key, value) for key, value in vars(found).items() if not key.startswith("_")]
        plain = [(key, getattr(value, "__func__", value)) for key, value in inner]
        return [
            one for key, value in plain if inspect.isfunction(value) for one in undocumented(value, f"{name}.{key}")
        ]
    told = documented_parameters(inspect.getdoc(found))
    settings = {key for kind in all_of(Settings) for key in kind.model_fields}  # have a reference of their own
    given = [key for key in inspect.signature(found).parameters if key not in ("self", "cls")]
    given = [key for key in given if key not in settings or key in told]
    # a method of one line, or a function of one or two arguments, may say all in its sentence
    short = not told and ("." in name or len(given) <= 2)
    return [] if short else [f"{name}: {key}" for key in given if key not in told]


def documented_parameters(docstring):
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[^\n]*\n-{3,}|\Z)", docstring, re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^(\S[^\n:]*)", section[1], re.MULTILINE) if section else []
    return {name.strip(" *") for head in heads for name in head.split(",")}


def test_every_error_is_explained(pages):
    errors = importlib.import_module("pickcal.errors")
    names = {f"pickcal.errors.{name}" for name, value in vars(errors).items() if inspect.isclass(value)}
    assert names <= pages["reference/python.html"].anchors


def test_every_command_and_every_flag_is_there(site, pages):
    text = text_of(site, "reference/commands.html")
    settings = text_of(site, "reference/settings.html")
    for path, command in commands(app):
        assert "-".join(path) in {anchor.replace("_", "-") for anchor in pages["reference/commands.html"].anchors}, path
        for argument in command.assemble_argument_collection():
            names = [flag for flag in argument.names if flag.startswith("--") and not flag.startswith("--empty-")]
            if argument.parse and argument.show and names:
                assert all(flag in text for flag in names), (path, names)
                if len(argument.keys) == 1 and argument.keys[0] not in ("json", "quiet", "verbose", "log"):
                    assert all(flag in settings for flag in names), (path, names)


def commands(parent, path=("pickcal",)):
    for name in parent:
        if name.startswith("-"):
            continue
        command = parent[name]
        if command.default_command is not None:
            yield (*path, name), command
        yield from commands(command, (*path, name))


def test_every_setting_is_there(site):
    rows = set(re.findall(r"<tr>\s*<td><code>([a-z_]+)</code><br", text_of(site, "reference/settings.html")))
    sections = {"cluster", "simulate", "import", "watch", "import_picks", "pick", "score", "calibrate", "select"}
    sections |= {"export", "evaluate"}
    known = {name.rstrip("_") for model in (*all_of(Settings), ServeSettings) for name in model.model_fields}
    assert {name.rstrip("_") for name in Job.model_fields} >= sections
    assert known - sections <= rows


def test_every_stored_array_is_there(site):
    text = text_of(site, "reference/store.html")
    for variables in (schema.MICROGRAPHS, schema.PICKS, schema.BANK):
        for name, variable in variables.items():
            assert f"<code>{name}</code>" in text
            assert variable.meaning.replace("'", "&#39;") in text or variable.meaning in text, name


def test_every_job_file_has_a_guide_that_shows_it(site):
    jobs = sorted(path.stem for path in (ROOT / "jobs").glob("*.toml"))
    assert jobs == sorted(path.stem for path in (ROOT / "docs/guides").glob("*.md"))
    for job in jobs:
        text = text_of(site, f"guides/{job}.html")
        first = (ROOT / f"jobs/{job}.toml").read_text(encoding="utf-8").splitlines()[0]
        assert first.lstrip("# ")[:40] in re.sub(r"<[^>]+>", "", text), job
        assert f"jobs/{job}.toml" in text or f"{job}.toml" in text


@pytest.mark.parametrize(
    "page",
    sorted({*links.ELSEWHERE, "README.md", *(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").rglob("*.md"))}),
)
def test_links_hold_in_the_repository_as_well(page):
    text = re.sub(r"^(```+).*?^\1", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    made = {f"docs/reference/{name}.md" for name in ("commands", "settings", "store", "python", "functions")}
    for found in LINK.finditer(text):
        target = found["target"]
        if "://" in target:
            continue
        place = os.path.normpath(Path(page).parent / target)
        assert place in made or (ROOT / place).exists(), f"{page}: {target}"
