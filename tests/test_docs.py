"""What the pages say is what the program does."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _long_flags() -> set[str]:
    from ibma_app.workflows.options import OPTIONS

    return {flag for option in OPTIONS for flag in option.flags if flag.startswith("--")} | {"--help", "--version"}


def _commands(text: str) -> list[str]:
    """Return what follows ``ibma-app`` on each command line of a page."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines = [
        line
        for block in re.findall(r"^```bash\n(.*?)^```", joined, re.M | re.S)
        for line in block.splitlines()
    ]
    lines += re.findall(r"`(ibma-app [^`\n]+)`", joined)
    return [line.rpartition("ibma-app ")[2].partition(" #")[0] for line in lines if "ibma-app " in line]


def test_every_option_is_in_the_help(cli):
    ran = cli("--help")
    assert ran.code == 0, ran.stderr
    shown = set(re.findall(r"--[a-z][a-z0-9-]*", ran.stdout))
    assert shown - {"--help", "--version"} == _long_flags() - {"--help", "--version"}


def test_every_option_is_in_the_docs(run_python):
    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert _long_flags() - set(re.findall(r"--[a-z][a-z0-9-]*", page)) == set()
    ran = run_python("-m", "ibma_app.workflows.options")
    assert ran.code == 0, ran.stderr
    assert ran.stdout == page, "run: python -m ibma_app.workflows.options > docs/options.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_use_options_that_exist(page: Path):
    used = {
        flag
        for line in _commands(page.read_text(encoding="utf-8"))
        for flag in re.findall(r"--[a-z][\w-]*", line)
    }
    assert used <= _long_flags()


def test_the_readme_shows_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(_commands(text)) >= 5
    for name in ("main", "test", "docker", "apptainer"):
        assert re.search(rf"^<!-- ci: {name} -->\n```bash\n.+?\n```$", text, re.M | re.S), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    targets = re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8"))
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert missing == []


def test_the_readme_knows_every_method_and_exit_code():
    from ibma_app.core import errors
    from ibma_app.estimators import ESTIMATORS
    from ibma_app.inference import INFERENCES

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in (*ESTIMATORS, *INFERENCES) if f"`{name}`" not in text] == []
    classes = [item for item in vars(errors).values() if isinstance(item, type)]
    codes = {item.code for item in classes if issubclass(item, errors.IbmaError)}
    assert codes <= {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.M)}
