"""The files that describe a dataset: dataset_description.json, .bidsignore, README.md, CITATION.md."""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from ibma_app.core.errors import OutputError, UsageError
from ibma_app.core.from_files import read_json, read_text
from ibma_app.core.statmap import Dataset
from ibma_app.dataset.datasets import DESCRIPTION, is_another
from ibma_app.dataset.output_dir import Output, lock_shared
from ibma_app.dataset.write import save_json, save_text

BIDS_VERSION = "1.10.0"
IGNORED = (
    *("*_statmap.*", "*_mask.*", "*_design.*", "*_clusters.*", "*_cells.*", "*_regions.*", "*_values.*"),
    *("*.html", "CITATION.md", "studies.*", "study-*", "logs/", "figures/", "figures", "group"),
)
"""Lines of .bidsignore: no BIDS release defines statistic maps yet."""

FIRST = ("run", "participant")  # parts that come before those of the group, as the levels do
_OURS = "ibma-app"
_PART = re.compile(r"<!-- part: (\S+) -->\n(.*?)\n<!-- end -->", re.DOTALL)
_MARK = "<!-- written by ibma-app; replaced by its next run -->"
_AUTHORS = ("The authors of the source datasets", "The ibma-app developers")
_LICENSE = "As the source datasets (none is stated in their dataset_description.json)"


def write_description(output: Output, version: str, datasets: Sequence[Dataset]) -> Path:
    """Write or extend OUTPUT_DIR's dataset_description.json.

    Parameters
    ----------
    output : Output
    version : str
        Of ibma-app, for GeneratedBy.
    datasets : sequence of Dataset
        The inputs; they become SourceDatasets and DatasetLinks (except the one
        named "", OUTPUT_DIR itself), and their licence, authors and
        GeneratedBy are passed on.

    Raises
    ------
    OutputError
        When OUTPUT_DIR holds another dataset's description.
    UsageError
        When a name already links to another dataset.
    """
    with lock_shared(output.root):
        existing = read_own_description(output.root)
        content = merge_description(existing, output.root, version, datasets)
        if content == existing:
            return output.root / DESCRIPTION
        return save_json(output, DESCRIPTION, content)


def read_own_description(root: Path) -> dict[str, Any]:
    """Read the description of an OUTPUT_DIR that ibma-app has written; {} when there is none.

    Raises
    ------
    OutputError
        When it describes another dataset, or cannot be read.
    """
    path = root / DESCRIPTION
    try:
        content = read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read: {error}. Mend it or name another OUTPUT_DIR.") from error
    chain = content.get("GeneratedBy") if isinstance(content, dict) else None
    first = chain[0] if isinstance(chain, list) and chain else None
    if not isinstance(first, dict) or first.get("Name") != _OURS:
        title = content.get("Name", "without a name") if isinstance(content, dict) else "unreadable"
        raise OutputError(
            f"{path} describes another dataset ({title}): its first GeneratedBy is not {_OURS}. "
            "Were BIDS_DIR and OUTPUT_DIR swapped? If not, name another OUTPUT_DIR."
        )
    return dict(content)


def merge_description(
    existing: Mapping[str, Any],
    root: Path,
    version: str,
    datasets: Sequence[Dataset],
    name: str = "Statistic maps combined by ibma-app",
) -> dict[str, Any]:
    """Make the description from the existing one and the inputs; what users wrote into it stays."""
    inputs = [dataset for dataset in datasets if dataset.name]
    stated = existing.get("DatasetLinks")
    links = {name: link for name, link in stated.items() if isinstance(link, str)} if isinstance(stated, dict) else {}
    for dataset in inputs:
        link = locate(dataset.root, root)
        earlier = links.get(dataset.name, link)
        links[dataset.name] = link
        if earlier != link and is_another(root / unquote(earlier), dataset):
            raise UsageError(
                f'{root / DESCRIPTION}: the name "{dataset.name}" links to {earlier} already; '
                f"give {dataset.root} another one: --derivatives NAME={dataset.root}"
            )
    chain = _entries(existing, "GeneratedBy", "Name")[1:]
    chain += [entry for dataset in inputs for entry in _entries(dataset.description, "GeneratedBy", "Name")]
    sources = _entries(existing, "SourceDatasets")
    sources += [_describe_source(dataset, root) for dataset in inputs]
    content = {
        "Name": name,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "License": _find_license(inputs),
        "Authors": _find_authors(inputs),
        **existing,
        "GeneratedBy": _once([{"Name": _OURS, "Version": version}, *chain]),
    }
    if sources:
        content["SourceDatasets"] = _once(sources)
    if links:
        content["DatasetLinks"] = dict(sorted(links.items()))
    return content


