"""The command line of ``ibma-publish``."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ibma_app.core.system.folders import absolute_path
from ibma_app.workflows.options.parse import Parser, with_hyphens

KINDS = ("nidm", "neurovault", "nimads")
EPILOG = """examples:
  ibma-publish results pack --dry-run                  what would be made; pack/about.toml has blanks to fill in
  ibma-publish results pack --about pack/about.toml
  ibma-publish results pack --about pack/about.toml --upload neurovault --token-file token.txt --private
exit codes: 0 done, 18 nothing to publish, 64 usage, 66 OUTPUT_DIR or a file missing, 73 PACK_DIR not writable,
  74 I/O error, or refused by the server
"""


@dataclass(frozen=True)
class PublishOptions:
    """The options of ``ibma-publish``."""

    output_dir: Path
    pack_dir: Path
    analysis: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    estimator: tuple[str, ...] = ()
    kinds: tuple[str, ...] = KINDS
    about: Path | None = None
    upload: str = ""
    token_file: Path | None = None
    private: bool = False
    server: str = ""
    dry_run: bool = False
    verbose: int = 0
    quiet: bool = False


def build_publish_parser() -> argparse.ArgumentParser:
    """Build the parser of ``ibma-publish``."""
    from ibma_app import __version__

    parser = Parser(
        prog="ibma-publish",
        description="Make packs of group results for others: NIDM-Results, a NeuroVault folder, NIMADS.",
        epilog=EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="ibma-publish OUTPUT_DIR PACK_DIR [options]",
    )
    parser.add_argument("output_dir", type=Path, metavar="OUTPUT_DIR", help="results of ibma-app ... group")
    parser.add_argument("pack_dir", type=Path, metavar="PACK_DIR", help="where the packs go")
    for name, meaning in (("analysis", "only these"), ("test", "only these tests"),
                          ("estimator", "of these estimators [the first of each analysis]")):  # fmt: skip
        parser.add_argument(f"--{name}", nargs="+", action="extend", metavar="NAME", default=[], help=meaning)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="what is made [all]")
    parser.add_argument("--about", type=Path, metavar="FILE", help="about.toml: title, authors, DOI, task, licence")
    parser.add_argument("--upload", choices=("neurovault",), default="", help="send the NeuroVault folder there")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="with the token of your NeuroVault account")
    parser.add_argument("--private", action="store_true", help="the collection that is uploaded is private")
    parser.add_argument("--server", metavar="URL", default="", help="another NeuroVault [https://neurovault.org]")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would be made and sent; write about.toml alone",
    )
    parser.add_argument("-v", "--verbose", action="count", default=0, help="more messages; -vv: tracebacks too")
    parser.add_argument("-q", "--quiet", action="store_true", help="warnings and errors only")
    parser.add_argument("--version", action="version", version=f"ibma-publish {__version__}")
    return parser


def parse_publish(argv: Sequence[str]) -> PublishOptions:
    """Parse the command line of ``ibma-publish``.

    Raises
    ------
    UsageError
        An unknown option or kind.
    """
    given = vars(build_publish_parser().parse_args([with_hyphens(word) for word in argv]))
    lists = {key: tuple(value) for key, value in given.items() if isinstance(value, list)}
    folders = {key: absolute_path(given[key]) for key in ("output_dir", "pack_dir")}
    return PublishOptions(**{**given, **lists, **folders})
