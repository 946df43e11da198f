"""Pick tables with planted noise, particles and junk: truth for tests of the mixture and the stages around it."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.stats import gamma, norm

from pickcal.project import Project
from pickcal.schema import BANK, PICKS, Status
from pickcal.settings import ImportSettings, TemplateSettings

DIAMETER = 100.0
GRID_STEP = 200.0
"""Distance of picks in Å: none is in the shadow of another."""
REFERENCE = 17_500.0
NOISE, PARTICLE, JUNK = range(3)


def straight(*coefficients):
    """Polynomial in defocus, µm about the reference."""
    return lambda um: np.polynomial.polynomial.polyval(um, coefficients)


@dataclass(frozen=True)
class Plan:
    """What is planted; trends are functions of defocus in µm about the reference."""

    micrographs: int = 60
    seed: int = 0
    noise_count: object = straight(90.0)
    particle_count: object = straight(40.0)
    junk_count: object = straight(0.0)
    noise_mean: object = straight(0.20, 0.012)
    noise_deviation: object = straight(np.log(0.03), 0.1)
    particle_mean: object = straight(0.29, 0.03)
    particle_deviation: object = straight(np.log(0.032), 0.15)
    particle_power: object = straight(0.3, 0.1)
    slope: float = 2.0
    power_deviation: float = 0.2
    noise_power_slope: float = 0.03
    noise_power_deviation: float = 0.15
    junk_scale: float = 0.5
    shape: object = norm()
    """Of the standardised noise, mean 0 and deviation 1."""
    decoys: bool = True
    power: bool = True
    template_offsets: tuple = ()
    shifts: object = None
    """Added to the NCC scores of the particles of every micrograph."""
    columns: dict = field(default_factory=dict)
    defocus: object = None


@dataclass(frozen=True)
class Planted:
    """The tables and the truth."""

    picks: xr.Dataset
    micrographs: xr.Dataset
    kind: np.ndarray
    """0 noise, 1 particle, 2 junk, -1 no pick; (micrograph, pick)."""
    oracle: np.ndarray
    """Probability of being a particle of one who knows the densities and the counts."""
    plan: Plan

    @property
    def um(self):
        """Defocus in µm about the reference."""
        mean = 0.5 * (self.micrographs["defocus_u"].values + self.micrographs["defocus_v"].values)
        return (mean - REFERENCE) * 1e-4


def plant(plan=None, **changes):
    """Draw a data set."""
    plan = Plan(**changes) if plan is None else plan
    rng = np.random.default_rng(plan.seed)
    n = plan.micrographs
    defocus = rng.permutation(np.linspace(6000.0, 29_000.0, n)) if plan.defocus is None else np.array(plan.defocus)
    um = (defocus - REFERENCE) * 1e-4
    rows = [_micrograph(plan, um[i], 0.0 if plan.shifts is None else plan.shifts[i], rng) for i in range(n)]
    width = max(max(len(row["kind"]), len(row["decoy_ncc"])) for row in rows)
    table = {name: (("micrograph", "pick"), _padded(rows, name, width, PICKS[name])) for name in _PER_PICK}
    table |= {
        f"decoy_{name}": (("micrograph", "decoy"), _padded(rows, f"decoy_{name}", width, PICKS[f"decoy_{name}"]))
        for name in ("x", "y", "ncc", "power")
    }
    table["count"] = ("micrograph", np.array([len(row["kind"]) for row in rows], np.int32))
    table["decoy_count"] = ("micrograph", np.array([len(row["decoy_ncc"]) for row in rows], np.int32))
    table["status"] = ("micrograph", np.full(n, Status.DONE, np.int8))
    kind = _padded(rows, "kind", width, PICKS["template"])
    oracle = _padded(rows, "oracle", width, PICKS["ncc"])
    return Planted(xr.Dataset(table, attrs={"diameter": DIAMETER}), _micrographs(plan, defocus), kind, oracle, plan)


_PER_PICK = ("x", "y", "ncc", "power", "background_variance", "template")


def _micrograph(plan, um, shift, rng):
    """Scores, positions and truth of one micrograph, best first."""
    counts = [int(rng.poisson(f(um))) for f in (plan.noise_count, plan.particle_count, plan.junk_count)]
    kind = np.repeat([NOISE, PARTICLE, JUNK], counts)
    noise_mean, noise_scale = plan.noise_mean(um), np.exp(plan.noise_deviation(um))
    decoys = int(rng.poisson(plan.noise_count(um))) if plan.decoys else 0
    z = plan.shape.rvs(counts[0] + decoys, random_state=rng)
    noise = np.stack([noise_mean + noise_scale * z, plan.noise_power_slope * z + _normal(rng, plan, len(z))])
    template = rng.integers(0, max(len(plan.template_offsets), 1), len(kind))
    offset = np.array(plan.template_offsets or [0.0])[template[kind == PARTICLE]]
    residual = np.exp(plan.particle_deviation(um)) * rng.standard_normal(counts[1])
    mean = plan.particle_mean(um) + shift
    power = plan.particle_power(um) + plan.slope * residual + plan.power_deviation * rng.standard_normal(counts[1])
    junk = [noise_mean + 2.5 * noise_scale * rng.standard_normal(counts[2]), rng.gamma(3, plan.junk_scale, counts[2])]
    ncc = np.concatenate([noise[0, : counts[0]], mean + residual + offset, junk[0]])
    log_power = np.concatenate([noise[1, : counts[0]], power, junk[1]])
    level = 0.1 * rng.standard_normal()
    places = rng.permutation(32 * 32)[: len(kind) + decoys]
    order = np.argsort(-ncc)
    oracle = _oracle(plan, um, mean + np.array(plan.template_offsets or [0.0])[template], ncc, log_power, counts)
    best = np.argsort(-noise[0, counts[0] :])
    row = {
        "kind": kind[order],
        "oracle": oracle[order],
        "template": template[order] if plan.template_offsets else np.full(len(kind), -1),
        "ncc": ncc[order],
        "power": np.exp(log_power + level)[order],
        "background_variance": np.full(len(kind), np.exp(level)),
        "x": GRID_STEP * (1 + places[: len(kind)] % 32),
        "y": GRID_STEP * (1 + places[: len(kind)] // 32),
        "decoy_ncc": noise[0, counts[0] :][best],
        "decoy_power": np.exp(noise[1, counts[0] :] + level)[best],
        "decoy_x": GRID_STEP * (1 + places[len(kind) :] % 32),
        "decoy_y": GRID_STEP * (1 + places[len(kind) :] // 32),
    }
    if not plan.power:
        row["power"], row["decoy_power"] = np.full(len(kind), np.nan), np.full(decoys, np.nan)
    return row


def _normal(rng, plan, count):
    return plan.noise_power_deviation * rng.standard_normal(count)


def _oracle(plan, um, mean, ncc, power, counts):
    z = (ncc - plan.noise_mean(um)) / np.exp(plan.noise_deviation(um))
    spread = np.exp(plan.particle_deviation(um))
    noise = counts[0] * plan.shape.pdf(z) / np.exp(plan.noise_deviation(um))
    particle = counts[1] * norm.pdf(ncc, mean, spread)
    junk = counts[2] * norm.pdf(z, 0, 2.5) / np.exp(plan.noise_deviation(um))
    if plan.power:
        noise *= norm.pdf(power, plan.noise_power_slope * z, plan.noise_power_deviation)
        particle *= norm.pdf(power, plan.particle_power(um) + plan.slope * (ncc - mean), plan.power_deviation)
        junk *= gamma.pdf(power, 3, scale=plan.junk_scale)
    return particle / np.maximum(noise + particle + junk, 1e-300)


def _padded(rows, name, width, variable):
    out = np.full((len(rows), width), variable.fill, variable.dtype)
    for i, row in enumerate(rows):
        out[i, : len(row[name])] = row[name]
    return out


def _micrographs(plan, defocus):
    n = len(defocus)
    columns = {
        "name": np.array([f"mics/m_{i:04d}.mrc" for i in range(n)], dtype=object),
        "defocus_u": defocus + 100.0,
        "defocus_v": defocus - 100.0,
        "exposure_group": np.ones(n, np.int32),
        "ice_thickness": np.full(n, np.nan),
        "image_mean": np.full(n, 100.0),
        "pixel_size": np.full(n, 5.0),
        "height": np.full(n, 1400, np.int32),
        "width": np.full(n, 1400, np.int32),
        **plan.columns,
    }
    return xr.Dataset({name: ("micrograph", values) for name, values in columns.items()})


def planted_project(path: Path, planted: Planted, batch: int = 64) -> Project:
    """Write planted tables as a project with picks `template`, micrographs without images."""
    table = planted.micrographs
    n = table.sizes["micrograph"]
    text = np.dtypes.StringDType()
    columns = {str(name): table[name].values for name in table.data_vars if name != "name"}
    columns |= {
        "name": table["name"].values.astype(text),
        "status": np.full(n, Status.DONE, np.int8),
        "error": np.array([""] * n, text),
    }
    project = Project.create(path, {"micrograph": n, "y": 8, "x": 8}, batch, columns, ImportSettings().stored())
    settings = TemplateSettings(templates=Path("templates.mrcs"), diameter=DIAMETER).stored()
    bank = {name: np.ones((1,) * len(v.dims), v.dtype) for name, v in BANK.items()}
    attributes = {"method": "template", "bank": "planted", "diameter": DIAMETER}
    project.create_picks("template", planted.picks.sizes["pick"], settings, bank, attributes)
    for start, stop in project.batches():
        rows = planted.picks.isel(micrograph=slice(start, stop))
        project.write_batch("picks/template", start, stop, {str(k): v.values for k, v in rows.data_vars.items()})
    return project
