"""Hooks of the documentation site: its first page is the README, and CHANGELOG.md is a page."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changes.md", "CITATION.cff": "CITATION.cff"}
"""File of the project outside docs/ -> its name in the site."""


def on_files(files: Files, config: Any) -> Files:  # noqa: ANN401 - as mkdocs calls it
    """Add the files of PAGES."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text()
        files.append(File.generated(config, page, content=from_docs(text)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Let links to files outside docs/ lead to their pages."""
    for name, page in PAGES.items():
        markdown = markdown.replace(f"](../{name})", f"]({page})")
    return markdown


def from_docs(text: str) -> str:
    """Return a text of the project's folder with its links as seen from docs/."""
    for name, page in PAGES.items():
        text = text.replace(f"]({name})", f"]({page})")
    return text.replace("](docs/", "](")
