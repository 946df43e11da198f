"""Objects, bytes and requests of a project in an object store, by the batch: `python tests/benchmarks/object_store.py`.

Micrographs are small and hold noise: counts of objects and requests do not depend on their size. Bytes are told apart
for images of a usual size (850 x 850 pixels at 5 Å) by writing noise of that size.
"""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from handmade import noise, write_set
from object_store import ENVIRONMENT, S3

from pickcal.engine.executors import SerialExecutor
from pickcal.engine.progress import Silent
from pickcal.project import Project
from pickcal.settings import BlobSettings, CalibrateSettings, ImportSettings
from pickcal.stages.calibrate import calibrate
from pickcal.stages.ingest import ingest
from pickcal.stages.pick import pick
from pickcal.stages.status import status
from pickcal.stores import objects

COUNT = 64
BATCHES = (1, 8, 16, 64)
BLOBS = BlobSettings(diameter_min=120, diameter_max=160, sizes=1, shapes=("disc",))


def requests(counted):
    """Requests that read, and that write, a micrograph."""
    read = sum(counted.get(key, 0) for key in ("GET", "HEAD"))
    written = sum(counted.get(key, 0) for key in ("PUT", "POST", "DELETE"))
    return f"{read / COUNT:7.1f} {written / COUNT:7.1f}"


def one(s3, star, batch):
    """Take noise through a job in batches of one size."""
    url = s3.bucket() / "p.zarr"
    s3.counted()
    told = [f"{batch:5d}"]
    ingest([star], url, ImportSettings(batch=batch), SerialExecutor(), Silent())
    told.append(requests(s3.counted()))
    pick(Project.open(url, "r+"), "blob", BLOBS, SerialExecutor(), Silent())
    told.append(requests(s3.counted()))
    calibrate(Project.open(url, "r+"), "blob", CalibrateSettings(bootstrap=0))
    told.append(requests(s3.counted()))
    status(Project.open(url))
    told.append(requests(s3.counted()))
    found = objects.listed(url)
    told.append(f"{len(found) / COUNT:8.2f}")
    picks = sum(stat.size for name, stat in found.items() if name.startswith("picks/blob/"))
    told.append(f"{picks / COUNT / 1e3:8.1f}")
    print("  ".join(told), flush=True)


def image_bytes():
    """Bytes of one working image of a usual size, as it is stored."""
    with tempfile.TemporaryDirectory() as folder:
        text = np.array(["m"], dtype=object)
        columns = {"name": text, "source": text, "status": np.zeros(1, np.int8)}
        project = Project.create(Path(folder) / "p.zarr", {"micrograph": 1, "y": 850, "x": 850}, 1, columns, {})
        project.write_images({0: np.random.default_rng(0).normal(0, 1, (850, 850)).astype(np.float16)})
        return sum(
            file.stat().st_size for file in (Path(folder) / "p.zarr/micrographs/image/c").rglob("*") if file.is_file()
        )


def main():
    s3 = S3()
    os.environ.update(ENVIRONMENT, AWS_ENDPOINT_URL=s3.address)
    print(f"{COUNT} micrographs; requests a micrograph (that read, that write), objects and kB of picks a micrograph")
    print("batch   import           pick             calibrate        status           objects     picks")
    with tempfile.TemporaryDirectory() as folder:
        star = write_set(Path(folder), [noise((200, 200), seed) for seed in range(COUNT)])
        for batch in BATCHES:
            one(s3, star, batch)
    print(f"a working image of 850 x 850 pixels: {image_bytes() / 1e6:.2f} MB")
    s3.close()


if __name__ == "__main__":
    main()
