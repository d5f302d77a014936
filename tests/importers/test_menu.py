"""The table of importers is the folder's, and the page's."""

import re
from pathlib import Path

from ibma_app.importers import IMPORTERS, find_importer
from ibma_app.workflows.options.parse_import import build_import_parser

ROOT = Path(__file__).resolve().parents[2]


def test_every_importer_ends_in_its_record():
    room = ROOT / "ibma_app" / "importers"
    files = [path.stem if path.parent == room else path.parent.name for path in room.rglob("*.py")
             if re.search(r"^IMPORTER = ", path.read_text(encoding="utf-8"), re.M)]  # fmt: skip
    assert sorted(files) == sorted(IMPORTERS)
    for name in IMPORTERS:
        record = find_importer(name)
        assert record.name == name
        assert record.title
        assert record.example


def test_nothing_is_recognised_where_nothing_is(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("nothing of the kind")
    for name in IMPORTERS:
        for source in (tmp_path, tmp_path / "notes.txt", tmp_path / "nowhere"):
            assert not find_importer(name).recognises(str(source)), (name, source)


def test_the_page_names_every_option_and_source():
    page = (ROOT / "docs" / "importing.md").read_text(encoding="utf-8")
    flags = {flag for action in build_import_parser()._actions for flag in action.option_strings}
    shown = {flag for flag in flags if re.search(rf"`{flag}[ `]", page)}
    assert {flag for flag in flags if flag.startswith("--")} - shown <= {"--help", "--version", "--verbose", "--quiet"}
    commands = re.findall(r"^.*\bibma-import (\w+)(.*)$", page, re.M)
    assert {name for name, _ in commands} == set(IMPORTERS)
    assert f"ibma-import {{{','.join(IMPORTERS)}}} SOURCE" in page
    assert {flag for _, words in commands for flag in re.findall(r"--[a-z-]+", words)} <= flags
