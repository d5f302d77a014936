"""The two menus of methods: all that have a file, and each cites where it comes from."""

import importlib
import re
from pathlib import Path

import pytest

METHODS = [("estimators", "ESTIMATOR"), ("inference", "INFERENCE")]


@pytest.mark.parametrize(("room", "constant"), METHODS)
def test_files_with_a_record_are_the_menu(room, constant):
    package = importlib.import_module(f"ibma_app.{room}")
    menu = getattr(package, f"{constant}S")
    assert len(set(menu)) == len(menu) > 0
    files = Path(package.__file__).parent.glob("*.py")
    found = [path.stem for path in files if re.search(rf"^{constant}\b.*=", path.read_text(encoding="utf-8"), re.M)]
    assert sorted(menu) == sorted(name.replace("_", "-") for name in found)


@pytest.mark.parametrize(("room", "constant"), METHODS)
def test_methods_are_named_and_cited(room, constant):
    package = importlib.import_module(f"ibma_app.{room}")
    for name in getattr(package, f"{constant}S"):
        record = getattr(package, f"find_{constant.lower()}")(name)
        assert record.name == name
        assert record.title
        assert record.citations, f"{name} cites nobody"
        for citation in record.citations:
            assert citation.authors, name
            assert citation.title, name
            assert citation.source, name
            assert 1900 < citation.year < 2100, name
            assert re.fullmatch(r"(10\.\d{4,9}/\S+)?", citation.doi), f"{name}: {citation.doi} is no DOI"
