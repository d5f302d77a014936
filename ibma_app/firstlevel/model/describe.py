"""The plan of a model in words: per node what is done, with which images, columns and contrasts, and what flows on."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ibma_app.firstlevel.conditions import column_names
from ibma_app.firstlevel.model.dataset_node import formula_of, tests_of
from ibma_app.firstlevel.model.edges import inputs, outputs
from ibma_app.firstlevel.model.reading.instructions import response_name
from ibma_app.firstlevel.model.reading.node_contrasts import write_name
from ibma_app.firstlevel.model.stats_model import INTERCEPT, SOFTWARE, Contrast, Instruction, Node, StatsModel
from ibma_app.firstlevel.records import RunModel

SHOWN = 12  # names in a list


@dataclass(frozen=True, eq=False)
class SeenRun:
    """A run of the data, and what the model makes of it."""

    label: str  # "sub-01_task-x_run-1"
    subject: str
    model: RunModel | None  # None: it cannot be modelled
    fault: str = ""


def describe_model(model: StatsModel, runs: Sequence[SeenRun] | None = None, warnings: Sequence[str] = ()) -> str:
    """Write the plan of a model.

    Parameters
    ----------
    model : StatsModel
    runs : sequence of SeenRun, optional
        The runs that it selects; None: they were not looked at.
    warnings : sequence of str
        What is wrong with the model beside these data.
    """
    file = f" ({model.file})" if model.file else ""
    lines = [f"Model {model.name}{file}: {_count(len(model.nodes), 'node')}."]
    lines += [f"  {model.description}"] if model.description else []
    lines += [f"Images: {_selected(model.inputs)}."]
    for place, node in enumerate(model.nodes, start=1):
        lines += ["", f"{place}. {node.name} ({node.level}): {_what(node)}."]
        details = _of_run(node, runs) if node.level == "Run" else _of_higher(model, node, runs or ())
        lines += [f"   {one}" for one in (*_filter(model, node), *details, *_software(node), *_flow(model, node))]
    lines += [""] if model.notes or model.faults or warnings else []
    lines += [f"Warning: {one}" for one in warnings]
    lines += [f"Note: {one}" for one in model.notes]
    lines += [f"Refused: {path}: {text}" for path, text in model.faults.items()]
    return "\n".join(lines) + "\n"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def shorten_list(names: Iterable[str]) -> str:
    """Write a list, and of a long one its first names and how many there are."""
    listed = list(names)
    more = f", ... ({len(listed)} in all)" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more


def _selected(chosen: Mapping[str, Sequence[str]]) -> str:
    """Write what Input selects."""
    words = [f"{name} {shorten_list(labels)}" for name, labels in chosen.items()]
    return "; ".join(words) if words else "all of the dataset"


def _what(node: Node) -> str:
    """Write what a node does to each group of images."""
    groups = " and ".join(node.group_by) or "nothing"
    if node.level == "Run":
        return f"a GLM of each run (GroupBy: {groups})"
    if node.level == "Dataset":
        return f"a GLM of subjects for each {groups}"
    weights = node.software.get("Weights", "precision")
    how = "the plain mean (fixed effects)" if weights == "equal" else "precision-weighted fixed effects"
    theirs = "" if weights == "equal" else f'; FitLins averages plainly: Software.{SOFTWARE}.Weights "equal" does too'
    return f"{how} for each {groups}{theirs}"


def _filter(model: StatsModel, node: Node) -> list[str]:
    edge = model.edge_to(node)
    if edge is None or not edge.filters:
        return []
    return [f"Filter: {_selected(edge.filters)}."]


def _flow(model: StatsModel, node: Node) -> list[str]:
    """Write which contrasts go where."""
    following = [edge.destination for edge in model.edges if edge.source == node.name]
    if not following:
        return []
    given = outputs(model, node)
    words = "a contrast for each column of events" if given is None else shorten_list(given)
    return [f"Flows on to {', '.join(following)}: {words or 'nothing (F tests end here)'}."]


def _software(node: Node) -> list[str]:
    said = {key: value for key, value in node.software.items() if key != "Weights"}
    return (
        [f"Set by Software.{SOFTWARE}: {', '.join(f'{key} {_plain(value)}' for key, value in said.items())}."]
        if said
        else []
    )


def _plain(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _of_run(node: Node, runs: Sequence[SeenRun] | None) -> list[str]:
    """Write what is done to runs: transformations, design, contrasts, and what single runs lack."""
    lines = (
        [f"Transformations: {'; '.join(describe_instruction(one) for one in node.instructions)}."]
        if node.instructions
        else []
    )
    lines += [f"Convolved: {', '.join(one.variables)} with {one.hrf}." for one in node.responses]
    if node.high_pass is not None:
        lines.append(f"High-pass: {node.high_pass:g} Hz.")
    if runs is None:
        lines.append(f"Design: {', '.join(map(write_name, node.x))}.")
        return lines + _contrasts(node.contrasts) + _dummies(node)
    made = [one for one in runs if one.model is not None]
    subjects = len({one.subject for one in runs})
    named = f" ({runs[0].label}{', ...' if len(runs) > 1 else ''})" if runs else ""
    lines.insert(0, f"Images: {_count(len(runs), 'run')} of {_count(subjects, 'subject')}{named}.")
    lines += _design(made)
    lines += _contrasts(node.contrasts) + _dummies(node)
    lines += _lacking(made)
    lines += [f"{one.label} cannot be modelled: {one.fault}" for one in runs if one.model is None]
    notes = Counter(note for one in made if one.model is not None for note in dict.fromkeys(one.model.notes))
    lines += [f"{note}{_in_runs(count, len(made))}" for note, count in notes.items()]
    return lines


def _in_runs(count: int, total: int) -> str:
    return "" if total == 1 else f" (in {count} of {total} runs)"


def _design(made: Sequence[SeenRun]) -> list[str]:
    """Write the columns of the runs' designs: those of all runs, and those of some."""
    if not made:
        return []
    columns = Counter(name for one in made for name in _columns(one.model))
    everywhere = [name for name, count in columns.items() if count == len(made)]
    lines = [f"Design: {_count(len(everywhere), 'column')} in every run: {shorten_list(everywhere)}; and a constant."]
    some = [f"{name} ({count} of {len(made)} runs)" for name, count in columns.items() if count < len(made)]
    return lines + ([f"Columns of some runs: {shorten_list(some)}."] if some else [])


