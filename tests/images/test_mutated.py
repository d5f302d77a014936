"""Damaged images end in words, whatever is damaged: small valid files of each format, a few bytes changed."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from ibma_app.core.errors import IbmaError
from ibma_app.images.masks import read_mask
from ibma_app.images.placement import outside_brain
from ibma_app.images.read import read_extension, read_header, read_image

FORMATS = {
    "one.nii": nib.Nifti1Image,
    "one.nii.gz": nib.Nifti1Image,
    "two.nii": nib.Nifti2Image,
    "pair.img": nib.Nifti1Pair,
    "spm.img": nib.Spm99AnalyzeImage,
    "free.mgh": nib.MGHImage,
}
NASTY = (
    b"\0\0\xc0\x7f",
    b"\xff\xff\xff\xff",
    bytes(4),
    b"\0\0\x80\x7f",
    b"\xff\xff\xff\x7f",
)  # NaN, -1, 0, infinity, 2^31


def mutate(raw, rng):
    """Change some bytes, most of them in the header; now and then cut the rest off."""
    raw = bytearray(raw)
    for _ in range(rng.integers(1, 6)):
        at = int(rng.integers(min(len(raw), 560)))
        new = NASTY[rng.integers(len(NASTY))] if rng.random() < 0.5 else rng.bytes(int(rng.integers(1, 3)))
        raw[at : at + len(new)] = new
    return bytes(raw[: int(rng.integers(8, len(raw)))] if rng.random() < 0.1 else raw)


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_image_is_read_or_refused_in_words(tmp_path, name):
    rng = np.random.default_rng(list(name.encode()))
    image = FORMATS[name](rng.normal(size=(5, 6, 7)).astype(np.float32), np.diag([2.0, 2, 2, 1]))
    image.to_filename(tmp_path / name)
    target = tmp_path / name.replace(".img", ".hdr")
    whole, packed = target.read_bytes(), name.endswith("z")
    content = gzip.decompress(whole) if packed else whole
    told = []
    for _ in range(60):
        changed = mutate(content, rng)
        target.write_bytes(
            gzip.compress(changed) if packed and rng.random() < 0.7 else mutate(whole, rng) if packed else changed
        )
        for read in (read_header, read_image, lambda path: read_extension(path, 4), lambda path: read_mask(path, "m")):
            try:
                found = read(tmp_path / name)
                if read is read_image:
                    assert found.data.shape == found.grid.shape
                    outside_brain(found.data, found.grid)
            except IbmaError as error:
                told.append(error.message)
    assert 0 < len(told) < 4 * 60
    stem = str(target).partition(".")[0]
    assert [words for words in told if stem not in words and not words.startswith("m ")] == []
