"""The Boutiques descriptor of ``ibma-app``, made from the table of options.

Boutiques (Glatard et al. 2018, GigaScience 7, giy016) describes a command
line in JSON, for platforms that make forms and commands from it.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ibma_app import __version__
from ibma_app.core import errors
from ibma_app.workflows.options.table import LEVELS, OPTIONS, Option

SCHEMA_VERSION = "0.5"
_KINDS = {str: "String", int: "Number", float: "Number", bool: "Flag"}
_POSITIONALS: tuple[Mapping[str, Any], ...] = (
    {
        "id": "bids_dir",
        "name": "BIDS_DIR",
        "type": "File",
        "description": "a BIDS dataset, or a derivative: a folder",
    },
    {"id": "output_dir", "name": "OUTPUT_DIR", "type": "String", "description": "the folder where results go"},
    {"id": "analysis_level", "name": "LEVEL", "type": "String", "value-choices": LEVELS},
)
_OUTPUTS: tuple[Mapping[str, Any], ...] = (
    {"id": "dataset", "name": "BIDS derivative dataset", "path-template": "[OUTPUT_DIR]"},
    {"id": "report", "name": "index of the reports", "path-template": "[OUTPUT_DIR]/report.html", "optional": True},
)


def describe_command() -> dict[str, Any]:
    """Describe the command line of ``ibma-app`` as a Boutiques document, ready for JSON.

    Defaults are part of the description, not default values: a platform would
    put these on every command line, where they override a configuration file.
    """
    inputs = [_finish(entry) for entry in _POSITIONALS] + [_finish(_describe_option(option)) for option in OPTIONS]
    return {
        "name": "ibma-app",
        "description": "Combines fMRI statistic maps: runs into subjects, subjects or studies into a group.",
        "author": "The ibma-app developers",
        "tool-version": __version__,
        "schema-version": SCHEMA_VERSION,
        "command-line": " ".join(["ibma-app", *(entry["value-key"] for entry in inputs)]),
        "inputs": inputs,
        "groups": _group_options(),
        "output-files": [{"optional": False, **entry} for entry in _OUTPUTS],
        "error-codes": _list_exit_codes(),
        "tags": {"domain": ["neuroinformatics", "fmri", "bids-app"]},
    }


def _describe_option(option: Option) -> dict[str, Any]:
    """Describe one option as Boutiques does."""
    is_file = option.kind is Path and option.metavar == "FILE"  # a folder may not exist yet: a String to Boutiques
    entry: dict[str, Any] = {
        "id": option.dest,
        "name": option.dest.replace("_", " "),
        "type": "File" if is_file else _KINDS.get(option.kind, "String"),
        "description": _in_words(option),
        "command-line-flag": next(flag for flag in option.flags if flag.startswith("--")),
        "optional": True,
    }
    if option.counted:
        return entry | {"type": "Flag"}  # Boutiques has no flag that counts: -vv is left out
    if option.kind is int:
        entry["integer"] = True
    if option.many:
        entry["list"] = True
    if option.choices:
        entry["value-choices"] = option.choices
    return entry


def _in_words(option: Option) -> str:
    default = f" [{option.default_text}]" if option.default_text else ""
    form = f" ({option.metavar})" if option.metavar else ""
    return option.meaning + form + default


def _finish(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Add the key by which the command line refers to the value; tuples become lists, as in JSON."""
    whole = {"optional": False, **entry, "value-key": f"[{entry['id'].upper()}]"}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in whole.items()}


def _group_options() -> list[dict[str, Any]]:
    """Group the options under the headings that ``--help`` has."""
    members: dict[str, list[str]] = {}
    for option in OPTIONS:
        members.setdefault(option.heading, []).append(option.dest)
    return [
        {"id": "group_" + re.sub(r"\W+", "_", heading), "name": heading, "members": dests}
        for heading, dests in members.items()
    ]


def _list_exit_codes() -> list[dict[str, Any]]:
    """List the exit codes, in the words of the exceptions that carry them."""
    failures = {kind.code: kind for kind in errors.IbmaError.__subclasses__()}
    texts = {code: (kind.__doc__ or "").partition("\n")[0] for code, kind in sorted(failures.items())}
    texts[errors.IbmaError.code] = "Some subjects or analyses failed, the others are done."
    return [{"code": code, "description": text} for code, text in sorted(texts.items())]
