"""NeuroVault's JSON of images, and which images belong to one contrast."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ibma_app.core.errors import DataError
from ibma_app.core.from_files import number_in, read_dof, read_sample_size, whole_number_in
from ibma_app.core.study import NATIVE
from ibma_app.images.spaces import MNI, template_label

KINDS = {
    "t": "t", "t map": "t",
    "z": "z", "z map": "z",
    "u": "effect", "univariate-beta map": "effect",
    "v": "variance", "variance": "variance",
    "p": "p", "p map (given null hypothesis)": "p",
}  # fmt: skip
_LEVELS = {"g": "group", "group": "group", "s": "subject", "single-subject": "subject", "m": "meta-analysis",
           "meta-analysis": "meta-analysis"}  # fmt: skip
_SE = re.compile(r"(?i)(?<![a-z])(se|stderr|std_?err(or)?|standard[ _-]?error)(?![a-z])")
# words for the kind, not the contrast: pain_01_beta and pain_01_varcope are one contrast
_KIND_WORDS = re.compile(
    r"(?i)(?<![a-z])(beta|cope|con|contrast|varcope|variance|var|se|stderr|std_?err(or)?"
    r"|[tzp][ _-]?(stat|map|values?|vals?|score|image)?|spm[tz]|effect|estimate|statistic|map)(?=\d*(?![a-z]))"
)
_NO_WORDS = {"", "none", "none / other", "other", "n/a"}
LONGEST_NAME = 60
LONGEST_TEXT = 1000  # characters of a name or an address
LARGEST_ID = 10**12


@dataclass(frozen=True)
class VaultImage:
    """One image: what is needed of its JSON."""

    id: int
    name: str
    kind: str  # "effect", "variance", "se", "t", "z", "p"
    key: str  # the name without words for the kind
    contrast: str
    level: str | None
    sample_size: float | None
    dof: float | None
    space: str
    file: str
    facts: Mapping[str, Any]

    @property
    def collection(self) -> str:
        """The number of its collection, "" when its JSON lacks it."""
        number = whole_number_in(str(self.facts.get("collection_id")))
        return "" if number is None else str(number)

    @property
    def title(self) -> str:
        """Its name in messages."""
        return f"image {self.id} ({self.name})"

    @property
    def opening(self) -> str:
        """The same at the beginning of a sentence."""
        return f"Image {self.id} ({self.name})"


def read_image(facts: Mapping[str, Any]) -> VaultImage | str:
    """Read one image's JSON, and decide whether it can be combined.

    Returns
    -------
    VaultImage or str
        Or why it is not a statistic map that can be combined, in a sentence.
    """
    number = image_number(facts)
    name = str(facts.get("name") or "unnamed")[:LONGEST_TEXT].strip()
    title = f"Image {number} ({name})"
    why = _unfit(facts) or _absurd(facts)
    if why:
        return f"{title} {why}."
    map_type = str(facts.get("map_type") or "").strip().lower()
    file = str(facts.get("file") or "")[:LONGEST_TEXT].rsplit("/", 1)[-1]
    stem = re.sub(r"(\.nii|\.img|\.hdr)?(\.gz)?$", "", file)
    says_se = bool(_SE.search(name) or _SE.search(stem))
    kind = KINDS.get(map_type, "")
    if says_se and kind in ("", "variance"):
        kind = "se"
    if not kind:
        return f"{title} is of another type ({facts.get('map_type') or 'not told'})."
    if not isinstance(facts.get("file"), str) or not 0 < len(facts["file"]) <= LONGEST_TEXT:
        return f"{title} has no file."
    key = plain_key(name)
    return VaultImage(
        id=number,
        name=name,
        kind=kind,
        key=key,
        contrast=_contrast(facts, key),
        level=level_of(facts),
        sample_size=number_in(facts.get("number_of_subjects")),
        dof=number_in(facts.get("statistic_parameters")) if kind == "t" else None,
        space=template_label(str(facts.get("target_template_image") or "")[:LONGEST_TEXT]),
        file=facts["file"],
        facts=facts,
    )


def _unfit(facts: Mapping[str, Any]) -> str:
    """Say why an image cannot be combined, whatever its kind; "" where it can."""
    image_type = str(facts.get("image_type") or "statistic_map").lower()
    map_type = str(facts.get("map_type") or "").lower()
    if image_type != "statistic_map":
        more = " (give its pack to `ibma-import nidm`)" if "nidm" in image_type else ""
        return f"is no statistic map but of the type {image_type}{more}"
    if map_type == "ip" or map_type.startswith("1-p"):
        return "is a map of 1-p"
    if facts.get("is_thresholded") is True:
        return "is thresholded (only significant voxels bias every combination)"
    if facts.get("not_mni") is True:
        return "is not in MNI space, as NeuroVault itself found (not_mni)"
    if facts.get("is_valid") is False:
        return "is marked as not valid"
    species = str(facts.get("subject_species") or "homo sapiens").lower()
    if species != "homo sapiens":
        return f"is of another species ({species})"
    return ""


def _absurd(facts: Mapping[str, Any]) -> str:
    """Say which number of an image's metadata cannot be; "" where there is none such."""
    checks = [("number_of_subjects", read_sample_size)]
    if str(facts.get("map_type") or "").strip().lower() in ("t", "t map"):
        checks.append(("statistic_parameters", read_dof))
    for key, check in checks:
        try:
            if facts.get(key) not in (None, ""):
                check(facts[key], "its JSON", key)
        except DataError as error:
            return f"is not used: {error.message.rstrip('.')}"
    return ""


