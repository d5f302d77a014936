"""From options to a BIDS Stats Model: ``--model default`` prints what the options mean."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from ibma_app.core.errors import UsageError
from ibma_app.dataset.entities import long_name, short_name
from ibma_app.dataset.filters import read_labels
from ibma_app.designs.expressions import parse_rows, split_rows
from ibma_app.designs.formulas import parse_formula, used_variables
from ibma_app.designs.tests import parse_tests
from ibma_app.estimators import PARTICIPANT
from ibma_app.firstlevel.model.stats_model import INTERCEPT, SOFTWARE
from ibma_app.workflows.options.from_model import LABELS, NODE_LEVELS, OF_ALL, OF_SOFTWARE, snake
from ibma_app.workflows.options.table import OPTIONS, Options

NOT_IN_MODELS = ("study_label", "exclude_study_label", "exclude_participant_label", "pool", "compute", "contrast_file")
"""Options that models cannot say."""

BESIDE = ("exclude_participant_label",)
"""Of these, what can be given together with a model."""

VERSION = "1.0.0"


def model_document(options: Options, run_node: Mapping[str, Any] | None) -> dict[str, Any]:
    """Write the model that options mean, ready for JSON.

    Parameters
    ----------
    options : Options
    run_node : mapping, optional
        The node of runs; None: the model begins with subjects.

    Raises
    ------
    UsageError
        Models cannot say what an option says; the message names it.
    """
    for dest in NOT_IN_MODELS:
        if getattr(options, dest):
            flag = f"--{dest.replace('_', '-')}"
            remedy = "Give it beside the model, to each level." if dest in BESIDE else "Leave it out."
            raise UsageError(f"{flag} has no place in a BIDS Stats Model. {remedy}")
    inputs = _inputs(options)
    subject, dataset = _subject_node(options, inputs), _dataset_node(options)
    nodes = [*([dict(run_node)] if run_node else []), subject, dataset]
    document: dict[str, Any] = {
        "Name": "-".join(inputs.get("task", ())) or "default",
        "BIDSModelVersion": VERSION,
        "Input": inputs,
        "Nodes": nodes,
    }
    if options.contrast:
        document["Edges"] = _edges(nodes, read_labels(options.contrast, "contrast"))
    return document


def _inputs(options: Options) -> dict[str, list[str]]:
    """Write ``Input``: the labels of options, and of ``[inputs] keep``."""
    inputs = {
        name: list(read_labels(getattr(options, dest), short_name(name)))
        for name, dest in LABELS.items()
        if getattr(options, dest) is not None
    }
    kept = options.settings.get("inputs", {}).get("keep", {})
    return inputs | {name: [str(label) for label in labels] for name, labels in kept.items()}


def _edges(nodes: Sequence[Mapping[str, Any]], contrasts: Sequence[str]) -> list[dict[str, Any]]:
    """Write the edges; the last lets the contrasts through that are kept."""
    names = [node["Name"] for node in nodes]
    edges: list[dict[str, Any]] = [{"Source": one, "Destination": other} for one, other in pairwise(names)]
    edges[-1]["Filter"] = {"contrast": list(contrasts)}
    return edges


def _subject_node(options: Options, inputs: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Write the node that combines the runs of a subject: what ``--combine`` leaves out stands in GroupBy."""
    combined = {long_name(short_name(name)) for name in options.combine}
    unknown = combined - {"run", "session", "task"}
    if unknown or "run" not in combined:
        said = " ".join(options.combine)
        raise UsageError(f"--combine {said} has no place in a BIDS Stats Model: it combines runs, sessions and tasks.")
    if "task" in combined and len(inputs.get("task", ())) < 2:
        raise UsageError(
            "--combine task: a BIDS Stats Model lists the tasks that it combines. Name them with --task-id."
        )
    apart = [one for one in ("session", "task") if one not in combined]
    of_software = said_to_us(options, "Subject")
    weights = options.settings.get("estimator", {}).get(PARTICIPANT, {}).get("weights")
    if weights is not None:
        of_software["Weights"] = weights
    return {
        "Level": "Subject",
        "Name": "subject",
        "GroupBy": ["subject", "contrast", *apart],
        "Model": {"X": [1], "Type": "meta", **write_software(of_software)},
        "DummyContrasts": {"Test": "t"},
    }


