"""What ``--model`` shows: with ``--dry-run`` the plan of the model in words; ``default``: the model of the options."""

import json
from pathlib import Path

from ibma_app.core.system.standard_streams import write_out
from ibma_app.firstlevel.model.describe import describe_model
from ibma_app.firstlevel.model.faults import as_error
from ibma_app.firstlevel.model.reading.read_model import read_model
from ibma_app.workflows.options.parse import MODEL_OF_OPTIONS
from ibma_app.workflows.options.table import Options
from ibma_app.workflows.options.to_model import model_document


def show_model(options: Options) -> None:
    """Print the plan of a model, where one is given and nothing shall be run.

    Raises
    ------
    DataError
        A contrast of the model is wrong in itself; the rest of the plan is printed.
    """
    if not options.dry_run or options.model in (None, MODEL_OF_OPTIONS):
        return
    model = read_model(Path(options.model), to_show=True)
    write_out(describe_model(model))
    if model.faults:
        raise as_error(options.model, model.faults)


def print_model_of_options(options: Options) -> int:
    """Print the model that options mean, as JSON; return the exit code.

    Raises
    ------
    UsageError
        Models cannot say what an option says.
    """
    write_out(json.dumps(model_document(options, None), indent=2) + "\n")
    return 0
