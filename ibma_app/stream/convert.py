"""Converts the kinds of map that were shared to those that an estimator needs."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.block import (
    BACKGROUND,
    COVERED,
    NOT_FINITE,
    VARIANCE_ABSURD,
    VARIANCE_NOT_POSITIVE,
    Indices,
    Reasons,
)
from ibma_app.core.errors import DataError, Note
from ibma_app.core.statmap import Observation
from ibma_app.images.kinds import check_p
from ibma_app.stats.consistency import dof_of_t_and_z
from ibma_app.stats.tails import p_to_z, t_to_z, z_to_t

Floats = NDArray[np.float64]

SMALLEST_VARIANCE = 1e-10  # of the map's median: smaller is rounding error, not precision
DIRECTED = {"positive": 1.0, "negative": -1.0}  # tails from which the sign of z follows
SOURCES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "effect": (("effect",),),
    "variance": (("variance",), ("effect", "t"), ("effect", "z")),
    "z": (("z",), ("t",), ("effect", "variance"), ("p", "effect"), ("p",)),
    "p": (("p",),),
    "t": (("t",), ("effect", "variance"), ("z",)),
}
"""The kinds that each need can be made from, the best first."""
INFERRED = ("design", "SampleSize - 1", "unknown")
"""Sources of degrees of freedom that t and z together know better."""

CLOSE = 0.02  # relative: as well as single precision tells


@dataclass(frozen=True, eq=False)
class Converted:
    """One observation's values as estimators need them, at the N voxels that it covers."""

    # "effect", "variance", "z", "t", "dof" (voxelwise): (N,), in the files' own precision or, where derived, double
    values: Mapping[str, NDArray[Any]]
    covered: Indices  # (N,) flat indices of these voxels into reasons, ascending
    reasons: NDArray[np.uint8]  # indices into REASONS, in the shape of the maps or of the selected voxels
    derived: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()
    signed: bool = True  # False: z is isf(p) of a p without a sign

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The values in the shape of reasons, 0 where not covered."""
        arrays = {kind: np.zeros(self.reasons.shape, dtype=vector.dtype) for kind, vector in self.values.items()}
        for kind, vector in self.values.items():
            arrays[kind].reshape(-1)[self.covered] = vector
        return arrays


def can_give(observation: Observation, need: str) -> bool:
    """Return whether an observation has a kind of map, or it can be derived; no file is opened.

    A ``z`` must have a sign: from a two-sided p it is derived only when there
    is an effect, too.
    """
    sources = _sources(observation, need)
    if need == "z" and sources is not None and "p" in sources:
        return "effect" in sources or observation.tail in DIRECTED
    return sources is not None


def kinds_to_open(observation: Observation, needs: Collection[str]) -> tuple[str, ...]:
    """Choose the kinds of map that have to be read for what is needed.

    Parameters
    ----------
    observation : Observation
        None of its files is opened.
    needs : collection of str
        Of "effect", "variance", "z", "t", "dof", "sample_size". A ``dof`` map is
        read when dof is needed, or to turn t into z or z into t.

    Raises
    ------
    DataError
        Something needed is not there and cannot be derived, or its sidecar
        states what cannot be; the message names the observation, its file and
        the remedy.
    """
    if observation.refused:
        raise DataError(observation.refused)
    kinds: dict[str, None] = {}
    for need in ("effect", "variance", "z", "t"):
        if need in needs:
            sources = _sources(observation, need)
            if sources is None:
                raise _missing(observation, need)
            kinds.update(dict.fromkeys(sources))
    if "sample_size" in needs and observation.sample_size is None:
        raise _missing(observation, "sample_size")
    if "dof" in observation.statmaps and needs_dof(observation, needs):
        kinds["dof"] = None
    return tuple(kinds)


def convert_maps(
    observation: Observation,
    volumes: Mapping[str, NDArray[Any]],
    needs: Collection[str],
    select: Callable[[Reasons], tuple[Reasons, Indices, Indices]] | None = None,
) -> Converted:
    """Convert one observation's maps to what estimators need, and find which voxels it covers.

    A voxel is covered when every kind that is used is finite there, no value
    is background (exactly 0; for p exactly 1), and the variance is above 0 and
    at least 1e-10 of the median of this map's own finite positive variances.

    Parameters
    ----------
    observation : Observation
    volumes : mapping of str to ndarray
        The kinds that `kinds_to_open` chose, all of one shape.
    needs : collection of str
        As for `kinds_to_open`.
    select : callable, optional
        Picks voxels of ``volumes``, which are then flat (`grid_and_mask.VoxelSelection`).
        The median of the variances and the range of p are always those of the
        whole map.

    Raises
    ------
    DataError
        A p map that holds something else (1 - p, -log10 p), or is of an unknown tail.
    """
    if "p" in volumes:
        check_p(observation, volumes["p"])
    derived: list[str] = []
    reasons = _first_reasons(volumes)
    if select is not None:
        reasons, inside, taken = select(reasons)
    else:
        inside = taken = np.asarray(np.flatnonzero(reasons == COVERED))
    known = {kind: volume.reshape(-1).take(taken) for kind, volume in volumes.items()}  # in the files' precision
    dof = _double(known, "dof") if "dof" in known else np.inf if observation.dof is None else observation.dof
    given: dict[str, NDArray[Any]] = {}
    if "effect" in needs:
        given["effect"] = known["effect"]
    with np.errstate(divide="ignore", over="ignore", under="ignore", invalid="ignore"):
        if "variance" in needs:
            given["variance"] = _variance(observation, known, dof, derived)
        if "z" in needs:
            given["z"] = _z(observation, known, dof, derived)
        if "t" in needs:
            given["t"] = _t(observation, known, dof, derived)
    if "dof" in known:
        given["dof"] = known["dof"]
    covered: Indices = inside
    later = _later_reasons(given, known.get("variance", given.get("variance")), volumes.get("variance"))
    if later.any():
        reasons = reasons.copy()
        reasons.reshape(-1)[inside] = later
        covered = inside[later == COVERED]
        given = {kind: vector[later == COVERED] for kind, vector in given.items()}
    return Converted(
        values=given,
        covered=covered,
        reasons=reasons,
        derived=tuple(derived),
        notes=_dof_notes(observation, needs),
        signed="z" not in needs or not is_unsigned(observation),
    )


def is_settled_by_maps(observation: Observation, needs: Collection[str]) -> bool:
    """Return whether t and z are to be read for the degrees of freedom they say."""
    both = {"t", "z"} <= set(observation.statmaps)
    return both and observation.dof_source in INFERRED and needs_dof(observation, needs)


def settle_dof(
    observation: Observation, volumes: Mapping[str, NDArray[Any]], needs: Collection[str]
) -> tuple[Observation, tuple[str, ...], tuple[Note, ...]]:
    """Compare the degrees of freedom with what t and z say.

    Parameters
    ----------
    observation : Observation
    volumes : mapping of str to ndarray
        Its maps by kind, t and z among them where `is_settled_by_maps`.
    needs : collection of str
        As for `kinds_to_open`.

    Returns
    -------
    Observation
        With the degrees of freedom that t and z say, where those are known.
    tuple of str
        What was derived.
    tuple of Note
        Where they are not those of the design or the sample size.
    """
    if not needs_dof(observation, needs) or observation.dof_source not in INFERRED:
        return observation, (), ()
    found = dof_of_t_and_z(volumes["t"], volumes["z"]) if {"t", "z"} <= volumes.keys() else None
    designed = ("dof from the design matrix (rows less rank)",) if observation.dof_source == "design" else ()
    if found is None or (observation.dof is not None and abs(found - observation.dof) <= CLOSE * observation.dof):
        return observation, designed, ()
    notes: tuple[Note, ...] = ()
    if observation.dof is not None:
        said = "the design matrix beside it" if observation.dof_source == "design" else observation.dof_source
        text = f"t and z say other degrees of freedom than {said}; those of t and z are taken."
        notes = (Note(text, {observation.label: f"{found:g} instead of {observation.dof:g}"}),)
    return replace(observation, dof=found, dof_source="t and z"), ("dof from t and z",), notes


def _sources(observation: Observation, need: str) -> tuple[str, ...] | None:
    """Choose the best set of kinds there is for one need."""
    for choice in SOURCES.get(need, ((need,),)):
        if all(kind in observation.statmaps for kind in choice):
            # the sign of a one-tailed p is known without the effect
            return ("p",) if "p" in choice and observation.tail in DIRECTED else choice
    return None


def needs_dof(observation: Observation, needs: Collection[str]) -> bool:
    """Return whether degrees of freedom change what is computed."""
    return "dof" in needs or _turns_t_and_z(observation, needs)


def _turns_t_and_z(observation: Observation, needs: Collection[str]) -> bool:
    """Return whether t has to be turned into z, or z into t."""
    z_from = _sources(observation, "z") if "z" in needs else None
    return _turns_z_into_t(observation, needs) or z_from in (("t",), ("effect", "variance"))


def _turns_z_into_t(observation: Observation, needs: Collection[str]) -> bool:
    """Return whether z has to be turned into t."""
    variance_from = _sources(observation, "variance") if "variance" in needs else None
    t_from = _sources(observation, "t") if "t" in needs else None
    return variance_from == ("effect", "z") or t_from == ("z",)


def is_unsigned(observation: Observation) -> bool:
    """Return whether z of it would be made of p without a sign."""
    return _sources(observation, "z") == ("p",) and observation.tail not in DIRECTED


def _missing(observation: Observation, need: str) -> DataError:
    remedies = {
        "effect": "Provide a stat-effect map, or let --estimator auto take what there is.",
        "variance": "Provide a stat-variance map (or stat-t or stat-z beside the effect, from which it is derived), or "
        "let --estimator auto take what there is.",
        "z": "Provide a stat-z map (or stat-t, or effect and variance, or stat-p).",
        "t": "Provide a stat-t map (or stat-z, or effect and variance).",
        "sample_size": "Give SampleSize in its sidecar, or sample_size in studies.tsv, or let --estimator auto take "
        "what there is.",
    }
    if need == "variance" and "run" in observation.entities:
        remedies["variance"] = (
            "Fixed effects weight runs by their variance: provide a stat-variance map (or stat-t or stat-z beside the "
            "effect). A subject's only map needs no participant level: without run- in its name it can enter group "
            "with --estimator auto."
        )
    has = ", ".join(observation.statmaps)
    what = need.replace("_", " ")
    return DataError(f"{observation.label} has no {what}: {observation.path} (kinds: {has}). {remedies[need]}")


def _first_reasons(values: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    """Find the voxels that are not covered whatever is derived: not finite, background, or variance not positive."""
    first = next(iter(values.values()))
    found: list[tuple[int, NDArray[np.bool_]]] = []
    for kind, volume in values.items():
        finite = np.isfinite(volume)
        if not finite.all():
            found.append((NOT_FINITE, ~finite))
        if kind in ("effect", "t", "z"):
            found.append((BACKGROUND, volume == 0))
        elif kind == "p":  # a p of exactly 0 that `hold_saturated` left is background, too
            found.append((BACKGROUND, (volume == 1) | (volume == 0)))
        elif kind == "variance":
            found.append((VARIANCE_NOT_POSITIVE, volume <= 0))
        else:
            found.append((NOT_FINITE, volume <= 0))  # dof
    reasons = np.zeros(first.shape, dtype=np.uint8)
    for reason in (BACKGROUND, NOT_FINITE, VARIANCE_NOT_POSITIVE):  # of several reasons the first is recorded
        for code, where in found:
            if code == reason:  # as a sum of products: four times as fast as a masked copy
                reasons += (where & (reasons == COVERED)).view(np.uint8) * np.uint8(reason)
    return reasons


def _double(known: Mapping[str, NDArray[Any]], kind: str) -> Floats:
    """Return a kind in double precision, to derive others from it."""
    return known[kind].astype(np.float64)


def _later_reasons(
    given: Mapping[str, NDArray[Any]], variance: NDArray[Any] | None, whole: NDArray[Any] | None
) -> NDArray[np.uint8]:
    """Check what was derived, and the variances against the median of those of the whole map."""
    size = next(iter(given.values())).size
    reasons = np.zeros(size, dtype=np.uint8)
    for vector in given.values():
        reasons[~np.isfinite(vector)] = NOT_FINITE
    if variance is None:
        return reasons
    reasons[variance <= 0] = VARIANCE_NOT_POSITIVE
    all_variances = variance if whole is None else whole
    # where the smallest is not that far from the largest, it is not from the median: no need to sort
    if not all_variances.size or float(variance.min(initial=np.inf)) >= SMALLEST_VARIANCE * float(all_variances.max()):
        return reasons
    positive = all_variances[np.isfinite(all_variances) & (all_variances > 0)]
    if positive.size:
        small = (variance > 0) & (variance.astype(np.float64) < SMALLEST_VARIANCE * float(np.median(positive)))
        reasons[small] = VARIANCE_ABSURD
    return reasons


def _variance(
    observation: Observation, known: Mapping[str, NDArray[Any]], dof: Any, derived: list[str]
) -> NDArray[Any]:
    """Return the variance: as it is, or (effect / t)²."""
    sources = _sources(observation, "variance")
    if sources == ("variance",):
        return known["variance"]
    if sources == ("effect", "t"):
        derived.append("variance from effect and t")
        return (_double(known, "effect") / known["t"]) ** 2
    unknown = np.ndim(dof) == 0 and not np.isfinite(dof)
    derived.append("variance from effect and z" + (" (dof unknown: z taken as t)" if unknown else ""))
    return (_double(known, "effect") / z_to_t(_double(known, "z"), dof)) ** 2


def _z(observation: Observation, known: Mapping[str, NDArray[Any]], dof: Any, derived: list[str]) -> NDArray[Any]:
    """Return z: as it is, from t (or effect and variance) and dof, or from p and the effect's sign."""
    sources = _sources(observation, "z")
    if sources == ("z",):
        return known["z"]
    if sources is not None and "p" in sources:
        return _z_of_p(observation, known, derived)
    if sources == ("t",):
        t, origin = _double(known, "t"), "z from t"
    else:
        t, origin = (
            _double(known, "effect") / np.sqrt(_double(known, "variance")),
            "t from effect and variance; z from t",
        )
    unknown = np.ndim(dof) == 0 and not np.isfinite(dof)
    derived.append(f"{origin} (dof unknown: t taken as z)" if unknown else f"{origin} and dof")
    return t_to_z(t, dof)


