"""The README's five lines for picks that RELION and cryoSPARC have made, as they are written there."""

import re
import shlex
import sys

import numpy as np
import pytest
import starfile
from cryosparc.dataset import Dataset
from pages import DOCS

sys.path.insert(0, str(DOCS.parent / "tests"))
from foreign_sets import cryosparc_files, made, relion_files

TEXT = (DOCS.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture
def run(in_process, tmp_path, monkeypatch):
    """Run the block that imports a program's picks, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def lines_of(program):
        (block,) = (block for block in BLOCKS if f"--name {program} " in block)
        assert len(block.splitlines()) == 5
        for line in block.splitlines():
            first, *words = shlex.split(line)
            code, out, err = in_process(*words)
            assert (first, code) == ("pickcal", 0), f"{line}\n{out}\n{err}"

    return lines_of


def test_picks_of_relion(run, data, tmp_path):
    """Real picks: every one is in one of both folders, where RELION looks for it."""
    relion_files(tmp_path, data / "relion_10204")
    run("relion")
    ours, left, picked = (
        {path.name: len(starfile.read(path)) for path in (tmp_path / folder).rglob("*_autopick.star")}
        for folder in ("calibrated/Movies", "calibrated_rejected/Movies", "AutoPick/job004/Movies")
    )
    assert len(picked) == 24 and set(ours) | set(left) <= set(picked)
    assert {name: ours.get(name, 0) + left.get(name, 0) for name in picked} == picked
    assert sum(ours.values()) > 1000


def test_picks_of_cryosparc(run, tmp_path):
    """Made-up picks whose scores fall by 0.08 per µm: in the file for cryoSPARC they do not, and most are particles."""
    defocus, rows = made(1, -0.08)
    (tmp_path / "J12").mkdir()
    came = cryosparc_files(tmp_path / "J12", defocus, rows)
    run("cryosparc")
    accepted, rejected = (Dataset.load(tmp_path / name) for name in ("calibrated.cs", "calibrated_rejected.cs"))
    assert sorted([*accepted["uid"], *rejected["uid"]]) == sorted(came["uid"])
    place = {uid: i for i, uid in enumerate(came["uid"])}
    kept = rows.iloc[[place[uid] for uid in accepted["uid"]]]
    assert kept["true"].mean() > 0.98 and len(kept) > 0.98 * rows["true"].sum()
    slopes = [
        np.polyfit(defocus[kept["i"]], accepted[name], 1)[0]
        for name in ("pick_stats/ncc_score", "pickcal/calibrated_ncc")
    ]
    assert slopes[0] == pytest.approx(-0.08, abs=0.01) and abs(slopes[1]) < 0.01
