"""The group level: subjects of a study, or studies, combined by designs, estimators and inference."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ibma_app.core.anatomy.atlas import Atlas, Regions
from ibma_app.core.anatomy.elements import Shape
from ibma_app.core.design import Design
from ibma_app.core.errors import DataError, IbmaError, Note, merge_notes, tell
from ibma_app.core.results import NO_FACTS, EstimatorResult, MapFlag, Results, RunFacts, WrittenFile
from ibma_app.core.statmap import Analysis
from ibma_app.dataset.level_rules import require_content
from ibma_app.dataset.output_dir import Output, open_output
from ibma_app.dataset.write import open_writer
from ibma_app.designs.build import build_design
from ibma_app.designs.map_rows import repeated_entities
from ibma_app.designs.tables import collect_covariates, stated_sample
from ibma_app.designs.tests import TestSpec, formula_entities, merge_tests, parse_tests, read_contrast_file
from ibma_app.images.atlas import read_atlases
from ibma_app.images.elements.formats import files_of
from ibma_app.images.known_atlases import choose_atlases, find_atlases
from ibma_app.images.region_images import choose_regions
from ibma_app.stream.effect_sizes import find_effect_sizes
from ibma_app.stream.estimate import Model, estimate_maps
from ibma_app.stream.hedges_g import Sample, Stated, find_sample
from ibma_app.stream.memory_plan import Resampled
from ibma_app.stream.prepare import Plan
from ibma_app.stream.similarity import compare_maps
from ibma_app.stream.stack import Stack, stack_maps
from ibma_app.stream.workers.resources import Resources
from ibma_app.workflows.choose_peaks import gather_peaks
from ibma_app.workflows.command.log import RunRecord, as_ibma_error, log_outcome, run_folder
from ibma_app.workflows.command.resources import make_checkpoints, open_workers, resources_for
from ibma_app.workflows.command.terminal import print_plan, progress
from ibma_app.workflows.infer import infer_all
from ibma_app.workflows.options.table import Options
from ibma_app.workflows.plan.analyses import plan_group
from ibma_app.workflows.plan.check_hemispheres import check_hemispheres
from ibma_app.workflows.plan.check_sizes import check_sizes, with_conjunction
from ibma_app.workflows.plan.choose_estimators import (
    Choice,
    choose_estimators,
    dependence_advice,
    modelled_advice,
    varying_groups,
)
from ibma_app.workflows.plan.choose_inferences import (
    choose_inferences,
    describe_inferences,
    keep_reachable,
    read_inference_settings,
)
from ibma_app.workflows.plan.choose_shape import choose_shape, keep_possible
from ibma_app.workflows.plan.find_inputs import Gathered, gather
from ibma_app.workflows.plan.plan_dependence import dependence_facts, describe_dependence, settle_dependence
from ibma_app.workflows.write import reports, sidecars
from ibma_app.workflows.write.earlier_results import with_earlier
from ibma_app.workflows.write.group_notes import caveat_notes, left_notes, mask_notes
from ibma_app.workflows.write.maps import Target, earlier_files, estimator_result, write_design, write_maps
from ibma_app.workflows.write.peak_cells import write_cells
from ibma_app.workflows.write.region_tables import RegionTables, collect_tables, names_of_values, write_regions
from ibma_app.workflows.write.residual_notes import look_at_residuals
from ibma_app.workflows.write.robust_errors import dof_notes, error_sidecar, log_dof
from ibma_app.workflows.write.saved_results import keep_results

log = logging.getLogger(__name__)


def run_group(options: Options, words: Sequence[str] = ()) -> int:
    """Combine subjects or studies, one analysis per contrast, task, space, ...; return the exit code."""
    gathered = gather(options)
    tests = _read_tests(options)
    folder = options.config_file.parent if options.config_file else Path()
    tables = options.settings.get("atlas", {})
    atlases = choose_atlases(options.atlas, read_atlases(tables, folder))
    regions = choose_regions(options.regions, tables, folder)
    named = formula_entities(options.formula)
    analyses = plan_group(gathered.observations, options, named | repeated_entities(gathered.table, named))
    if options.dry_run:
        return _show(analyses, gathered, tests, options)
    resources = resources_for(options)
    with (
        open_output(options.output_dir) as output,
        run_folder(output, options, words) as record,
        open_workers(options, resources) as workers,
    ):
        checkpoints = make_checkpoints(output)
        resources = replace(resources, workers=workers, checkpoints=checkpoints)
        reports.begin_dataset(output, gathered.datasets)
        run = Run(
            options, gathered, tests, output, resources, record.folder / "results", atlases, record.facts, regions
        )
        finished: list[Results] = []
        for number, analysis in enumerate(analyses, start=1):
            n_maps = len(analysis.observations)
            log.info("Analysis %d of %d: %s (%d maps).", number, len(analyses), analysis.name, n_maps)
            start = time.perf_counter()
            try:
                results = combine_group(analysis, run)
            except Exception as error:  # noqa: BLE001  the other analyses are done all the same
                record.failures[analysis.name] = as_ibma_error(error)
                lost = workers is not None and not workers.connected
                if options.stop_on_first_crash or len(analyses) == 1 or lost:
                    break
            else:
                finished.append(results)
                record.done.append(analysis.name)
            record.seconds[analysis.name] = time.perf_counter() - start
        reports.end_dataset(output, finished, report=not options.no_report)
        if not record.failures:
            checkpoints.remove()
        log_outcome(record, "analyses", len(analyses))
    if not options.no_report and record.done:
        log.info("Report: %s", options.output_dir / "report.html")
    return record.exit_code


def _read_tests(options: Options) -> Mapping[str, TestSpec]:
    """Read ``--test`` and ``--contrast-file``; names that collide are refused."""
    stated = [read_contrast_file(options.contrast_file)] if options.contrast_file else []
    if options.test:
        stated.append(parse_tests(options.test))
    return merge_tests(*stated)


@dataclass(frozen=True)
class Run:
    """What all analyses of a run share."""

    options: Options
    gathered: Gathered
    tests: Mapping[str, TestSpec]
    output: Output
    resources: Resources
    records: Path  # where finished analyses are kept, relative to OUTPUT_DIR
    atlases: tuple[str | Atlas, ...] | None = None  # that name regions; None: as the space has them
    facts: RunFacts = NO_FACTS  # of the run, for the pages
    regions: tuple[str | Regions, ...] = ()  # that are tested as a whole

    def atlases_of(self, analysis: Analysis, grid: Shape) -> tuple[Atlas, ...]:
        """List the atlases that name regions."""
        return find_atlases(self.atlases, analysis.entities.get("space")) if grid.box and grid.placed else ()


def combine_group(analysis: Analysis, run: Run) -> Results:
    """Fit one analysis with each estimator, infer, and write maps, tables and the page."""
    options, start = run.options, time.perf_counter()
    design, choices = prepare(analysis, run.gathered, run.tests, options)
    require_content(statmap for row in analysis.observations for statmap in row.statmaps.values())
    chosen = (note for choice in choices for note in choice.notes)
    before = merge_notes((*analysis.notes, *map(Note, (*design.notes, *chosen))))
    logged: set[str] = set()
    _warn(tell(before), logged)
    parts = [
        _combine(analysis, design, part, before, run, logged, desc)
        for part, desc in names_of_values(_by_needs(choices))
    ]
    first = parts[0]
    fitted = {result.estimator.name: result for part in parts for result in part.estimators}
    results = replace(
        first,
        estimators=tuple(fitted[choice.estimator.name] for choice in choices),
        notes=merge_notes(note for part in parts for note in part.notes),
    )
    results = with_earlier(run.output, results)
    ran = replace(run.facts, seconds=round(time.perf_counter() - start, 1))
    keep_results(run.output, run.records, results, ran=ran)
    if not options.no_report:
        reports.write_group_page(run.output, results, ran=ran)
    return results


def _resampled(choices: Sequence[Choice], design: Design) -> Resampled:
    """Return which of the estimators are resampled."""
    estimators = [choice.estimator for choice in choices if choice.resamples]
    gathered = [one.relabels is not None and not one.models_clusters for one in estimators]
    summed = [one.signed_sums is not None and design.one_sample for one in estimators]
    return Resampled(any(gathered) or any(summed), not all(gathered), design.matrix.shape[1])


def _by_needs(choices: Sequence[Choice]) -> list[tuple[Choice, ...]]:
    """Group the estimators that need the same kinds of map: each group has its own coverage and mask."""
    groups: dict[frozenset[str], list[Choice]] = {}
    for choice in choices:
        groups.setdefault(frozenset(choice.estimator.needs) - {"sample_size"}, []).append(choice)
    return [tuple(group) for group in groups.values()]


def _warn(notes: Sequence[str], logged: set[str]) -> None:
    """Log each note once."""
    for note in notes:
        if note not in logged:
            log.warning("%s", note)
    logged.update(notes)


def _combine(
    analysis: Analysis,
    design: Design,
    choices: Sequence[Choice],
    before: tuple[Note, ...],
    run: Run,
    logged: set[str],
    desc: str,
) -> Results:
    """Read the maps once, and fit the estimators that need them."""
    options = run.options
    needs = tuple(dict.fromkeys(need for choice in choices for need in choice.estimator.needs))
    samples = _samples(analysis, run.gathered, needs, options)
    reads = dict.fromkeys(kind for choice in choices for kind in choice.reads)
    opened = tuple("t" if samples and need in ("effect", "variance") else need for need in needs)
    grid, grid_notes = choose_shape(analysis, options, opened)
    choices, left_out = keep_possible(choices, grid, options)
    choices, few = keep_reachable(choices, grid, design, options)
    plan = Plan(
        grid=grid, needs=(*needs, *reads), unit=analysis.unit, min_coverage=options.min_coverage,
        regrid=options.grid != "common", smoothing=options.smoothing, samples=samples,
    )  # fmt: skip
    resampled = _resampled(choices, design)
    with stack_maps(analysis.observations, plan, run.resources, tests=len(design.tests), resampled=resampled) as stack:
        design, sign_notes = _upper_tail(design, stack, analysis)
        sizes = [analysis.observations[row].sample_size for row in stack.kept] if analysis.unit == "study" else None
        similarity = compare_maps(stack, sizes, design.clusters, dependence_advice(analysis, options))
        stack.forget_given()
        flags = similarity.flags if similarity else ()
        tables = collect_tables(run.regions, stack, analysis, run.gathered, plan.share, desc)
        texts = (*sign_notes, *mask_notes(stack.grid), *(one.text for one in flags), *(tables.notes if tables else ()))
        new = merge_notes((*map(Note, (*grid_notes, *left_out, *few)), *stack.notes, *map(Note, texts)))
        _warn(tell(new), logged)
        notes = (*before, *new)
        fitted = []
        for choice in choices:
            own, dependent_notes = settle_dependence(
                stack, replace(design, dependence=choice.dependence), choice.estimator, choice.settings, notes
            )
            _warn(dependent_notes, logged)
            told = (*notes, *map(Note, dependent_notes))
            result = _fit(analysis, stack, own, choice, told, flags, run, tables)
            fitted.append(replace(result, grid=stack.grid, survey=stack.survey))
            notes = told
        return Results(
            analysis=analysis,
            grid=stack.grid,
            design=with_conjunction(design, options),
            survey=stack.survey,
            estimators=tuple(fitted),
            output_dir=options.output_dir,
            settings=_settings(analysis, options),
            notes=notes,
            similarity=similarity,
            atlases=tuple(atlas.source for atlas in run.atlases_of(analysis, stack.grid)),
            regions=tables.told if tables else None,
        )


def _upper_tail(design: Design, stack: Stack, analysis: Analysis) -> tuple[Design, tuple[str, ...]]:
    """Test unsigned p maps in the upper tail.

    Raises
    ------
    DataError
        Only some of the maps have a sign: they test different hypotheses.
    """
    if all(stack.signed):
        return design, ()
    if any(stack.signed):
        unsigned = [row.label for row, signed in zip(stack.survey, stack.signed, strict=True) if not signed]
        raise DataError(
            f"The p maps of {', '.join(unsigned)} have no sign, others do: they do not ask one question "
            f"({analysis.observations[0].path}). Add effect maps beside the p maps, or leave them out."
        )
    tests = tuple(replace(test, tail="positive", unsigned=True) for test in design.tests)
    return replace(design, tests=tests), ("The p maps have no sign: evidence is combined whatever its direction.",)


def prepare(
    analysis: Analysis, gathered: Gathered, tests: Mapping[str, TestSpec], options: Options
) -> tuple[Design, tuple[Choice, ...]]:
    """Build an analysis's design and choose its estimators and inferences, before any map is read."""
    key = f"{'study' if analysis.unit == 'study' else 'participant'}_id"
    covariates = collect_covariates(analysis.observations, gathered.table, key, gathered.table_path)
    design = build_design(
        analysis.observations, covariates, options.formula, tests, tail=options.tail,
        advice=lambda: modelled_advice(analysis), groupings=varying_groups(options),
    )  # fmt: skip
    choices = choose_estimators(analysis, options, design, gathered.observations)
    check_sizes(analysis, design, choices, options)
    check_hemispheres(analysis, {need for choice in choices for need in choice.estimator.needs})
    return design, tuple(
        choose_inferences(choice, analysis, replace(design, dependence=choice.dependence), options)
        for choice in choices
    )


