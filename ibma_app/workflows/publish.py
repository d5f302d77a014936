"""``ibma-publish``: packs of the group results of an OUTPUT_DIR, for others."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from ibma_app import __version__
from ibma_app.core.errors import InputError, NothingSelectedError, UsageError
from ibma_app.core.results import Results
from ibma_app.core.system.standard_streams import write_out
from ibma_app.dataset.output_dir import Output, open_output, replace_file
from ibma_app.dataset.write import save_text
from ibma_app.publishing import check, neurovault, nidm, nimads, upload
from ibma_app.publishing.about import FILE, About, read_about, write_template
from ibma_app.publishing.selected import Selected, select
from ibma_app.workflows.command.log import messages
from ibma_app.workflows.options.parse_publish import PublishOptions
from ibma_app.workflows.write.saved_results import find_records, read_record

log = logging.getLogger(__name__)


def run_publish(options: PublishOptions) -> int:
    """Make the packs; return the exit code."""
    with messages(options):
        return publish(options)


def publish(options: PublishOptions) -> int:
    """Make the packs, and send them where that was asked for.

    Raises
    ------
    InputError
        OUTPUT_DIR, about.toml or the token is missing.
    NothingSelectedError
        OUTPUT_DIR has no group results.
    UsageError
        A name that does not exist.
    """
    if options.upload and "neurovault" not in options.kinds:
        raise UsageError("--upload neurovault sends the NeuroVault folder: add neurovault to --kinds.")
    found = _read_results(options.output_dir)
    about = read_about(options.about)
    selected = select([results for results, _ in found], options.analysis, options.test, options.estimator)
    begun = {results.analysis.name: when for results, when in found}
    images = neurovault.list_images(about, selected) if "neurovault" in options.kinds else ()
    if options.dry_run:
        _show(options, about, selected, images)
        return 0
    token = upload.read_token(options.token_file) if options.upload else ""
    with open_output(options.pack_dir) as pack:
        _write(pack, options, about, selected, images, begun)
    log.info("Packs: %s. Read %s before you give them away.", options.pack_dir, options.pack_dir / "CHECK.md")
    if options.upload:
        planned = _plan(options, about, selected, images)
        address = upload.send(planned, token, options.server or upload.SERVER)
        write_out(f"{address}\n")
    return 0


def _read_results(output_dir: Path) -> list[tuple[Results, str]]:
    """Read the newest record of each group analysis, and when its run began (ISO 8601)."""
    if not output_dir.is_dir():
        raise InputError(f"OUTPUT_DIR {output_dir} is not there. Name the folder that ibma-app ... group wrote.")
    records = find_records(output_dir, "group")
    if not records:
        raise NothingSelectedError(
            f"{output_dir} has no group results. Run ibma-app BIDS_DIR {output_dir} group first."
        )
    found = []
    for path in records.values():
        began = datetime.strptime(path.parent.parent.name.partition("_")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        found.append((read_record(path, output_dir).results, began.isoformat(timespec="seconds")))
    return found


def _write(
    pack: Output,
    options: PublishOptions,
    about: About,
    selected: Sequence[Selected],
    images: Sequence[neurovault.VaultImage],
    begun: dict[str, str],
) -> None:
    """Write the packs that were asked for, and CHECK.md."""
    if "nidm" in options.kinds:
        for one in selected:
            content = nidm.make_pack(one, __version__, begun[one.results.analysis.name])
            replace_file(pack, f"{one.name}.nidm.zip", partial(_write_bytes, content))
            log.info("%s.nidm.zip", one.name)
    if "neurovault" in options.kinds:
        save_text(pack, "neurovault/collection.json", neurovault.collection_text(about, selected))
        save_text(pack, "neurovault/images.tsv", neurovault.write_table(images))
        for image in images:
            _copy(pack, f"neurovault/{image.fields['file']}", image.source)
    if "nimads" in options.kinds:
        studyset, files = nimads.make_studyset(about, selected)
        save_text(pack, "nimads/studyset.json", nimads.to_text(studyset))
        save_text(pack, "nimads/annotation.json", nimads.to_text(nimads.make_annotation(studyset)))
        for name, source in files.items():
            if isinstance(source, bytes):
                replace_file(pack, f"nimads/{name}", partial(_write_bytes, source))
            else:
                _copy(pack, f"nimads/{name}", source)
    save_text(pack, "CHECK.md", check.write_check(about, selected, images, options.kinds))
    _offer_about(pack, options, selected)


def _offer_about(pack: Output, options: PublishOptions, selected: Sequence[Selected]) -> None:
    """Write about.toml with blanks, where there is none."""
    if options.about is None and not (pack.root / FILE).exists():
        path = save_text(pack, FILE, write_template([(one.name, one.title) for one in selected]))
        log.info("%s has blanks for what only you know: fill them in, and give it with --about.", path)


def _write_bytes(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _copy_to(source: Path, path: Path) -> None:
    shutil.copyfile(source, path)


def _copy(pack: Output, below: str, source: Path) -> None:
    """Copy a map.

    Raises
    ------
    InputError
        It is gone.
    """
    if not source.is_file():
        raise InputError(f"{source} is gone, and the pack needs it. Get it back, or leave its kind out of --kinds.")
    replace_file(pack, below, partial(_copy_to, source))


def _plan(
    options: PublishOptions, about: About, selected: Sequence[Selected], images: Sequence[neurovault.VaultImage]
) -> list[upload.Planned]:
    """List the requests of the upload."""

    def with_files() -> Iterator[tuple[neurovault.VaultImage, Path]]:
        for image in images:
            yield image, options.pack_dir / "neurovault" / str(image.fields["file"])

    return upload.plan_upload(neurovault.describe_collection(about, selected), with_files(), private=options.private)


def _say_what_lacks(options: PublishOptions, about: About) -> None:
    """Warn of what an upload needs, and the command does not give.

    Raises
    ------
    InputError
        The file of the token holds none.
    """
    blank = check.list_blanks(about)
    if blank:
        file = options.about or options.pack_dir / FILE
        log.warning("The collection has no %s: fill in %s, and give it with --about.", ", ".join(blank), file)
    if options.token_file is None:
        log.warning("To send it, give --token-file FILE: a file with the token of your NeuroVault account.")
    else:
        upload.read_token(options.token_file)


def _show(
    options: PublishOptions, about: About, selected: Sequence[Selected], images: Sequence[neurovault.VaultImage]
) -> None:
    """Print what would be made, what the services will say, and each request; write about.toml with blanks alone."""
    lines = [f"{one.name}: {one.title}, {one.estimator.estimator.title}" for one in selected]
    lines += ["", check.write_check(about, selected, images, options.kinds)]
    if options.upload:
        _say_what_lacks(options, about)
        server = options.server or upload.SERVER
        lines += [f"Requests to {server}:", *map(str, _plan(options, about, selected, images))]
    write_out("\n".join(lines) + "\n")
    with open_output(options.pack_dir) as pack:
        _offer_about(pack, options, selected)
