"""From the command line and the configuration file to ``Options``."""

import argparse
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ibma_app.core.errors import InputError, UsageError, did_you_mean
from ibma_app.core.from_files import EXPRESSION, MOST_DOF, read_toml, show
from ibma_app.core.inference_facts import parse_bound
from ibma_app.core.system.standard_streams import write_out
from ibma_app.estimators import AUTO, ESTIMATORS, find_estimator
from ibma_app.inference import AUTO as AUTO_INFERENCE
from ibma_app.inference import inference_settings
from ibma_app.stream.workers.dask_pool import check_dask
from ibma_app.stream.workers.machine import parse_size
from ibma_app.workflows.options.table import LEVELS, OPTIONS, RUNNING, Option, Options

DESCRIPTION = "Combine fMRI statistic maps, level by level: runs into subjects, subjects or studies into a group."
EPILOG = f"""examples:
  ibma-app derivatives/fitlins out participant
  ibma-app derivatives/fitlins out group --formula '1 + center(age)'
  ibma-app studies out group --estimator {AUTO["effect and variance"]} {AUTO["effect"]} --inference {AUTO_INFERENCE[0]}
exit codes: 0 done, 1 some failed, 16 dataset structure, 18 nothing selected, 64 usage,
  65 values or metadata, 66 input missing, 73 output not writable, 74 I/O error
"""
MODEL_OF_OPTIONS = "default"  # of --model: what the options mean
SETTING_TABLES: Mapping[str, Mapping[str, tuple[Any, ...]]] = {  # keys, and their valid values where they are few
    "inputs": {"contrast": (), "keep": ()},
    "output": {"tau2_ci": (True, False)},
}


