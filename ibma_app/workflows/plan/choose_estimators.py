"""Which estimators an analysis gets, and why: the choices of ``auto``, and checks of those that are named."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ibma_app.core.design import Dependence, Design
from ibma_app.core.errors import DataError, UsageError
from ibma_app.core.methods import Estimator, Inference
from ibma_app.core.statmap import Analysis, Observation
from ibma_app.estimators import AUTO, estimators_that, find_estimator
from ibma_app.stream.convert import can_give
from ibma_app.workflows.options.table import Options
from ibma_app.workflows.plan.plan_dependence import plan_dependence

log = logging.getLogger(__name__)

FEW_MAPS = 5


@dataclass(frozen=True)
class Choice:
    """An estimator with its settings, the reason it runs, and the inferences on it."""

    estimator: Estimator
    settings: Mapping[str, str]
    reason: str
    notes: tuple[str, ...] = ()
    inferences: Mapping[str, tuple[Inference, ...]] = field(default_factory=dict)  # Test.name -> its inferences
    dependence: Dependence | None = None  # of the maps' sampling errors, as the estimator takes it
    calibrated: bool = False  # whether p are calibrated for the inferences that take it

    @property
    def every_inference(self) -> tuple[Inference, ...]:
        """The inferences on any of the tests."""
        found = {inference.name: inference for records in self.inferences.values() for inference in records}
        return tuple(found.values())

    @property
    def reads(self) -> tuple[str, ...]:
        """What is used beside the estimator's needs, where maps have it."""
        return (*self.estimator.reads, *(("dof",) if self.calibrated else ()))

    @property
    def resamples(self) -> bool:
        """Whether any of the inferences does."""
        return any(inference.score for inference in self.every_inference)


def choose_estimators(
    analysis: Analysis, options: Options, design: Design, everything: Sequence[Observation] = ()
) -> tuple[Choice, ...]:
    """Pick (``auto``) or check (named) the estimators of one group analysis; ``everything`` is of all analyses.

    Raises
    ------
    DataError
        Units that do not combine, maps that do not give what is needed, or tests that an estimator has no error for.
    UsageError
        An estimator that cannot fit the design.
    """
    if options.estimator == ("auto",):
        names, reason = _automatic(analysis, options, repeated=design.repeated, one_sample=design.one_sample)
        _tell_of_dependence(names, analysis, design)
    else:
        names, reason = options.estimator, "asked for"
    found = []
    for name in dict.fromkeys(names):
        estimator = find_estimator(name)
        dependence = plan_dependence(estimator, analysis, design, options, everything)
        repeated = design.repeated and dependence is None
        _check_design(estimator, options, repeated=repeated, one_sample=design.one_sample)
        _check_maps(estimator, analysis, options)
        choice = _choice(estimator, reason, analysis, options, replace(design, dependence=dependence))
        found.append(replace(choice, dependence=dependence))
    return tuple(found)


def _choice(estimator: Estimator, reason: str, analysis: Analysis, options: Options, design: Design) -> Choice:
    name = estimator.name
    chosen = {**estimator.defaults(design), **options.settings.get("estimator", {}).get(name, {})}
    if "tau2_ci" in estimator.settings and options.settings.get("output", {}).get("tau2_ci"):
        chosen["tau2_ci"] = "yes"
    notes = []
    if "tau2" in estimator.gives and len(analysis.observations) < FEW_MAPS:
        notes.append(
            f"{name} estimates tau2 from {len(analysis.observations)} maps: with fewer than {FEW_MAPS} it is hardly "
            "known, and intervals are wide."
        )
    if estimator.caveat:
        notes.append(estimator.caveat)
    if design.dependent and not design.repeated and not estimator.takes_repeated and design.dependence is None:
        notes.append(_independent_words(estimator, analysis, design, options))
    if estimator.check is not None:
        try:
            notes += estimator.check(design, chosen)
        except DataError as error:
            other = design.nuisance and design.repeated and not estimator.models_clusters
            advice = modelled_advice(analysis) if other else ""
            raise DataError(f"{error.message} {advice}".rstrip()) from error
    return Choice(estimator, chosen, reason, tuple(notes))


def _able(analysis: Analysis, holds: Callable[[Estimator], bool]) -> tuple[str, ...]:
    """List the estimators of a kind that the maps of an analysis give all they need.

    Of studies, those that weight by sampling variances come first: a random intercept takes errors as alike, which
    those of studies are not.
    """
    rows = analysis.observations
    able = estimators_that(
        lambda record: (
            holds(record) and all(can_give(row, need) for need in record.needs for row in rows if need != "sample_size")
        )
    )
    weighted = analysis.unit == "study"
    return tuple(sorted(able, key=lambda name: weighted and "variance" not in find_estimator(name).needs))


def modelled_advice(analysis: Analysis) -> str:
    """Say what tests what is the same in all maps of a subject, beside a column for each subject; "": nothing does."""
    able = _able(analysis, lambda record: record.models_clusters and record.takes_designs)
    if not able:
        return ""
    key = f"C({'study' if analysis.unit == 'study' else 'participant'}_id)"
    return f"Leave {key} out of --formula and ask for --estimator {or_(able)}, which models what it stood for."


