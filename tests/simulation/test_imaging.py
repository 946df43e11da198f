import dataclasses

import numpy as np
import pytest
from scipy import fft, ndimage

from pickcal.picking.ctf import Ctf, ctf_filter
from pickcal.settings import SimulateSettings
from pickcal.simulation import Contaminant, make_scene, plan, project, simulate_micrograph, simulate_particle
from pickcal.simulation.imaging import expected_electrons

PLAIN = {
    "ice_crystals": 0,
    "aggregates": 0,
    "ice_variation": 0,
    "gradient": 0,
    "micrographs": 1,
    "astigmatism": 0,
}


def some(**changes):
    values = {**PLAIN, "height": 512, "width": 640, "particles_min": 8, "particles_max": 8, **changes}
    return SimulateSettings(**values)


def radial_spectrum(image):
    power = np.abs(fft.fft2(image - image.mean())) ** 2
    ky, kx = (fft.fftfreq(n) * image.shape[0] for n in image.shape)
    bins = np.hypot(ky[:, None], kx[None]).round().astype(int)
    return np.bincount(bins.ravel(), power.ravel()) / np.bincount(bins.ravel())


def ctf_zeros(defocus, voltage=300.0, cs=2.7, amplitude=0.1):
    """Frequencies where chi = n pi, from the quadratic in k^2 (positive underfocus)."""
    wavelength = 12.2643 / np.sqrt(voltage * 1e3 * (1 + 0.978466e-6 * voltage * 1e3))
    order = np.arange(1, 12)
    a, b = -0.5 * wavelength**3 * cs * 1e7, wavelength * defocus
    c = np.arcsin(amplitude) / np.pi - order
    return np.sqrt((-b + np.sqrt(b * b - 4 * a * c)) / (2 * a))


@pytest.mark.parametrize("defocus", [10000.0, 20000.0])
def test_thon_rings_have_their_minima_at_the_zeros_of_the_ctf(defocus):
    settings = some(height=1024, width=1024, defocus=(defocus,), particles_min=0, particles_max=0)
    spectrum = ndimage.gaussian_filter1d(radial_spectrum(simulate_micrograph(settings, 0).image), 1.5)
    step = 1 / (1024 * settings.pixel_size)
    zeros = ctf_zeros(defocus)
    zeros = zeros[zeros < 0.16] / step
    assert len(zeros) >= 4
    for left, zero, right in zip(zeros[:-2], zeros[1:-1], zeros[2:], strict=True):
        low, high = int(0.5 * (left + zero)), int(0.5 * (zero + right))
        minimum = low + np.argmin(spectrum[low : high + 1])
        assert abs(minimum - zero) <= 0.2 * (right - left) / 2 + 1
        assert spectrum[minimum] < 0.9 * max(spectrum[low], spectrum[high])


def test_counts_are_poisson_around_dose_times_area():
    settings = some(height=512, width=512, particles_min=0, particles_max=0, dose=30.0, pixel_size=1.5)
    image = simulate_micrograph(settings, 0).image
    assert image.mean() == pytest.approx(30.0 * 1.5**2, rel=0.01)
    assert np.array_equal(image, image.round()) and image.min() >= 0
    at_high_frequency = radial_spectrum(image)[235:256].mean() / image.size
    assert at_high_frequency == pytest.approx(image.mean(), rel=0.12)


def test_gradient_and_thick_ice_change_the_mean():
    flat, tilted = some(particles_min=0, particles_max=0), some(particles_min=0, particles_max=0, gradient=0.4)
    corners = [
        simulate_micrograph(s, 0).image[a : a + 64, b : b + 64].mean()
        for s in (flat, tilted)
        for a in (0, 448)
        for b in (0, 576)
    ]
    assert np.ptp(corners[4:]) > 0.2 * 160 > 3 * np.ptp(corners[:4])
    thick = some(micrographs=20, ice_variation=0.5, particles_min=0, particles_max=0, carbon=0, empty=0, crowded=0)
    ice = [make_scene(thick, i).ice for i in range(20)]
    thin_image, thick_image = (simulate_micrograph(thick, int(f(ice))).image for f in (np.argmin, np.argmax))
    assert thick_image.mean() < thin_image.mean() - 2


