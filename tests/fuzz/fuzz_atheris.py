"""Coverage-guided fuzzing of one reader with atheris: `python tests/fuzz/fuzz_atheris.py READER -runs=100000`.

Further arguments are libFuzzer's (`-max_total_time=`, `-seed=`, a folder of inputs of earlier runs, or the file of a
crash to try again). Whatever a reader ends with besides a result or a `PickcalError` that names the file ends the run
and leaves the input in the working folder as `crash-...` or `timeout-...`.
"""

import importlib
import importlib.util
import random
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pickcal", "starfile", "cryosparc"]):
    from harness import run, watched
    from mutations import mutate
    from readers import READERS

    for module in sorted({reader.module for reader in READERS.values()}):
        # a module that is not there fails its own reader only
        if importlib.util.find_spec(f"pickcal.formats.{module}"):
            try:
                importlib.import_module(f"pickcal.formats.{module}")
            except ImportError as error:
                print(f"pickcal.formats.{module}: {error}", file=sys.stderr)

LARGEST = 1 << 16


def main(arguments):
    """Fuzz the reader that the first argument names."""
    if len(arguments) < 2 or arguments[1] not in READERS:
        raise SystemExit(
            f"usage: fuzz_atheris.py READER [-runs=100000] [libFuzzer options]; READER: {', '.join(READERS)}"
        )
    reader = READERS[arguments[1]]
    seeds = reader.seeds()

    def change(data, size, seed):
        rng = random.Random(seed)
        if reader.odd and rng.random() < 0.1:
            return reader.odd(rng)[:size]
        # half of the changes are libFuzzer's own, which follow coverage; half know about lines and numbers
        return atheris.Mutate(data, size) if rng.random() < 0.5 else mutate(data, seeds, rng.randrange(2**32))[:size]

    with tempfile.TemporaryDirectory() as folder, watched():
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(seeds):
            (corpus / f"seed{number}").write_bytes(seed)
        path = Path(folder) / f"input{reader.suffix}"
        options = [f"-max_len={LARGEST}", "-rss_limit_mb=6000", *arguments[2:], str(corpus)]
        atheris.Setup(
            [arguments[0], *options],
            lambda data: bool(run(reader, path, data)) and None,
            custom_mutator=change,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
