"""What stands beside the code says the same as the code: version, citation, changes, lower bounds, targets."""

import importlib.util
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import pickcal

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CLUSTERS_OF_OTHERS = {"kubernetes", "aws", "gcp", "azure", "fuzz", "docs"}
"""Extras that `make environment` does not install."""


def named(*extras):
    """Requirements of pickcal and of some extras."""
    optional = PROJECT["optional-dependencies"]
    found = [Requirement(item) for item in PROJECT["dependencies"]]
    return found + [Requirement(item) for extra in extras for item in optional[extra]]


def test_the_citation_is_of_this_version_and_has_what_its_format_asks():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == pickcal.__version__
    assert citation["license"] == PROJECT["license"]
    # required keys of the Citation File Format 1.2.0
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"] and citation["message"]
    assert citation["authors"] and all(
        author.get("name") or author.get("family-names") for author in citation["authors"]
    )


def test_the_changelog_begins_with_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert sections[0].startswith(("[Unreleased]", f"[{pickcal.__version__}]"))
    assert pickcal.__version__ in "".join(sections[:2])
    known = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, flags=re.MULTILINE)) <= known


def test_every_dependency_has_a_lower_bound_and_its_reason():
    spec = importlib.util.spec_from_file_location("minimums", ROOT / "tools" / "minimums.py")
    minimums = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(minimums)
    bounds = minimums.minimums(ROOT / "pyproject.toml")
    assert set(bounds) == {requirement.name for requirement in named("test")}
    listed = re.search(r"^dependencies = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)
    assert [line for line in listed[1].splitlines() if "#" not in line] == []


def test_pinned_versions_are_within_the_bounds():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = {canonicalize_name(name): Version(version) for name, version in (line.split("==") for line in lines)}
    assert len(pins) == len(lines)
    extras = set(PROJECT["optional-dependencies"]) - CLUSTERS_OF_OTHERS
    for requirement in named(*extras):
        name = canonicalize_name(requirement.name)
        if name != "pickcal":
            assert name in pins, f"{name} is not in constraints.txt"
            assert pins[name] in requirement.specifier, f"{name}: {pins[name]} is not {requirement.specifier}"


def test_python_versions_are_told_once_each_way():
    versions = [text.rpartition(" ")[2] for text in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", text)]
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(f"{versions[0]}.0")
    before = f"3.{int(versions[0].split('.')[1]) - 1}.99"
    assert not Requirement(f"python{PROJECT['requires-python']}").specifier.contains(before)


def test_help_lists_every_target():
    text = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split()
    listed = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert sorted(line.split()[0] for line in listed.splitlines()) == sorted(targets)
    assert all(len(line.split()) > 2 for line in listed.splitlines())


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_scripts_are_clean():
    scripts = [
        path
        for folder in (".ci", "deploy", "tools")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.is_file() and path.read_bytes()[:2] == b"#!" and b"sh" in path.read_bytes().splitlines()[0]
    ]
    assert len(scripts) >= 2
    done = subprocess.run(["shellcheck", *map(str, scripts)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
