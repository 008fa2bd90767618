"""The pages of a report as a reader without a browser sees them: elements, texts, links."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

_VOID = frozenset({"meta", "img", "link", "br", "hr", "input"})


@dataclass
class Element:
    """One element. `text`: of it and all within."""

    name: str
    attributes: dict[str, str]
    texts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


class Page(HTMLParser):
    """A page, read strictly: every element that is opened is closed in its turn."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(self.source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1].name == tag, f"</{tag}> closes <{self._open[-1].name}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.texts.append(data)

    def all(self, name: str, **attributes: str) -> list[Element]:
        wanted = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
        return [
            each
            for each in self.elements
            if each.name == name and all(each.attributes.get(key) == value for key, value in wanted.items())
        ]

    def one(self, name: str, **attributes: str) -> Element:
        (found,) = self.all(name, **attributes)
        return found

    @property
    def text(self) -> str:
        """Without its style and script."""
        return self.one("body").text.replace(self.all("script")[-1].text, "")

    @property
    def files(self) -> list[Path]:
        """What its links and pictures lead to, on this disk."""
        keys = ("href", "src")
        links = [element.attributes[key] for element in self.elements for key in keys if key in element.attributes]
        found = []
        for link in links:
            parts = urlsplit(link)
            assert (parts.scheme, parts.netloc) == ("", ""), link
            if parts.path:
                target = os.path.join(os.fsencode(self.path.parent), unquote_to_bytes(parts.path))
                found.append(Path(os.fsdecode(os.path.normpath(target))))
        return found


def pages_of(file: Path) -> dict[str, Page]:
    """The pages of the albums, by name."""
    folder = file.with_name(f"{file.stem}_files")
    return {path.name: Page(path) for path in sorted(folder.glob("*.html"))}
