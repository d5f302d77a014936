"""The maps that a viewer shows, packed for the page: values, colours, and where something was found."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.report.figures.embed import (
    Codes,
    EmbeddedBlocks,
    pack_bits,
    pack_bytes,
    pack_codes,
    quantise,
    quantise_logs,
)
from ibma_app.report.figures.picture import Scale, palette_of, positive_scale, scale_of_z, signed_scale
from ibma_app.report.maps import ResultMaps
from ibma_app.report.numbers import InferenceNumbers, critical_values

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Viewer:
    """One viewer of a page."""

    config: str  # JSON
    note: str  # a remark for the reader
    interval: str  # what ± stands for; "": there is none
    height: str  # what the threshold is compared with: "|z|", or "z" where it has no direction
    hemispheres: tuple[str, ...] = ()  # a canvas each, to be turned; none: slices


@dataclass(frozen=True, eq=False)
class Parts:
    """The packed data of one viewer, before it is known whether they fit into the page."""

    maps: list[dict[str, Any]]  # "content" is packed data, later replaced by the id of its block
    shown: list[dict[str, Any]]
    half: dict[str, Any] | None
    top: float
    signed: bool  # z has a direction
    first: int  # element of the mask where the viewer begins
    mask: bytes
    backdrop: bytes | None = None

    @property
    def contents(self) -> list[bytes]:
        """All packed contents."""
        parts = (*self.maps, *self.shown, *([self.half] if self.half else []))
        palettes = [pack_palette(part["palette"]) for part in self.maps]
        found = [self.mask, *(part["content"] for part in parts), *palettes]
        return [*found, self.backdrop] if self.backdrop else found


def embed_layers(
    maps: ResultMaps, inferences: Sequence[InferenceNumbers], take: Callable[[Floats], Floats], mask: Bools, units: str
) -> Parts:
    """Pack z, effect, n, the intervals' half widths, and where each inference finds something.

    Parameters
    ----------
    maps : ResultMaps
    inferences : sequence of InferenceNumbers
    take : callable
        Takes the values of a map, of the form of the shape, and returns those that the viewer has, (V,).
    mask : array of bool
        Which of the places that the viewer knows have values: V of them.
    units : str
        Of the effect.
    """

    def thinned(kind: str, inference: str = "") -> Floats | None:
        volume = maps.volume(kind, inference)
        return None if volume is None else take(volume)

    z, effect, n = thinned("z"), thinned("effect"), thinned("n")
    assert z is not None  # checked by view_maps
    unit = "" if units == "unknown" else units
    signed = maps.test.signed
    layers = [_pack_map("z", z, scale_of_z(z, signed=signed))]
    half = None
    if effect is not None:
        label = f"effect ({unit or 'units unknown'})"
        layers.append(_pack_map("effect", effect, signed_scale(effect, label, outliers=True), unit))
        variance = thinned("variance")
        if variance is not None:
            whole = np.zeros(maps.grid.shape)
            whole[maps.grid.mask] = critical_values(maps, maps.grid.mask)
            critical = take(whole)
            half = _with_codes(quantise_logs(critical * np.sqrt(np.maximum(variance, 0.0))))
    if n is not None:
        layers.append(
            _pack_map("n", n, positive_scale(n, maps.grid.speak("maps at the voxel (n)"), high=float(n.max())))
        )
    shown = []
    for row in inferences:
        passed = thinned("mask", row.name)
        if passed is not None and row.n_significant and np.any(passed > 0):
            label = maps.grid.speak(f"{row.name}, {row.n_significant:,} voxels")
            least = float(np.abs(z[passed > 0]).min())
            shown.append({"name": row.name, "label": label, "least": least, "content": pack_bits(passed > 0)})
    sizes = np.abs(z) if signed else z
    top = max(float(sizes.max()), 0.0)
    return Parts(layers, shown, half, top, signed, int(np.argmax(sizes)), pack_bits(mask))


def _pack_map(key: str, values: Floats, scale: Scale, units: str = "") -> dict[str, Any]:
    """Pack a map (V,) with its colours."""
    codes = quantise(values)
    if np.array_equal(values, np.rint(values)) and np.abs(values).max(initial=0.0) <= 32767:  # counts stay exact
        codes = Codes(values.astype(np.int16), 1.0)
    return {
        "key": key,
        "label": scale.label,
        "units": units,
        "low": scale.low,
        "high": scale.high,
        "palette": scale.colours,
        **_with_codes(codes),
    }


def _with_codes(codes: Codes) -> dict[str, Any]:
    return {"step": codes.step, "unit": codes.unit, "content": pack_codes(codes.codes)}


@functools.cache
def pack_palette(name: str) -> bytes:
    """255 colours of red, green and blue each."""
    return pack_bytes(palette_of(name)[1:, :3])


def place_layers(parts: Parts, embedded: EmbeddedBlocks) -> dict[str, Any]:
    """Add the packed parts to the page, and describe them for the script."""

    def placed(part: dict[str, Any]) -> dict[str, Any]:
        return {
            **{key: value for key, value in part.items() if key != "content"},
            "block": embedded.put(part["content"]),
        }

    return {
        "mask": embedded.put(parts.mask),
        "maps": [{**placed(part), "palette": embedded.put(pack_palette(part["palette"]))} for part in parts.maps],
        "shown": [placed(part) for part in parts.shown],
        "half": placed(parts.half) if parts.half else None,
        "top": parts.top,
        "signed": parts.signed,
    }


def interval_words(parts: Parts) -> str:
    """Say what ± stands for; "" where there is none."""
    return "± is the 95 % interval of the effect, for one voxel named beforehand." if parts.half else ""
