"""Settings of every stage: one definition each for command-line flag, job-file key and Python argument.

A wrong value is refused before any work.
Lengths are Å, angles degrees, voltage kV, Cs mm, unless a name says otherwise.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from cyclopts import Parameter
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from pickcal.errors import InputError, MissingFileError
from pickcal.refusals import beside, describe
from pickcal.stores.places import PlaceField

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=64)]
Length = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """Base of all settings: frozen, and unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def stored(self) -> dict[str, Any]:
        """Plain values for the project's attributes (paths as given, tuples as lists)."""
        return self.model_dump(mode="json")


class SimulateSettings(Settings):
    """What `pickcal simulate` makes."""

    micrographs: int = Field(12, ge=1, description="Number of micrographs.")
    seed: int = Field(0, ge=0, description="Seed of every random number, no unit; same seed, same files.")
    particle: Literal["asymmetric", "barrel", "shell"] = Field(
        "asymmetric",
        description="Particle: an asymmetric complex, a 20S-like barrel or an apoferritin-like shell.",
    )
    map: Path | None = Field(None, description="MRC file of a 3D map to use as the particle instead.")
    map_pixel_size: float | None = Field(None, gt=0, description="Voxel size of the map, Å; default: its header.")
    diameter: float = Field(150.0, ge=40, le=1000, description="Largest diameter of the particle, Å.")
    pixel_size: float = Field(2.0, ge=0.3, le=10, description="Pixel size of the micrographs, Å.")
    height: int = Field(2048, ge=256, le=16384, description="Rows of a micrograph, pixels.")
    width: int = Field(2048, ge=256, le=16384, description="Columns of a micrograph, pixels.")
    defocus: tuple[float, ...] = Field(
        (), description="Defocus of the micrographs in turn, Å, above 0; default: evenly over the range."
    )
    defocus_min: float = Field(5000.0, gt=0, description="Lowest defocus, Å (positive is underfocus).")
    defocus_max: float = Field(30000.0, gt=0, description="Highest defocus, Å.")
    astigmatism: float = Field(300.0, ge=0, description="Largest difference between defocus U and V, Å.")
    voltage: float = Field(300.0, gt=0, description="Acceleration voltage, kV.")
    spherical_aberration: float = Field(2.7, ge=0, description="Spherical aberration Cs, mm.")
    amplitude_contrast: float = Field(0.1, ge=0, lt=1, description="Amplitude contrast, fraction.")
    dose: float = Field(40.0, gt=0, description="Electrons per Å^2.")
    particles_min: int = Field(120, ge=0, description="Fewest particles on an ordinary micrograph.")
    particles_max: int = Field(280, ge=0, description="Most particles on an ordinary micrograph.")
    crowding: Literal["random", "defocus"] = Field(
        "random", description="Particles per micrograph: drawn at random, or from fewest to most with defocus."
    )
    signal: float = Field(
        1.5, gt=0, description="Factor on the contrast of the particles; 1.5 is an easy data set, 0.6 a hard one."
    )
    empty: int = Field(1, ge=0, description="Micrographs without particles.")
    crowded: int = Field(1, ge=0, description="Micrographs with as many particles as fit.")
    carbon: int = Field(0, ge=0, description="Micrographs that show the carbon edge of the hole.")
    ice_crystals: float = Field(0.7, ge=0, description="Ice crystals per micrograph, mean.")
    ice_blobs: float = Field(0.0, ge=0, description="Smooth blobs of ice per micrograph, mean.")
    aggregates: float = Field(0.3, ge=0, description="Aggregates per micrograph, mean.")
    ice_variation: float = Field(0.2, ge=0, le=0.8, description="Relative spread of ice thickness over micrographs.")
    gradient: float = Field(0.05, ge=0, le=0.5, description="Illumination gradient across a micrograph, fraction.")
    templates: int = Field(20, ge=1, description="Projections written to templates.mrcs.")
    template_pixel_size: float = Field(4.0, gt=0, description="Pixel size of the templates, Å.")

    @model_validator(mode="after")
    def _ranges(self) -> SimulateSettings:
        _ordered(self, "defocus_min", "defocus_max")
        _ordered(self, "particles_min", "particles_max")
        if any(d <= 0 for d in self.defocus):
            raise ValueError("defocus: expected values above 0 Å")
        return self


