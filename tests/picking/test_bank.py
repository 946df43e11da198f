import numpy as np
import pytest
from scipy import ndimage

from pickcal.errors import InputError
from pickcal.picking import bank as bank_module
from pickcal.picking.bank import bank_from_templates, compress, rotate, template_mask_radius
from pickcal.picking.filters import soft_disc

LOW_PASS = 20.0


def gaussian(shape, pixel, at, sigma):
    """Gaussian at `at`, (y, x) in Å from pixel `(ny // 2, nx // 2)`."""
    y = (np.arange(shape[0]) - shape[0] // 2) * pixel - at[0]
    x = (np.arange(shape[1]) - shape[1] // 2) * pixel - at[1]
    return np.exp(-0.5 * (y[:, None] ** 2 + x[None, :] ** 2) / sigma**2).astype(np.float32)


def low_passed_gaussian(box, pixel, at, sigma):
    """What band_pass leaves of a Gaussian wider than the low-pass: itself."""
    return gaussian((box, box), pixel, at, sigma)


@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0, 135.0, 250.0])
@pytest.mark.parametrize(
    ("shape", "source", "target"), [((64, 64), 4.0, 5.0), ((63, 63), 4.0, 4.0), ((80, 71), 3.0, 5.0)]
)
def test_rotation_carries_x_towards_y(shape, source, target, angle):
    """A bump 50 Å along x goes to (50 cos, 50 sin); y grows with the row index."""
    image = gaussian(shape, source, (0.0, 50.0), 18.0)
    turned = rotate(image, source, target, 41, np.array([angle], dtype=np.float32), LOW_PASS)[0]
    turn = np.deg2rad(angle)
    expected = gaussian((41, 41), target, (50 * np.sin(turn), 50 * np.cos(turn)), 18.0)
    np.testing.assert_allclose(turned, expected, atol=0.01)


def test_rotation_agrees_with_scipy():
    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.standard_normal((61, 61)), 4) * soft_disc(61, 5.0, 60.0, 100.0)
    image = (image / np.abs(image).max()).astype(np.float32)
    turned = rotate(image, 5.0, 5.0, 61, np.array([37.0], dtype=np.float32), LOW_PASS)[0]
    # scipy turns the array anticlockwise as it is displayed with y up, so from y to x here
    expected = ndimage.rotate(image, -37.0, reshape=False, order=3)
    np.testing.assert_allclose(turned, expected, atol=0.01)
    assert np.abs(turned - ndimage.rotate(image, 37.0, reshape=False)).max() > 0.3


@pytest.mark.parametrize("n", [40, 41])
def test_no_rotation_and_no_resampling_is_the_identity(n):
    image = gaussian((n, n), 5.0, (17.0, -31.0), 20.0) + 0.5 * gaussian((n, n), 5.0, (-40.0, 12.0), 15.0)
    same = rotate(image, 5.0, 5.0, 41, np.zeros(1, np.float32), LOW_PASS)[0]
    expected = np.zeros((41, 41), np.float32)
    start = 20 - n // 2
    expected[start : start + n, start : start + n] = image
    np.testing.assert_allclose(same, expected, atol=0.01)


@pytest.mark.parametrize("n", [48, 49, 50])
@pytest.mark.parametrize("angle", [0.0, 71.0, 180.0])
def test_the_centre_stays_when_resampling(n, angle):
    image = gaussian((n, n), 4.0, (0.0, 0.0), 20.0)
    turned = rotate(image, 4.0, 5.0, 31, np.array([angle], np.float32), LOW_PASS)[0]
    axis = (np.arange(31) - 15) * 5.0
    weight = turned * (turned > 1e-3)
    centre = [weight.sum(axis=1) @ axis / weight.sum(), weight.sum(axis=0) @ axis / weight.sum()]
    assert centre == pytest.approx([0, 0], abs=0.05)
    assert turned.max() == pytest.approx(1, abs=0.01)


def test_grey_scale_and_offset_of_a_template_do_not_matter():
    rng = np.random.default_rng(1)
    image = (gaussian((48, 48), 4.0, (10, 20), 15.0) + 0.1 * rng.standard_normal((48, 48))).astype(np.float32)
    plain = bank_from_templates(image[None], 4.0, 5.0, 120.0, LOW_PASS, 90.0)
    other = bank_from_templates(300 + 40 * image[None], 4.0, 5.0, 120.0, LOW_PASS, 90.0)
    images, others = (np.tensordot(b.coefficients, b.basis, 1) for b in (plain, other))
    np.testing.assert_allclose(images, others, atol=2e-3 * np.abs(images).max())


