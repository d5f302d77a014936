"""Every recipe of README, usage and quickstarts has its measured error in docs/validation.md."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "usage.md", *sorted((ROOT / "docs").glob("quickstart-*.md")))
EVIDENCE = ROOT / "docs" / "validation.md"
DECIDING = ("--combine", "--pool", "--units", "--estimator", "--formula", "--inference", "--tail")
"""Options that decide which test is made. Others say where maps are, which of them, and what a test is called."""

Recipe = tuple[str, ...]


def recipe_of(words: str) -> Recipe | None:
    """Return the level and the options that decide, in one order; None for what is no recipe."""
    tokens = shlex.split(words)
    level = next((token for token in tokens if token in ("participant", "group")), None)
    found, flag = {}, ""
    for token in tokens:
        if token.startswith("-"):
            flag = token
            found.setdefault(flag, [])
        elif flag:
            found[flag].append(token)
    if level is None or "--config-file" in found:  # which names a file, not a method
        return None
    return (level, *(word for flag in DECIDING if flag in found for word in (flag, *found[flag])))


def recipes_in(text: str) -> set[Recipe]:
    """Find command lines of the app in code blocks and code spans, and options in the rows of tables."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines = [
        line for block in re.findall(r"^ *```bash\n(.*?)^ *```", joined, re.M | re.S) for line in block.splitlines()
    ]
    lines += re.findall(r"`(ibma-app [^`\n]+)`", joined)
    commands = [line.partition(" #")[0] for line in lines if re.search(r"\bibma-app(\.sif)? ", line)]
    rows = re.findall(r"^\|.*?`(--formula [^`]+)`", joined, re.M)
    found = [recipe_of(re.split(r"\bibma-app(?:\.sif)? ", line)[-1]) for line in commands]
    return {recipe for recipe in [*found, *(recipe_of(f"group {row}") for row in rows)] if recipe is not None}


def rows_of(heading: str) -> list[list[str]]:
    """Return the cells of the rows of the table under a heading of the evidence."""
    section = EVIDENCE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


ROWS = [*rows_of("Recipes"), *rows_of("Claims")]


def validated() -> set[Recipe]:
    """Return the recipes of the evidence."""
    spans = [span for row in rows_of("Recipes") for span in re.findall(r"`([^`]+)`", row[0])]
    return {recipe for span in spans if (recipe := recipe_of(span)) is not None}


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_every_recipe_has_its_error_measured(page: Path):
    missing = recipes_in(page.read_text(encoding="utf-8")) - validated()
    assert not missing, f"add a row to 'Recipes' in {EVIDENCE.name}, with the error measured, for: {sorted(missing)}"


def test_no_row_is_of_a_recipe_that_is_gone():
    documented = set().union(*(recipes_in(page.read_text(encoding="utf-8")) for page in DOCUMENTS))
    assert len(documented) > 10
    assert validated() - documented == set()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:50])
def test_numbers_stand_on_the_page_that_they_come_from(row: list[str]):
    pages = [ROOT / "docs" / name for name in re.findall(r"\]\(([^)]+\.md)\)", " ".join(row))]
    assert pages
    measured = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    numbers = re.findall(r"\d[\d,.]*\d|\d", row[2])
    assert numbers
    assert [n for n in numbers if not re.search(rf"(?<![\d.]){re.escape(n)}(?!\d)", measured)] == []


@pytest.mark.parametrize("row", rows_of("Claims"), ids=lambda row: row[0][:50])
def test_claims_have_their_scripts(row: list[str]):
    scripts = re.findall(r"`validation/(\w+\.py)`", row[4])
    assert scripts
    assert all((ROOT / "validation" / name).is_file() for name in scripts)


@pytest.mark.parametrize(
    ("words", "recipe"),
    [
        ("in out group --estimator reml -d x --test a=b", ("group", "--estimator", "reml")),
        ('in out group --inference fdr --formula "1 + x"', ("group", "--formula", "1 + x", "--inference", "fdr")),
        ("in out participant --dry-run", ("participant",)),
        ("in out group --config-file o.toml", None),
    ],
)  # fmt: skip
def test_recipes_are_told_apart_by_what_decides(words: str, recipe: Recipe | None):
    assert recipe_of(words) == recipe


def test_a_new_recipe_is_noticed():
    text = "```bash\nibma-app in out group --estimator dl \\\n    --inference ari\n```\n"
    assert recipes_in(text) - validated() == {("group", "--estimator", "dl", "--inference", "ari")}
