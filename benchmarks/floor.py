"""The least that a run can take: ``python floor.py JSON``, with the inputs and the maps that it wrote.

Decompresses every input once, and compresses and writes every map once: nothing is looked at. Prints CPU seconds.
``python floor.py imports JSON`` imports the modules that a run imported, and nothing else.
"""

import json
import os
import sys
import tempfile
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path


def read_and_write(inputs: list[str], outputs: list[str]) -> dict[str, float]:
    import numpy as np

    from ibma_app.images import gzipped

    start = time.process_time()
    for path in inputs:
        np.frombuffer(gzipped.decompress(Path(path).read_bytes()), dtype=np.uint8)
    reading = time.process_time() - start
    contents = [gzipped.decompress(Path(path).read_bytes()) for path in outputs]
    with tempfile.TemporaryDirectory(dir=Path(outputs[0]).parent) as folder:
        start = time.process_time()
        for number, content in enumerate(contents):
            with (Path(folder) / str(number)).open("wb") as file:
                file.write(gzipped.compress(content))
                os.fsync(file.fileno())
        writing = time.process_time() - start
    return {"reading": reading, "writing": writing}


def main() -> None:
    if sys.argv[1] == "imports":
        for name in json.loads(Path(sys.argv[2]).read_text())["modules"]:
            with suppress(ImportError):
                import_module(name)
        return
    files = json.loads(Path(sys.argv[1]).read_text())
    sys.stdout.write(json.dumps(read_and_write(files["inputs"], files["outputs"])))


if __name__ == "__main__":
    main()