def image_number(facts: Mapping[str, Any]) -> int:
    """Return an image's number, 0 when it has none."""
    number = number_in(facts.get("id"))
    return int(number) if number is not None and 0 <= number <= LARGEST_ID else 0


def level_of(facts: Mapping[str, Any]) -> str | None:
    """Return "group", "subject" or "meta-analysis"; by the number of subjects where the level is not stated."""
    level = _LEVELS.get(str(facts.get("analysis_level") or "").strip().lower())
    number = number_in(facts.get("number_of_subjects"))
    if level is None and number is not None:
        return "subject" if number == 1 else "group"
    return level


def plain_key(name: str) -> str:
    """Remove words for the kind from a name: ``pain_01_varcope.nii.gz`` -> ``pain 01``."""
    stem = re.sub(r"(\.nii|\.img|\.hdr)?(\.gz)?$", "", name.strip())
    words = re.sub(r"[\s_]+", " ", _KIND_WORDS.sub(" ", stem.replace("_", " ")))
    return re.sub(r"^[\s\-:;,.()]+|[\s\-:;,.(]+$", "", words).strip() or stem


def _contrast(facts: Mapping[str, Any], key: str) -> str:
    """Return a contrast's name: its definition, that of the Cognitive Atlas, or what the image's name leaves."""
    for field in ("contrast_definition", "cognitive_contrast_cogatlas"):
        text = " ".join(str(facts.get(field) or "")[:LONGEST_TEXT].split())
        if text.lower() not in _NO_WORDS and len(text) <= LONGEST_NAME:
            return text
    return key


Groups = dict[tuple[str, str, str], dict[str, VaultImage]]


def group_images(images: Iterable[VaultImage]) -> tuple[Groups, list[str]]:
    """Group images by contrast: (collection, key, contrast) -> kind -> image.

    Of two images of one kind the earlier (by number) stays.

    Returns
    -------
    groups : dict
    listed : list of str
        Which were left out.
    """
    groups: Groups = {}
    listed: list[str] = []
    for image in sorted(images, key=lambda one: one.id):
        kind = "variance" if image.kind == "se" else image.kind
        group = groups.setdefault((image.collection, image.key, image.contrast), {})
        if kind in group:
            listed.append(
                f"{image.opening} is a second {kind} map of {image.key} beside {group[kind].title}. "
                "If it is another contrast, download both and name them with `ibma-import table`."
            )
        else:
            group[kind] = image
    return groups, listed


def space_of(image: VaultImage) -> str:
    """Return the label of an image's space; NeuroVault's own check found it in MNI when not_mni is false."""
    if image.space and image.space != NATIVE:
        return image.space
    return MNI if image.facts.get("not_mni") is False else image.space