def _columns(model: RunModel | None) -> list[str]:
    """List the columns of a run's design, but for those that are made of its length."""
    if model is None:
        return []
    regressors = [
        name for one in model.regressors for name in column_names(one.name, one.hrf or "", one.fir_delays or ())
    ]
    return [*regressors, *model.columns]


def _lacking(made: Sequence[SeenRun]) -> list[str]:
    """Write which runs lack a contrast, and why."""
    lacking: dict[tuple[str, str], list[str]] = {}
    for one in made:
        for name, why in (one.model.missing if one.model else {}).items():
            lacking.setdefault((name, why), []).append(one.label)
    return [f"Without {name}: {shorten_list(labels)} ({why})." for (name, why), labels in lacking.items()]


def _contrasts(contrasts: Sequence[Contrast]) -> list[str]:
    return [f"Contrast {one.name} ({one.test}): {describe_weights(one)}." for one in contrasts]


def _dummies(node: Node) -> list[str]:
    if node.dummies is None:
        return []
    if node.dummies.conditions is None:
        return [
            "Contrasts: one for each column of events." if node.level == "Run" else "Contrasts: one for each column."
        ]
    return [f"Contrasts: one for each of {shorten_list(map(write_name, node.dummies.conditions))}."]


def describe_weights(contrast: Contrast) -> str:
    """Write the weights of a contrast as a sum; rows of F tests apart."""
    rows = []
    for row in contrast.weights:
        pieces = [
            f"{'-' if weight < 0 else '+'} {'' if abs(weight) == 1 else f'{abs(weight):.4g} '}{write_name(name)}"
            for name, weight in zip(contrast.conditions, row, strict=True)
            if weight
        ]
        rows.append(" ".join(pieces).removeprefix("+ "))
    return ", ".join(rows)


