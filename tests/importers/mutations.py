"""Random changes of small valid files: odd numbers and words, cut and repeated pieces, other bytes."""

import copy
import gzip
import json
import re
import zlib
from typing import Any

import nibabel as nib
import numpy as np

HEADER = 352  # bytes of a NIfTI header and its flag of extensions
WORDS = (
    "nan", "inf", "-inf", "NaN", "Infinity", "0", "-4", "1e300", "-1", "1e999", "4294967296", "10000000000", "²", "١٢",
    "9" * 5000, "text", "", " ", "\0", "\x1b[31m", "../../x", "/dev/zero", "a" * 300, "a" * 200_000, "1_000", "1,5",
    "\ud800", "[" * 3000, "{" * 3000, '"', "'", "\\", "%s%n", "1@" * 500, "1000000000@0", "é\u2028", "=SUM(1)", "\t",
    "\n\n\n", "-0.0", "1-" * 60 + "x", " " * 100_000,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, 0, -4, 1e300, 10**30, "", "²", "text", "n/a", [], {}, [1, 2], [[[[]]]], {"a": {"b": 1}}, "x" * 100_000,
    "\ud800", "\0", float("nan"), float("inf"), -1, 1e-320, "../../../x", "9" * 5000, [None], ["a", 3], {"": ""},
    "a\nb\tc", -(2**63), "0", "-12", "9**9**9",
)  # fmt: skip
BYTES = (
    b"\0\0\xc0\x7f",
    b"\xff\xff\xff\xff",
    bytes(4),
    b"\xff\xff\xff\x7f",
    b"\0\0\0\x80",
    b"\x0e\0\0\0",
    b"\x0f\0\0\0",
    bytes(8),
)


def change_text(raw: bytes, rng: np.random.Generator) -> bytes:
    """Replace numbers and words, cut, repeat and insert."""
    text = raw.decode("utf-8", "surrogateescape")
    for _ in range(rng.integers(1, 4)):
        how, word = rng.integers(7), WORDS[rng.integers(len(WORDS))]
        at = int(rng.integers(len(text) + 1))
        pieces = list(re.finditer(r"[-+]?\d[\d.e+-]*|[A-Za-z_]\w*", text)) if how < 3 else []
        if pieces:
            piece = pieces[rng.integers(len(pieces))]
            text = text[: piece.start()] + word + text[piece.end() :]
        elif how == 3:
            text = text[:at]
        elif how == 4:
            end = min(len(text), at + int(rng.integers(1, 200)))
            text = text[:at] + text[at:end] * int(rng.integers(2, 50)) + text[end:]
        elif how == 5:
            text = text[:at] + text[at + int(rng.integers(1, 40)) :]
        else:
            text = text[:at] + word + text[at:]
    return text.encode("utf-8", "surrogatepass") if rng.random() < 0.9 else change_bytes(raw, rng)


def change_bytes(raw: bytes, rng: np.random.Generator) -> bytes:
    """Change some bytes; now and then cut the rest off."""
    changed = bytearray(raw)
    for _ in range(rng.integers(1, 6)):
        at = int(rng.integers(len(changed) or 1))
        new = BYTES[rng.integers(len(BYTES))] if rng.random() < 0.5 else rng.bytes(int(rng.integers(1, 3)))
        at -= at % 4 if rng.random() < 0.5 else 0
        changed[at : at + len(new)] = new
    return bytes(changed[: int(rng.integers(len(changed)))] if rng.random() < 0.1 else changed)


def change_json(raw: bytes, rng: np.random.Generator) -> bytes:
    """Put odd values in place of others, or treat it as text."""
    if rng.random() < 0.25:
        return change_text(raw, rng)
    content = [json.loads(raw)]
    for _ in range(rng.integers(1, 4)):
        place: Any = content
        while True:
            keys = list(place) if isinstance(place, dict) else range(len(place))
            key = keys[rng.integers(len(keys))]
            if not (isinstance(place[key], dict | list) and place[key]) or rng.random() < 0.2:
                break
            place = place[key]
        value = copy.deepcopy(VALUES[rng.integers(len(VALUES))])
        if isinstance(place, dict) and rng.random() < 0.15:
            place[str(value)[:50]] = place.pop(key)
        else:
            place[key] = value
    deep = rng.random()
    text = json.dumps(content[0], ensure_ascii=bool(rng.random() < 0.5))
    text = '{"a":' * 5000 + text + "}" * 5000 if deep < 0.02 else text
    return text.encode("utf-8", "surrogatepass")


def change_mat(raw: bytes, rng: np.random.Generator) -> bytes:
    """Change the content of a MATLAB file, and compress it or not."""
    changed = change_bytes(raw[128:], rng)
    if rng.random() < 0.5:
        packed = zlib.compress(changed)
        changed = (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed
    return raw[:128] + changed


def change_image(raw: bytes, rng: np.random.Generator) -> bytes:
    """Change bytes of the header, of voxels, or of the packed file; or cut it."""
    packed = raw[:2] == b"\x1f\x8b"
    if rng.random() < 0.15:
        changed = bytearray(raw)
        for _ in range(rng.integers(1, 4)):
            changed[rng.integers(len(changed))] = rng.integers(256)
        return bytes(changed[: int(rng.integers(len(changed)))] if rng.random() < 0.4 else changed)
    content = bytearray(gzip.decompress(raw) if packed else raw)
    if rng.random() < 0.25:  # a field with an odd value
        header = nib.Nifti1Header(bytes(content[:348]), check=False)
        name = (
            "dim",
            "pixdim",
            "scl_slope",
            "scl_inter",
            "vox_offset",
            "datatype",
            "xyzt_units",
            "srow_x",
            "quatern_b",
        )[rng.integers(9)]
        field = np.atleast_1d(header[name]).copy()
        odd = (0, -1, 1, 7, 300, 32767, np.nan, np.inf, -np.inf, 1e30, 1e-30)[rng.integers(11)]
        if field.dtype.kind in "iu":
            odd = int(
                np.nan_to_num(
                    np.clip(odd, -32768 if field.dtype.itemsize > 1 else 0, 255 if field.dtype.itemsize == 1 else 32767)
                )
            )
        field[rng.integers(len(field))] = odd
        header[name] = field if header[name].ndim else field[0]
        content[:348] = header.binaryblock
    else:
        for _ in range(rng.integers(1, 6)):
            end = HEADER if rng.random() < 0.8 else len(content)
            at = int(rng.integers(end))
            new = (b"\0\0\xc0\x7f", b"\xff\xff\xff\xff", bytes(4), b"\0\0\x80\x7f", b"\xff\xff\x7f\x7f")[
                rng.integers(5)
            ]
            new = new if rng.random() < 0.5 else rng.bytes(int(rng.integers(1, 3)))
            content[at : at + len(new)] = new
    return gzip.compress(bytes(content), 1) if packed else bytes(content)
