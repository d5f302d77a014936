"""NeuroVault: a collection by its number over the REST API, or one that was downloaded before.

The server's address is ``https://neurovault.org``, unless the environment
variable ``IBMA_NEUROVAULT_URL`` names another.

References
----------
Gorgolewski KJ, et al. NeuroVault.org: a web-based repository for collecting
and sharing unthresholded statistical maps of the human brain. Frontiers in
Neuroinformatics 9:8, 2015.
"""

import hashlib
import logging
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import DataError, IbmaError, InputError
from ibma_app.core.statmap import Publication
from ibma_app.core.study import ImportedContrast, Importer, ImportRequest, Study
from ibma_app.core.system.folders import temporary_folder
from ibma_app.importers.fetch import NothingThereError, fetch_file, fetch_json, safe_name
from ibma_app.importers.lazy import LazyMaps
from ibma_app.importers.neurovault.images import VaultImage, group_images, image_number, read_image, space_of
from ibma_app.importers.neurovault.json_files import collection_of, described, publication_of, publications_in, shallow

LOGGER = logging.getLogger(__name__)
HOME = "https://neurovault.org"
VARIABLE = "IBMA_NEUROVAULT_URL"
PAGE = 100
MAX_PAGES = 1_000
MAX_IMAGE = 2**32  # bytes of an image's file
_NUMBER = re.compile(r"(?:https?://[^/]*neurovault\.org/(?:api/)?collections/|neurovault\.collection:)?(\d{1,9})/?")
Find = Callable[[VaultImage], Path]


def recognises(source: str) -> bool:
    """Return whether a source is a collection (number or address), or a download of one."""
    path = Path(source)
    try:
        if path.exists():
            return any(True for _ in described(path))
    except (IbmaError, OSError, ValueError):
        return False
    return _NUMBER.fullmatch(source.strip()) is not None


def read(source: str, request: ImportRequest) -> Study:
    """Read a collection: group maps for studies, single-subject maps for subjects.

    Parameters
    ----------
    source : str
        A number, an address, a folder (nilearn's, or images beside the API's
        JSON) or a JSON file of the API.
    request : ImportRequest
        Downloads are kept in its ``cache``, and fetched anew without one.

    Raises
    ------
    InputError
        There is no such collection, the server does not answer, a file is missing.
    DataError
        Nothing in it can be combined.
    """
    path = Path(source)
    if path.exists():
        facts = list(described(path))
        if not facts:
            raise InputError(f"{source} holds no JSON of NeuroVault (collection and images, as its API gives them).")
        where, number = source, collection_of(facts)
        publications = publications_in(path)
        find = _finder(_local_files(path), request, number)
    else:
        match = _NUMBER.fullmatch(source.strip())
        if match is None:
            raise InputError(
                f"{source} is neither a NeuroVault collection (a number, such as 1425, or its address) nor a file "
                "or folder."
            )
        number = match[1]
        where = f"{_base()}/collections/{number}/"
        facts = _list_images(number)
        publications = _publications(number)
        find = _finder({}, request, number)
    judged = [read_image(one) for one in facts]
    listed = [one for one in judged if isinstance(one, str)]
    images = [one for one in judged if not isinstance(one, str)]
    images, level, more = _of_one_level(images, request)
    listed += more
    groups, more = group_images(images)
    listed += more
    contrasts, more = _contrasts(groups, find, number, level, publications)
    listed += more
    if not contrasts:
        why = " ".join(listed[:10]) or "It is empty."
        raise DataError(f"{where} holds no statistic map that can be imported. {why}")
    return Study("NeuroVault", where, tuple(contrasts), tuple(listed), level)


def _base() -> str:
    """Return the server's address."""
    base = os.environ.get(VARIABLE, "").strip() or HOME
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InputError(f"{VARIABLE} is {base!r}, which is no web address such as {HOME}.")
    return base.rstrip("/").removesuffix("/api")