def _t(observation: Observation, known: Mapping[str, NDArray[Any]], dof: Any, derived: list[str]) -> NDArray[Any]:
    """Return t: as it is, from effect and variance, or from z and dof."""
    sources = _sources(observation, "t")
    if sources == ("t",):
        return known["t"]
    if sources == ("z",):
        derived.append("t from z")
        return z_to_t(_double(known, "z"), dof)
    derived.append("t from effect and variance")
    return _double(known, "effect") / np.sqrt(_double(known, "variance"))


def _z_of_p(observation: Observation, known: Mapping[str, NDArray[Any]], derived: list[str]) -> Floats:
    """Turn p into z: signed by its tail or by the effect, else isf(p) without a sign."""
    if observation.tail in DIRECTED:
        sign = DIRECTED[observation.tail]
        derived.append(f"z from p ({'upper' if sign > 0 else 'lower'} tail)")
        return sign * np.asarray(p_to_z(_double(known, "p")), dtype=np.float64)
    assumed = "" if observation.tail else ", Tail not told: two-sided assumed"
    if "effect" in known:
        derived.append(f"z from p, signed by the effect{assumed}")
        return np.sign(_double(known, "effect")) * np.abs(p_to_z(_double(known, "p") / 2.0))
    derived.append(f"z from p, without a sign{assumed}")
    return np.asarray(p_to_z(_double(known, "p")), dtype=np.float64)


def _dof_notes(observation: Observation, needs: Collection[str]) -> tuple[Note, ...]:
    """Describe dof that were assumed, or are needed and unknown."""
    if not needs_dof(observation, needs):
        return ()
    if observation.dof_source == "SampleSize - 1":
        text = "degrees of freedom are taken from SampleSize - 1, as neither map nor sidecar says them."
        return (Note(text, {observation.label: observation.dof_text}),)
    if observation.dof_text == "unknown" and _turns_t_and_z(observation, needs):
        taken = (
            "z is taken as t, which makes errors too large, or g too small, in small samples"
            if _turns_z_into_t(observation, needs)
            else "t is taken as z, which overstates the evidence of small samples"
        )
        text = f"dof unknown, so {taken}. Give --dof, or DegreesOfFreedom or SampleSize in the sidecar."
        return (Note(text, {observation.label: ""}),)
    return ()