def _dataset_node(options: Options) -> dict[str, Any]:
    """Write the node of the dataset: the formula as X where it is a sum of columns, else as Formula."""
    combined = {long_name(short_name(name)) for name in options.combine}
    said = said_to_us(options, "Dataset")
    settings = {name: table for name, table in options.settings.items() if name in ("estimator", "inference", "output")}
    settings["estimator"] = {k: v for k, v in settings.get("estimator", {}).items() if k != PARTICIPANT}
    settings = {name: table for name, table in settings.items() if table}
    if settings:
        said["Settings"] = settings
    x, columns, formula = _columns(options.formula)
    node: dict[str, Any] = {
        "Level": "Dataset",
        "Name": "dataset",
        "GroupBy": ["contrast", *(one for one in ("session", "task") if one not in combined)],
        "Model": {"X": x, "Type": "glm", **({"Formula": formula} if formula else {}), **write_software(said)},
    }
    if not options.test:
        return {**node, "DummyContrasts": {"Test": "t"}}
    return {**node, "Contrasts": [_contrast(text, columns) for text in options.test]}


def _columns(formula: str) -> tuple[list[Any], list[str], str | None]:
    """Return X, the names of the design's columns, and the formula where X alone does not say it."""
    if formula.strip() == "1":
        return [1], [INTERCEPT], None
    terms = [str(term) for term in parse_formula(formula)]
    variables = list(used_variables(formula, ()))
    columns = [INTERCEPT if term == "1" else term for term in terms]
    constant: list[Any] = [1] if "1" in terms else []
    plain = [term for term in terms if term != "1"]
    if all(term in variables for term in plain):
        return [*constant, *plain], columns, None
    return [*constant, *variables], columns, formula if constant or "0" in formula.replace("-", " ").split() else None


def _contrast(text: str, columns: Sequence[str]) -> dict[str, Any]:
    """Write a test as a contrast of the design's columns."""
    (spec,) = parse_tests([text]).values()
    expression = str(spec.rows[0])
    try:
        rows = [parse_rows(piece, columns)[0] for piece in split_rows(expression)]
    except UsageError as error:
        raise UsageError(
            f"--model default cannot write --test {text!r}: {error.message} Models know columns by the terms of the "
            "formula; the columns of text and factors are known when the participants' table is read."
        ) from None
    used = [place for place in range(len(columns)) if any(row[place] for row in rows)]
    weights = [[float(row[place]) for place in used] for row in rows]
    return {
        "Name": spec.name,
        "ConditionList": [1 if columns[place] == INTERCEPT else columns[place] for place in used],
        "Weights": weights[0] if len(rows) == 1 else weights,
        "Test": "t" if len(rows) == 1 else "F",
    }


def said_to_us(options: Options, level: str) -> dict[str, Any]:
    """List what options say to us at a level, beside their defaults; some belong to the level that is run."""
    known = {option.dest: option for option in OPTIONS}
    own = level in NODE_LEVELS[options.analysis_level]
    said: dict[str, Any] = {}
    if level == "Run":
        table = options.settings.get("run", {})
        said = {key: table[snake(key)] for key in OF_SOFTWARE[level] if snake(key) in table}
    for key in ("Smoothing",) if level == "Run" else OF_SOFTWARE[level]:
        option = known.get(snake(key))
        if option is None or (key in (*OF_ALL, "Smoothing") and not own):
            continue
        value = getattr(options, option.dest)
        if value != option.default:
            said[key] = list(value) if option.many else value if isinstance(value, int | float | str) else str(value)
    return said


def write_software(said: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``Model.Software``, where there is something to say."""
    return {"Software": {SOFTWARE: dict(said)}} if said else {}
