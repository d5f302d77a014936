"""The record that a run keeps of each finished analysis, so that its page can be made again from the maps.

``logs/<run>/results/<analysis>.json.gz`` in OUTPUT_DIR: the `Results` as the
run had it (JSON, see `ibma_app.workflows.write.records_to_json`), and the software that
computed the numbers.
"""

import gzip
import json
import logging
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ibma_app.core.errors import IbmaError, InputError
from ibma_app.core.results import Results, RunFacts
from ibma_app.dataset.level_rules import is_here
from ibma_app.dataset.output_dir import Output, replace_file
from ibma_app.workflows.command.log import software_versions
from ibma_app.workflows.write.records_to_json import decode, encode

log = logging.getLogger(__name__)

FORMAT = 3
ENDING = ".json.gz"
NAMES = {"run": "run_*", "participant": "sub-*", "group": "group_*"}


@dataclass(frozen=True)
class Kept:
    """A finished analysis, and the software that computed its numbers."""

    results: Results
    software: Mapping[str, str]
    ran: RunFacts | None = None


def keep_results(
    output: Output,
    folder: Path,
    results: Results,
    software: Mapping[str, str] | None = None,
    ran: RunFacts | None = None,
) -> None:
    """Save the record of an analysis in a run's folder (relative to OUTPUT_DIR); failure is a warning only.

    ``software`` is what computed the numbers; None: the versions that run now.
    """
    analysis = results.analysis
    name = analysis.name if analysis.level == "participant" else f"group_{analysis.name}"
    keep_record(output, folder / f"{name}{ENDING}", results, software, ran)


def keep_record(
    output: Output,
    below: Path,
    results: Any,
    software: Mapping[str, str] | None = None,
    ran: RunFacts | None = None,
) -> None:
    """Save a record of results as `keep_results` does, in a file whose name (relative to OUTPUT_DIR) is given."""
    try:
        document = {
            "Format": FORMAT,
            "Software": software or software_versions(),
            "Run": asdict(ran) if ran else None,
            "Results": encode(results, type(results), output.root),
        }
        text = json.dumps(document, allow_nan=False, separators=(",", ":"))
        # no name and no time in the header: the same record gives the same bytes
        content = gzip.compress(text.encode("utf-8"), compresslevel=6, mtime=0)
        replace_file(output, below, lambda path: _write(path, content))
    except (TypeError, ValueError, IbmaError) as error:
        name = below.name.removesuffix(ENDING)
        log.warning("%s is not kept for --reports-only: %s", name, error)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def find_records(output_dir: Path, level: str) -> dict[str, Path]:
    """Find the newest record of each analysis of a level: name -> file.

    Folders of runs are named by the time at which they began; of runs of the
    same second the record written last is taken.
    """
    found: dict[str, tuple[tuple[str, int], Path]] = {}
    for path in (output_dir / "logs").glob(f"*/results/{NAMES[level]}{ENDING}"):
        began = path.parent.parent.name.partition("_")[0]
        age, name = (began, path.stat().st_mtime_ns), path.name.removesuffix(ENDING)
        if name not in found or found[name][0] < age:
            found[name] = (age, path)
    return {name: found[name][1] for name in sorted(found)}


def read_document(path: Path) -> dict[str, Any]:
    """Read a record as JSON.

    Raises
    ------
    InputError
        It is damaged, or of a version that cannot be read.
    """
    try:
        document = json.loads(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}. Run the analysis again.") from error
    found = document.get("Format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise InputError(
            f"{path} has format {found}, this version of ibma-app reads {FORMAT}. Run the analysis again, or use the "
            "version that ran it."
        )
    return dict(document)


def read_record(path: Path, output_dir: Path) -> Kept:
    """Read a record, and check that its maps exist.

    Raises
    ------
    InputError
        The record cannot be read, or a file of the analysis is gone.
    """
    document = read_document(path)
    try:
        results = decode(document["Results"], Results, output_dir)
    except (InputError, KeyError, ValueError, TypeError, AttributeError, zlib.error) as error:
        raise InputError(f"{path} cannot be used: {error}. Run the analysis again.") from error
    files = [file.path for result in results.estimators for file in result.files]
    gone = [file for file in files if not is_here(file)]
    if gone:
        more = f" (and {len(gone) - 1} more)" if len(gone) > 1 else ""
        raise InputError(
            f"{gone[0]}{more} is gone, or its content is not here, and the page of {results.analysis.name} is made "
            "from it. Get it back, or run the analysis again."
        )
    ran = document.get("Run")
    return Kept(results, document["Software"], RunFacts(**ran) if ran else None)
