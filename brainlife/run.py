"""Run ibma-app as a brainlife app: config.json becomes options, what was found goes into product.json.

The platform makes a folder for the task, puts config.json into it and runs
``main`` there. ``bids`` in it is the dataset (a path, relative to the folder);
``level`` is participant, group (default) or both; every other key is an option
of ibma-app under its long name, with ``-`` or ``_``. Keys that begin with
``_`` are the platform's own. Results go to ``output``.
"""

import base64
import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ibma_app.workflows.options.table import OPTIONS

OUTPUT = Path("output")
FIGURES = 4  # the platform keeps product.json in a database: little fits
MESSAGES = 8


def main() -> int:
    """Run the levels that config.json asks for, and write product.json whatever happens."""
    try:
        config = json.loads(Path("config.json").read_text(encoding="utf-8"))
        commands = plan_commands(config)
    except (OSError, ValueError) as error:
        write_product([{"type": "error", "msg": f"config.json: {error}"}])
        sys.stderr.write(f"config.json: {error}\n")
        return 64
    said: list[dict[str, str]] = []
    for command in commands:
        code, lines = run_command(command)
        said += sort_messages(lines)
        if code != 0:
            said.append({"type": "error", "msg": f"ibma-app {command[2]} ended with exit code {code}."})
            break
    else:
        said.append({"type": "success", "msg": "All done: output/report.html shows everything."})
    write_product(said[-MESSAGES:] + draw_figures(OUTPUT))
    return code


def plan_commands(config: Mapping[str, Any]) -> list[list[str]]:
    """Turn the platform's configuration into command lines, one for each level.

    Raises
    ------
    ValueError
        When ``bids`` is missing, or a key or a level does not exist.
    """
    given = {key.replace("-", "_"): value for key, value in config.items() if not key.startswith("_")}
    bids, level = given.pop("bids", None), given.pop("level", "group")
    if not bids:
        raise ValueError("there is no key bids: the folder of the dataset.")
    levels = {"participant": ["participant"], "group": ["group"], "both": ["participant", "group"]}
    if level not in levels:
        raise ValueError(f"level is one of {', '.join(levels)}, not {level!r}.")
    options = {option.dest: option for option in OPTIONS}
    unknown = sorted(set(given) - set(options))
    if unknown:
        raise ValueError(f"there is no option {unknown[0]}. Options: {', '.join(sorted(options))}.")
    words: list[str] = []
    for dest, value in given.items():
        if value in (None, "", False, []):  # a field of the form that was left empty
            continue
        words.append(f"--{dest.replace('_', '-')}")
        if options[dest].many:  # a text field holds several, in quotes where they hold spaces
            words += shlex.split(value) if isinstance(value, str) else [str(item) for item in value]
        elif options[dest].kind is not bool and not options[dest].counted:
            words.append(str(value))
    return [[str(bids), str(OUTPUT), name, *words] for name in levels[level]]


def run_command(words: Sequence[str]) -> tuple[int, list[str]]:
    """Run ibma-app, passing on what it says; return its exit code and its lines."""
    sys.stderr.write(f"ibma-app {shlex.join(words)}\n")
    lines: list[str] = []
    command = [sys.executable, "-m", "ibma_app", *words]
    wide = {**os.environ, "COLUMNS": "500"}  # a message stays on one line
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=wide) as child:
        for line in child.stderr or ():
            sys.stderr.write(line)
            lines.append(line.rstrip())
    return child.returncode, lines


def sort_messages(lines: Sequence[str]) -> list[dict[str, str]]:
    """Keep the warnings and errors, in the platform's form."""
    kept = []
    for line in lines:
        kind, colon, text = line.removeprefix("ibma-app: ").partition(": ")
        if colon and kind in ("warning", "error"):
            kept.append({"type": kind, "msg": text})
    return kept


def draw_figures(output: Path) -> list[dict[str, str]]:
    """Draw glass brains of the group's z maps, or else of the participants'."""
    found = sorted((output / "group").glob("*_stat-z_statmap.nii.gz"))
    uncorrected = [path for path in found if "_corr-" not in path.name]
    maps = uncorrected or sorted(output.glob("sub-*/**/*_stat-z_statmap.nii.gz"))
    return [
        {"type": "image/png", "name": path.name.removesuffix("_statmap.nii.gz"), "base64": draw_map(path)}
        for path in maps[:FIGURES]
    ]


def draw_map(path: Path) -> str:
    """Draw one map; return the picture as PNG in base64."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from nilearn.plotting import plot_glass_brain
    from PIL import Image

    figure = pyplot.figure(figsize=(9, 2.6))
    plot_glass_brain(path, display_mode="lyrz", colorbar=True, plot_abs=False, threshold=1, figure=figure)
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, dpi=60)
    pyplot.close("all")
    Image.open(drawn).convert("RGB").quantize(64).save(small, format="png", optimize=True)  # a quarter of the bytes
    return base64.b64encode(small.getvalue()).decode("ascii")


def write_product(shown: Sequence[Mapping[str, str]]) -> None:
    """Write product.json, which the platform reads when the task has ended."""
    Path("product.json").write_text(json.dumps({"brainlife": list(shown)}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
