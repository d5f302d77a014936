"""Where maps lie: what their headers leave open, and what does not lie where a brain in MNI152 space does."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.grid import Grid

# From the first to the last per cent of nilearn's MNI152 brain mask along x, y and z, mm.
BRAIN = np.array([[-64.0, 64.0], [-96.0, 64.0], [-56.0, 72.0]])
SHIFT = 15.0  # mm: both ends of a brain this far away, in one direction, are no matter of coverage
SMALL = 0.7  # of the brain's length along all three axes: smaller is another brain, or a region of one
STEP = 6.0  # mm between the voxels that are looked at
FULL = 0.6  # share of the box with values: more is no brain in its background, and says nothing of its place
FEW = 100  # voxels with values: fewer say nothing
NAMED = 5  # maps named in a message

UNPLACED, SIZES, APART, ELSEWHERE = "unplaced", "sizes", "apart", "elsewhere"
WORDS = {
    UNPLACED: "{n} map(s) state no place (their headers have neither sform nor qform): {names}. They are taken to be "
    "centred on the origin, as nibabel and SPM do: coordinates are a guess, and left and right may be exchanged. Copy "
    "the header of an image whose place is known (FSL: fslcpgeom).",
    SIZES: "{n} map(s) have impossible voxel sizes in their headers: {names}. They are read without their sign, and 0 "
    "as 1 mm, as nibabel does. Correct the headers where that is not so.",
    APART: "{n} map(s) are off the grid of the analysis by less than a twentieth of a voxel: {names}. Their voxels "
    "are used as they are.",
    ELSEWHERE: "{n} map(s) do not lie where the MNI152 brain lies, though their names say that space: {names}. Are "
    "their affines and names right?",
}
"""What can be remarked of a map's place, and how it is told of all maps at once."""


def place_notes(maps: Sequence[tuple[str, Mapping[str, str]]]) -> tuple[str, ...]:
    """Tell what was remarked of the maps' places, one sentence of each kind.

    Parameters
    ----------
    maps : sequence of (str, mapping)
        Each map's label, and what was remarked of it: a key of `WORDS` -> how much, in words, or "".
    """
    notes = []
    for kind, words in WORDS.items():
        found = [f"{label} ({remarks[kind]})" if remarks[kind] else label for label, remarks in maps if kind in remarks]
        if found:
            more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
            notes.append(words.format(n=len(found), names=", ".join(found[:NAMED]) + more))
    return tuple(notes)


def outside_brain(volume: NDArray[Any], grid: Grid, background: float = 0.0) -> str:
    """Say in what way a map's values do not lie where the MNI152 brain does; "" where they do, or nothing can be told.

    A map that covers a part of the brain ends within it on one side at least;
    one that is shifted ends outside of it on the other. What fills its whole
    box, or is a handful of voxels, is not judged.

    Parameters
    ----------
    volume : ndarray, (X, Y, Z)
    grid : Grid
        Where it lies.
    background : float
        The value of voxels that have none.
    """
    strides = np.maximum(1, np.rint(STEP / grid.voxel_sizes)).astype(int)
    seen = volume[tuple(slice(None, None, stride) for stride in strides)]
    covered = np.array(np.nonzero(np.isfinite(seen) & (seen != background)), dtype=np.float64)  # (3, points)
    count = covered.shape[1]
    if not FEW <= count <= FULL * seen.size:
        return ""
    places = grid.affine[:3, :3] @ (covered * strides[:, None]) + grid.affine[:3, 3:]
    last = [count // 100, count - 1 - count // 100]  # the outermost per cent may be strays
    ends = np.partition(places, last, axis=1)[:, last]
    lengths, own = np.ptp(BRAIN, axis=1), np.ptp(ends, axis=1)
    if (own < SMALL * lengths).all():
        sizes, whole = (" x ".join(f"{size:.0f}" for size in three) for three in (own, lengths))
        return f"{sizes} mm, where the brain has {whole}"
    away = ends - BRAIN
    for axis, (low, high) in zip("xyz", away, strict=True):
        if min(abs(low), abs(high)) > SHIFT and low * high > 0:
            return f"about {abs(low + high) / 2:.0f} mm away towards {'+' if low > 0 else '-'}{axis}"
    return ""
