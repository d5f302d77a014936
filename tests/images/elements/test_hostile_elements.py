"""Crafted maps on surfaces and of grayordinates: judged before they are unpacked, refused in words."""

import base64
import re
import tracemalloc
import zlib

import numpy as np
import pytest

from ibma_app.core.errors import DataError, ReadWriteError
from ibma_app.images.elements import cifti, gifti


@pytest.fixture(scope="module")
def made(maker):
    return maker("element_inputs")


def with_data(raw, content):
    packed = base64.b64encode(zlib.compress(content, 9))
    return re.sub(rb"<Data>.*?</Data>", b"<Data>" + packed + b"</Data>", raw, flags=re.DOTALL)


HOSTILE = {
    "a bomb": (lambda raw: with_data(raw, bytes(80 * 2**20)), r"unpacks to more than the 42 values"),
    "a mesh without end": (lambda raw: raw.replace(b'Dim0="42"', b'Dim0="157286400"'), r"to hold 157286400 values"),
    "several axes": (
        lambda raw: raw.replace(b'Dim0="42"', b'Dim0="90000" Dim1="90000"'), r"to hold 8100000000 values"
    ),
    "entities": (
        lambda raw: raw.replace(b"<GIFTI", b'<!DOCTYPE GIFTI [<!ENTITY a "b">]><GIFTI', 1),
        "document type with entities",
    ),
    "a file elsewhere": (
        lambda raw: raw.replace(b"GZipBase64Binary", b"ExternalFileBinary").replace(
            b'ExternalFileName=""', b'ExternalFileName="/dev/zero"'
        ),
        "ExternalFileBinary is not supported",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_gifti(name, made, tmp_path):
    change, words = HOSTILE[name]
    raw = made.gifti(np.arange(42.0))
    path = tmp_path / "hemi-L.func.gii"
    path.write_bytes(raw)
    values, _ = gifti.read([path])
    np.testing.assert_array_equal(values, np.arange(42))
    changed = change(raw)
    assert changed != raw
    path.write_bytes(changed)
    del changed
    tracemalloc.start()
    with pytest.raises((DataError, ReadWriteError), match=words):
        gifti.read([path])
    assert tracemalloc.get_traced_memory()[1] < 2**26  # nibabel's parser has a buffer of 35 MB
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b'SurfaceNumberOfVertices="42"', b'SurfaceNumberOfVertices="2000000000"', "2000000000 vertices; no mesh has"),
        (b"0 2 4", b"0 10000000000 4", "a vertex of CORTEX_LEFT is listed twice, or is none of its 42"),
        (b"0 2 4", b"0 2 42", "is none of its 42"),
        (b"0 2 4", b"0 2 2", "listed twice"),
        (b"0 0 0", b"2000000000 0 0", "a voxel of THALAMUS_LEFT lies outside of the volume of 4 x 4 x 4"),
        (b"0 0 0", b"0 4 0", "lies outside"),
        (b"0 0 0", b"-5 0 0", "Undefined voxel"),
    ],
)
def test_hostile_cifti(old, new, words, made, tmp_path):
    path = tmp_path / "map.dscalar.nii"
    raw = made.dense(np.arange(42.0))
    path.write_bytes(raw)
    values, shape = cifti.read([path])
    assert [one.size for one in shape.structures] == [42, 8]
    np.testing.assert_array_equal(values[np.isfinite(values)], np.arange(29))
    path.write_bytes(made.described(raw, lambda xml: xml.replace(old, new, 1)))
    with pytest.raises(ReadWriteError, match=words):
        cifti.read([path])
