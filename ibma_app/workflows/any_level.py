"""Runs the level that is chosen: run, participant or group."""

import dataclasses
from collections.abc import Callable, Sequence

from ibma_app.core.system.folders import absolute_path
from ibma_app.workflows.command.log import messages
from ibma_app.workflows.options.parse import MODEL_OF_OPTIONS
from ibma_app.workflows.options.table import Options


def run_level(options: Options, words: Sequence[str] = ()) -> int:
    """Run one level with its messages on stderr; return the exit code."""
    options = dataclasses.replace(
        options, bids_dir=absolute_path(options.bids_dir), output_dir=absolute_path(options.output_dir)
    )
    with messages(options):
        if options.reports_only:
            from ibma_app.workflows.reports_only import rebuild_reports

            return rebuild_reports(options, words)
        if options.model is not None:
            from ibma_app.workflows.plan.show_model import print_model_of_options, show_model

            if options.model == MODEL_OF_OPTIONS:
                return print_model_of_options(options)
            if show_model(options):
                return 0
        return _level(options.analysis_level)(options, words)


def _level(name: str) -> Callable[[Options, Sequence[str]], int]:
    """Import a level alone: the others take as long to import as a run takes to be modelled."""
    if name == "run":
        from ibma_app.workflows.first_level.run_first_level import run_first_level

        return run_first_level
    if name == "participant":
        from ibma_app.workflows.participant import run_participant

        return run_participant
    from ibma_app.workflows.group import run_group

    return run_group
