"""The JSON of NeuroVault's downloads: images and collections."""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ibma_app.core.errors import DataError
from ibma_app.core.from_files import doi_in, read_json, whole_number_in
from ibma_app.core.statmap import Publication
from ibma_app.importers.neurovault.images import image_number

MAX_FILES = 20_000  # of a download
MAX_JSON = 16 * 2**20  # bytes of a downloaded JSON file


def described(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the images that JSON files describe: the API's pages, lists, or nilearn's file for each image."""
    files = shallow(path, ".json") if path.is_dir() else [path]
    seen: set[int] = set()
    for file in files:
        if file.suffix != ".json":
            continue
        try:
            content = read_json(file, MAX_JSON)
        except (OSError, ValueError) as error:
            if path.is_dir():
                continue
            raise DataError(f"{file} is no JSON ({str(error)[:80]}).") from error
        for one in _images_in(content):
            number = image_number(one)
            if number not in seen:
                seen.add(number)
                yield one


def _images_in(content: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the records that look like images of NeuroVault."""
    if isinstance(content, list):
        for one in content:
            yield from _images_in(one)
    elif isinstance(content, dict):
        if "map_type" in content and ("file" in content or "id" in content):
            yield content
        for key in ("results", "images"):
            if isinstance(content.get(key), list):
                yield from _images_in(content[key])


def collection_of(facts: list[Mapping[str, Any]]) -> str:
    """Return the number of the collection that images are from, "" when they do not say one."""
    numbers = {whole_number_in(str(one.get("collection_id"))) for one in facts} - {None}
    return str(numbers.pop()) if len(numbers) == 1 else ""


def shallow(folder: Path, *endings: str) -> list[Path]:
    """List the files of a folder and of the folders in it; no deeper: a home folder is not searched."""
    every = itertools.chain(folder.glob("*"), folder.glob("*/*"))
    files = (file for file in every if file.name.endswith(endings) and file.is_file())
    return sorted(itertools.islice(files, MAX_FILES))


def publications_in(path: Path) -> dict[str, Publication]:
    """Return what the collections of a download say to cite, by their numbers ("" where a file says none).

    nilearn keeps a collection's record as ``collection_metadata.json`` in its folder.
    """
    found = {}
    folder = path if path.is_dir() else path.parent
    for file in shallow(folder, ".json"):
        if "collection" not in file.name:
            continue
        try:
            content = read_json(file, MAX_JSON)
        except (OSError, ValueError):
            continue
        publication = publication_of(content)
        if publication is not None:
            number = whole_number_in(str(content.get("id")))
            found["" if number is None else str(number)] = publication
    return found


def publication_of(collection: Any) -> Publication | None:
    """Read what a collection's record says of its paper; None where it names neither a DOI nor authors."""
    if not isinstance(collection, dict) or "map_type" in collection:
        return None
    texts = {key: collection.get(key) for key in ("authors", "name", "DOI", "preprint_DOI")}
    said = {key: " ".join(text.split()) for key, text in texts.items() if isinstance(text, str)}
    doi = doi_in(said.get("DOI", "")) or doi_in(said.get("preprint_DOI", "")) or ""
    authors = said.get("authors", "")
    return Publication(authors, said.get("name", ""), doi) if doi or authors else None
