"""Warnings on a group result: levels that are not quite kept, masks too large, files of earlier runs."""

from collections.abc import Sequence
from pathlib import Path

from ibma_app.core.anatomy.elements import Shape
from ibma_app.core.inference_facts import CaveatFacts, find_fact
from ibma_app.core.results import Finding

LARGEST_BRAIN = 2500.0  # cm3, meninges included


def caveat_notes(findings: Sequence[Finding], name: str) -> tuple[str, ...]:
    """Say which inferences do not quite keep the level that they print."""
    told: dict[str, list[str]] = {}
    for finding in findings:
        if (caveat := find_fact(finding.facts, CaveatFacts)) is not None:
            told.setdefault(caveat.text, []).append(finding.inference.name)
    return tuple(f"{name}: in {' and '.join(dict.fromkeys(of))}, {text}." for text, of in told.items())


def mask_notes(grid: Shape) -> tuple[str, ...]:
    """Warn of a mask that is larger than any brain: voxels outside of it cost statistical power."""
    volume = 0.0 if grid.box is None else grid.n_voxels * grid.box.voxel_volume / 1000.0
    if volume <= LARGEST_BRAIN:
        return ()
    return (f"The mask has {volume:.0f} cm3, more than a brain: the maps are not masked. Give --mask FILE.",)


def left_notes(left: set[Path], name: str) -> tuple[str, ...]:
    """Name the files that an earlier run with another design or other inferences left."""
    if not left:
        return ()
    example = min(left).name
    return (
        f"{len(left)} file(s) of an earlier run of {name} on these maps are still in group/ (e.g. {example}). This run "
        "did not write them: they belong to another design or inference. Remove them, or use another OUTPUT_DIR.",
    )
