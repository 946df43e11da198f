"""Correlation with small kernels against SciPy's direct sum over pixels."""

import numpy as np
import pytest
from scipy import ndimage

from pickcal.picking.correlation import TOGETHER, correlated
from pickcal.picking.fourier import Workspace


def kernels_of(count, box, sign, rng):
    """Random kernels `(b, b, count)` that half a turn multiplies with `sign`."""
    some = rng.standard_normal((box, box, count))
    return (some + sign * some[::-1, ::-1]).astype(np.float32)


@pytest.mark.parametrize("shape", [(32, 30), (27, 33), (24, 25), (9, 16)])
@pytest.mark.parametrize(("even", "odd"), [(1, 0), (TOGETHER + 3, 0), (0, 2), (3, 5), (TOGETHER, 2 * TOGETHER + 1)])
def test_correlation_is_the_sum_over_pixels(shape, even, odd):
    """Both kinds of kernels, in one block and in several; lengths even and odd; the image goes on periodically."""
    rng = np.random.default_rng([*shape, even, odd])
    image = rng.standard_normal(shape).astype(np.float32)
    kernels = np.concatenate([kernels_of(even, 7, 1, rng), kernels_of(odd, 7, -1, rng)], axis=2)
    workspace = Workspace()
    for _ in range(2):  # the second time in memory that is full already
        maps = correlated(np.fft.rfft2(image), shape, kernels, odd, workspace)
    wanted = np.stack([ndimage.correlate(image, kernels[:, :, i], mode="wrap") for i in range(even + odd)], axis=2)
    np.testing.assert_allclose(maps, wanted, atol=2e-5 * np.abs(wanted).max())


def test_a_kernel_of_one_pixel_gives_the_image():
    """The smallest box there is: no rows below the middle."""
    image = np.random.default_rng(1).standard_normal((12, 15)).astype(np.float32)
    maps = correlated(np.fft.rfft2(image), image.shape, np.ones((1, 1, 1), np.float32), 0)
    np.testing.assert_allclose(maps[:, :, 0], image, atol=1e-5)