def locate(target: Path, root: Path) -> str:
    """Return a path as a URI reference relative to OUTPUT_DIR, names of links kept."""
    return quote(os.fsencode(Path(os.path.relpath(target, os.path.realpath(root))).as_posix()))


def _describe_source(dataset: Dataset, root: Path) -> dict[str, str]:
    """Describe one input: its location, its DOI where it has one, and its version."""
    source = {"URL": locate(dataset.root, root)}
    doi = dataset.description.get("DatasetDOI")
    if isinstance(doi, str) and doi:
        source["DOI"] = doi
    version = dataset.description.get("DatasetVersion")
    if isinstance(version, str) and version:
        source["Version"] = version
    return source


def _entries(description: Mapping[str, Any], key: str, needed: str | None = None) -> list[dict[str, Any]]:
    """Return the objects of a list, those with a key that is needed; anything else in it is left out."""
    value = description.get(key)
    objects = [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
    return [one for one in objects if needed is None or one.get(needed)]


def _find_license(datasets: Iterable[Dataset]) -> str:
    """Return the licence of the inputs; several are named with their datasets."""
    stated = {dataset.name: dataset.description.get("License") for dataset in datasets}
    known = {name: text for name, text in stated.items() if isinstance(text, str) and text.strip()}
    if not known:
        return _LICENSE
    if len(known) == len(stated) and len(set(known.values())) == 1:
        return next(iter(known.values()))
    return "As the source datasets: " + "; ".join(f"{name}: {text}" for name, text in known.items())


def _find_authors(datasets: Iterable[Dataset]) -> list[str]:
    """Return the authors of the inputs; BIDS requires at least two."""
    authors: list[str] = []
    for dataset in datasets:
        listed = dataset.description.get("Authors")
        authors += [one for one in listed if isinstance(one, str)] if isinstance(listed, list) else []
    authors = list(dict.fromkeys(authors))
    return authors if len(authors) > 1 else [*(authors or _AUTHORS[:1]), _AUTHORS[1]]


def _once(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Remove repetitions."""
    return list({json.dumps(entry, sort_keys=True): entry for entry in reversed(list(entries))}.values())[::-1]


def write_bidsignore(output: Output) -> Path:
    """Add ibma-app's lines to .bidsignore; those of the user stay."""
    path = output.root / ".bidsignore"
    with lock_shared(output.root):
        text = _read_text(path) or ""
        missing = [line for line in IGNORED if line not in text.splitlines()]
        if not missing:
            return path
        return save_text(output, path.name, "\n".join([*text.splitlines(), *missing]))


def write_readme(output: Output, intro: str, parts: Mapping[str, str]) -> Path:
    """Write README.md: an introduction, and a part for each analysis (see `_write_parts`)."""
    return _write_parts(output, "README.md", intro, parts)


def write_citation(output: Output, intro: str, parts: Mapping[str, str]) -> Path:
    """Write CITATION.md: an introduction, and a part for each analysis."""
    return _write_parts(output, "CITATION.md", intro, parts)


def _write_parts(output: Output, name: str, intro: str, parts: Mapping[str, str]) -> Path:
    """Write a text of named parts, unless there is a file that ibma-app did not write.

    Parts of earlier runs stay until their analysis is run again, as their maps
    are still there.
    """
    path = output.root / name
    with lock_shared(output.root):
        there = _read_text(path)
        if there is not None and _MARK not in there:
            return path
        kept = {key: text.strip() for key, text in _PART.findall(there or "")} | dict(parts)
        ordered = sorted(kept.items(), key=lambda part: (part[0] not in FIRST, part[0] != FIRST[0], part[0]))
        marked = [f"<!-- part: {key} -->\n{text.strip()}\n<!-- end -->" for key, text in ordered]
        return save_text(output, name, "\n\n".join([intro.strip(), *marked, _MARK]))


def _read_text(path: Path) -> str | None:
    """Read a shared file; None when there is none."""
    try:
        return read_text(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} is there but cannot be read: {error}.") from error
