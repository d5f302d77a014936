"""What mkdocs does not do by itself: pages from outside docs/, patterns in the navigation, the demonstration's reports.

``IBMA_GALLERY=FOLDER mkdocs build --strict`` adds the reports of the demonstration in FOLDER to the page "Gallery".
Where there is no such folder the demonstration is run (ibma-app must be installed). Reports are never committed.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {"README.md": "readme.md", "CONTRIBUTING.md": "contributing.md", "CHANGES.md": "changes.md"}
LINK = re.compile(r"\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]*)?\)")
MARK = "<!-- gallery -->"
DATASETS = {"subjects": "Subjects into a group", "studies": "Studies into a meta-analysis"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the repository's top folder and the gallery, and resolve the patterns of the navigation."""
    for source, name in OUTSIDE.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    for path, name in _reports(config):
        files.append(File.generated(config, name, abs_src_path=str(path)))
    pages = sorted(file.src_uri for file in files.documentation_pages())
    config.nav = _resolve(config.nav, pages)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links out of docs/ to where their pages stand in the site; what is not in it becomes plain text."""
    if MARK in markdown:
        markdown = markdown.replace(MARK, "\n".join(_cards(config)))
    uri = page.file.src_uri
    here = "" if uri in OUTSIDE.values() else posixpath.dirname(f"docs/{uri}")

    def turn(match: re.Match[str]) -> str:
        text, target, anchor = match.group(1), match.group(2), match.group(3) or ""
        if "://" in target:
            return match.group()
        path = posixpath.normpath(posixpath.join(here, target))
        name = OUTSIDE.get(path, path.removeprefix("docs/"))
        if (ROOT / path).exists() and not files.get_file_from_path(name):
            return text  # in the repository, not in the site
        return f"[{text}]({posixpath.relpath(name, posixpath.dirname(uri) or '.')}{anchor})"

    return LINK.sub(turn, markdown)


def _resolve(entry: Any, pages: list[str]) -> Any:
    """Replace each pattern by the pages that it fits; a pattern that fits none vanishes."""
    if isinstance(entry, dict):
        return {title: _resolve(inside, pages) for title, inside in entry.items()}
    if isinstance(entry, list):
        return [found for one in entry for found in (_fitting(one, pages) or [_resolve(one, pages)]) if found]
    return None if "*" in entry else entry


def _fitting(entry: Any, pages: list[str]) -> list[str]:
    """List the pages that a pattern fits."""
    if not isinstance(entry, str) or "*" not in entry:
        return []
    pattern = re.escape(entry).replace(r"\*", "[^/]*")
    return [page for page in pages if re.fullmatch(pattern, page)]


def _reports(config: MkDocsConfig) -> Iterator[tuple[Path, str]]:
    """Yield the demonstration's pages and pictures, and their names in the site."""
    if not config.extra["gallery"]:
        return
    demo = Path(config.extra["gallery"]).resolve()
    if not demo.exists():
        from ibma_app.workflows.demo.run_demo import run_demo

        if code := run_demo(demo):
            raise PluginError(f"the demonstration in {demo} ended with exit code {code}")
    for dataset in DATASETS:
        results = demo / "results" / dataset
        found = [*sorted(results.glob("*.html")), *sorted(results.glob("figures/*_corr-fdr_stat-z_glass.svg"))]
        if not found:
            raise PluginError(f"{results} holds no reports: is {demo} the folder of an ibma-demo?")
        for path in found:
            yield path, f"gallery/{dataset}/{path.relative_to(results).as_posix()}"


def _cards(config: MkDocsConfig) -> Iterator[str]:
    """Yield the gallery in Markdown: a heading for each dataset, a link for each page."""
    names = [name for _, name in _reports(config)]
    if not names:
        yield "This copy of the site was built without them."
    for dataset, title in DATASETS.items():
        prefix = f"gallery/{dataset}/"
        ours = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        if not ours:
            continue
        yield f"\n## {title}\n"
        yield f"- [Index of the reports]({prefix}report.html)"
        for name in ours:
            if name.startswith("group_") and name.endswith(".html"):
                yield f"- [Group: {Path(name).stem.removeprefix('group_')}]({prefix}{name})"
        people = [f"[{Path(name).stem}]({prefix}{name})" for name in ours if re.fullmatch(r"sub-\w+\.html", name)]
        if people:
            yield f"- Participants: {', '.join(people)}"
        yield from (f"\n![{Path(name).stem}]({prefix}{name})\n" for name in ours if name.endswith(".svg"))