class ImportSettings(Settings):
    """How source micrographs become the project's working images."""

    pixel_size: float = Field(
        5.0, ge=1, le=20, description="Working pixel size, Å; met within 1 %, never finer than the source."
    )
    source_pixel_size: float | None = Field(
        None, gt=0, description="Pixel size of the source files, Å; overrules STAR file and headers."
    )
    root: PlaceField | None = Field(None, description="Folder that the names in the STAR file are relative to.")
    clip: float = Field(6.0, ge=3, description="Pixels further than this many standard deviations are clipped.")
    batch: int | None = Field(
        None, ge=1, description="Micrographs per task and chunk; default: a sixteenth of all, at most 16."
    )
    stacks: bool = Field(False, description="Files of several images are stacks of micrographs, not movies.")
    without_ctf: bool = Field(False, description="Take micrographs that have no defocus.")
    tables_only: bool = Field(
        False, description="Read the table of micrographs without its images: for picks that other programs made."
    )
    size: tuple[Length, Length] | None = Field(
        None, description="With --tables-only: rows and columns of the micrographs in pixels, if the table lacks them."
    )


class ImportPicksSettings(Settings):
    """How picks of other programs are taken into a project."""

    scale: float | None = Field(
        None,
        gt=0,
        description="Factor from the file's coordinates to pixels of the micrographs: 2 for coordinates binned by 2.",
    )
    flip_y: bool = Field(
        True,
        description="cryoSPARC: y counts from the last row. --no-flip-y for picks of Patch Motion's micrographs on "
        "those of RELION or MotionCor, which are upside down.",
    )
    swap_xy: bool = Field(False, description="The file has rows first, then columns.")
    diameter: float | None = Field(
        None, gt=0, description="Particle diameter, Å; default: the distance that neighbouring picks keep."
    )
    score: str | None = Field(
        None, description="Column of the file to take as the main score; default: what its program ranks by."
    )
    skip_unknown: bool = Field(False, description="Leave out picks on micrographs that the project does not hold.")
    drop_outside: bool = Field(False, description="Leave out picks outside of their micrographs.")


class FilterSettings(Settings):
    """Filters and peak search shared by all pickers."""

    low_pass: float = Field(20.0, ge=5, le=200, description="Low-pass filter, Å.")
    high_pass: float | None = Field(None, gt=0, description="High-pass filter, Å; default: three particle diameters.")
    whiten: bool = Field(True, description="Divide by the noise spectrum of the data set.")
    contrast: Literal["dark", "light"] = Field("dark", description="Particles are darker or lighter than the ice.")
    max_picks: int = Field(4000, ge=1, le=100_000, description="Most picks kept per micrograph, best first.")


class BlobSettings(FilterSettings):
    """Picking with discs, rings or ellipses of several sizes."""

    method: Annotated[Literal["blob"], Parameter(show=False)] = Field("blob", description="Kind of picking.")
    diameter_min: float = Field(ge=20, le=5000, description="Smallest particle diameter, Å.")
    diameter_max: float = Field(ge=20, le=5000, description="Largest particle diameter, Å.")
    sizes: int | None = Field(None, ge=1, le=20, description="Number of sizes; default: 1 for equal diameters, else 3.")
    shapes: tuple[Literal["disc", "ring", "ellipse"], ...] = Field(
        ("disc", "ring"), min_length=1, description="Shapes to search with."
    )
    min_distance: float = Field(0.7, gt=0, le=5, description="Least distance of two picks, in mean diameters.")
    ctf: bool = Field(False, description="Give the blobs the micrograph's CTF.")

    @model_validator(mode="after")
    def _ranges(self) -> BlobSettings:
        _ordered(self, "diameter_min", "diameter_max")
        return self

    @property
    def diameter(self) -> float:
        """Mean particle diameter, Å."""
        return 0.5 * (self.diameter_min + self.diameter_max)