def dependence_advice(analysis: Analysis, options: Options) -> str:
    """Say what to ask for where maps of one sample are named by a column of clusters."""
    able = _able(analysis, lambda record: record.models_clusters and "variance" in record.needs)
    (unitless, *_) = estimators_that(lambda record: record.takes_dependence and "z" in record.needs)
    model = _with_units(able, analysis, options)
    return f"ask for {f'{model}, or for ' if model else ''}--estimator {unitless} --dependence cluster"


def _with_units(names: Sequence[str], analysis: Analysis, options: Options) -> str:
    """Write estimators as options, with what effects of several units need besides; "" where nothing helps."""
    if not names:
        return ""
    if units_problem(analysis, options) is None:
        return f"--estimator {or_(names)}"
    sizes = all(row.sample_size for row in analysis.observations)
    return f"--estimator {or_(names)} with --units hedges-g" if sizes else ""


def _tell_of_dependence(names: Iterable[str], analysis: Analysis, design: Design) -> None:
    """Say which estimators model the dependence of maps, where ``auto`` took none of them."""
    able = _able(analysis, lambda record: record.models_clusters) if design.dependent else ()
    if able:
        log.info(
            "auto took %s. How the maps of one %s depend on each other is modelled by --estimator %s, which auto never "
            "takes: ask for it by name%s.",
            " and ".join(names), design.cluster_noun, or_(able),
            f", and leave C({design.cluster_name}) out of --formula" if design.nuisance else "",
        )  # fmt: skip


def _independent_words(estimator: Estimator, analysis: Analysis, design: Design, options: Options) -> str:
    """Warn that an estimator takes maps for independent that a column says depend on each other."""
    able = _able(analysis, lambda record: record.takes_repeated and not record.same_data)
    words = _with_units(able, analysis, options)
    advice = f" {words} takes them as dependent." if words else ""
    if estimator.takes_dependence:
        advice += f" So does {estimator.name} with --dependence cluster."
    return (
        f"{estimator.name} takes all {len(design.matrix)} maps as independent, and by the column "
        f"{design.cluster_name!r} they are {design.n_clusters} {design.cluster_plural}: its p values are too small "
        f"where maps of one {design.cluster_noun} are alike.{advice}"
    )


def varying_groups(options: Options) -> tuple[str, ...]:
    """List the covariates whose groups have variances of their own, in the settings of the estimators of a run."""
    tables = options.settings.get("estimator", {})
    used = tables if options.estimator == ("auto",) else options.estimator
    named = (tables.get(name, {}).get("tau2_by", "") for name in used)
    return tuple(dict.fromkeys(column for column in named if column))


def units_problem(analysis: Analysis, options: Options) -> str | None:
    """Say why the effects do not share one unit; None when they do."""
    if options.units != "check":
        return None
    by_units: dict[str, list[str]] = {}
    for observation in analysis.observations:
        by_units.setdefault(observation.units, []).append(_name(analysis, observation))
    if analysis.unit != "study":
        by_units.pop("unknown", None)  # subjects of one dataset: one unit is assumed
        return _listed(by_units) if len(by_units) > 1 else None
    if len(by_units) == 1 and "unknown" not in by_units:
        return None
    return _listed(by_units)


def _name(analysis: Analysis, observation: Observation) -> str:
    return f"{'study' if analysis.unit == 'study' else 'sub'}-{observation.unit_label}"


def _listed(by_units: Mapping[str, list[str]]) -> str:
    parts = [f"{units}: {', '.join(sorted(labels))}" for units, labels in sorted(by_units.items())]
    known = "differ or are unknown" if len(by_units) > 1 else "are unknown"
    return f"the units of the effects {known} ({'; '.join(parts)})"


def _automatic(
    analysis: Analysis, options: Options, *, repeated: bool, one_sample: bool
) -> tuple[tuple[str, ...], str]:
    """Choose by the kinds of map that all have, and by their units."""
    rows = analysis.observations
    problem = units_problem(analysis, options)
    mixed, alone = (AUTO["effect and variance"],), (AUTO["effect"],)
    if options.units == "hedges-g":
        return mixed, "auto: standardised effects (Hedges' g) with their variances, in one unit"
    with_effect = all(can_give(row, "effect") for row in rows)
    with_variance = all(can_give(row, "variance") for row in rows)
    if with_effect and problem is None:
        if repeated:
            return alone, "auto: repeated measures, whose sampling errors are correlated in an unknown way"
        if options.smoothing:
            return alone, "auto: smoothing is for effect maps without their variances"
        shared = _unit_words(analysis, options)
        if with_variance:
            return mixed, f"auto: every map comes with effect and variance{shared}"
        return alone, f"auto: every map comes with an effect{shared}, not all with a variance"
    if all(set(row.statmaps) <= {"p", "dof"} for row in rows):
        return (AUTO["p"],), "auto: every map comes with p only"
    if all(can_give(row, "z") for row in rows):
        why = problem if with_effect and problem else "not every map comes with an effect"
        second = AUTO["z and sample size" if all(row.sample_size for row in rows) else "z alone"]
        names = (AUTO["z"], second) if one_sample else (AUTO["z"],)
        return names, f"auto: {why}; z has none, so units cancel"
    lacking = [f"{row.label} ({', '.join(sorted(row.statmaps))})" for row in rows if not can_give(row, "z")]
    raise DataError(
        f"No estimator fits what was shared: {problem or 'effects are not shared by all'}, and these give no z: "
        f"{'; '.join(lacking)}. {_what_fits(analysis, with_effect=with_effect)}"
    )


