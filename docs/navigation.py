"""The order of the pages, for the site's sidebar and for llms.txt."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

DOCS = Path(__file__).parent
RAW = "https://raw.githubusercontent.com/airflow-provider-workflows/airflow-provider-workflows/main/docs/"


def sections() -> dict[str, list[str]]:
    """Return the pages below each caption, with the pages that a pattern in ``navigation.yaml`` stands for."""
    written = yaml.safe_load((DOCS / "navigation.yaml").read_text())
    named = {page for pages in written.values() for page in pages}
    return {
        caption: [found for page in pages for found in (sorted(_matching(page) - named) if "*" in page else [page])]
        for caption, pages in written.items()
    }


def _matching(pattern: str) -> set[str]:
    return {page.relative_to(DOCS).with_suffix("").as_posix() for page in DOCS.glob(f"{pattern}.md")}


def llms_txt() -> str:
    """Return an index of the pages for language models, as https://llmstxt.org describes it."""
    title, summary = _title_and_summary("index")
    lines = [f"# {title}", "", f"> {summary}"]
    for caption, pages in sections().items():
        lines += ["", f"## {caption}", ""]
        for page in pages:
            title, summary = _title_and_summary(page)
            lines.append(f"- [{title}]({RAW}{page}.md): {summary}")
    return "\n".join(lines) + "\n"


def _title_and_summary(page: str) -> tuple[str, str]:
    """Return the heading and the first sentence of a page."""
    text = re.sub(r"^```.*?^```$", "", (DOCS / f"{page}.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    title = re.search(r"^# (.+)$", text, re.MULTILINE)
    first = re.search(r"^(?![#!<>`|-])\S.*(?:\n(?!\n).+)*", text, re.MULTILINE)
    assert title, f"docs/{page}.md has no title"
    assert first, f"docs/{page}.md has no text"
    words = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", " ".join(first[0].split()))
    sentence = re.match(r".*?\.(?= |$)", words)
    return title[1], sentence[0] if sentence else words