class TemplateSettings(FilterSettings):
    """Picking with 2D images or with projections of a 3D map."""

    method: Annotated[Literal["template"], Parameter(show=False)] = Field("template", description="Kind of picking.")
    templates: PlaceField = Field(
        description="Stack of 2D templates (.mrcs), or a 3D map (.mrc) to project; white particles."
    )
    diameter: float = Field(ge=20, le=5000, description="Particle diameter, Å; sets mask, distances and borders.")
    template_pixel_size: float | None = Field(
        None, gt=0, description="Pixel size of the templates, Å; default: header."
    )
    rotation_step: float = Field(5.0, ge=0.5, le=90, description="In-plane rotation step, degrees.")
    projection_step: float = Field(20.0, ge=3, le=90, description="Angle between projections of a 3D map, degrees.")
    min_distance: float = Field(0.5, gt=0, le=5, description="Least distance of two picks, in diameters.")
    ctf: bool = Field(True, description="Give the templates the micrograph's CTF.")

    @property
    def diameter_min(self) -> float:
        """Inner diameter of the power disc, Å."""
        return self.diameter

    @property
    def diameter_max(self) -> float:
        """Outer diameter of the power disc, Å."""
        return self.diameter


class ScoreSettings(Settings):
    """Scoring at given coordinates: with templates, or without with a disc and a ring of the particle's diameter."""

    diameter: float = Field(ge=20, le=5000, description="Particle diameter, Å; sets mask, power disc and blobs.")
    templates: PlaceField | None = Field(
        None,
        description="Stack of 2D templates (.mrcs), or a 3D map (.mrc) to project; white particles; "
        "default: blobs of the diameter.",
    )
    radius: float | None = Field(
        None,
        ge=0,
        description="How far from its coordinates a pick may be refined, Å; 0 scores exactly there; "
        "default: 0.1 diameters.",
    )
    shapes: tuple[Literal["disc", "ring", "ellipse"], ...] = Field(
        ("disc", "ring"), min_length=1, description="Without templates: shapes to score with."
    )
    template_pixel_size: float | None = Field(
        None, gt=0, description="Pixel size of the templates, Å; default: header."
    )
    rotation_step: float = Field(5.0, ge=0.5, le=90, description="In-plane rotation step of the templates, degrees.")
    projection_step: float = Field(20.0, ge=3, le=90, description="Angle between projections of a 3D map, degrees.")
    ctf: bool | None = Field(
        None, description="Give templates or blobs the micrograph's CTF; default: templates yes, blobs no."
    )
    low_pass: float = Field(20.0, ge=5, le=200, description="Low-pass filter, Å.")
    high_pass: float | None = Field(None, gt=0, description="High-pass filter, Å; default: three particle diameters.")
    whiten: bool = Field(True, description="Divide by the noise spectrum of the data set.")
    contrast: Literal["dark", "light"] = Field("dark", description="Particles are darker or lighter than the ice.")

    @model_validator(mode="after")
    def _fits(self) -> ScoreSettings:
        if self.radius is not None and self.radius > self.diameter:
            raise ValueError(f"radius: expected at most the diameter of {self.diameter:g} Å, got {self.radius:g} Å")
        idle = ("shapes",) if self.templates else ("template_pixel_size", "rotation_step", "projection_step")
        for name in idle:
            if getattr(self, name) != type(self).model_fields[name].default:
                remedy = "leave one of the two out" if self.templates else "give --templates too"
                raise ValueError(f"{name}: expected only {'without' if self.templates else 'with'} templates; {remedy}")
        return self

    @property
    def reach(self) -> float:
        """How far a pick may be refined, Å."""
        return 0.1 * self.diameter if self.radius is None else self.radius

    def as_pick(self) -> PickSettings:
        """Give the settings of the search whose maps hold the scores."""
        shared: dict[str, Any] = {
            "low_pass": self.low_pass,
            "high_pass": self.high_pass,
            "whiten": self.whiten,
            "contrast": self.contrast,
            **({} if self.ctf is None else {"ctf": self.ctf}),
        }
        if self.templates is None:
            return BlobSettings(diameter_min=self.diameter, diameter_max=self.diameter, shapes=self.shapes, **shared)
        return TemplateSettings(
            templates=self.templates,
            diameter=self.diameter,
            template_pixel_size=self.template_pixel_size,
            rotation_step=self.rotation_step,
            projection_step=self.projection_step,
            **shared,
        )