def _fit(
    analysis: Analysis,
    stack: Stack,
    design: Design,
    choice: Choice,
    warnings: Sequence[Note],
    flags: Sequence[MapFlag],
    run: Run,
    tables: RegionTables | None,
) -> EstimatorResult:
    """Fit one estimator, infer on its tests, and write what they give."""
    options = run.options
    resources = replace(run.resources, threads=min(run.resources.threads, stack.side_by_side))  # as memory allows
    name = choice.estimator.name
    log.info("Fitting %s (%s) on %d %s.", name, choice.reason, stack.n_voxels, stack.grid.noun)
    log.info("Inference on it: %s.", describe_inferences(choice))
    with progress(stack.n_voxels, f"fitting {name}") as step:
        model = Model(choice.estimator, design, choice.settings)
        estimate = estimate_maps(stack, model, resources, lambda voxels: step("", voxels))
    common = sidecars.analysis_sidecar(analysis, design, stack, choice, options.units, tell(warnings))
    common |= error_sidecar(model, estimate) | describe_dependence(design)
    log_dof(model, estimate)
    seen = look_at_residuals(stack, model, estimate, choice.every_inference, resources)
    common |= seen.sidecar
    if seen.notes:
        common["Warnings"] = [*common.get("Warnings", ()), *seen.notes]
    common |= sidecars.likely_same_samples(flags, [analysis.observations[row].unit_label for row in stack.kept])
    with open_writer(run.output, resources.threads) as writer:
        target = Target(
            output=run.output,
            writer=writer,
            folder=Path("group"),
            analysis=analysis,
            design=design,
            grid=stack.grid,
            choice=choice,
            common=common,
            units=sidecars.common_units(analysis, options.units),
            named_tests=bool(run.tests) or not design.one_sample,
            sizes=find_effect_sizes(stack, model, estimate) if analysis.unit == "subject" else {},
        )
        earlier = earlier_files(target)
        files = write_maps(target, estimate, {"skewness": seen.skewness})
        settings, atlases = read_inference_settings(options), run.atlases_of(analysis, stack.grid)
        inferred = infer_all(target, stack, estimate, settings, atlases, resources)
    files += [*inferred.files, WrittenFile("", "", "design", write_design(target, stack.survey))]
    peaks = () if options.no_report else gather_peaks(target, stack, estimate, inferred.clusters)
    files += write_cells(target, peaks)
    files += write_regions(target, tables) if tables else []
    left = left_notes(earlier - {path for one in files for path in files_of(one.path, stack.grid)}, name)
    notes = (*seen.notes, *dof_notes(model, estimate), *left, *caveat_notes(inferred.findings, name))
    _warn(notes, set())
    return replace(
        estimator_result(choice, files, inferred.findings, notes),
        peaks=peaks,
        facts=(*seen.facts, *dependence_facts(design)),
        dependence=design.dependence,
        absences=inferred.absences,
    )


