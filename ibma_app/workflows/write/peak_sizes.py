"""Standardised effects in cluster tables: Hedges' g or partial eta squared of each peak, where a test has one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ibma_app.inference.cluster_table import ClusterRow
from ibma_app.stream.effect_sizes import EffectSize

TITLES = {"g": "Hedges' g", "eta2": "Partial eta squared"}


def size_columns(size: EffectSize | None) -> dict[str, Any]:
    """Describe the columns that a test's standardised effect adds; empty where it has none."""
    if size is None:
        return {}
    own, named = f"peak_{size.kind}", "for one voxel named beforehand"
    return {
        own: {"Description": f"{TITLES[size.kind]} at the peak, which was chosen for being extreme: an overestimate"},
        f"{own}_lower": {"Description": f"Lower end of its exact 95 % interval, {named}"},
        f"{own}_upper": {"Description": f"Upper end of its exact 95 % interval, {named}"},
    }


def with_sizes(rows: Sequence[ClusterRow], size: EffectSize | None) -> tuple[ClusterRow, ...]:
    """Give each peak its standardised effect and the interval."""
    if size is None:
        return tuple(rows)
    columns = dict(zip(size_columns(size), (size.value, size.lower, size.upper), strict=True))
    return tuple(
        replace(row, measured=(*row.measured, *((name, float(one[row.peak])) for name, one in columns.items())))
        for row in rows
    )