def test_entries_are_every_template_in_every_rotation():
    templates = np.stack([gaussian((48, 48), 4.0, (0, 30), 15.0), gaussian((48, 48), 4.0, (0, 0), 25.0)])
    made = bank_from_templates(templates, 4.0, 5.0, 120.0, LOW_PASS, 36.0)
    # half a turn of each template first, then the entries that are half a turn further
    assert made.template.tolist() == ([0] * 5 + [1] * 5) * 2 and made.pairs == made.half == 10
    np.testing.assert_allclose(made.angle, np.r_[np.tile(np.arange(5) * 36, 2), np.tile(np.arange(5) * 36 + 180, 2)])
    entries = np.tensordot(made.coefficients, made.basis, 1)
    np.testing.assert_allclose((entries**2).sum(axis=(1, 2)), 1, atol=0.03)
    assert made.mask_radius == template_mask_radius(120.0, LOW_PASS)
    mask = soft_disc(made.basis.shape[1], 5.0, made.mask_radius - made.mask_edge, made.mask_radius)
    np.testing.assert_array_equal(made.mask(), mask)
    assert np.abs(entries[:, mask == 0]).max() < 1e-6
    # the first template's centre of mass turns with the angle
    axis = (np.arange(entries.shape[1]) - entries.shape[1] // 2) * 5.0
    first = entries[made.template == 0]
    positive = np.maximum(first - 0.3 * first.max(axis=(1, 2), keepdims=True), 0)
    total = positive.sum(axis=(1, 2))
    y, x = (positive.sum(axis=2) @ axis) / total, (positive.sum(axis=1) @ axis) / total
    difference = np.rad2deg(np.arctan2(y, x)) - made.angle[made.template == 0]
    assert np.abs((difference + 180) % 360 - 180).max() < 2


@pytest.mark.parametrize("level", [0.0, 0.1, 1000.0])
@pytest.mark.parametrize("side", [24, 80])
def test_a_blank_template_stays_blank(level, side):
    """Empty classes are common in stacks of class averages; rounding must not make a template of them."""
    rng = np.random.default_rng(2)
    blank = np.full((side, side), level, dtype=np.float32)
    real = gaussian((side, side), 4.0, (0, 10), 20.0) + 0.01 * rng.standard_normal((side, side))
    made = bank_from_templates(np.stack([blank, real.astype(np.float32)]), 4.0, 5.0, 90.0, LOW_PASS, 90.0)
    norms = np.linalg.norm(made.coefficients, axis=1)
    np.testing.assert_allclose(norms[made.template == 1], 1, atol=0.03)
    np.testing.assert_allclose(norms[made.template == 0], 0, atol=1e-3)


@pytest.mark.parametrize("count", [30, 200])
@pytest.mark.parametrize("dense", [True, False])
def test_compression_keeps_the_energy_it_promises(count, dense, monkeypatch):
    """Few and many entries, exact and iterative decomposition, against NumPy's SVD in double precision."""
    if not dense:
        monkeypatch.setattr(bank_module, "DENSE_LIMIT", 10)
    rng = np.random.default_rng(count)
    scale = 0.8 ** np.arange(25)
    entries = (rng.standard_normal((count, 25)) * scale) @ np.linalg.qr(rng.standard_normal((121, 25)))[0].T
    entries = entries.reshape(count, 11, 11).astype(np.float32)
    basis, coefficients, kept = compress(entries, energy=0.98, largest=25)
    singular = np.linalg.svd(entries.reshape(count, -1).astype(float), compute_uv=False) ** 2
    share = np.cumsum(singular) / singular.sum()
    assert len(basis) == np.searchsorted(share, 0.98) + 1
    assert kept == pytest.approx(share[len(basis) - 1], abs=1e-4) and kept >= 0.98
    lost = ((entries - np.tensordot(coefficients, basis, 1)) ** 2).sum() / (entries**2).sum()
    assert 1 - lost == pytest.approx(kept, abs=1e-4)
    flat = basis.reshape(len(basis), -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(len(basis)), atol=1e-3)


def test_the_largest_basis_is_respected_and_the_loss_reported():
    entries = np.random.default_rng(0).standard_normal((60, 9, 9)).astype(np.float32)
    basis, coefficients, kept = compress(entries, largest=7)
    assert basis.shape == (7, 9, 9) and coefficients.shape == (60, 7)
    singular = np.linalg.svd(entries.reshape(60, -1), compute_uv=False) ** 2
    assert kept == pytest.approx(singular[:7].sum() / singular.sum(), abs=1e-4)
    assert kept < 0.6


def test_half_turns_and_their_basis():
    """A partner is its entry turned by half a turn; basis images are the same or the opposite after one."""
    rng = np.random.default_rng(3)
    templates = np.stack([gaussian((48, 48), 4.0, rng.uniform(-30, 30, 2), 15.0) for _ in range(3)])
    made = bank_from_templates(templates, 4.0, 5.0, 120.0, LOW_PASS, 30.0)
    entries = np.tensordot(made.coefficients, made.basis, 1)
    np.testing.assert_allclose(entries[made.pairs :], entries[: made.pairs, ::-1, ::-1], atol=1e-5)
    even = len(made.basis) - made.odd
    np.testing.assert_allclose(made.basis[:even], made.basis[:even, ::-1, ::-1], atol=1e-4)
    np.testing.assert_allclose(made.basis[even:], -made.basis[even:, ::-1, ::-1], atol=1e-4)
    assert 0 < made.odd < len(made.basis)
    assert made.group is None


def test_neighbours_are_one_step_of_rotation_away():
    templates = np.stack([gaussian((48, 48), 4.0, (0, 30), 15.0), gaussian((48, 48), 4.0, (10, 0), 20.0)])
    made = bank_from_templates(templates, 4.0, 5.0, 120.0, LOW_PASS, 30.0)
    below, above = made.neighbours().T
    assert made.step() == 30
    for other, turn in ((below, -30), (above, 30)):
        np.testing.assert_array_equal(made.template[other], made.template)
        np.testing.assert_allclose((made.angle[other] - made.angle) % 360, turn % 360)


def test_groups_hold_alike_entries():
    """Every entry belongs to one group, and resembles its mean."""
    rng = np.random.default_rng(4)
    templates = np.stack([gaussian((48, 48), 4.0, rng.uniform(-40, 40, 2), 12.0) for _ in range(8)])
    templates += np.stack([gaussian((48, 48), 4.0, rng.uniform(-40, 40, 2), 12.0) for _ in range(8)])
    made = bank_from_templates(templates, 4.0, 5.0, 120.0, LOW_PASS, 5.0)
    group = made.group
    assert made.half == 288 and group.shape == made.turned.shape == (288,)
    assert set(group.tolist()) == set(range(group.max() + 1))
    unit = made.coefficients / np.linalg.norm(made.coefficients, axis=1, keepdims=True)
    facing = np.where(made.turned[:, None], unit[made.pairs :], unit[: made.pairs])
    own = np.array([facing[i] @ facing[group == group[i]].mean(axis=0) for i in range(288)])
    assert np.median(own) > 0.9


@pytest.mark.parametrize("odd", [0, 1, 2])
def test_a_basis_that_is_neither_even_nor_odd_is_refused(odd):
    """What a score would be made of its even part alone."""
    images = np.random.default_rng(0).standard_normal((2, 21, 21)).astype(np.float32)
    even, odd_image = images[0] + images[0][::-1, ::-1], images[1] - images[1][::-1, ::-1]
    made = {"template": np.zeros(1, np.int32), "angle": np.zeros(1, np.float32), "coefficients": np.ones((1, 2))}
    made |= {"pixel_size": 5.0, "mask_radius": 50.0, "mask_edge": 8.0, "energy": 1.0}
    basis = np.stack([even, odd_image]) * (1 + 1e-6 * images)
    if odd == 1:
        assert bank_module.Bank(basis, odd=odd, **made).half == 1
        basis = images
    with pytest.raises(InputError, match=f"but for the last {odd}, .* image {0 if odd != 0 else 1} is neither"):
        bank_module.Bank(basis, odd=odd, **made)
