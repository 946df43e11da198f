"""Read thousands of files of CTFFIND and Gctf: python tests/benchmarks/exposures.py [--files 2000]

Prints CPU ms a file, and how many times that is of merely reading the files. They are made up, in a temporary folder.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from pickcal.formats import ctffind, gctf
from tests.formats import test_ctffind, test_gctf


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of the quickest of three runs."""
    seconds = []
    for _ in range(3):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000)
    count = parser.parse_args().files
    print("| program | CPU ms a file | merely reading it = 1 |\n|---|---|---|")
    for name, read, content, ending in (
        ("CTFFIND", ctffind.read_exposures, test_ctffind.text(), ".txt"),
        ("Gctf", gctf.read_exposures, test_gctf.LOG, "_gctf.log"),
    ):
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder, f"m{i}{ending}") for i in range(count)]
            for path in paths:
                path.write_text(content.replace("test_img", path.stem))
            ours = cpu(lambda paths=paths, read=read: read(paths))
            bare = cpu(lambda paths=paths: [path.read_bytes() for path in paths])
        print(f"| {name} | {1e3 * ours / count:.2f} | {ours / bare:.1f} |")


if __name__ == "__main__":
    main()