def _list_images(number: str) -> list[Mapping[str, Any]]:
    """Fetch the API's records of a collection's images, page by page."""
    found: list[Mapping[str, Any]] = []
    query = {"limit": str(PAGE), "offset": "0", "format": "json"}
    for _ in range(MAX_PAGES):
        page = fetch_json(f"{_base()}/api/collections/{number}/images/?{urlencode(query)}")
        results = page.get("results") if isinstance(page, dict) else page
        if not isinstance(results, list) or not all(isinstance(one, dict) for one in results):
            raise DataError(f"{_base()} does not answer as NeuroVault's API does (no list of images).")
        known = {image_number(one) for one in found}
        # a server that repeats its first page must not be read for ever
        results = [one for one in results if image_number(one) not in known]
        found += results
        if isinstance(page, list) or not results or not page.get("next"):
            break
        # only its query is used, never its address
        query |= {"offset": str(len(found))} | dict(parse_qsl(urlsplit(str(page["next"])).query))
    LOGGER.info("NeuroVault collection %s: %d images", number, len(found))
    return found


def _finder(local: Mapping[str, list[Path]], request: ImportRequest, number: str) -> Find:
    """Return the function that finds an image's file: beside its JSON, else fetched into the cache."""
    cache = request.cache
    temporary = None if cache else tempfile.TemporaryDirectory(prefix="ibma-neurovault-", dir=temporary_folder())

    def find(image: VaultImage) -> Path:
        here = next((local[name] for name in _names(image) if name in local), [])
        if here:
            return _the_one(image, here)
        address = _address(image)
        root = cache or Path(temporary.name if temporary else "")
        # with the date of its last change, so that a changed image is fetched again
        stamp = re.sub(r"\D", "", str(image.facts.get("modify_date") or ""))[:14]
        name = safe_name(f"image_{image.id}_{stamp}_{urlsplit(address).path.rsplit('/', 1)[-1]}")
        host = safe_name(urlsplit(address).netloc)
        return fetch_file(address, root / "neurovault" / host / safe_name(image.collection or number or "0") / name)

    return find


def _the_one(image: VaultImage, paths: list[Path]) -> Path:
    """Choose among files of one name: by the folder that is named after the image's collection."""
    own = [path for path in paths if image.collection and image.collection in re.findall(r"\d+", path.parent.name)]
    if len(paths) > 1 and len(own) != 1:
        raise InputError(
            f"Several files could be NeuroVault's {image.title}: {', '.join(map(str, paths))}. Give each collection "
            "in a folder of its own, named by its number (collection_1425)."
        )
    return own[0] if len(paths) > 1 else paths[0]


def _local_files(path: Path) -> dict[str, list[Path]]:
    """List the images of a download by their bare names; beside a JSON file: those of its own folder."""
    endings = (".nii", ".nii.gz", ".img", ".img.gz")
    if path.is_dir():
        files = shallow(path, *endings)
    else:
        files = sorted(file for file in path.parent.iterdir() if file.name.endswith(endings) and file.is_file())
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(file.name, []).append(file)
    return found


def _names(image: VaultImage) -> list[str]:
    """Return the names that an image's file may have in a download: bare, since no path of the JSON is followed."""
    paths = [str(image.facts.get(key) or "") for key in ("relative_path", "absolute_path", "file")]
    return [*(re.split(r"[/\\]", name)[-1] for name in paths), f"image_{image.id}.nii.gz", f"{image.id}.nii.gz"]


def _publications(number: str) -> dict[str, Publication]:
    """Ask the server what to cite for a collection: nothing where it does not answer."""
    try:
        found = publication_of(fetch_json(f"{_base()}/api/collections/{number}/?format=json"))
    except IbmaError as error:
        LOGGER.debug("What to cite for NeuroVault's collection %s is not known: %s", number, error.message)
        return {}
    return {number: found} if found else {}


