"""Refuses bounds of equivalence and conjunctions that an analysis has nothing for, before any map is read."""

from collections.abc import Sequence
from dataclasses import replace

from ibma_app.core.design import Design, Test
from ibma_app.core.errors import UsageError, did_you_mean
from ibma_app.core.statmap import Analysis
from ibma_app.estimators import estimators_that
from ibma_app.stream.effect_sizes import mean_weights
from ibma_app.workflows.options.table import Options
from ibma_app.workflows.plan.choose_estimators import Choice, or_
from ibma_app.workflows.plan.choose_inferences import read_inference_settings


def check_sizes(analysis: Analysis, design: Design, choices: Sequence[Choice], options: Options) -> None:
    """Refuse what cannot be answered.

    Raises
    ------
    UsageError
        ``--equivalence`` without an effect that has an error (or, of Hedges' g, without one of a mean or a difference
        of means of subjects, by an estimator with one variance), or of maps that cannot be relabelled;
        ``--conjunction`` of one test, of one that does not exist, of F tests, or of several tails.
    """
    if options.conjunction is not None:
        _check_conjunction(design, tuple(dict.fromkeys(options.conjunction)))
    if options.equivalence is None:
        return
    settings = read_inference_settings(options)
    assert settings.equivalence is not None
    names = ", ".join(choice.estimator.name for choice in choices)
    able = [choice for choice in choices if "effect" in choice.estimator.needs]
    if not able:
        others = or_(estimators_that(lambda record: "effect" in record.needs and not record.same_data)[:3])
        raise UsageError(
            f"--equivalence {options.equivalence} bounds effects, and {names} combines z, which has no effect. Use "
            f"effect maps and --estimator {others}, or leave --equivalence out."
        )
    able = [choice for choice in able if choice.dependence is None or choice.dependence.parts.max() > 0]
    if not able:
        raise UsageError(
            f"--equivalence {options.equivalence} rests on relabelled maps that are independent of each other, and all "
            f"maps of {names} depend on each other here. Leave --equivalence out."
        )
    tests = [test for test in design.tests if not test.is_f]
    if not tests:
        raise UsageError(
            f"--equivalence {options.equivalence} is for t tests, and all tests here are F tests. Name a t test by "
            "--test NAME=EXPRESSION."
        )
    if settings.equivalence.standardised:
        _check_standardised(analysis, design, able, tests, options.equivalence)


def with_conjunction(design: Design, options: Options) -> Design:
    """Return the design as the report sees it: with the conjunction that was asked for, after the tests."""
    if options.conjunction is None:
        return design
    together = design.conjoin(tuple(dict.fromkeys(options.conjunction)))
    return replace(design, tests=(*design.tests, together))


def _check_standardised(
    analysis: Analysis, design: Design, able: Sequence[Choice], tests: Sequence[Test], bound: str
) -> None:
    """Refuse a bound of Hedges' g where there is no g."""
    instead = "Give the bound in the units of the effects (a number without g)"
    if analysis.unit != "subject":
        raise UsageError(
            f"--equivalence {bound} is of Hedges' g, which subjects have: here studies are combined. {instead}; "
            "with --units hedges-g these are g."
        )
    if not any(one.estimator.one_variance and one.estimator.one_variance(design, one.settings) for one in able):
        pooled = or_(estimators_that(lambda record: record.one_variance is not None))
        raise UsageError(
            f"--equivalence {bound} is of Hedges' g, which needs one variance of all subjects, and "
            f"{', '.join(one.estimator.name for one in able)} has none here. Use --estimator {pooled} (with its pooled "
            "error), or give the bound in the units of the effects (a number without g)."
        )
    if not any(mean_weights(design, test) is not None for test in tests):
        raise UsageError(
            f"--equivalence {bound} is of Hedges' g, and no test here is of a mean or of a difference of means of "
            f"groups: {', '.join(test.name for test in tests)}. {instead}."
        )


def _check_conjunction(design: Design, names: Sequence[str]) -> None:
    """Refuse a conjunction that is none."""
    by_name = {test.name: test for test in design.tests}
    menu = f"The t tests here are: {', '.join(test.name for test in design.tests if not test.is_f) or 'none'}."
    asked = f"--conjunction {' '.join(names)}"
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise UsageError(f"{asked}: there is no test {unknown[0]!r}.{did_you_mean(unknown, list(by_name))} {menu}")
    if len(names) < 2:
        raise UsageError(f"{asked} names one test, and a conjunction is of two or more. {menu}")
    if any(by_name[name].is_f for name in names):
        wrong = next(name for name in names if by_name[name].is_f)
        raise UsageError(f"{asked}: {wrong} is an F test, which has no direction to agree in. Name t tests. {menu}")
    if len({by_name[name].tail for name in names}) > 1:
        tails = ", ".join(f"{name} {by_name[name].tail}" for name in names)
        raise UsageError(
            f"{asked}: the tests have several tails ({tails}). Give them one, and turn a test round by its weights "
            "(b - a instead of a - b)."
        )
    label = design.conjoin(names).name
    if any(label.casefold() == name.casefold() for name in by_name):
        raise UsageError(f"{asked} would be called {label}, and there is a test of that name. Call that one otherwise.")
