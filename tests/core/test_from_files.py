"""What comes out of files is a plain value, or what the docstrings say."""

import json
import os

import numpy as np
import pytest

from ibma_app.core import from_files
from ibma_app.core.errors import DataError


def test_numbers():
    for value, number in [
        (12, 12.0), (12.5, 12.5), ("12", 12.0), (" -1.5e3 ", -1500.0), (".5", 0.5), (np.float32(2), 2.0),
        (10**20, 1e20),
        (None, None), (True, None), ("", None), ("nan", None), (float("nan"), None), ("inf", None),
        (float("inf"), None), (10**5000, None), ("9" * 5000, None), ("²", None), ("١٢", None), ("1_000", None),
        ("1,000", None), ("12 y", None), ("1\0", None), ([], None), ([1, 2], None), ({}, None), ({"a": 1}, None),
        (b"12", None), (1j, None), ("1e999", None),
    ]:  # fmt: skip
        assert from_files.number_in(value) == number, from_files.show(value)


@pytest.mark.parametrize(
    ("text", "number"), [("12", 12), (" 7 ", 7), ("²", None), ("9" * 5000, None), ("-1", None), ("", None), ("१", None)]
)
def test_whole_numbers(text, number):
    assert from_files.whole_number_in(text) == number


def test_absurd_dof_and_sizes_are_refused_by_file_and_key():
    for value in (0, -4, 1e300, float("nan"), float("inf"), "²", "many", [12], {"a": 1}, True, 10**5000):
        for read, key in ((from_files.read_dof, "DegreesOfFreedom"), (from_files.read_sample_size, "SampleSize")):
            with pytest.raises(DataError, match=f"^maps/a.json: {key} is ") as refused:
                read(value, "maps/a.json", key)
            assert len(refused.value.message) < 200


def test_sensible_ones_are_not():
    assert [from_files.read_dof(value, "f", "k") for value in (0.5, 12, "99999", 1e9)] == [0.5, 12, 99999, 1e9]
    assert [from_files.read_sample_size(value, "f", "k") for value in (1, "24", 1e7)] == [1, 24, 1e7]


def test_json_of_all_kinds_can_be_written_again():
    text = '{"a": NaN, "b": [-Infinity, 1e999, ' + "7" * 5000 + '], "\\ud800": "x\\udfff\\u00e9 \\ud83d\\ude00"}'
    content = from_files.parse_json(text)
    assert content == {"a": "NaN", "b": ["-Infinity", "1e999", "7" * 5000], "?": "x?é 😀"}
    json.dumps(content, allow_nan=False, ensure_ascii=False).encode()


@pytest.mark.parametrize("levels", [65, 900, 100_000])
def test_nesting_without_end_is_no_json_of_ours(levels):
    with pytest.raises(ValueError, match="nested"):
        from_files.parse_json("[" * levels + "]" * levels)
    assert from_files.parse_json("[" * 64 + "]" * 64) is not None


def test_only_regular_files_of_a_sensible_size_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "long").write_bytes(b"a" * 2000)
    (tmp_path / "link").symlink_to(tmp_path / "long")
    with pytest.raises(OSError, match="pipe or a device"):
        from_files.read_text(tmp_path / "pipe")
    with pytest.raises(OSError, match="folder"):
        from_files.read_text(tmp_path)
    with pytest.raises(FileNotFoundError):
        from_files.read_text(tmp_path / "none")
    with pytest.raises(ValueError, match="more than 1 KiB"):
        from_files.read_text(tmp_path / "long", 1024)
    assert from_files.read_text(tmp_path / "link", 2000) == "a" * 2000
    (tmp_path / "latin").write_bytes(b"\xe9\r\n")
    with pytest.raises(ValueError, match="utf-8"):
        from_files.read_text(tmp_path / "latin")
    assert from_files.read_text(tmp_path / "latin", errors="replace") == "\ufffd\n"


@pytest.mark.parametrize(
    "text", ["a=" + "[" * 100_000, "a=" + "9" * 5000, "a." * 100_000 + "a=1", "a = \udcff", "a=1\na=2", "a", "a='\0'"],
    ids=range(7),
)  # fmt: skip
def test_toml_of_all_kinds(tmp_path, text):
    (tmp_path / "a.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=r"\S"):
        from_files.read_toml(tmp_path / "a.toml")
    (tmp_path / "a.toml").write_text("a.b = 1.5\n[c]\nd = ['x']\n")
    assert from_files.read_toml(tmp_path / "a.toml") == {"a": {"b": 1.5}, "c": {"d": ["x"]}}


def test_values_in_messages_are_short_and_plain():
    assert from_files.show("a\x1b[31m\0b") == repr("a\ufffd[31m\ufffdb")
    assert from_files.show(10**5000) == "a value without end"
    assert len(from_files.show("x" * 10_000)) < 60
    assert from_files.show({"a": 1}) == "{'a': 1}"
