import os
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def data():
    """Folder of real data, see its README."""
    folder = Path(os.environ.get("PICKCAL_TEST_DATA", REPOSITORY / "../shared/data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set PICKCAL_TEST_DATA")
    return folder


@pytest.fixture
def noise():
    """An image that no other has, more columns than rows."""
    return np.random.default_rng(3).normal(100, 20, size=(72, 96)).astype(np.float32)
