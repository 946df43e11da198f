"""Small sets of micrographs written by hand, without pickcal's own writers: truth for the tests of the stages."""

import mrcfile
import numpy as np

COLUMNS = {
    "rlnMicrographName": "{name}",
    "rlnOpticsGroup": "1",
    "rlnDefocusU": "{defocus_u:.1f}",
    "rlnDefocusV": "{defocus_v:.1f}",
    "rlnDefocusAngle": "30.0",
}
OPTICS = {
    "rlnOpticsGroup": "1",
    "rlnOpticsGroupName": "one",
    "rlnVoltage": "300.0",
    "rlnSphericalAberration": "2.7",
    "rlnAmplitudeContrast": "0.1",
    "rlnMicrographPixelSize": "{pixel_size}",
}


def noise(shape=(160, 160), seed=0):
    """Grey values as a camera gives them, float32 `(y, x)`."""
    return np.random.default_rng(seed).normal(100.0, 10.0, shape).astype(np.float32)


def write_mrc(path, image, pixel_size):
    """Write an image or a stack; pixel size 0 leaves the header without one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(image)
        if image.ndim == 3:
            file.set_image_stack()
        file.voxel_size = pixel_size


def write_star(path, names, pixel_size, drop=(), defocus=10000.0, step=500.0):
    """Write a table as RELION 3.1 does, defocus rising by steps; `drop` leaves columns out, of the optics too."""
    optics = {label: form for label, form in OPTICS.items() if label not in drop}
    columns = {label: form for label, form in COLUMNS.items() if label not in drop}
    rows = [
        [form.format(name=name, defocus_u=one, defocus_v=one) for form in columns.values()]
        for name, one in zip(names, defocus + step * np.arange(len(names)), strict=True)
    ]
    groups = [[form.format(pixel_size=pixel_size) for form in optics.values()]]
    path.write_text("# version 30001\n\n" + _block("optics", optics, groups) + _block("micrographs", columns, rows))
    return path


def write_set(folder, images, pixel_size=5.0):
    """Write images as micrographs m1.mrc, m2.mrc ... and their table; returns the table's path."""
    names = [f"mics/m{i + 1}.mrc" for i in range(len(images))]
    for name, image in zip(names, images, strict=True):
        write_mrc(folder / name, image, pixel_size)
    return write_star(folder / "micrographs_ctf.star", names, pixel_size)


def _block(name, labels, rows):
    head = "".join(f"_{label} #{i}\n" for i, label in enumerate(labels, start=1))
    return f"data_{name}\n\nloop_\n{head}" + "".join(" ".join(row) + "\n" for row in rows) + "\n\n"
