"""Import, calibrate, select and export millions of picks of other programs: seconds and largest memory of each step.

    python tests/benchmarks/foreign_picks.py FOLDER [--micrographs 20000] [--picks 500] [--format cryosparc]

Made-up picks with a known slope of both scores; files are kept in FOLDER and made once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

SIDE = 4096
PIXEL = 1.0
UM = 1e-4


def defoci(count):
    return np.random.default_rng(0).uniform(8e3, 2.6e4, count)


def scores(rng, defocus, count):
    """Scores of noise and particles: NCC falls, power rises with defocus."""
    particle = rng.random(count) < 0.4
    ncc = np.where(particle, 0.42 - 0.05 * (defocus * UM - 1.5), 0.2) + rng.normal(0, 0.04, count)
    power = np.exp(np.where(particle, 0.6 + 0.3 * (defocus * UM - 1.5), 0.0) + rng.normal(0, 0.2, count))
    return ncc.astype(np.float32), power.astype(np.float32)


def micrographs(folder, count):
    """Write the table of micrographs as RELION and as cryoSPARC have it."""
    defocus = defoci(count)
    names = [f"MotionCorr/job002/Movies/mic_{i:06d}.mrc" for i in range(count)]
    head = (
        "data_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n_rlnVoltage #3\n"
        "_rlnSphericalAberration #4\n_rlnAmplitudeContrast #5\n_rlnMicrographPixelSize #6\n"
        f"opticsGroup1 1 300 2.7 0.1 {PIXEL}\n\ndata_micrographs\n\nloop_\n_rlnMicrographName #1\n"
        "_rlnOpticsGroup #2\n_rlnDefocusU #3\n_rlnDefocusV #4\n_rlnDefocusAngle #5\n"
    )
    rows = [f"{name} 1 {u:.1f} {u - 200:.1f} 30.0\n" for name, u in zip(names, defocus, strict=True)]
    (folder / "micrographs_ctf.star").write_text(head + "".join(rows))
    return names, defocus


def parts(names, defocus, picks, seed):
    rng = np.random.default_rng(seed)
    for name, value in zip(names, defocus, strict=True):
        x, y = rng.uniform(60, SIDE - 60, (2, picks))
        yield name, x, y, *scores(rng, value, picks)


def relion(folder, names, defocus, picks):
    """A file per micrograph, as RELION's autopicking writes them."""
    out = folder / "AutoPick"
    if out.exists():
        return [out]
    (out / "Movies").mkdir(parents=True)
    labels = ("rlnCoordinateX", "rlnCoordinateY", "rlnClassNumber", "rlnAutopickFigureOfMerit", "rlnAnglePsi")
    head = "\n# version 30001\n\ndata_\n\nloop_ \n" + "".join(f"_{label} #{i}\n" for i, label in enumerate(labels, 1))
    for name, x, y, ncc, _ in parts(names, defocus, picks, 1):
        rows = "".join(
            f"{a:12.6f} {b:12.6f} {1:12d} {c:12.6f} {0.0:12.6f} \n" for a, b, c in zip(x, y, ncc, strict=True)
        )
        (out / "Movies" / f"{Path(name).stem}_autopick.star").write_text(head + rows + " \n")
    return [out]


def parquet(folder, names, defocus, picks):
    """One table of all picks."""
    path = folder / "picks.parquet"
    if path.exists():
        return [path]
    writer = None
    for name, x, y, ncc, power in parts(names, defocus, picks, 2):
        table = pa.table({"micrograph": [name] * picks, "x": x, "y": y, "ncc": ncc, "power": power})
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    writer.close()
    return [path]


def cryosparc(folder, names, defocus, picks):
    """Particles as Inspect Picks gives them, one file."""
    path = folder / "picked_particles.cs"
    if path.exists():
        return [path]
    fields = [
        ("uid", "u8"),
        ("location/micrograph_uid", "u8"),
        ("location/exp_group_id", "u4"),
        ("location/micrograph_path", f"S{max(map(len, names))}"),
        ("location/micrograph_shape", "u4", (2,)),
        ("location/center_x_frac", "f4"),
        ("location/center_y_frac", "f4"),
        ("location/micrograph_psize_A", "f4"),
        ("location/min_dist_A", "f4"),
        ("pick_stats/ncc_score", "f4"),
        ("pick_stats/power", "f4"),
        ("pick_stats/template_idx", "u4"),
        ("pick_stats/angle_rad", "f4"),
    ]
    whole = np.lib.format.open_memmap(path.with_suffix(".npy"), "w+", np.dtype(fields), (len(names) * picks,))
    for i, (name, x, y, ncc, power) in enumerate(parts(names, defocus, picks, 3)):
        rows = whole[i * picks : (i + 1) * picks]
        rows["uid"] = np.arange(i * picks, (i + 1) * picks, dtype=np.uint64) * np.uint64(2654435761) + np.uint64(1)
        rows["location/micrograph_uid"], rows["location/micrograph_path"] = i + 1, name.encode()
        rows["location/micrograph_shape"], rows["location/micrograph_psize_A"] = SIDE, PIXEL
        rows["location/center_x_frac"], rows["location/center_y_frac"] = x / SIDE, 1 - y / SIDE
        rows["pick_stats/ncc_score"], rows["pick_stats/power"] = ncc, power
    whole.flush()
    path.with_suffix(".npy").rename(path)
    return [path]


MAKERS = {"relion": relion, "parquet": parquet, "cryosparc": cryosparc}
ENDINGS = {"relion": "exported_relion", "parquet": "exported.parquet", "cryosparc": "exported.cs"}


def measured(*arguments):
    """Seconds and largest memory (GB) of one command."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "pickcal", *map(str, arguments)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"pickcal {arguments[0]} failed with {status}")
    return time.perf_counter() - began, usage.ru_maxrss * 1024 / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--micrographs", type=int, default=20_000)
    parser.add_argument("--picks", type=int, default=500)
    parser.add_argument("--format", nargs="+", choices=MAKERS, default=list(MAKERS))
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    names, defocus = micrographs(given.folder, given.micrographs)
    star = given.folder / "micrographs_ctf.star"
    rows = []
    for kind in given.format:
        files = MAKERS[kind](given.folder, names, defocus, given.picks)
        project, out = given.folder / f"{kind}.zarr", given.folder / ENDINGS[kind]
        shutil.rmtree(project, ignore_errors=True)
        shutil.rmtree(out, ignore_errors=True)
        steps = {
            "import": ("import", star, "--tables-only", "--project", project, "--size", SIDE, SIDE),
            "import-picks": ("import-picks", project, *files, "--name", "p", "--diameter", 150),
            "calibrate": ("calibrate", project, "--picks", "p"),
            "select": ("select", project, "--picks", "p", "--auto", "--name", "auto"),
            "export": ("export", project, out, "--selection", "auto", "--format", kind),
        }
        found = {step: measured(*arguments) for step, arguments in steps.items()}
        for step, (seconds, memory) in found.items():
            rows.append({"format": kind, "step": step, "seconds": round(seconds, 1), "GB": round(memory, 2)})
            print(rows[-1], flush=True)
        total = sum(seconds for seconds, _ in found.values())
        rows.append(
            {"format": kind, "step": "all", "seconds": round(total, 1), "GB": max(m for _, m in found.values())}
        )
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