def _samples(
    analysis: Analysis, gathered: Gathered, needs: Sequence[str], options: Options
) -> tuple[Sample, ...] | None:
    """Describe the people behind each map, when effects are standardised (``--units hedges-g``)."""
    if options.units != "hedges-g" or "effect" not in needs:
        return None
    return tuple(find_sample(o, Stated(*stated_sample(gathered.table, o))) for o in analysis.observations)


def _settings(analysis: Analysis, options: Options) -> dict[str, object]:
    return {
        "alpha": options.alpha,
        "tail": options.tail,
        "cluster_p": options.cluster_p,
        "min_extent": options.min_extent,
        "mask": options.mask,
        "min_coverage": options.min_coverage,
        "grid": options.grid,
        "units_policy": options.units,
        "units": sidecars.common_units(analysis, options.units),
        "smoothing": options.smoothing,
    }


def _show(analyses: Sequence[Analysis], gathered: Gathered, tests: Mapping[str, TestSpec], options: Options) -> int:
    """Print the plan, with what would combine each analysis (or why it cannot be); return the exit code."""
    names = []
    record = RunRecord()
    for analysis in analyses:
        try:
            _, choices = prepare(analysis, gathered, tests, options)
        except IbmaError as error:
            names.append("cannot be combined")
            record.failures[analysis.name] = error
        else:
            names.append(", ".join(f"{choice.estimator.name} ({describe_inferences(choice)})" for choice in choices))
            record.done.append(analysis.name)
    print_plan(analyses, names)
    log_outcome(record, "analyses", len(analyses))
    return record.exit_code
