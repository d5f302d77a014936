"""Where several t tests are significant together: the minimum statistic against the conjunction null.

The null is that at least one of the tests has no effect (Nichols et al. 2005),
so that p is the largest of the tests' p, and a corrected map is the tests'
corrected maps together.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.estimate import Field, Significance
from ibma_app.core.inference_facts import CaveatFacts, Fact, Facts, LevelFacts
from ibma_app.core.methods import Inference, InferenceSettings
from ibma_app.inference.decide import weakest_z


def conjoin_fields(fields: Sequence[Field]) -> Field:
    """Return the minimum statistic of several tests with one tail.

    Parameters
    ----------
    fields : sequence of Field
        At least two, of the same V voxels.

    Returns
    -------
    Field
        Two-sided: z is the one nearest to 0 where all have one sign, and 0 (p 1) elsewhere. One-sided: the one that
        reaches least far in the tail. -log10 p is the smallest, 0 where a test cannot be estimated.
    """
    first = fields[0]
    z, estimable = np.stack([field.z for field in fields]), np.logical_and.reduce([f.estimable for f in fields])
    if first.tail == "two-sided":
        agree = np.all(z > 0, axis=0) | np.all(z < 0, axis=0)
        least = np.sign(z[0]) * np.abs(z).min(axis=0)
    else:
        agree = np.ones(first.z.shape, dtype=np.bool_)
        least = z.min(axis=0) if first.tail == "positive" else z.max(axis=0)
    there = agree & estimable
    log10_p = np.where(there, np.min([field.log10_p for field in fields], axis=0), 0.0)
    return Field(np.where(there, least, 0.0), first.tail, estimable, first.grid, log10_p)


def conjoin(
    inference: Inference, seen: Field, parts: Sequence[Significance], settings: InferenceSettings
) -> Significance:
    """Decide by one inference where all tests are significant.

    An inference on p alone is made on the conjunction's p: intersecting sets
    would not keep a false discovery rate. Of others, which have a null of their own
    for each test, the largest corrected p counts.

    Parameters
    ----------
    inference : Inference
    seen : Field
        The conjunction's.
    parts : sequence of Significance
        Of the same inference on each test.
    settings : InferenceSettings
    """
    caveats = dict.fromkeys(fact for part in parts for fact in part.facts if isinstance(fact, CaveatFacts))
    if inference.score is None and not inference.needs_smoothness:
        found = inference.infer(seen, None, settings)
        return replace(found, facts=(*found.facts, *caveats, _said("p of the conjunction are corrected")))
    there = seen.z != 0.0 if seen.tail == "two-sided" else seen.estimable
    log10_p = np.where(there, np.min([part.log10_p for part in parts], axis=0), 0.0)
    passed: NDArray[np.bool_] = np.logical_and.reduce([part.significant for part in parts]) & there
    facts: tuple[Facts, ...] = tuple(fact for fact in parts[0].facts if isinstance(fact, LevelFacts))
    said = _said("the largest corrected p of the tests")
    return Significance(log10_p, passed, weakest_z(seen, passed), (*facts, *caveats, said))


def _said(how: str) -> Fact:
    return Fact("ConjunctionBy", how, "Conjunction by")