def _address(image: VaultImage) -> str:
    """Return where an image's file is fetched: from the server itself, whatever address the JSON has."""
    base = urlsplit(_base())
    try:
        parts = urlsplit(image.file)
    except ValueError as error:
        raise InputError(f"NeuroVault's {image.title} lies at {image.file!r}, which is no address ({error}).") from None
    if parts.scheme and parts.scheme not in ("http", "https"):
        raise InputError(f"NeuroVault's {image.title} lies at {image.file}, which is no web address: refused.")
    host = parts.netloc.lower().removeprefix("www.")
    if host and host not in (base.netloc.lower().removeprefix("www."), "neurovault.org"):
        raise InputError(f"NeuroVault's {image.title} lies on another server ({parts.netloc}): refused.")
    path = parts.path if parts.path.startswith("/") else f"/{parts.path}"
    return urlunsplit(
        (base.scheme, base.netloc, quote(path, safe="/%+:@,;=()!$&'*~"), quote(parts.query, safe="=&%+"), "")
    )


def _of_one_level(images: list[VaultImage], request: ImportRequest) -> tuple[list[VaultImage], str | None, list[str]]:
    """Keep group maps (for subjects: single-subject maps), and list the others."""
    if any(image.level in ("group", None) for image in images) or request.for_study:
        kept = [image for image in images if image.level in ("group", None)]
        level = "group"
    else:
        kept = [image for image in images if image.level == "subject"]
        level = "subject"
    words = {"subject": "of a single subject", "meta-analysis": "of a meta-analysis", "group": "of a group"}
    listed = [
        f"{image.opening} is {words.get(image.level or '', 'of no known level')}."
        for image in images
        if image not in kept
    ]
    return kept, level if kept else None, listed


def _contrasts(
    groups: Mapping[tuple[str, str, str], Mapping[str, VaultImage]],
    find: Find,
    number: str,
    level: str | None,
    publications: Mapping[str, Publication],
) -> tuple[list[ImportedContrast], list[str]]:
    """Describe every contrast; maps that cannot be read, or are copies of others, are listed."""
    contrasts: list[ImportedContrast] = []
    listed: list[str] = []
    names = Counter((collection, contrast) for collection, _, contrast in groups)
    is_one = len({collection for collection, _, _ in groups}) == 1
    contents: dict[str, VaultImage] = {}
    for done, ((collection, key, contrast), images) in enumerate(groups.items(), 1):
        LOGGER.info("NeuroVault: %s (%d of %d)", key, done, len(groups))
        kept: dict[str, tuple[VaultImage, Any]] = {}
        for kind, image in images.items():
            volume, why = _open(find, image, contents)
            if volume is None:
                listed.append(why)
            elif kept and not next(iter(kept.values()))[1].matches(volume):
                listed.append(f"{image.opening} lies on another grid than the contrast's other maps.")
            else:
                kept[kind] = (image, volume)
        if not kept or set(kept) == {"variance"}:
            alone = (image.opening for image, _ in kept.values())
            listed += [f"{opening} is a variance without its effect." for opening in alone]
            continue
        # one study has one map of a contrast: the same contrast again is another study
        several = names[collection, contrast] > 1
        own_key = key if is_one else f"{collection} {key}"
        entity = own_key if several else f"neurovault{collection or number}"
        grid = next(iter(kept.values()))[1]
        own = {kind: image for kind, (image, _) in kept.items()}
        made = _contrast(contrast, own, grid=grid, find=find, level=level, entity=entity)
        cited = publications.get(collection or number) or publications.get("")
        columns = {"doi": cited.doi} if cited and cited.doi else {}
        contrasts.append(replace(made, publication=cited, columns=columns))
    return contrasts, listed


