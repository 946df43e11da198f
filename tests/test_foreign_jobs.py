"""The ready jobs for picks of other programs, run as a user runs them: tables in, calibrated picks out, no images."""

from pathlib import Path

import numpy as np
import pandas as pd
from cryosparc.dataset import Dataset

JOBS = Path(__file__).parents[1] / "jobs"
MICROGRAPHS, PER_MICROGRAPH, SIDE, PIXEL = 24, 120, 4096, 1.1


def made(seed, slope):
    """Three particles to one false pick, so that medians are those of particles; `slope` per µm of defocus."""
    rng = np.random.default_rng(seed)
    defocus = np.linspace(0.8, 2.6, MICROGRAPHS)
    rows = []
    for i, value in enumerate(defocus):
        particle = rng.random(PER_MICROGRAPH) < 0.75
        score = np.where(particle, 0.6 + slope * (value - 1.7), 0.25) + rng.normal(0, 0.05, PER_MICROGRAPH)
        xy = rng.uniform(100, SIDE - 100, (PER_MICROGRAPH, 2)).round()
        rows.append(pd.DataFrame({"i": i, "x": xy[:, 0], "y": xy[:, 1], "score": score, "true": particle}))
    return defocus, pd.concat(rows, ignore_index=True)


def exposures_star(path, defocus):
    head = "data_\n\nloop_\n_rlnMicrographName #1\n_rlnDefocusU #2\n_rlnVoltage #3\n_rlnSphericalAberration #4\n"
    head += "_rlnAmplitudeContrast #5\n_rlnMicrographPixelSize #6\n"
    path.write_text(
        head + "".join(f"mics/m{i:02d}.mrc {1e4 * d:.1f} 300 2.7 0.1 {PIXEL}\n" for i, d in enumerate(defocus))
    )


def job(cli, name, folder, sources, files, *more):
    return cli(
        *("run", JOBS / name, "--json", "--quiet"),
        *("--set", f"import.sources={[str(path) for path in sources]}"),
        *("--set", f"import_picks.files={[str(path) for path in files]}", *more),
        cwd=folder,
        code=0,
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
        cli, "calibrate_relion_picks.toml", tmp_path, [folder / "micrographs_ctf.star"], [folder / "AutoPick_template"]
    )
    assert out["import"]["done"] == 24 and out["import_picks"]["imported"] == 9482
    assert "per µm" in out["calibrate"]["figure_of_merit"]["verdict"][0]
    accepted, rejected = out["export"]["picks"], out["export"]["rejected"]
    assert accepted + rejected == 9482
    assert (tmp_path / "pickcal_relion/autopick.star").is_file()
    assert "low_score" not in (tmp_path / "pickcal_relion/particles.star").read_text()
    report = (tmp_path / "pickcal_relion/report.html").read_text()
    assert "figure of merit" in report and "NCC score" not in report


def test_cryosparc_picks(cli, tmp_path):
    """Exposures and particles as Inspect Picks holds them; the export is read by cryosparc-tools, all uids kept."""
    defocus, rows = made(1, -0.08)
    exposures = Dataset.allocate(
        MICROGRAPHS,
        fields=[
            ("micrograph_blob/path", "O"),
            ("micrograph_blob/shape", "u4", (2,)),
            ("micrograph_blob/psize_A", "f4"),
            *(
                (f"ctf/{name}", "f4")
                for name in ("df1_A", "df2_A", "df_angle_rad", "accel_kv", "cs_mm", "amp_contrast")
            ),
            ("ctf/exp_group_id", "u4"),
        ],
    )
    names = np.array([f"J1/m{i:02d}.mrc" for i in range(MICROGRAPHS)], dtype=object)
    exposures["micrograph_blob/path"] = names
    exposures["micrograph_blob/shape"] = np.full((MICROGRAPHS, 2), SIDE, np.uint32)
    exposures["micrograph_blob/psize_A"] = np.full(MICROGRAPHS, PIXEL, np.float32)
    exposures["ctf/df1_A"] = exposures["ctf/df2_A"] = (1e4 * defocus).astype(np.float32)
    for name, value in (("accel_kv", 300), ("cs_mm", 2.7), ("amp_contrast", 0.1)):
        exposures[f"ctf/{name}"] = np.full(MICROGRAPHS, value, np.float32)
    exposures.save(tmp_path / "exposures.cs")
    picks = Dataset.allocate(
        len(rows),
        fields=[
            ("location/micrograph_path", "O"),
            ("location/micrograph_uid", "u8"),
            ("location/micrograph_shape", "u4", (2,)),
            ("location/center_x_frac", "f4"),
            ("location/center_y_frac", "f4"),
            ("pick_stats/ncc_score", "f4"),
            ("pick_stats/power", "f4"),
        ],
    )
    picks["location/micrograph_path"] = names[rows["i"]]
    picks["location/micrograph_uid"] = exposures["uid"][rows["i"]]
    picks["location/micrograph_shape"] = np.full((len(rows), 2), SIDE, np.uint32)
    picks["location/center_x_frac"] = (rows["x"] / SIDE).to_numpy(np.float32)
    picks["location/center_y_frac"] = (1 - rows["y"] / SIDE).to_numpy(np.float32)
    picks["pick_stats/ncc_score"] = rows["score"].to_numpy(np.float32)
    noise = np.random.default_rng(2).normal(0, 0.2, len(rows))
    picks["pick_stats/power"] = np.exp(np.where(rows["true"], 1.0, 0.0) + noise).astype(np.float32)
    picks.save(tmp_path / "picked_particles.cs")
    out = job(
        cli,
        "calibrate_cryosparc_picks.toml",
        tmp_path,
        [tmp_path / "exposures.cs"],
        [tmp_path / "picked_particles.cs"],
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


def test_topaz_picks(cli, tmp_path):
    """A table of binned coordinates, `--set import_picks.scale`; calibrated scores where Topaz's stood."""
    defocus, rows = made(3, -0.1)
    exposures_star(tmp_path / "micrographs_ctf.star", defocus)
    score = 10 * rows["score"] - 4
    table = pd.DataFrame(
        {
            "image_name": [f"m{i:02d}" for i in rows["i"]],
            "x_coord": (rows["x"] / 8).astype(int),
            "y_coord": (rows["y"] / 8).astype(int),
            "score": score,
        }
    )
    table.to_csv(tmp_path / "predicted.txt", sep="\t", index=False)
    out = job(
        cli,
        "calibrate_topaz_picks.toml",
        tmp_path,
        [tmp_path / "micrographs_ctf.star"],
        [tmp_path / "predicted.txt"],
        *("--set", "import_picks.scale=8", "--set", f"import.size=[{SIDE},{SIDE}]"),
    )
    check_sense(out, -1.0)
    written = pd.read_csv(tmp_path / "pickcal_topaz/accepted.txt", sep="\t")
    left = pd.read_csv(tmp_path / "pickcal_topaz/accepted_rejected.txt", sep="\t")
    assert len(written) + len(left) == len(rows)
    assert set(written.columns) >= {"image_name", "x_coord", "y_coord", "score", "calibrated_score"}
    assert left["reason"].notna().all()
