"""How the runs of a participant agree, in a sentence."""

import numpy as np

from ibma_app.core.results import Results
from ibma_app.report.html import format_number
from ibma_app.report.inputs import short_labels


def tell_agreement(results: Results) -> str:
    """Say how the maps that were combined correlate over the voxels; empty for a single one."""
    similar = results.similarity
    if similar is None:
        return ""
    names = short_labels([row.label for row in results.survey])
    pairs = [
        (value, names[first], names[second])
        for first, line in enumerate(similar.correlations)
        for second, value in enumerate(line[:first])
        if value is not None and len(similar.correlations) == len(names)
    ]
    if not pairs:
        return ""
    where = f"over {format_number(similar.n_voxels)} voxels"
    if len(pairs) == 1:
        value, second, first = pairs[0][0], pairs[0][1], pairs[0][2]
        return f"The {similar.quantity}s of {first} and {second} correlate by {_write(value)} {where}."
    (low, *least), (high, *_) = min(pairs), max(pairs)
    middle = float(np.median([value for value, _, _ in pairs]))
    return (
        f"The {similar.quantity}s of the {len(names)} maps correlate by {_write(low)} to {_write(high)} {where} "
        f"(median {_write(middle)}); least alike are {least[1]} and {least[0]}."
    )


def _write(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
