"""Words on a run: its methods text, its references, and what its page shows."""

from collections.abc import Mapping

import numpy as np

from ibma_app.core.bold_run import RunContrastResult, RunResults
from ibma_app.core.methods import Citation
from ibma_app.estimators.references import KENWARD_1997
from ibma_app.firstlevel.confounds import FD, HIGH_PASS, MOTION
from ibma_app.firstlevel.fit import ContrastMaps
from ibma_app.firstlevel.records import Floats, RunContrast
from ibma_app.workflows.first_level.kept_runs import as_written
from ibma_app.workflows.first_level.model_run import ModelledRun
from ibma_app.workflows.first_level.plan_runs import output_entities, output_stem

NILEARN = Citation(
    "nilearn", "Abraham A, Pedregosa F, Eickenberg M, et al.", 2014,
    "Machine learning for neuroimaging with scikit-learn", "Frontiers in Neuroinformatics 8, 14",
    "10.3389/fninf.2014.00014",
)  # fmt: skip
WORSLEY = Citation(
    "worsley2002", "Worsley KJ, Liao CH, Aston J, et al.", 2002, "A general statistical analysis for fMRI data",
    "NeuroImage 15, 1-15", "10.1006/nimg.2001.0933",
)  # fmt: skip
FMRIPREP = Citation(
    "esteban2019", "Esteban O, Markiewicz CJ, Blair RW, et al.", 2019,
    "fMRIPrep: a robust preprocessing pipeline for functional MRI", "Nature Methods 16, 111-116",
    "10.1038/s41592-018-0235-4",
)  # fmt: skip


def methods_of(modelled: ModelledRun) -> tuple[str, ...]:
    """Write the methods of a run."""
    design, noise = modelled.design, modelled.noise
    timing = design.timing
    count = sum(not name.startswith(HIGH_PASS) for name in design.confounds)
    confounds = f"{count} confound{'s' * (count != 1)}" if count else "no confounds"
    first = (
        "Statistic maps of each run were made from preprocessed BOLD by ibma-app. Events were convolved with the "
        f"hemodynamic response {design.hrf} (nilearn; Abraham et al. 2014) and sampled at {timing.start_time:g} s + "
        f"i × {timing.repetition_time:g} s ({timing.source}). The design had {confounds} and as "
        f"high-pass filter {design.high_pass}."
    )
    if modelled.settings.smoothing:
        first += f" The BOLD was smoothed with a Gaussian of {modelled.settings.smoothing:g} mm (FWHM)."
    if design.scrubbed:
        first += (
            " Volumes that were scrubbed had a column each, which is the same as their absence with the gap in time."
        )
    if not noise.order:
        second = "Models were fitted by ordinary least squares."
    elif noise.corrected:
        second = (
            f"Models were fitted by generalised least squares with autoregressive noise of order {noise.order}, its "
            "autocorrelations estimated from the residuals of each voxel and corrected for the design (Worsley et al. "
            "2002). Variances were multiplied by, and degrees of freedom taken from, what simulated noise of the mean "
            "autocorrelation of the mask gives for the design (as Kenward and Roger 1997 have it by expansion). In "
            "simulated masks with six kinds of noise side by side, variances were 0.97 to 1.05 times the true ones, "
            "and 4.4 to 5.4 % of tests without an effect had p < 0.05."
        )
    else:
        second = "Models were fitted by generalised least squares with AR(1) noise, estimated from the residuals."
    third = (
        "Effects are in percent signal change: of the voxel's mean over the volumes used, for the peak-to-peak "
        "response to one isolated event."
        if modelled.settings.units == "percent"
        else "Effects are in the units of the BOLD."
    )
    return first, second, third


def references_of(modelled: ModelledRun) -> tuple[str, ...]:
    """List what the methods text cites."""
    cited = [NILEARN, *((WORSLEY, KENWARD_1997) if modelled.noise.corrected else ())]
    chain = modelled.run.dataset.description.get("GeneratedBy")
    names = [str(one.get("Name", "")) for one in chain if isinstance(one, Mapping)] if isinstance(chain, list) else []
    if any(name.lower() == "fmriprep" for name in names):
        cited.append(FMRIPREP)
    return tuple(one.text for one in cited)


def results_of(modelled: ModelledRun, effects: Mapping[str, tuple[Floats, str]]) -> RunResults:
    """Collect what the page of a run shows.

    Parameters
    ----------
    modelled : ModelledRun
    effects : mapping
        Contrast -> its values as they are written, (V,), and their units.
    """
    design, fit = modelled.design, modelled.fit
    rho = fit.rho[fit.fitted]
    facts = (
        ("Volumes used", design.timing.n_volumes - len(design.scrubbed)),
        ("Scrubbed", len(design.scrubbed)),
        ("TR (s)", design.timing.repetition_time),
        ("First volume (s)", float(design.timing.frame_times[0])),
        ("Residual degrees of freedom", design.dof),
        ("High-pass", design.high_pass),
        ("Noise", modelled.noise.words),
        ("Median autocorrelation of the noise", float(np.median(rho)) if rho.size else None),
        ("Median R²", float(np.median(fit.rsquared[fit.fitted])) if rho.size else None),
    )
    return RunResults(
        name=output_stem(modelled.run),
        entities=output_entities(modelled.run),
        grid=modelled.grid,
        columns=design.columns,
        matrix=design.matrix,
        conditions=design.conditions,
        confounds=design.confounds,
        frame_times=design.timing.frame_times,
        events={one.name: np.column_stack([one.onsets, one.durations]) for one in modelled.model.regressors},
        motion=_motion(modelled.tables.confounds),
        scrubbed=design.scrubbed,
        inflation=design.inflation,
        contrasts=tuple(_contrast(modelled, one, *effects[one.contrast.name]) for one in fit.contrasts),
        missing=design.missing,
        maps={
            "mean": as_written(np.nan_to_num(fit.mean)),
            "rsquared": as_written(fit.rsquared),
            "rho": as_written(fit.rho),
        },
        facts=facts,
        notes=modelled.notes,
        methods=methods_of(modelled),
        references=references_of(modelled),
    )


def _motion(confounds: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return framewise displacement, or the translations where the table has none."""
    if FD in confounds:
        return {FD.replace("_", " "): confounds[FD]}
    return {name: confounds[name] for name in MOTION[:3] if name in confounds}


def _contrast(modelled: ModelledRun, maps: ContrastMaps, values: Floats, units: str) -> RunContrastResult:
    name = maps.contrast.name
    quantity = (
        "z of F (no direction)" if maps.effect is None else f"Effect ({units})" if units != "unknown" else "Effect"
    )
    return RunContrastResult(
        name,
        as_written(values),
        quantity,
        maps.effect is not None,
        maps.dof,
        modelled.design.efficiency[name],
        weights_text(maps.contrast),
    )


def weights_text(contrast: RunContrast) -> str:
    """Write a contrast's weights."""
    rows = ("; ".join(f"{weight:+.4g} {name}" for name, weight in row.items()) for row in contrast.rows)
    return ", ".join(rows)
