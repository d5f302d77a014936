"""Which inferences an estimator gets on each test: those that are named, and those of ``auto``."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ibma_app.core.anatomy.elements import Shape
from ibma_app.core.design import Design
from ibma_app.core.errors import UsageError
from ibma_app.core.inference_facts import parse_bound
from ibma_app.core.methods import Inference, InferenceSettings
from ibma_app.core.statmap import Analysis
from ibma_app.estimators import estimators_that
from ibma_app.inference import AUTO, AUTO_FEW, find_inference, inferences_that
from ibma_app.stream.convert import is_unsigned
from ibma_app.stream.estimate import Model
from ibma_app.stream.resampling.relabelling import find_smallest_p
from ibma_app.workflows.options.table import Options
from ibma_app.workflows.plan.choose_estimators import Choice, or_

CALIBRATE = "calibrate"
"""The setting of inferences on p that mixed models may have calibrated."""


def read_inference_settings(options: Options) -> InferenceSettings:
    """Collect what every inference may want to know."""
    return InferenceSettings(
        alpha=options.alpha,
        cluster_p=options.cluster_p,
        min_extent=options.min_extent,
        permutations=options.permutations,
        seed=options.seed,
        equivalence=None if options.equivalence is None else parse_bound(options.equivalence),
        conjunction=tuple(dict.fromkeys(options.conjunction or ())),
        options=options.settings.get("inference", {}),
    )


def choose_inferences(choice: Choice, analysis: Analysis, design: Design, options: Options) -> Choice:
    """Add to an estimator the inferences on each test, before any map is read.

    ``auto`` stands for the table ``AUTO`` of `ibma_app.inference`; for
    ``AUTO_FEW`` where relabelling tells nothing (p without a sign, a z of one
    map), or the smallest p that it can reach is above ``--alpha``, with a note. Names beside
    ``auto`` are taken as they are. With ``--estimator auto``, inferences that
    need residuals are left out where there are none.

    Parameters
    ----------
    choice : Choice
        An estimator without inferences.
    analysis : Analysis
    design : Design
        Of its maps.
    options : Options

    Returns
    -------
    Choice

    Raises
    ------
    UsageError
        An inference needs residuals, and the named estimator leaves none; or p are to be calibrated where that makes
        no sense.
    """
    _refuse_to_relabel(choice, design, options)
    tests = tuple(test.name for test in design.tests)
    usual, few = (_find(_expand(options.inference, auto), choice, options) for auto in (AUTO, AUTO_FEW))
    if options.settings.get("inference", {}).get(CALIBRATE):
        choice = _calibrate(choice, usual, options)
    if usual == few:
        return replace(choice, inferences=dict.fromkeys(tests, usual))
    why = _why_not(choice, analysis)
    if why:
        return replace(choice, inferences=dict.fromkeys(tests, few), notes=(*choice.notes, f"{why}: {_instead()}."))
    model, settings = Model(choice.estimator, design, choice.settings), read_inference_settings(options)
    smallest = {test.name: find_smallest_p(model, test, settings) for test in design.tests}
    return replace(
        choice,
        inferences={name: few if p > options.alpha else usual for name, p in smallest.items()},
        notes=(*choice.notes, *_say_few(smallest, options)),
    )


def keep_reachable(
    choices: Sequence[Choice], shape: Shape, design: Design, options: Options
) -> tuple[tuple[Choice, ...], tuple[str, ...]]:
    """Take ``AUTO_FEW`` for ``auto`` also where kinds of structures are too many for the relabellings; return why, too.

    Parameters
    ----------
    choices : sequence of Choice
        With the inferences that their relabellings do for where all is of one kind.
    shape : Shape
        Whose sizes have one unit, or several: each is a kind, with a null of its own.
    design : Design
    options : Options
    """
    kinds = len(shape.units)
    if kinds < 2:
        return tuple(choices), ()
    settings, kept, notes = read_inference_settings(options), [], list[str]()
    for choice in choices:
        model = Model(choice.estimator, replace(design, dependence=choice.dependence), choice.settings)
        few = _find(_expand(options.inference, AUTO_FEW), choice, options)
        by_kind = {
            name
            for name, records in choice.inferences.items()
            if any(_by_kind(one) for one in records if one not in few)
        }
        smallest = {
            test.name: find_smallest_p(model, test, settings, kinds if test.name in by_kind else 1)
            for test in design.tests
        }
        lacking = {name for name in by_kind if smallest[name] > options.alpha}
        inferences = {name: few if name in lacking else records for name, records in choice.inferences.items()}
        kept.append(replace(choice, inferences=inferences))
        notes += _say_few({name: p if name in lacking else 0.0 for name, p in smallest.items()}, options, kinds)
    return tuple(kept), tuple(dict.fromkeys(notes))


def _by_kind(record: Inference) -> bool:
    """Return whether an inference ranks kinds of structures each in its own null: heights compare as they are."""
    return record.score is not None and not record.score_is_height


def _why_not(choice: Choice, analysis: Analysis) -> str:
    """Say why relabelling tells nothing, whatever the design; "" where it does."""
    if "z" in choice.estimator.needs and any(is_unsigned(row) for row in analysis.observations):
        return "Relabelling p maps without a sign changes nothing"
    if choice.estimator.one_map_decides:
        return f"{choice.estimator.name} rests on a single map, and half of all sign flips leave its z as it is"
    return ""


def _calibrate(choice: Choice, inferences: Sequence[Inference], options: Options) -> Choice:
    """Have p calibrated; a note where ``--estimator auto`` took what has nothing to calibrate, else an error."""
    able = or_(inferences_that(lambda record: CALIBRATE in record.settings))
    if not any(CALIBRATE in record.settings for record in inferences):
        raise UsageError(
            f"[inference] calibrate = true, and none of --inference {' '.join(options.inference)} rests on p of single "
            f"voxels: resampling needs no calibration. Leave it out, or add {able}."
        )
    if choice.dependence is not None:
        raise UsageError("[inference] calibrate = true is for independent maps. Leave it or --dependence out.")
    if choice.estimator.tau2_method is not None:
        return replace(choice, calibrated=True)
    why = (
        f"p of {choice.estimator.name} are not calibrated: that is for mixed models, whose small p suffer from the "
        "estimate of tau2"
    )
    if options.estimator == ("auto",):
        return replace(choice, notes=(*choice.notes, f"{why}."))
    mixed = or_(estimators_that(lambda record: record.tau2_method is not None))
    raise UsageError(f"[inference] calibrate = true, but {why}. Leave it out, or use --estimator {mixed}.")


def _refuse_to_relabel(choice: Choice, design: Design, options: Options) -> None:
    """Refuse inferences that relabel maps all of which depend on each other."""
    if design.dependence is None or design.dependence.parts.max() > 0:
        return
    named = [name for name in options.inference if name != "auto" and find_inference(name).score]
    if named:
        able = inferences_that(lambda record: record.score is None and not record.needs_smoothness)
        raise UsageError(
            f"--inference {' '.join(named)} relabels maps that are independent of each other, and all maps of "
            f"{choice.estimator.name} depend on each other here. Choose another inference ({', '.join(able)})."
        )


def _expand(names: Sequence[str], auto: Sequence[str]) -> tuple[str, ...]:
    """Put the names that ``auto`` stands for into its place."""
    return tuple(dict.fromkeys(one for name in names for one in (auto if name == "auto" else (name,))))


def _find(names: Sequence[str], choice: Choice, options: Options) -> tuple[Inference, ...]:
    """Find the records; of residuals that there are not, none with ``--estimator auto``, else an error."""
    records = tuple(find_inference(name) for name in dict.fromkeys(names))
    if choice.estimator.has_residuals:
        return records
    for record in records:
        if record.needs_smoothness and options.estimator != ("auto",):
            raise UsageError(
                f"--inference {record.name} needs the smoothness of the residuals, and there is none: --estimator "
                f"{choice.estimator.name} leaves no residuals that are independent from map to map. Choose "
                f"another inference ({', '.join(inferences_that(lambda record: not record.needs_smoothness))}), or an "
                f"estimator with residuals ({', '.join(estimators_that(lambda record: record.has_residuals))})."
            )
    return tuple(record for record in records if not record.needs_smoothness)


def _instead() -> str:
    left = [name for name in AUTO if name not in AUTO_FEW]
    taken = [name for name in AUTO_FEW if name not in AUTO]
    return f"--inference auto takes {' and '.join(taken)} in the place of {' and '.join(left)}"


def _say_few(smallest: Mapping[str, float], options: Options, kinds: int = 1) -> tuple[str, ...]:
    """Say of which tests the relabellings do not do for the level."""
    lacking: dict[float, list[str]] = {}
    for name, p in smallest.items():
        if p > options.alpha:
            lacking.setdefault(p, []).append(name)
    apart = f" in each of {kinds} kinds of structures" if kinds > 1 else ""
    notes = []
    for p, tests in lacking.items():
        of = f"Test {', '.join(tests)}: the" if len(tests) < len(smallest) else "The"
        drawn = p <= kinds / options.permutations
        why = f"with --permutations {options.permutations}" if drawn else "of these maps"
        notes.append(
            f"{of} smallest p that relabellings {why} can reach{apart} is {p:.3g}, above --alpha {options.alpha:g}: "
            f"{_instead()}."
        )
    return tuple(notes)


def describe_inferences(choice: Choice) -> str:
    """Name the inferences on an estimator, by test where they differ: ``fdr max-stat``."""
    named: dict[str, list[str]] = {}
    for test, records in choice.inferences.items():
        named.setdefault(" ".join(record.name for record in records), []).append(test)
    if len(named) == 1:
        return next(iter(named))
    return "; ".join(f"{', '.join(tests)}: {names}" for names, tests in named.items())