def describe_instruction(one: Instruction) -> str:
    """Write a transformation in words."""
    what = shorten_list(one.inputs)
    arguments = one.arguments
    output = f" as {', '.join(arguments['Output'])}" if "Output" in arguments else ""
    if one.name == "Convolve":
        return f"convolve {what} with {response_name(one)}"
    if one.name == "Replace":
        pairs = ", ".join(f"{old} by {new}" for old, new in arguments["Replace"].items())
        of = arguments.get("Attribute", "value")
        return f"in {what}{'' if of == 'value' else f' ({of})'} replace {pairs}{output}"
    if one.name == "Assign":
        source = arguments.get("InputAttr", "amplitude")
        of = "" if source == "amplitude" else f"the {source} of "
        target = f"{', '.join(arguments['Target'])} as its {arguments.get('TargetAttr', 'amplitude')}"
        return f"give {of}{what} to {target}{output}"
    if one.name == "Factor":
        return f"a column for each value of {what}"
    settings = {key: value for key, value in arguments.items() if key != "Output"}
    said = f" ({', '.join(f'{key} {value}' for key, value in settings.items())})" if settings else ""
    return f"{one.name.lower()} {what}{output}{said}"


def _of_higher(model: StatsModel, node: Node, runs: Sequence[SeenRun]) -> list[str]:
    """Write what is done to the images of the node before."""
    incoming = inputs(model, node)
    lines = [] if incoming is None else [f"Contrasts that come in: {shorten_list(incoming)}."]
    lines += _images(node, runs)
    edge = model.edge_to(node)
    if node.level == "Dataset" and edge is not None and model.node(edge.source).level == "Run":
        lines.append("The participant level comes between: it passes single runs on, and combines several.")
    if node.level != "Dataset":
        return lines
    where = str(model.file or "The model")
    tests = tests_of(node, where)
    if "Estimator" not in node.software:
        choice = f"FitLins takes least squares (Software.{SOFTWARE}.Estimator chooses)"
        lines.append(f"Estimator: auto, mixed effects where the maps have variances; {choice}.")
    columns = ", ".join(node.x) if node.formula is None else "of it"
    lines.append(f"Formula: {formula_of(node, where)}; columns: {columns}.")
    if tests is None:
        what = "the mean" if node.x == (INTERCEPT,) else "every column"
        return [*lines, f"Tests: {what} ({node.dummies.test if node.dummies else 't'})."]
    return [*lines, *(f"Test {name}: {text}." for name, _, text in (one.partition("=") for one in tests))]


def _images(node: Node, runs: Sequence[SeenRun]) -> list[str]:
    """Write how many images of each contrast a node will have, where the runs were looked at."""
    having: dict[str, list[str]] = {}  # contrast -> the subject of each run that has it
    for one in runs:
        for contrast in one.model.contrasts if one.model else ():
            having.setdefault(contrast.name, []).append(one.subject)
    by_counts: dict[str, list[str]] = {}
    for name, subjects in having.items():
        each = Counter(subjects)
        numbers = sorted(set(each.values()))
        of_each = _count(numbers[0], "run") if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]} runs"
        words = _count(len(each), "subject")
        by_counts.setdefault(words if node.level == "Dataset" else f"{words}, {of_each} each", []).append(name)
    if len(by_counts) == 1:
        return [f"Images: {next(iter(by_counts))}."]
    return [f"Images: {words} for {shorten_list(names)}." for words, names in by_counts.items()]