PickSettings = BlobSettings | TemplateSettings


class WatchSettings(Settings):
    """How a running session is followed."""

    interval: float = Field(10.0, gt=0, le=3600, description="Seconds between two looks at the source.")
    settle: float = Field(
        5.0, ge=0, le=3600, description="Seconds for which a file and its row of the table must have been the same."
    )
    patience: float | None = Field(
        None, ge=0, description="End when nothing new came for so many seconds; default: not before Ctrl-C."
    )
    first: int = Field(
        8, ge=1, description="Begin when so many micrographs are there: they set filters and masks for the session."
    )
    most: int = Field(64, ge=1, description="Micrographs taken in at once before they are shown.")
    refit: float = Field(
        1.25,
        ge=1,
        description="Fit the calibration anew when there are so many times the micrographs that it was made of.",
    )
    ctf_table: PlaceField | None = Field(None, description="For a folder of images: table with their CTF.")
    selection: Name | None = Field(
        None, description="Selection to keep up to date, as 'pickcal select --auto' makes it."
    )


class WatchPickSettings(Settings):
    """What to pick with on the way; a job file has more to choose from."""

    diameter: float | None = Field(
        None, ge=20, le=5000, description="Particle diameter, Å; default: go on with the picks that the project holds."
    )
    templates: PlaceField | None = Field(
        None,
        description="Stack of 2D templates (.mrcs), or a 3D map (.mrc) to project; default: blobs of the diameter.",
    )
    template_pixel_size: float | None = Field(
        None, gt=0, description="Pixel size of the templates, Å; default: header."
    )
    rotation_step: float = Field(5.0, ge=0.5, le=90, description="In-plane rotation step of the templates, degrees.")

    def as_pick(self) -> PickSettings | None:
        """Give the settings of the picking; None where no diameter is given.

        Raises
        ------
        InputError
            If there are templates without a diameter.
        """
        if self.diameter is None:
            if self.templates is not None:
                raise InputError("diameter: expected the particle diameter beside the templates, in Å; got none")
            return None
        if self.templates is None:
            return BlobSettings(diameter_min=self.diameter, diameter_max=self.diameter)
        return TemplateSettings(
            templates=self.templates,
            diameter=self.diameter,
            template_pixel_size=self.template_pixel_size,
            rotation_step=self.rotation_step,
        )


Covariate = Literal[
    "ice_thickness", "astigmatism", "phase_shift", "ctf_fit_resolution", "dose", "time", "exposure_group", "template"
]


