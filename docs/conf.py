"""How Sphinx builds the site, without a network; `make docs` runs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # Read the Docs starts Sphinx in this folder

from airflow_provider_workflows import __version__
from docs import navigation

# Read the Docs builds a site for each version, and says which.
VERSION = os.environ.get("READTHEDOCS_GIT_IDENTIFIER", "main")

project = "airflow-provider-workflows"
author = "The airflow-provider-workflows authors"
copyright = author
release = version = __version__
extensions = ["myst_parser", "sphinx_copybutton"]

html_theme = "furo"
html_baseurl = os.environ.get("READTHEDOCS_CANONICAL_URL", "")
html_title = f"{project} {version}"
html_show_sourcelink = False
html_copy_source = False
html_extra_path = ["llms.txt"]
html_theme_options = {
    "source_repository": "https://github.com/airflow-provider-workflows/airflow-provider-workflows/",
    "source_branch": VERSION,
    "source_directory": "docs/",
}
copybutton_exclude = ".linenos, .gp, .go"

myst_heading_anchors = 4

SOURCE = f"https://github.com/airflow-provider-workflows/airflow-provider-workflows/blob/{VERSION}/"


def link_to_source(app: Any, page: str, source: list[str]) -> None:
    """Let links that leave docs/ lead to the repository; on GitHub they work as they are written."""
    source[0] = source[0].replace("](" + "../" * (page.count("/") + 1), "](" + SOURCE)


def add_sidebar(app: Any, page: str, source: list[str]) -> None:
    """Add the sidebar to the first page; a code host would show the directives as text."""
    if page == "index":
        for caption, pages in navigation.sections().items():
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{chr(10).join(pages)}\n```\n"


def setup(app: Any) -> None:
    app.connect("source-read", link_to_source)
    app.connect("source-read", add_sidebar)
