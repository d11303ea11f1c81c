"""A page as a tree of its elements, for tests; a page that is not well-formed fails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br", "img", "input", "link", "hr", "base", "source", "embed"}


@dataclass
class Element:
    """An element with its attributes, and its elements and texts in their order."""

    tag: str
    attributes: dict[str, str | None]
    content: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text inside, with single blanks."""
        return " ".join("".join(part if isinstance(part, str) else f" {part.text} " for part in self.content).split())

    def all(self, *tags: str) -> list[Element]:
        """Return all elements inside that have one of these tags, or simply all."""
        return [element for element in self._inside() if not tags or element.tag in tags]

    def _inside(self) -> Iterator[Element]:
        for part in self.content:
            if isinstance(part, Element):
                yield part
                yield from part._inside()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Element("", {})]

    def handle_starttag(self, tag, attributes):
        assert len({name for name, _ in attributes}) == len(attributes), f"<{tag}> repeats an attribute"
        element = Element(tag, dict(attributes))
        self.open[-1].content.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attributes):
        self.open[-1].content.append(Element(tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>, at {self.getpos()}"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].content.append(data)


def read_page(text: str) -> Element:
    """Return the root of a page."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert len(reader.open) == 1, f"<{reader.open[-1].tag}> is not closed"
    return reader.open[0]


def table(root: Element, caption: str) -> list[dict[str, str]]:
    """Return the rows of the table whose caption starts with a text, as texts by head."""
    (found,) = [table for table in root.all("table") if table.all("caption")[0].text.startswith(caption)]
    heads = [head.text for head in found.all("th")]
    return [
        dict(zip(heads, [cell.text for cell in row.all("td")], strict=True)) for row in found.all("tbody")[0].all("tr")
    ]
