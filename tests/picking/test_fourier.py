"""Transforms against NumPy's, which are another program's, and memory that serves one micrograph after the other."""

import numpy as np
import pytest

from pickcal.picking.fourier import Workspace, irfft2, rfft, rfft2, transform, transform_back

SHAPES = [(8, 10), (9, 15), (12, 7)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_transforms_are_numpys(shape, dtype):
    image = np.random.default_rng(0).standard_normal((3, *shape)).astype(dtype)
    expected = np.fft.rfft2(image)
    found = rfft2(image)
    assert found.dtype == np.result_type(dtype, np.complex64)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(rfft(image, 1), np.fft.rfft(image, axis=1), atol=1e-4)
    kept = found.copy()
    np.testing.assert_allclose(irfft2(found, shape), image, atol=1e-5)
    np.testing.assert_array_equal(found, kept)
    transform(found, 0)
    np.testing.assert_allclose(found, np.fft.fft(expected, axis=0), atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_maps_come_back_into_a_part_of_a_larger_array(shape):
    images = np.random.default_rng(1).standard_normal((*shape, 4)).astype(np.float32)
    spectra = np.fft.rfft2(images, axes=(0, 1)).astype(np.complex64)
    out = np.full((*shape, 9), 7, np.float32)
    transform_back(spectra, out[:, :, 3:7])
    np.testing.assert_allclose(out[:, :, 3:7], images, atol=1e-5)
    assert (out[:, :, :3] == 7).all() and (out[:, :, 7:] == 7).all()


def test_a_workspace_grows_and_is_not_shared_between_names():
    workspace = Workspace()
    first = workspace.array("maps", (3, 4), np.float32)
    first[:] = 1
    assert workspace.array("spectra", (3, 4), np.float32) is not first
    again = workspace.array("maps", (2, 5), np.float32)
    assert again.shape == (2, 5) and np.shares_memory(again, first)
    larger = workspace.array("maps", (5, 5), np.float32)
    assert larger.shape == (5, 5) and not np.shares_memory(larger, first)
    assert workspace.array("maps", (5, 5), np.complex64).dtype == np.complex64
