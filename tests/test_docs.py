"""What the pages say is what the program does."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


AND_LEAVE = {"--help", "--version", "--bids-exec-spec"}  # no options of a run: they answer and leave


def _long_flags() -> set[str]:
    from ibma_app.workflows.options.table import OPTIONS

    return {flag for option in OPTIONS for flag in option.flags if flag.startswith("--")} | AND_LEAVE


def _blocks(kind: str) -> list:
    """List the fenced blocks of one kind, as pytest parameters."""
    return [
        pytest.param(block, id=f"{page.name}-{number}")
        for page in PAGES
        for number, block in enumerate(
            re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
        )
    ]


def _commands(text: str) -> list[str]:
    """Return what follows ``ibma-app`` on each command line of a page."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines = [line for block in re.findall(r"^```bash\n(.*?)^```", joined, re.M | re.S) for line in block.splitlines()]
    lines += re.findall(r"`(ibma-app [^`\n]+)`", joined)
    return [line.rpartition("ibma-app ")[2].partition(" #")[0] for line in lines if "ibma-app " in line]


def test_every_option_is_in_the_help(cli):
    ran = cli("--help")
    assert ran.code == 0, ran.stderr
    shown = set(re.findall(r"--[a-z][a-z0-9-]*", ran.stdout))
    assert shown == _long_flags()


def test_every_option_is_in_the_docs(run_python):
    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert _long_flags() - set(re.findall(r"--[a-z][a-z0-9-]*", page)) == set()
    ran = run_python("-m", "ibma_app.workflows.options.table")
    assert ran.code == 0, ran.stderr
    assert ran.stdout == page, "run: python -m ibma_app.workflows.options.table > docs/options.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_use_options_that_exist(page: Path):
    used = {flag for line in _commands(page.read_text(encoding="utf-8")) for flag in re.findall(r"--[a-z][\w-]*", line)}
    assert used <= _long_flags()


@pytest.mark.parametrize("block", _blocks("toml"))
def test_configurations_are_accepted(block: str, tmp_path: Path):
    from ibma_app.workflows.options.parse import parse_options

    config = tmp_path / "config.toml"
    config.write_text(block, encoding="utf-8")
    options = parse_options(["in", "out", "group", "--config-file", str(config)])
    assert options.settings


@pytest.mark.parametrize("block", _blocks("json"))
def test_json_is_json(block: str):
    assert isinstance(json.loads(block), dict)


def test_the_configuration_shows_every_setting():
    from ibma_app.estimators import ESTIMATORS, find_estimator
    from ibma_app.inference import inference_settings
    from ibma_app.workflows.options.parse import SETTING_TABLES

    shown = "".join(block.values[0] for block in _blocks("toml"))
    keys = {key for table in (inference_settings(), *SETTING_TABLES.values()) for key in table}
    keys |= {key for name in ESTIMATORS for key in find_estimator(name).settings}
    assert [key for key in sorted(keys) if not re.search(rf"^{key} = ", shown, re.M)] == []


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
