"""Arrays embedded in a page for its script: small, of known error, and the same bytes each time.

``templates/scripts/viewer.js`` reads them; ``tests/report/figures/test_viewer.py`` does
so independently.
"""

import base64
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STEPS = 8000
"""Quantisation steps up to the 99th percentile of absolute values: an error of at most a 16,000th of it."""

RATIO = 0.01
"""Step of logarithms: an error of at most 0.5 %."""

NONE = -32768  # code of "no value"
LARGEST = 32767


@dataclass(frozen=True, eq=False)
class Codes:
    """Values as 16-bit codes: ``step * code``, or ``unit * exp(step * code)`` where there is a unit."""

    codes: NDArray[np.int16]  # (V,)
    step: float
    unit: float | None = None


class EmbeddedBlocks:
    """The blocks of one page: each content is stored once, under its id."""

    def __init__(self) -> None:
        self.blocks: dict[str, str] = {}  # id -> base64
        self._ids: dict[bytes, str] = {}

    @property
    def size(self) -> int:
        """Characters that the blocks take in the page."""
        return sum(map(len, self.blocks.values()))

    def weigh(self, *contents: bytes) -> int:
        """Characters that contents would add to the page."""
        return sum(4 * -(-len(content) // 3) for content in set(contents) if content not in self._ids)

    def put(self, content: bytes) -> str:
        """Add packed bytes, and return their id."""
        if content not in self._ids:
            key = f"block{len(self._ids)}"
            self._ids[content] = key
            self.blocks[key] = base64.b64encode(content).decode("ascii")
        return self._ids[content]


def quantise(values: Floats) -> Codes:
    """Round values (V,) to whole steps; the largest always fits.

    The error is half a step: at most a 16,000th of the 99th percentile of
    absolute values, or a 65,534th of the largest where that is more.
    """
    sizes = np.abs(values)
    largest = float(sizes.max()) if sizes.size else 0.0
    if largest == 0:
        return Codes(np.zeros(values.shape, dtype=np.int16), 1.0)
    usual = float(np.percentile(sizes, 99)) or largest
    step = max(usual / STEPS, largest / LARGEST)
    return Codes(np.rint(values / step).astype(np.int16), step)


def quantise_logs(values: Floats) -> Codes:
    """Round the logarithms of positive values (V,); others have none.

    The error is at most 0.5 % of the value, unless some lie 140 powers of ten from the median.
    """
    positive = values > 0
    codes = np.full(values.shape, NONE, dtype=np.int16)
    if not positive.any():
        return Codes(codes, RATIO, 1.0)
    unit = float(np.median(values[positive]))
    logs = np.log(values[positive]) - np.log(unit)
    step = max(RATIO, float(np.abs(logs).max()) / LARGEST)
    codes[positive] = np.rint(logs / step).astype(np.int16)
    return Codes(codes, step, unit)


def pack_codes(codes: NDArray[np.int16]) -> bytes:
    """Pack codes (V,): differences of neighbours (modulo 2^16), zigzag, high bytes before low bytes, zlib.

    Neighbours along a scan line are similar, and the high bytes of small
    differences are 0: this takes half the size of compressing the codes.
    """
    wide = codes.astype(np.int32)
    steps = np.diff(wide, prepend=0).astype(np.int16).astype(np.int32)  # overflows wrap around, as in the reader's sum
    zigzag = ((steps << 1) ^ (steps >> 15)).astype(np.uint16)
    planes = np.concatenate([(zigzag >> 8).astype(np.uint8), (zigzag & 255).astype(np.uint8)])
    return zlib.compress(planes.tobytes(), 9)


def pack_bits(flags: NDArray[np.bool_]) -> bytes:
    """Pack flags, raveled in C order, 8 to a byte (the first is the highest bit), zlib."""
    return zlib.compress(np.packbits(flags.ravel()).tobytes(), 9)


def pack_bytes(content: NDArray[np.uint8]) -> bytes:
    """Pack bytes, raveled in C order, zlib."""
    return zlib.compress(content.tobytes(), 9)
