"""Brings the maps of all kinds that belong together into one row of a design."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ibma_app.core.anatomy.structures import DENSITIES, FSAVERAGE
from ibma_app.core.errors import DataError, DatasetError, Note, tell
from ibma_app.core.from_files import read_dof, read_sample_size, show
from ibma_app.core.statmap import ENDINGS, GIFTI, Observation, StatMap
from ibma_app.dataset.entities import INDICES, order_entities
from ibma_app.dataset.sidecars import DesignReader, SidecarReader

_log = logging.getLogger(__name__)

_FOLDERS = ("node",)
_MISSING = ("", "n/a", "na", "none", "null", "unknown")  # texts of a value that is not stated
_DOF_KINDS = ("t", "z", "effect", "variance", "p")
_Key = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Dof:
    """Degrees of freedom and where they come from."""

    value: float | None
    source: str


def observe(
    statmaps: Sequence[StatMap],
    unit_key: str,
    *,
    dof: float | None = None,
    sample_sizes: Callable[[str, Mapping[str, str]], float | None] | None = None,
) -> tuple[Observation, ...]:
    """Bring maps that agree in all entities but their kind into one observation each.

    Parameters
    ----------
    statmaps : sequence of StatMap
    unit_key : {"sub", "study"}
        The entity whose label is the observation's unit.
    dof : float, optional
        Degrees of freedom of maps that state none (``--dof``).
    sample_sizes : callable, optional
        Returns a sample size of studies.tsv by unit label and entities; that of a sidecar is preferred.

    Returns
    -------
    tuple of Observation
        In the order of their first maps. Degrees of freedom come from a
        ``dof`` map, the sidecar, the design matrix beside the map, ``dof``,
        or the sample size minus 1.

    Raises
    ------
    DatasetError
        When two files are of one observation and kind, or a map has no unit.
    """
    groups: dict[_Key, dict[str, StatMap]] = {}
    for statmap in name_densities(join_hemispheres(statmaps)):
        if unit_key not in statmap.entities:
            raise DatasetError(f"{statmap.path}: neither its name nor its folder says which {unit_key}- it is.")
        key = tuple((name, _index(name, label)) for name, label in statmap.entities.items() if name not in _FOLDERS)
        kinds = groups.setdefault(key, {})
        if statmap.kind in kinds:
            raise DatasetError(_explain_twins(kinds[statmap.kind], statmap))
        kinds[statmap.kind] = statmap
    finder = _DofFinder(dof)
    found = tuple(_observe_one(kinds, unit_key, finder, sample_sizes) for kinds in groups.values())
    for text in tell(finder.notes):
        _log.warning("%s", text)
    return found


def join_hemispheres(statmaps: Sequence[StatMap]) -> tuple[StatMap, ...]:
    """Make one map of the files of both hemispheres (``hemi-L``, ``hemi-R``), where a format has one for each.

    Returns
    -------
    tuple of StatMap
        In the order of their first files; maps of one hemisphere stay maps of one. Their entities have no ``hemi``.

    Raises
    ------
    DatasetError
        Two files are of one hemisphere of one map.
    """
    joined: dict[tuple[Any, ...], dict[str, StatMap]] = {}
    for statmap in statmaps:
        side = statmap.entities.get("hemi", "") if statmap.path.name.endswith(GIFTI) else ""
        others = frozenset(item for item in statmap.entities.items() if not side or item[0] != "hemi")
        ending = next((one for one in ENDINGS if statmap.path.name.endswith(one)), "")
        key = (statmap.dataset.root, statmap.kind, ending, others) if side else (statmap.path,)
        sides = joined.setdefault(key, {})
        if side in sides:
            raise DatasetError(_explain_twins(sides[side], statmap))
        sides[side] = statmap
    return tuple(_join(sides) for sides in joined.values())


def _join(sides: Mapping[str, StatMap]) -> StatMap:
    """Make one map of those of its hemispheres by their labels; of a map without them ("") itself."""
    ordered = [sides[label] for label in sorted(sides)]
    first = ordered[0]
    if "" in sides:
        return first
    entities = {name: label for name, label in first.entities.items() if name != "hemi"}
    errors = dict.fromkeys(one.sidecar_error for one in ordered if one.sidecar_error)
    return replace(
        first,
        entities=entities,
        metadata={key: value for one in reversed(ordered) for key, value in one.metadata.items()},
        sidecar_error="; ".join(errors) or None,
        hemispheres=tuple(one.path for one in ordered),
    )


def name_densities(statmaps: Sequence[StatMap]) -> tuple[StatMap, ...]:
    """Give meshes of one density one label of ``den-``: ``10242`` is ``10k``, which ``space-fsaverage5`` implies.

    Where no map of a space states it, none gets it.
    """
    numbers = {str(number): label for number, label in DENSITIES.items()}
    implied = {name: DENSITIES[number] for number, name in FSAVERAGE.items() if number in DENSITIES}
    spaces = {one.entities.get("space", "") for one in statmaps if "den" in one.entities} & set(implied)
    named = []
    for one in statmaps:
        space, stated = one.entities.get("space", ""), one.entities.get("den")
        label = implied[space] if stated is None and space in spaces else numbers.get(stated or "", stated)
        if label is not None and label != stated:
            one = replace(one, entities=order_entities({**one.entities, "den": label}))
        named.append(one)
    return tuple(named)


def _index(name: str, label: str) -> str:
    """Make run-01 and run-1 the same, as BIDS indices are numbers."""
    return label.lstrip("0") or "0" if name in INDICES and label.isdigit() else label


def _entities_of(kinds: Mapping[str, StatMap]) -> dict[str, str]:
    """Return the entities that the kinds share, as the first map has them."""
    first = next(iter(kinds.values()))
    return {name: label for name, label in first.entities.items() if name not in _FOLDERS}


def _observe_one(
    kinds: Mapping[str, StatMap],
    unit_key: str,
    finder: "_DofFinder",
    sample_sizes: Callable[[str, Mapping[str, str]], float | None] | None,
) -> Observation:
    """Make one observation from its maps."""
    entities = _entities_of(kinds)
    unit = entities[unit_key]
    sample_size, freedom, refused = None, _Dof(None, "unknown"), ""
    try:
        sample_size = _find_sample_size(kinds)
        if sample_size is None and sample_sizes is not None:
            sample_size = sample_sizes(unit, entities)
        freedom = finder.find(kinds, sample_size)
    except DataError as error:  # of this row alone
        refused = f"{error.message} Correct it, or leave the key out."
    units = _find_text(kinds, "Units", ("effect", "variance"))
    tail = _find_text(kinds, "Tail", ("p",))
    return Observation(
        unit_label=unit,
        entities=entities,
        statmaps=kinds,
        dof=freedom.value,
        dof_source=freedom.source,
        sample_size=sample_size,
        units=units or "unknown",
        tail=tail.lower() if tail else None,
        refused=refused,
    )


class _DofFinder:
    """Finds degrees of freedom: a dof map, the sidecar, the design matrix, --dof, SampleSize - 1."""

    def __init__(self, default: float | None) -> None:
        self.default = default  # --dof
        self.designs = DesignReader()
        self.notes: list[Note] = []

    def find(self, kinds: Mapping[str, StatMap], sample_size: float | None) -> _Dof:
        """Return the degrees of freedom of the maps of one observation."""
        if "dof" in kinds:
            return _Dof(None, "map")
        stated = self._stated(kinds)
        if stated is not None:
            return _Dof(stated, "sidecar")
        path = next(iter(kinds.values())).path
        designed = self.designs.dof(path)
        if designed is not None:
            if self.default is not None and self.default != designed:
                text = f"--dof {self.default:g} is not used: the design matrix beside the map says another number."
                self.notes.append(Note(text, {path.name: f"{designed:g}"}))
            return _Dof(designed, "design")
        if self.default is not None:
            return _Dof(self.default, "--dof")
        if sample_size is not None and sample_size > 1:
            return _Dof(sample_size - 1, "SampleSize - 1")
        return _Dof(None, "unknown")

    def _stated(self, kinds: Mapping[str, StatMap]) -> float | None:
        """Return what the first sidecar with DegreesOfFreedom says; note what cannot be used."""
        for kind in _DOF_KINDS:
            stated = _stated(kinds[kind], "DegreesOfFreedom") if kind in kinds else None
            if stated is None:
                continue
            if stated != "voxelwise" and not isinstance(stated, list):
                return read_dof(stated, _sidecar(kinds[kind], "DegreesOfFreedom"), "DegreesOfFreedom")
            why = "there is no stat-dof map" if stated == "voxelwise" else "it is not one number"
            text = f"DegreesOfFreedom {show(stated)} is not used: {why}."
            self.notes.append(Note(text, {str(kinds[kind].path): ""}))
            return None
        return None


def _find_sample_size(kinds: Mapping[str, StatMap]) -> float | None:
    """Return the sample size of the first sidecar that states one."""
    for statmap in kinds.values():
        stated = _stated(statmap, "SampleSize")
        if stated is not None:
            return read_sample_size(stated, _sidecar(statmap, "SampleSize"), "SampleSize")
    return None


def _stated(statmap: StatMap, key: str) -> Any:
    """Return a value of a map's metadata, that of a list of one; None where it is missing."""
    value = statmap.metadata.get(key)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return None if isinstance(value, str) and value.strip().lower() in _MISSING else value