def test_particles_are_darker_than_what_surrounds_them():
    settings = some(defocus=(20000.0,), signal=2.0)
    made = simulate_micrograph(settings, 0)
    y, x = np.indices(made.image.shape)
    differences = []
    for px, py in made.scene.positions:
        distance = np.hypot(x - px, y - py) * settings.pixel_size
        differences.append(made.image[distance < 40].mean() - made.image[(distance > 80) & (distance < 110)].mean())
    assert np.mean(differences) < -1.5
    assert np.mean(np.array(differences) < 0) > 0.9


def offset(window, expected):
    """Sub-pixel shift between two equal images, by the peak of their cross-correlation."""
    correlation = fft.irfft2(fft.rfft2(window) * np.conj(fft.rfft2(expected)), window.shape)
    y, x = np.unravel_index(correlation.argmax(), correlation.shape)
    found = []
    for axis, at in ((1, x), (0, y)):
        line = np.roll(correlation, (-y, -x), (0, 1))
        before, here, after = (line[0, -1], line[0, 0], line[0, 1]) if axis else (line[-1, 0], line[0, 0], line[1, 0])
        n = window.shape[axis]
        found.append((at + n // 2) % n - n // 2 + 0.5 * (before - after) / (before - 2 * here + after))
    return np.array(found), correlation.max() / np.sqrt((window**2).sum() * (expected**2).sum())


def test_particles_are_where_the_truth_says():
    settings = some(height=700, width=900, signal=6.0, particles_min=20, particles_max=20, defocus=(15000.0,))
    made = simulate_micrograph(settings, 0)
    volume = simulate_particle(settings)
    transfer = ctf_filter(made.scene.ctf, (96, 96), settings.pixel_size)
    offsets, likeness, swapped = [], [], []
    for (px, py), angles in zip(made.scene.positions, made.scene.angles, strict=True):
        expected = fft.irfft2(fft.rfft2(project(volume, angles, 96, settings.pixel_size)) * transfer, (96, 96))
        ix, iy = round(px), round(py)
        window = made.image[iy - 48 : iy + 48, ix - 48 : ix + 48]
        if window.shape != (96, 96):
            continue
        found, alike = offset(window - window.mean(), expected)
        offsets.append(found - [px - ix, py - iy])
        likeness.append(alike)
        swapped.append(offset(window - window.mean(), expected.T)[1])
    assert len(offsets) > 8
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.1
    assert np.sqrt(np.mean(np.square(offsets), axis=0)).max() < 0.3
    assert np.mean(likeness) > np.mean(swapped) + 0.1


def test_signal_of_an_easy_set():
    """Variance of the signal in the particle circle over that of the noise, at 2 µm and 2 Å, is 0.03 to 0.05."""
    kinds = [some(defocus=(20000.0,), signal=s, height=1024, width=1024) for s in (1.0, 1e-6)]
    made = [simulate_micrograph(s, 0) for s in kinds]
    loud = simulate_micrograph(kinds[0].model_copy(update={"signal": 5.0}), 0).image
    ratios = []
    y, x = np.indices((1024, 1024))
    for px, py in made[0].scene.positions:
        circle = np.hypot(x - px, y - py) * 2.0 < 75
        noise = made[1].image[circle].var()
        ratios.append((loud[circle].var() - noise) / 25 / noise)
    assert 0.03 < np.mean(ratios) < 0.05


def test_carbon_is_darker_and_rougher_than_the_hole():
    settings = some(micrographs=3, carbon=1, height=1024, width=1024)
    index = [k for k, _ in plan(settings)].index("carbon")
    made = simulate_micrograph(settings, index)
    hole = next(c for c in made.scene.contaminants if c.kind == "carbon")
    y, x = np.indices(made.image.shape)
    beyond = np.hypot(x - hole.x, y - hole.y) * settings.pixel_size - hole.radius
    film, ice = made.image[beyond > 100], made.image[beyond < -100]
    assert 0.65 < film.mean() / ice.mean() < 0.9
    assert film.var() / film.mean() > 1.5 * ice.var() / ice.mean()


@pytest.mark.parametrize("radius", [50.0, 120.0, 200.0])
def test_ice_crystals_are_dark(radius):
    settings = some(particles_min=0, particles_max=0)
    crystal = Contaminant("ice_crystal", 380.0, 200.0, radius)
    scene = dataclasses.replace(make_scene(settings, 0), contaminants=(crystal,))
    image = expected_electrons(settings, scene, np.random.default_rng(0))
    y, x = np.indices(image.shape)
    distance = np.hypot(x - crystal.x, y - crystal.y) * settings.pixel_size
    around = image[(distance > 1.2 * radius) & (distance < 1.2 * radius + 60)].mean()
    assert image[distance < 0.6 * radius].mean() < 0.85 * around


def test_aggregates_are_not_truth():
    settings = some(aggregates=5.0, height=1024, width=1024, signal=4.0)
    made = simulate_micrograph(settings, 0)
    clumps = [c for c in made.scene.contaminants if c.kind == "aggregate"]
    assert clumps
    y, x = np.indices(made.image.shape)
    for clump in clumps:
        distance = np.hypot(x - clump.x, y - clump.y) * settings.pixel_size
        assert made.image[distance < 0.7 * clump.radius].mean() < made.image.mean()
        assert (np.hypot(*(made.scene.positions - [clump.x, clump.y]).T) * 2.0 > clump.radius).all()


def test_equal_whatever_was_made_before():
    settings = some(micrographs=3, carbon=1, ice_crystals=2, aggregates=1, ice_variation=0.2)
    forwards = [simulate_micrograph(settings, i).image for i in range(3)]
    backwards = [simulate_micrograph(settings, i).image for i in (2, 1, 0)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forwards, backwards, strict=True))
    other = simulate_micrograph(settings.model_copy(update={"seed": 1}), 0).image
    assert not np.array_equal(forwards[0], other)
    assert abs(np.corrcoef(forwards[0].ravel(), forwards[1].ravel())[0, 1]) < 0.2


def test_astigmatism_lies_along_the_angle_given():
    """The first zero along the defocus U axis is that of defocus U, across it that of defocus V."""
    settings = some(
        height=1024, width=1024, astigmatism=6000, defocus=(15000.0,), particles_min=0, particles_max=0, dose=300
    )
    made = simulate_micrograph(settings, 0)
    ctf: Ctf = made.scene.ctf
    assert ctf.defocus_u - ctf.defocus_v > 1000
    power = ndimage.gaussian_filter(np.abs(fft.fftshift(fft.fft2(made.image - made.image.mean()))) ** 2, 3)
    step = 1 / (1024 * settings.pixel_size)
    for defocus, turn in ((ctf.defocus_u, 0.0), (ctf.defocus_v, 90.0)):
        angle = np.deg2rad(ctf.defocus_angle + turn)
        first, second = ctf_zeros(defocus)[:2] / step
        radius = np.arange(0.75 * first, 0.5 * (first + second), 0.5)
        line = ndimage.map_coordinates(power, [512 + radius * np.sin(angle), 512 + radius * np.cos(angle)], order=1)
        assert radius[line.argmin()] == pytest.approx(first, abs=0.06 * first)


def test_blobs_of_ice_are_smooth_and_take_electrons_away():
    settings = some(micrographs=3)
    blob = Contaminant("ice_blob", 380.0, 200.0, 120.0)
    scene = dataclasses.replace(make_scene(settings, 0), contaminants=(blob,))
    bare = dataclasses.replace(scene, contaminants=())
    rng = [np.random.default_rng(3) for _ in range(2)]
    change = expected_electrons(settings, scene, rng[0]) / expected_electrons(settings, bare, rng[1])
    y, x = np.indices(change.shape)
    distance = np.hypot(x - blob.x, y - blob.y) * settings.pixel_size
    assert change[distance < 30].mean() < 0.85
    # drawing the blob takes random numbers, so the ice's own structure differs
    assert abs(change[distance > 5 * blob.radius].mean() - 1) < 0.01
