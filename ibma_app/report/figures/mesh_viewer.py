"""The data of the turnable viewer: meshes of the hemispheres as blocks of the page, and maps on their vertices."""

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Elements
from ibma_app.core.anatomy.structures import Surface
from ibma_app.report.figures.brains.meshes import Drawn, mesh_to_draw
from ibma_app.report.figures.embed import EmbeddedBlocks, pack_bytes, pack_codes
from ibma_app.report.figures.layers import Viewer, embed_layers, interval_words, place_layers
from ibma_app.report.maps import ResultMaps
from ibma_app.report.numbers import InferenceNumbers

Floats = NDArray[np.float64]

MOST_VERTICES = 2**16
"""Of a hemisphere: numbers of vertices have 16 bits in the page."""

STEP = 0.01
"""Millimetres of the points' codes."""


def view_meshes(
    maps: ResultMaps,
    inferences: Sequence[InferenceNumbers],
    embedded: EmbeddedBlocks,
    units: str,
    shape: Elements,
    limit: int,
) -> Viewer | None:
    """Embed one test's maps and the meshes that they lie on; parameters as of `ibma_app.report.figures.viewer`.

    Returns
    -------
    Viewer or None
        None where no mesh is known, or the page would become larger than ``limit`` characters.
    """
    found = [
        (one, start, drawn)
        for one, start in zip(shape.structures, shape.starts.tolist(), strict=False)
        if isinstance(one, Surface) and one.size <= MOST_VERTICES and (drawn := mesh_to_draw(one)) is not None
    ]
    if not found or maps.path("z") is None or not shape.n_voxels:
        return None
    parts = embed_layers(maps, inferences, partial(_take, mask=shape.mask), shape.mask, units)
    packed = [(one, start, _pack(drawn)) for one, start, drawn in found]
    contents = [content for _, _, blocks in packed for content in blocks.values()]
    if embedded.size + embedded.weigh(*parts.contents, *contents) > limit:
        return None
    meshes = [
        {
            "name": one.name,
            "label": one.name.rpartition("_")[2].lower(),
            "start": start,
            "size": one.size,
            "step": STEP,
            **{name: embedded.put(content) for name, content in blocks.items()},
        }
        for one, start, blocks in packed
    ]
    places = shape.places_at(np.arange(shape.n_voxels))
    config: dict[str, Any] = {
        "meshes": meshes,
        "size": int(shape.mask.size),
        **place_layers(parts, embedded),
        "places": _place_codes(places, embedded),
        "start": int(shape.file_order[parts.first]),
    }
    others = sorted({one.name for one in shape.structures} - {one.name for one, _, _ in found})
    note = f"Not shown here: {', '.join(others[:3])}{' and others' if len(others) > 3 else ''}. " if others else ""
    return Viewer(
        json.dumps(config, ensure_ascii=True, allow_nan=False),
        note,
        interval_words(parts),
        "|z|" if parts.signed else "z",
        tuple(str(one["label"]) for one in meshes),
    )


def _take(values: Floats, mask: NDArray[np.bool_]) -> Floats:
    return values[mask]


def _pack(mesh: Drawn) -> dict[str, bytes]:
    """Pack points (x of all, y, z), triangles and depth of a mesh."""
    middle = (mesh.points.min(axis=0) + mesh.points.max(axis=0)) / 2.0
    points = np.rint((mesh.points - middle) / STEP).astype(np.int16)
    return {
        "points": pack_codes(points.T.ravel()),
        "triangles": pack_codes(mesh.triangles.astype(np.uint16).view(np.int16).T.ravel()),
        "depth": pack_bytes(np.rint(255 * mesh.depth).astype(np.uint8)),
    }


def _place_codes(places: Floats, embedded: EmbeddedBlocks) -> dict[str, Any] | None:
    """Pack where the elements of the mask lie, to a tenth of a millimetre; None where that is not known of all."""
    if not np.isfinite(places).all():
        return None
    codes = np.rint(places / 0.1)
    return {"step": 0.1, "block": embedded.put(pack_codes(codes.astype(np.int16).T.ravel()))}