def _sidecar(statmap: StatMap, key: str) -> Path:
    """Return the file that states a value."""
    return SidecarReader(statmap.dataset.root).where(statmap.path, key)


def _find_text(kinds: Mapping[str, StatMap], name: str, preferred: Sequence[str]) -> str | None:
    """Return a text from the sidecars of the preferred kinds."""
    for kind in preferred:
        value = kinds[kind].metadata.get(name) if kind in kinds else None
        if isinstance(value, str) and value.strip():
            return value.strip()
    return None


def _explain_twins(one: StatMap, other: StatMap) -> str:
    """Describe two files of one observation and kind, and what to do."""
    key = "_".join(f"{name}-{label}" for name, label in one.entities.items() if name not in _FOLDERS)
    text = f"Two {one.kind} maps for {key}:\n  {one.path}\n  {other.path}\n"
    if one.entities.get("node") != other.entities.get("node"):
        node = one.entities.get("node") or other.entities["node"]
        query = f'{{"{one.kind}": {{"node": "{node}"}}}}'
        return f"{text}Choose one with --bids-filter-file, e.g. {query} (each kind of map likewise)."
    if one.dataset.root != other.dataset.root:
        return f"{text}Choose one dataset with --derivatives, e.g. --derivatives {one.dataset.root}."
    if bool(one.hemispheres) != bool(other.hemispheres) and one.path.name.endswith(GIFTI):
        plain, sided = (other, one) if one.hemispheres else (one, other)
        if plain.path.name.endswith(GIFTI):
            return f"{text}{_explain_unsided(plain, sided)}"
    endings = [next((end for end in ENDINGS if each.path.name.endswith(end)), "") for each in (one, other)]
    if endings[0] != endings[1]:
        query = f'{{"{one.kind}": {{"extension": "{endings[0]}"}}}}'
        return f"{text}Remove one of them, or choose with --bids-filter-file, e.g. {query}."
    return (
        f"{text}Remove one of them, or let an entity of their names tell them apart (and choose with "
        f'--bids-filter-file, e.g. {{"{one.kind}": {{"desc": "..."}}}}).'
    )


def _explain_unsided(plain: StatMap, sided: StatMap) -> str:
    """Say what to do about a surface map without ``hemi-`` in its name, beside files that have it."""
    there = {label for label in ("L", "R") for path in sided.files if f"hemi-{label}_" in path.name}
    free = sorted({"L", "R"} - there)
    named = f"hemi-{free[0]}" if len(free) == 1 else "hemi-L or hemi-R"
    also = "" if free else ", both of which are there already"
    return (
        f"The name of {plain.path.name} does not say its hemisphere: where it is one, rename it with {named}{also}. "
        "Remove it otherwise."
    )
