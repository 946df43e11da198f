import numpy as np
import pytest


@pytest.fixture
def noise():
    """An image that no other has, more columns than rows."""
    return np.random.default_rng(3).normal(100, 20, size=(72, 96)).astype(np.float32)
