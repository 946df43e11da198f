"""The commands of the guides run as they are written; those that cannot run here end with `# needs ...`.

They run in this process, in a folder like the one that the page speaks of. The job files beside them are those of
`jobs/`, made small: simulated micrographs of 512 x 512 pixels, tasks in this process, no report.
"""

import re
import shlex
import shutil
import sys
import tomllib

import pytest
import tomli_w
from pages import DOCS

sys.path.insert(0, str(DOCS.parent / "tests"))
from foreign_sets import cryosparc_files, made, relion_files, topaz_files

from tests.conftest import SMALL

BLOCK = re.compile(r"^```(?P<kind>[^\n]*)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
NEEDS = re.compile(r"\s+# needs (?P<what>\w.*)$")
GUIDES = sorted(path.stem for path in (DOCS / "guides").glob("*.md"))


def commands(page):
    """Command lines of a page that are to run, and those that cannot with what they need."""
    ours, needs = [], []
    for block in BLOCK.finditer((DOCS / "guides" / f"{page}.md").read_text(encoding="utf-8")):
        if block["kind"] in ("toml", "python"):
            continue
        for line in block["text"].replace("\\\n", " ").splitlines():
            found = NEEDS.search(line)
            if found:
                needs.append((line, found["what"]))
            elif line.strip():
                ours.append(line)
    return ours, needs


def write_small_job(name, path):
    """Write a job file as in `jobs/`, made small."""
    job = tomllib.loads((DOCS.parent / "jobs" / f"{name}.toml").read_text(encoding="utf-8"))
    job.pop("report", None)
    job["cluster"] = {"kind": "serial"}
    if "simulate" in job:
        job["simulate"] |= SMALL
    if "watch" in job:
        job["watch"] |= {"interval": 0.05, "settle": 0.0, "patience": 0.0, "first": 1}
    path.parent.mkdir(exist_ok=True)
    path.write_text(tomli_w.dumps(job), encoding="utf-8")


def lay_out(page, folder, request):
    """Put beside the job file what the page says is there."""
    if page in ("smoke", "demo"):
        write_small_job(page, folder / f"jobs/{page}.toml")
        return
    write_small_job(page, folder / f"{page}.toml")
    if page in ("templates", "blobs", "watch"):
        small = request.getfixturevalue("small_set")
        shutil.copytree(small.folder, folder / "CtfFind/job003")
        shutil.copy(small.templates, folder / "templates.mrcs")
    elif page == "calibrate_relion_picks":
        relion_files(folder, request.getfixturevalue("data") / "relion_10204")
    elif page == "calibrate_cryosparc_picks":
        (folder / "J12").mkdir()
        cryosparc_files(folder / "J12", *made(1, -0.08))
    else:
        assert page == "calibrate_topaz_picks"
        topaz_files(folder, *made(3, -0.1))


@pytest.mark.parametrize("page", GUIDES)
def test_the_commands_of_a_guide(page, tmp_path, monkeypatch, in_process, request):
    monkeypatch.chdir(tmp_path)
    lay_out(page, tmp_path, request)
    ours, _ = commands(page)
    assert ours
    for line in ours:
        program, *words = shlex.split(line)
        assert program == "pickcal", f"{page}.md: {line}"
        code, out, err = in_process(*words)
        assert code == 0, f"{page}.md: {line}\n{out}\n{err}"
        assert "accepted" in out or "picks of" in out or "done" in out, out


def test_what_cannot_run_is_little_and_says_why():
    needs = [line for page in GUIDES for line in commands(page)[1]]
    assert len(needs) <= 2
    assert all(what.split()[0] in ("a", "somebody") for _, what in needs)