class CalibrateSettings(Settings):
    """How scores are fitted against defocus over the whole data set."""

    ncc: Literal["line", "none"] = Field("line", description="Calibration of the NCC score.")
    power: Literal["line", "none"] = Field("line", description="Calibration of the power score.")
    median_of: Literal["particles", "all"] = Field(
        "particles",
        description="Median of what stands above the decoys, or of all picks as in cryoSPARC.",
    )
    degree: int = Field(1, ge=1, le=2, description="1 a line, 2 a parabola in defocus; no unit.")
    trend: Literal["auto", "line", "spline"] = Field(
        "auto",
        description="Trends in defocus: of --degree, a spline, or for probabilities whichever predicts better.",
    )
    covariates: tuple[Covariate, ...] = Field((), description="Further covariates of the fits.")
    per_group: bool = Field(False, description="One fit per exposure group.")
    reference_defocus: float | None = Field(
        None, gt=0, description="Defocus at which calibrated equals raw score, Å; default: the median."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Level of intervals and bands, fraction.")
    bootstrap: int = Field(
        400, ge=0, le=10_000, description="Resamples of the micrographs for the intervals; 0: asymptotic ones."
    )
    probability: Literal["mixture", "none"] = Field(
        "mixture", description="Model that gives every pick its probability of being a particle."
    )
    junk: bool = Field(True, description="Give the mixture a component of high power: ice, film, aggregates.")


class HandPick(Settings):
    """A pick that somebody decided on by hand: the nearest one to this place."""

    micrograph: str = Field(description="Name of the micrograph.")
    x: float = Field(description="Position along columns from the centre of the first pixel, Å.")
    y: float = Field(description="Position along rows, Å.")


class SelectSettings(Settings):
    """Thresholds on calibrated scores; what is not given does not reject. Picks decided by hand come before them."""

    min_ncc: Annotated[float | None, Parameter(alias="--min-score")] = Field(
        None,
        validation_alias=AliasChoices("min_ncc", "min_score"),
        description="Least calibrated main score, no unit: NCC, or what the program that picked calls it.",
    )
    min_power: float | None = Field(
        None, ge=0, description="Least calibrated power score, noise variances; other programs' in their own unit."
    )
    max_power: float | None = Field(None, gt=0, description="Largest calibrated power score, likewise noise variances.")
    probability: float | None = Field(
        None, ge=0, le=1, description="Least probability of being a particle, fraction: 0.95 keeps surer picks."
    )
    fdr: float | None = Field(
        None, gt=0, lt=1, description="Largest false discovery rate, fraction: 0.05 accepts 5 % false picks."
    )
    edge: float | None = Field(None, ge=0, description="Least distance from the micrograph's border, Å.")
    exclude: tuple[str, ...] = Field((), description="Micrographs of which nothing is accepted, by name.")
    raw: bool = Field(False, description="Thresholds are on raw scores instead of calibrated ones.")
    accept: Annotated[tuple[HandPick, ...], Parameter(parse=False)] = Field(
        (), description="Picks accepted by hand, whatever their scores."
    )
    reject: Annotated[tuple[HandPick, ...], Parameter(parse=False)] = Field((), description="Picks rejected by hand.")

    def stored(self) -> dict[str, Any]:
        """Plain values as of all settings; without what was decided by hand where nothing was."""
        values = super().stored()
        return {key: value for key, value in values.items() if value or key not in ("accept", "reject")}

    @model_validator(mode="after")
    def _ranges(self) -> SelectSettings:
        if self.min_power is not None and self.max_power is not None:
            _ordered(self, "min_power", "max_power")
        return self


class ControlSettings(Settings):
    """How a selection is tried on noise."""

    micrographs: int = Field(24, ge=0, description="Most micrographs to copy, spread evenly over defocus; 0 for all.")
    seed: int = Field(0, ge=0, description="Seed of the copies' phases, no unit.")


class ExportSettings(Settings):
    """Where and how picks are written."""

    format: Literal["relion", "cryosparc", "topaz", "cryolo", "eman", "csv", "parquet"] = Field(
        "relion", description="File format."
    )
    rejected: bool = Field(False, description="Write rejected picks as well, with their reasons, beside the others.")
    suffix: Name = Field("autopick", description="RELION: suffix of the per-micrograph files.")
    layout: Literal["both", "autopick", "particles"] = Field(
        "both", description="RELION: a file per micrograph, one file of particles, or both."
    )
    flip_y: bool = Field(
        True,
        description="cryoSPARC: count y from the last row, for the same micrograph files. --no-flip-y for micrographs "
        "that Patch Motion wrote, which are upside down against RELION's and MotionCor's.",
    )
    box: int | None = Field(
        None, ge=2, description="crYOLO, EMAN: side of the boxes, pixels; default: as they came, else 1.5 diameters."
    )


class EvaluateSettings(Settings):
    """How picks are compared with truth."""

    radius: float = Field(0.35, gt=0, le=1, description="Largest distance of a match, in particle diameters.")


class ClusterSettings(Settings):
    """Where tasks run."""

    kind: Annotated[str, Parameter(name="--cluster")] = Field(
        "local",
        description="'local' (processes on this machine), 'serial', the address of a Dask scheduler, 'slurm', 'pbs', "
        "'lsf', 'kubernetes', 'aws', 'gcp' or 'azure'.",
    )
    workers: int | None = Field(
        None,
        ge=1,
        description="Worker processes; the most of them with --workers-min. Default: all cores, elsewhere 1.",
    )
    workers_min: int | None = Field(
        None, ge=0, description="Scale between this number of workers and --workers with the work that is left."
    )
    memory: str | None = Field(
        None,
        pattern=r"^[0-9]+(\.[0-9]+)? ?([kKMGT]i?)?B$",
        description="Memory of one worker, such as '4 GB'; default: an even share of this machine, elsewhere 4 GB.",
    )
    wait: float = Field(
        300.0, gt=0, description="Seconds without any worker, or without the scheduler, after which a job gives up."
    )
    batch_limit: float = Field(
        3600.0, gt=0, description="Seconds after which a batch that does not end is taken from its worker."
    )
    listen: str | None = Field(
        None,
        description="Address or network interface at which the scheduler listens for workers on other machines; "
        "default: this machine only.",
    )
    tls_ca: Path | None = Field(None, description="TLS: file of the authority that signed the certificates.")
    tls_cert: Path | None = Field(None, description="TLS: certificate file.")
    tls_key: Path | None = Field(None, description="TLS: file of the certificate's key.")
    options: Annotated[dict[str, Any], Parameter(parse=False)] = Field(
        default_factory=dict, description="Job files: further settings of the kind, such as queue, account, image."
    )

    @model_validator(mode="before")
    @classmethod
    def _names(cls, values: Any) -> Any:
        """Take `cluster` for `kind`, as the flag is called, and `kind = "address"` with the address beside it."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        if "cluster" in values:
            values["kind"] = values.pop("cluster")
        if values.get("kind") == "address":
            if not isinstance(values.get("address"), str):
                raise ValueError('cluster: kind = "address" expects address = "tcp://host:8786" beside it')
            values["kind"] = values.pop("address")
        return values

    @model_validator(mode="after")
    def _consistent(self) -> ClusterSettings:
        if "://" not in self.kind and self.kind not in cluster_kinds():
            raise ValueError(
                f"cluster: expected 'local', 'serial' or an address such as tcp://host:8786, or one of "
                f"{', '.join(kind for kind in cluster_kinds() if kind not in ('local', 'serial'))}, got {self.kind!r}"
            )
        if self.workers_min is not None and self.workers is None:
            raise ValueError("workers_min: expected workers, the largest number, as well")
        if self.workers_min is not None and self.workers is not None:
            _ordered(self, "workers_min", "workers")
        given = [name for name in ("tls_ca", "tls_cert", "tls_key") if getattr(self, name) is not None]
        if given and len(given) < 3:
            raise ValueError(f"tls: expected tls_ca, tls_cert and tls_key together, got only {', '.join(given)}")
        return self


def cluster_kinds() -> tuple[str, ...]:
    """Kinds of clusters: the modules of `pickcal.engine.clusters`, one each."""
    folder = Path(__file__).parent / "engine" / "clusters"
    return tuple(sorted(path.stem for path in folder.glob("[a-z]*.py") if path.stem != "address"))


Model = TypeVar("Model", bound=Settings)


def validated(model: type[Model], values: dict[str, Any], where: str) -> Model:
    """Build a settings model and turn what pydantic finds into one readable error.

    Parameters
    ----------
    model
        The settings class.
    values
        Names and values.
    where
        What the values come from, for the message (a file, a command).

    Raises
    ------
    InputError
        Naming each setting, what was expected and what was found; unknown names suggest the nearest known one.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError(describe(error, where, model)) from None


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Read a TOML file; errors name it and say what it was to be.

    Raises
    ------
    MissingFileError, InputError
        If it is not there or is not TOML.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: no such {what}{beside(path)}")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a TOML file: {error}") from None


def _ordered(settings: Settings, low: str, high: str) -> None:
    below, above = getattr(settings, low), getattr(settings, high)
    if below > above:
        raise ValueError(f"{low}: expected at most {high} ({above:g}), got {below:g}")