def _what_fits(analysis: Analysis, *, with_effect: bool) -> str:
    """Say what helps where neither the effects nor the z of all maps combine."""
    if with_effect:
        return "Add t or z maps, or state one unit with --units assume-same."
    rows = analysis.observations
    with_z = [row for row in rows if can_give(row, "z")]
    without = [row.unit_label for row in rows if not can_give(row, "z")]
    if len(with_z) < 2:
        return "Add t or z maps, or effects, of those that have none."
    flag = "study" if analysis.unit == "study" else "participant"
    return f"Add t or z maps of these, or leave them out: --exclude-{flag}-label {' '.join(sorted(set(without)))}."


def _unit_words(analysis: Analysis, options: Options) -> str:
    """Say how it is known that the effects share a unit."""
    if options.units == "assume-same":
        return " (in one unit, on the user's word)"
    stated = all(row.units != "unknown" for row in analysis.observations)
    return " in one unit" if stated else " (units not stated, taken as one within a dataset)"


def _check_design(estimator: Estimator, options: Options, *, repeated: bool, one_sample: bool) -> None:
    name = estimator.name
    if repeated and not estimator.takes_repeated:
        able = or_(estimators_that(lambda record: record.takes_repeated and not record.same_data))
        raise UsageError(
            f"Repeated measures take --estimator {able} only, not {name}: the sampling errors of one subject's maps "
            "are correlated, and how is not shared. --dependence says how, for those that take it."
        )
    if not one_sample and not estimator.takes_designs:
        able = or_(other for other in AUTO.values() if find_estimator(other).takes_designs)
        raise UsageError(
            f"--estimator {name} answers one question (is there an effect?) and takes no --formula but 1. "
            f"With designs use {able}."
        )
    if options.smoothing and not estimator.takes_smoothing:
        able = or_(estimators_that(lambda record: record.takes_smoothing))
        raise UsageError(
            f"--smoothing is for --estimator {able} only, not {name}: smoothing an effect changes its variance in a "
            "way that the variance map does not show."
        )


def or_(names: Iterable[str]) -> str:
    """Join names as in a sentence: a, b or c."""
    *head, last = names
    return f"{', '.join(head)} or {last}" if head else last


def _check_maps(estimator: Estimator, analysis: Analysis, options: Options) -> None:
    """Refuse effects of several units, and missing kinds, before anything is read."""
    if "effect" in estimator.needs:
        problem = units_problem(analysis, options)
        if problem:
            raise DataError(f"--estimator {estimator.name} combines effects, but {problem}. {_one_unit(analysis)}")
    for row in analysis.observations:
        for need in estimator.needs:
            _check_need(estimator, row, need, options)


def _one_unit(analysis: Analysis) -> str:
    """Say what can be done about effects in several units, with the kinds of map that there are."""
    rows, ways = analysis.observations, ["Say --units assume-same if you know that they share one unit"]
    sized = analysis.unit == "study" and all(row.sample_size is not None for row in rows)
    if sized and all(can_give(row, "t") or can_give(row, "z") for row in rows):
        ways.append("--units hedges-g for standardised effects")
    if all(can_give(row, "z") for row in rows):
        ways.append(f"or use the Z family (--estimator {AUTO['z']})")
    return f"{', '.join(ways)}."


def _check_need(estimator: Estimator, row: Observation, need: str, options: Options) -> None:
    """Refuse a row that cannot give one of the kinds an estimator needs."""
    if options.units == "hedges-g" and need in ("effect", "variance"):
        return
    if need == "sample_size":
        if row.sample_size is None:
            raise DataError(
                f"--estimator {estimator.name} weights by sample size, and {row.path} has none. Give SampleSize in its "
                f"sidecar or sample_size in studies.tsv, or use --estimator {AUTO['z alone']}."
            )
        return
    if can_give(row, need) or (need == "z" and estimator.takes_unsigned and can_give(row, "p")):
        return
    has = ", ".join(sorted(row.statmaps))
    remedies = {
        "effect": f"Use the Z family (--estimator {AUTO['z']}), or add stat-effect maps."
        if can_give(row, "z")
        else "Add stat-effect maps.",
        "variance": "Add a stat-variance map (or stat-t, from which it is derived), or use --estimator "
        f"{AUTO['effect']}.",
        "z": "Add a stat-z map (or stat-t, or effect and variance).",
    }
    raise DataError(
        f"{row.label} has no {need}: of {row.path} there are only these kinds: {has}. --estimator {estimator.name} "
        f"needs it. {remedies[need]}"
    )