def _open(find: Find, image: VaultImage, contents: dict[str, VaultImage]) -> tuple[Any, str]:
    """Fetch and open one image: its grid, or why not."""
    from ibma_app.images import read

    try:
        path = find(image)
        read.read_header(path)  # refuses what is no file, or no image
        if path.stat().st_size > MAX_IMAGE:
            return None, f"{image.opening} has more than {MAX_IMAGE // 2**30} GiB."
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest in contents:
            return None, f"{image.opening} is a copy of {contents[digest].title}."
        grid = read.read_image(path).grid
    except NothingThereError as error:
        return None, f"{image.opening} is not there: {error.message}"
    except InputError:
        raise
    except IbmaError as error:
        return None, f"{image.opening} cannot be read: {error.message}"
    contents[digest] = image
    return grid, ""


def _contrast(
    name: str, images: Mapping[str, VaultImage], *, grid: Any, find: Find, level: str | None, entity: str
) -> ImportedContrast:
    """Describe one contrast."""
    from ibma_app.images import read

    def map_of(image: VaultImage) -> NDArray[Any]:
        values: NDArray[Any] = read.read_image(find(image)).data
        return values.astype(np.float64) ** 2 if image.kind == "se" else values

    sizes = {image.sample_size for image in images.values() if image.sample_size}
    notes = [f"Its images tell different numbers of subjects ({sorted(sizes)}): none is used."] * (len(sizes) > 1)
    notes += [f"{image.opening} is of {image.facts['modality']}, not of BOLD fMRI." for image in images.values()
              if str(image.facts.get("modality") or "fMRI-BOLD") != "fMRI-BOLD"]  # fmt: skip
    is_se = "variance" in images and images["variance"].kind == "se"
    readers = {kind: partial(map_of, image) for kind, image in images.items()}
    maps = LazyMaps(readers)
    if not is_se and {"effect", "variance", "t"} <= set(images):
        verdict = _judge_variance(maps)
        if verdict == "se":
            squared = partial(map_of, replace(images["variance"], kind="se"))
            maps, is_se = LazyMaps({**readers, "variance": squared}), True
            notes.append("The map called variance is the standard error (effect/t shows it): squared.")
        elif verdict:
            notes.append(verdict)
    first = next(iter(images.values()))
    subject = re.search(r"sub(?:ject)?[-_ ]?([A-Za-z0-9]+)", first.name)
    entities = {"study": entity} if level == "group" else {"sub": subject[1] if subject else str(first.id)}
    return ImportedContrast(
        name=name,
        maps=maps,
        grid=grid,
        dof=next((image.dof for image in images.values() if image.dof), None),
        sample_size=sizes.pop() if level == "group" and len(sizes) == 1 else None,
        units_source="NeuroVault does not tell the units of effects." if "effect" in images else "",
        space=next((space for space in map(space_of, images.values()) if space), ""),
        entities=entities,
        derived={"variance": "the square of the standard error"} if is_se else {},
        sources=tuple(str(image.facts.get("url") or image.file) for image in images.values()),
        notes=tuple(notes),
    )


def _judge_variance(maps: Mapping[str, NDArray[Any]]) -> str:
    """Compare a variance with (effect/t)²: "" when they agree, "se" when it is the root, else a note."""
    effect, variance, t = (np.asarray(maps[kind], dtype=np.float64) for kind in ("effect", "variance", "t"))
    good = np.isfinite(effect) & np.isfinite(variance) & np.isfinite(t) & (np.abs(t) > 0.1) & (variance > 0)
    good &= effect != 0
    if np.count_nonzero(good) < 10:
        return ""
    error = np.abs(effect[good] / t[good])
    if abs(np.median(variance[good] / error**2) - 1) < 0.02:
        return ""
    if abs(np.median(variance[good] / error) - 1) < 0.02:
        return "se"
    return "Effect, variance and t do not agree: variance is not (effect/t)²."


IMPORTER = Importer(
    name="neurovault",
    title="NeuroVault: a collection by its number, or a download of one",
    recognises=recognises,
    read=read,
    example="1425",
)
