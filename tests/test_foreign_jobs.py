"""The ready jobs for picks of other programs, one of them in a process of its own: tables in, calibrated picks out."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from cryosparc.dataset import Dataset
from foreign_sets import SIDE, cryosparc_files, made, topaz_files
from ran import in_this_process

JOBS = Path(__file__).parents[1] / "jobs"


def job(run, name, folder, sources, files, *more):
    return run(
        *("run", JOBS / name, "--json", "--quiet"),
        *("--set", f"import.sources={[str(path) for path in sources]}"),
        *("--set", f"import_picks.files={[str(path) for path in files]}", *more),
        cwd=folder,
    ).json


def check_sense(out, slope):
    """The slope is the planted one within its interval, and far more true picks than false ones are accepted."""
    fit = next(out["calibrate"][key] for key in ("score", "ncc", "figure_of_merit") if key in out["calibrate"])
    low, high = fit["interval"][0]
    assert low < slope < high and abs(fit["rho_after"]) < abs(fit["rho_before"])


def test_relion_picks(cli, data, tmp_path):
    """RELION's tutorial: 24 micrographs, 9,482 picks; lines, verdicts, report."""
    folder = data / "relion_10204"
    out = job(
        partial(cli, code=0),
        "calibrate_relion_picks.toml",
        tmp_path,
        [folder / "micrographs_ctf.star"],
        [folder / "AutoPick_template"],
    )
    assert out["import"]["done"] == 24 and out["import_picks"]["imported"] == 9482
    assert "per µm" in out["calibrate"]["figure_of_merit"]["verdict"][0]
    accepted, rejected = out["export"]["picks"], out["export"]["rejected"]
    assert accepted + rejected == 9482
    assert (tmp_path / "pickcal_relion/autopick.star").is_file()
    assert "low_score" not in (tmp_path / "pickcal_relion/particles.star").read_text()
    report = (tmp_path / "pickcal_relion/report.html").read_text()
    assert "figure of merit" in report and "NCC score" not in report


def test_cryosparc_picks(tmp_path):
    """Exposures and particles as Inspect Picks holds them; the export is read by cryosparc-tools, all uids kept."""
    defocus, rows = made(1, -0.08)
    picks = cryosparc_files(tmp_path, defocus, rows)
    out = job(
        in_this_process,
        "calibrate_cryosparc_picks.toml",
        tmp_path,
        [tmp_path / "exposures.cs", tmp_path / "passthrough_exposures.cs"],
        [tmp_path / "picked_particles.cs", tmp_path / "passthrough_particles.cs"],
    )
    check_sense(out, -0.08)
    written = Dataset.load(tmp_path / "pickcal_cryosparc/accepted.cs")
    left = Dataset.load(tmp_path / "pickcal_cryosparc/accepted_rejected.cs")
    assert set(written["uid"]) | set(left["uid"]) == set(picks["uid"]) and not set(written["uid"]) & set(left["uid"])
    needed = ["uid", "location/micrograph_uid", "location/micrograph_path", "location/micrograph_shape"]
    needed += ["location/center_x_frac", "location/center_y_frac", "pick_stats/ncc_score", "pick_stats/power"]
    needed += ["ctf/df1_A", "ctf/df2_A", "ctf/accel_kv", "ctf/cs_mm", "ctf/amp_contrast", "pickcal/probability"]
    assert set(needed) <= set(written.fields())
    truth = dict(zip(picks["uid"].tolist(), rows["true"], strict=True))
    sure = np.mean([truth[int(uid)] for uid in written["uid"]])
    assert sure > 0.95 and len(written) > 0.9 * rows["true"].sum()
    assert (tmp_path / "pickcal_cryosparc/report.html").is_file()


def test_topaz_picks(tmp_path):
    """A table of binned coordinates, `--set import_picks.scale`; calibrated scores where Topaz's stood."""
    defocus, rows = made(3, -0.1)
    topaz_files(tmp_path, defocus, rows)
    out = job(
        in_this_process,
        "calibrate_topaz_picks.toml",
        tmp_path,
        [tmp_path / "micrographs_ctf.star"],
        [tmp_path / "predicted_particles.txt"],
        *("--set", "import_picks.scale=8", "--set", f"import.size=[{SIDE},{SIDE}]"),
    )
    check_sense(out, -1.0)
    written = pd.read_csv(tmp_path / "pickcal_topaz/accepted.txt", sep="\t")
    left = pd.read_csv(tmp_path / "pickcal_topaz/accepted_rejected.txt", sep="\t")
    assert len(written) + len(left) == len(rows)
    assert set(written.columns) >= {"image_name", "x_coord", "y_coord", "score", "calibrated_score"}
    assert left["reason"].notna().all()