class Parser(argparse.ArgumentParser):
    """argparse, but with our exit code and the closest option, and a help that is written or fails in words."""

    def _print_message(self, message: str, file: Any = None) -> None:
        """Write the help or version; argparse passes over a full disk, once they are longer than a buffer."""
        if file in (None, sys.stdout):
            write_out(message)
        else:
            super()._print_message(message, file)

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError`, with the option that was probably meant."""
        known = [flag for action in self._actions for flag in action.option_strings]
        wrong = [word for word in re.findall(r"--[\w-]+", message) if word not in known]
        raise UsageError(f"{message}.{did_you_mean(wrong, known)} See {self.prog} --help.")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of ``ibma-app`` from the table of options."""
    from ibma_app import __version__

    parser = Parser(
        prog="ibma-app",
        description=DESCRIPTION,
        epilog=EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="ibma-app BIDS_DIR OUTPUT_DIR {run,participant,group} [options]",
    )
    parser.add_argument("bids_dir", type=Path, metavar="BIDS_DIR", help="a BIDS dataset, or a derivative")
    parser.add_argument("output_dir", type=Path, metavar="OUTPUT_DIR", help="where results go")
    parser.add_argument("analysis_level", metavar="LEVEL", help="run, participant or group")
    groups = add_options(parser, OPTIONS)
    groups[RUNNING].add_argument("--version", action="version", version=f"ibma-app {__version__}")
    groups[RUNNING].add_argument(
        "--bids-exec-spec",
        action=_PrintDescriptor,
        nargs=0,
        default=argparse.SUPPRESS,
        help="print the Boutiques descriptor of this command line",
    )
    return parser


class _PrintDescriptor(argparse.Action):
    """Print the Boutiques descriptor and exit, as --version does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from ibma_app.workflows.options.boutiques import describe_command

        write_out(json.dumps(describe_command(), indent=4) + "\n")
        parser.exit()


def add_options(parser: argparse.ArgumentParser, options: Sequence[Option]) -> dict[str, Any]:
    """Add options to a parser; return its groups by heading."""
    groups = {heading: parser.add_argument_group(heading) for heading in dict.fromkeys(o.heading for o in options)}
    for option in options:
        groups[option.heading].add_argument(*option.flags, **_argument(option))
    return groups


def _argument(option: Option) -> dict[str, Any]:
    """Make the arguments of ``add_argument``; options that are not given stay out of the namespace."""
    menu = f": {', '.join(option.choices)}" if option.choices else ""
    default = f" [{option.default_text}]" if option.default_text else ""
    argument: dict[str, Any] = {
        "dest": option.dest,
        "default": argparse.SUPPRESS,
        "help": (option.meaning + menu + default).replace("%", "%%"),
    }
    if option.counted:
        return argument | {"action": "count"}
    if option.kind is bool:
        return argument | {"action": "store_true"}
    if option.many:
        argument |= {"nargs": "+", "action": "extend"}
    return argument | {"metavar": option.metavar or "NAME", "type": option.kind}


def parse_options(argv: Sequence[str]) -> Options:
    """Parse a command line, its configuration file included.

    Raises
    ------
    UsageError
        An unknown option, name or value, here or in the configuration.
    InputError
        The configuration file is missing.
    """
    given = vars(build_parser().parse_args([with_hyphens(word) for word in argv]))
    settings: dict[str, Any] = {}
    if "config_file" in given:
        configured, settings = read_config(given["config_file"])
        given = configured | given
    if given.get("model", MODEL_OF_OPTIONS) != MODEL_OF_OPTIONS:
        given, settings = _apply_model(given, settings, given["analysis_level"])
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    options = Options(**values, settings=settings)
    _check(options)
    if options.dask is not None:
        check_dask(options.dask)
    return options


def make_options(bids_dir: Path, output_dir: Path, level: str, given: Mapping[str, Any]) -> Options:
    """Make the options of a call from Python: names with underscores, one value where several may stand.

    Raises
    ------
    UsageError
        An unknown option, name or value.
    """
    known = {option.dest: option for option in OPTIONS}
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name == "settings":
            _check_settings(value, Path("settings"))
            values[name] = value
            continue
        if name not in known:
            hint = did_you_mean([name], known)
            raise UsageError(f"There is no option {name}.{hint} Options: {', '.join(sorted(known))}.")
        values[name] = _called_value(known[name], value)
    if values.get("model") not in (None, MODEL_OF_OPTIONS):
        values, settings = _apply_model(values, values.pop("settings", {}), level)
        values["settings"] = settings
    options = Options(bids_dir, output_dir, level, **values)
    _check(options)
    if options.dask is not None:
        check_dask(options.dask)
    return options


def _apply_model(
    given: Mapping[str, Any], settings: Mapping[str, Any], level: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Let a model fill in what is not given."""
    from ibma_app.workflows.options.from_model import apply_model

    if level not in LEVELS:
        raise UsageError(f"The level is {' or '.join(LEVELS)}, not {level!r}.")
    options, tables = apply_model(given, settings, level)
    _check_settings(tables, Path(given["model"]))
    return options, tables


def _called_value(option: Option, value: Any) -> Any:
    """Bring one value of a call to the option's type."""
    if value is None or option.kind is bool:
        return value
    if option.many:
        return tuple(str(item) for item in ([value] if isinstance(value, str) else value))
    return option.kind(value)


def with_hyphens(word: str) -> str:
    """Take ``--participant_label`` for ``--participant-label``, as other BIDS-Apps do."""
    if not word.startswith("--"):
        return word
    flag, *value = word.split("=", 1)
    return "=".join([flag.replace("_", "-"), *value])


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a TOML configuration: the options it sets, and the tables of method settings.

    Options stand at the top or, as our own logs write them, under ``[options]``.
    """
    try:
        document = read_toml(path)
    except OSError as error:
        raise InputError(f"The configuration file {path} cannot be read: {error.strerror or error}.") from None
    except ValueError as error:
        hint = " Options beside tables of the same name stand under [options]." if "twice" in str(error) else ""
        raise UsageError(f"The configuration file {path} is not valid TOML: {error}.{hint}") from None
    options: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    stated = document.pop("options", {})
    if not isinstance(stated, dict):
        raise UsageError(f"{path}: options is a table: [options].")
    for key, value in [*document.items(), *stated.items()]:
        if isinstance(value, dict):
            settings[key] = value
        else:
            option = _find_option(key, path)
            options[option.dest] = _configured_value(option, value, path)
    _check_settings(settings, path)
    return options, settings


def _find_option(key: str, path: Path) -> Option:
    by_dest = {option.dest: option for option in OPTIONS}
    dest = key.replace("-", "_")
    if dest in by_dest:
        return by_dest[dest]
    hint = did_you_mean([dest], by_dest)
    raise UsageError(f"{path}: there is no option {key}.{hint} Options: {', '.join(sorted(by_dest))}.")


def _configured_value(option: Option, value: Any, path: Path) -> Any:
    values = value if isinstance(value, list) else [value]
    wanted: tuple[type, ...] = {float: (int, float), Path: (str,)}.get(option.kind, (option.kind,))
    if isinstance(value, list) and not option.many:
        raise UsageError(f"{path}: {option.dest} takes one value, not {value}.")
    for item in values:
        if not isinstance(item, wanted) or (isinstance(item, bool) and option.kind is not bool):
            raise UsageError(f"{path}: {option.dest} = {item!r} is not a {option.kind.__name__}.")
    converted = tuple(option.kind(item) for item in values)
    return converted if option.many else converted[0]


def _check_settings(settings: Mapping[str, Any], path: Path) -> None:
    """Refuse tables, methods and settings that do not exist, with the menu."""
    for table, content in settings.items():
        if table == "atlas":
            continue  # read and checked with the atlases
        _check_menu(f"{path}: [{table}]", table, ("estimator", "inference", "run", *SETTING_TABLES, "atlas"))
        if table == "run":
            from ibma_app.firstlevel.settings import read_settings

            read_settings(content, str(path))
            continue
        if table == "estimator":
            _check_estimators(content, path)
            continue
        keys = inference_settings() if table == "inference" else SETTING_TABLES[table]
        for key, value in content.items():
            _check_menu(f"{path}: [{table}] {key}", key, tuple(keys))
            if keys[key]:
                _check_menu(f"{path}: [{table}] {key} = {value!r}", value, keys[key])


def _check_estimators(content: Mapping[str, Any], path: Path) -> None:
    """Check ``[estimator.NAME]`` tables against each method's own settings."""
    for name, chosen in content.items():
        _check_menu(f"{path}: [estimator.{name}]", name, ESTIMATORS)
        if not isinstance(chosen, dict):
            raise UsageError(f"{path}: the settings of {name} are a table: [estimator.{name}].")
        menu = find_estimator(name).settings
        for key, value in chosen.items():
            _check_menu(f"{path}: [estimator.{name}] {key}", key, tuple(menu))
            if menu[key].choices:
                _check_menu(f"{path}: [estimator.{name}] {key} = {value!r}", value, menu[key].choices)
            elif not isinstance(value, str):
                raise UsageError(f"{path}: [estimator.{name}] {key} = {value!r} is not text: {menu[key].meaning}.")


def _check_menu(where: str, name: object, menu: Sequence[object]) -> None:
    if not any(name == choice and type(name) is type(choice) for choice in menu):
        words = [str(choice) for choice in menu]
        hint = did_you_mean([str(name)], words)
        raise UsageError(f"{where}: there is no {name!r}.{hint} Choose from: {', '.join(words) or 'nothing'}.")


def _check(options: Options) -> None:
    """Check names against the whole menu, and numbers against their range, at both levels."""
    if options.analysis_level not in LEVELS:
        raise UsageError(f"The level is run, participant or group, not {options.analysis_level!r}.")
    for option in OPTIONS:
        if option.choices:
            value = getattr(options, option.dest)
            for name in value if option.many else (value,):
                _check_menu(option.flags[-1], name, option.choices)
    _check_numbers(options)
    for text, flag in ((options.test, "--test"), (options.compute, "--compute"), (options.contrasts, "--contrasts")):
        for item in text or ():
            if not re.match(r"^[^=]+=.+$", item):
                raise UsageError(f"{flag} {show(item, EXPRESSION)} lacks a name: write {flag} NAME=EXPRESSION.")
    if options.no_report and options.reports_only:
        raise UsageError("--no-report and --reports-only exclude each other: choose one.")
    if "auto" in options.estimator and len(options.estimator) > 1:
        raise UsageError("--estimator auto stands alone: it picks the estimators itself.")


def _check_numbers(options: Options) -> None:
    """Refuse numbers out of range (NaN included)."""
    if options.mem is not None:
        parse_size(options.mem)
    if options.equivalence is not None:
        parse_bound(options.equivalence)
    for dest in ("alpha", "cluster_p"):
        value = getattr(options, dest)
        if not 0.0 < value < 1.0:
            raise UsageError(f"--{dest.replace('_', '-')} is above 0 and below 1, not {value:g}.")
    if options.min_coverage is not None and not 0.0 < options.min_coverage <= 1.0:
        raise UsageError(f"--min-coverage is above 0 and at most 1, not {options.min_coverage:g}.")
    if options.dof is not None and options.dof > MOST_DOF:
        raise UsageError(f"--dof is at most {MOST_DOF:g}, not {options.dof:g}.")
    for dest, least in (
        ("smoothing", 0),
        ("min_extent", 0),
        ("nprocs", 1),
        ("dof", 1),
        ("permutations", 1),
        ("seed", 0),
    ):
        value = getattr(options, dest)
        if value is not None and not least <= value < math.inf:
            raise UsageError(f"--{dest.replace('_', '-')} is at least {least}, not {value:g}.")


def options_as_toml(options: Options) -> dict[str, Any]:
    """Make a document of the options that, written as TOML, repeats the run."""
    table: dict[str, Any] = {}
    for option in OPTIONS:
        value = getattr(options, option.dest)
        if value is None or option.dest == "config_file":
            continue
        values = [_make_absolute(option, item) for item in (value if option.many else [value])]
        table[option.dest] = values if option.many else values[0]
    return {"options": table, **options.settings}


def _make_absolute(option: Option, value: Any) -> Any:
    """Make paths absolute, so that the options hold in any folder."""
    if option.dest == "derivatives":
        name, equals, path = value.rpartition("=")
        return f"{name}{equals}{Path(path).absolute()}"
    is_file = option.dest in ("mask", "grid", "dask", "model") and Path(value).is_file()
    return str(Path(value).absolute()) if isinstance(value, Path) or is_file else value


@dataclass(frozen=True)
class DemoOptions:
    """What ``ibma-demo`` is asked for."""

    output_dir: Path
    nprocs: int | None
    from_bold: bool
    surface: bool


def parse_demo(argv: Sequence[str]) -> DemoOptions:
    """Parse the command line of ``ibma-demo``."""
    parser = Parser(
        prog="ibma-demo",
        description="Make a small dataset of known truth, run the levels on it, say how well they recover it.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "output_dir",
        type=Path,
        metavar="OUTPUT_DIR",
        help="a new or empty folder, or one of an earlier demonstration, which goes",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--from-bold",
        action="store_true",
        help="begin with simulated BOLD in the layout of fMRIPrep, and run all three levels",
    )
    which.add_argument(
        "--surface", action="store_true", help="maps on the cortex of both hemispheres (GIFTI on fsaverage5)"
    )
    parser.add_argument("--nprocs", type=int, metavar="N", help="cores to use [all we may use]")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="-vv: tracebacks")
    given = parser.parse_args(list(argv))
    return DemoOptions(given.output_dir, given.nprocs, given.from_bold, given.surface)
