"""Made-up picks of other programs with known slopes against defocus, in the programs' files."""

import shutil

import numpy as np
import pandas as pd
from cryosparc.dataset import Dataset

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


def relion_files(folder, real):
    """Lay out RELION's real table of micrographs and picks as in the folder of a project."""
    (folder / "CtfFind/job003").mkdir(parents=True)
    shutil.copy(real / "micrographs_ctf.star", folder / "CtfFind/job003")
    shutil.copytree(real / "AutoPick_template", folder / "AutoPick/job004")


def cryosparc_files(folder, defocus, rows):
    """Exposures and particles as Inspect Picks holds them, CTF and scores in passthrough files; gives the particles."""
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
    exposures.filter_prefixes(["micrograph_blob"], copy=True).save(folder / "exposures.cs")
    exposures.filter_prefixes(["ctf"], copy=True).save(folder / "passthrough_exposures.cs")
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
    picks.filter_prefixes(["location"], copy=True).save(folder / "picked_particles.cs")
    picks.filter_prefixes(["pick_stats"], copy=True).save(folder / "passthrough_particles.cs")
    return picks


def topaz_files(folder, defocus, rows):
    """A table of micrographs, and a table of Topaz picks on micrographs that were binned by 8."""
    exposures_star(folder / "micrographs_ctf.star", defocus)
    score = 10 * rows["score"] - 4
    table = pd.DataFrame(
        {
            "image_name": [f"m{i:02d}" for i in rows["i"]],
            "x_coord": (rows["x"] / 8).astype(int),
            "y_coord": (rows["y"] / 8).astype(int),
            "score": score,
        }
    )
    table.to_csv(folder / "predicted_particles.txt", sep="\t", index=False)
