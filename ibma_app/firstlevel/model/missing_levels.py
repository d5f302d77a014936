"""Conditions of a model that no run of the data has: typing errors above all, which a run takes for its own lack."""

import re
from collections.abc import Iterable, Mapping, Sequence

from ibma_app.core.errors import did_you_mean
from ibma_app.firstlevel.model.stats_model import INTERCEPT, Node

MADE_OF_LEVEL = re.compile("(_derivative|_dispersion|_delay_[0-9]+)$")
Cells = Mapping[str, Sequence[str]]


def missing_everywhere(node: Node, events: Iterable[Cells]) -> list[str]:
    """Say which conditions of a Run node's contrasts no run has events of.

    Parameters
    ----------
    node : Node
    events : iterable of mapping
        The events of every run: column -> cells, "" for ``n/a``.

    Returns
    -------
    list of str
        With the path of each, and the levels that there are.
    """
    levels = _levels(node, events)
    texts = []
    for contrast in node.contrasts:
        for place, name in enumerate(contrast.conditions):
            stem = next((one for one in levels if name.startswith(one)), None)
            if name == INTERCEPT or stem is None or _is_there(name, stem, levels[stem]):
                continue
            known = [f"{stem}{level}" for level in sorted(levels[stem])]
            where = f"{contrast.path}.ConditionList[{place}]"
            hint = did_you_mean([name], known)
            texts.append(f"{where}: no run has events of {name}.{hint} There are: {', '.join(known) or 'none'}.")
    return texts


def _is_there(name: str, stem: str, levels: Iterable[str]) -> bool:
    """Return whether a column is of a level, itself or one of its derivatives and delays."""
    level = name.removeprefix(stem)
    return level in levels or MADE_OF_LEVEL.sub("", level) in levels


def _levels(node: Node, events: Iterable[Cells]) -> dict[str, set[str]]:
    """Return the levels of each factor over all runs, by what their columns begin with (``trial_type.``)."""
    sources: dict[str, str] = {}  # variable -> the column of the events that it was made of
    replaced: dict[str, set[str]] = {}
    factors: dict[str, str] = {}  # "trial_type." -> variable
    for one in node.instructions:
        outputs = one.arguments.get("Output", one.inputs)
        for name, output in zip(one.inputs, outputs, strict=False):
            sources.setdefault(output, sources.get(name, name))
            if one.name == "Replace":
                replaced.setdefault(output, set()).update(map(str, one.arguments["Replace"].values()))
            if one.name == "Factor":
                factors[name + one.arguments.get("Sep", ".")] = name
    levels: dict[str, set[str]] = {stem: set(replaced.get(name, ())) for stem, name in factors.items()}
    for table in events:
        for stem, name in factors.items():
            levels[stem] |= {cell for cell in table.get(sources.get(name, name), ()) if cell}
    return levels
