"""XMP for a picture that has none: held as plain values, and written as exiv2 would write it.

Setting a value through exiv2 and having Adobe's toolkit serialise it costs more than all else that is done to a photo's
tags, sixteen values for each face most of all. What this program writes are few properties of three shapes (a text by
language, a list, a number) and the regions of faces, so their RDF is put together here. exiv2 is asked once in a
process whether it writes the same; if it does not, and for whatever goes beyond this, it does the work.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from skicyclerun.images.jpeg_segments import XMP
from skicyclerun.images.tag_index import TagIndex

REGIONS: Final = "Xmp.mwg-rs.Regions"
REGION_LIST: Final = f"{REGIONS}/mwg-rs:RegionList"
REGIONS_SIZE: Final = f"{REGIONS}/mwg-rs:AppliedToDimensions"
PEOPLE: Final = "Xmp.MP.RegionInfo"
PEOPLE_LIST: Final = f"{PEOPLE}/MPRI:Regions"
FACE: Final = "Face"

# A JPEG's segment holds 64 kB; from here on exiv2 judges, and what does not fit is shortened.
_MOST_BYTES: Final = 60_000

_NAMESPACES: Final = {
    "dc": "http://purl.org/dc/elements/1.1/",
    "xml": "http://www.w3.org/XML/1998/namespace",
    "iptcExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
    "stArea": "http://ns.adobe.com/xmp/sType/Area#",
    "stDim": "http://ns.adobe.com/xap/1.0/sType/Dimensions#",
    "MP": "http://ns.microsoft.com/photo/1.2/",
    "MPRI": "http://ns.microsoft.com/photo/1.2/t/RegionInfo#",
    "MPReg": "http://ns.microsoft.com/photo/1.2/t/Region#",
    "xmp": "http://ns.adobe.com/xap/1.0/",
}
_DECLARED: Final = {prefix: f' xmlns:{prefix}="{uri}"' for prefix, uri in _NAMESPACES.items()}
_OF_REGIONS: Final = "".join(_DECLARED[prefix] for prefix in ("mwg-rs", "stArea", "stDim", "MP", "MPRI", "MPReg"))

# What is written here, and how its element is called.
_TEXTS_BY_LANGUAGE: Final = {"Xmp.dc.title": "dc:title", "Xmp.dc.description": "dc:description"}
_LISTS: Final = {"Xmp.dc.subject": "dc:subject", "Xmp.iptcExt.PersonInImage": "iptcExt:PersonInImage"}
_NUMBERS: Final = {"Xmp.xmp.Rating": "xmp:Rating"}

# As Adobe's toolkit escapes: in an attribute, and between tags.
_IN_TEXT: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\t": "&#x9;", "\n": "&#xA;", "\r": "&#xD;"})
_IN_ATTRIBUTE: Final = {**_IN_TEXT, ord('"'): "&quot;"}
_ESCAPED: Final = re.compile('[&<>"\t\n\r]')


@dataclass(frozen=True, slots=True)
class Region:
    """A face: its name, and the numbers of both kinds of region as they are written."""

    name: str
    centre: tuple[str, str, str, str]
    """x and y of its centre, width, height, in shares of the picture."""
    rectangle: str
    """Left, top, width and height."""


@dataclass(frozen=True, slots=True)
class Regions:
    """The faces of a picture of so many pixels, which is as it is stored."""

    width: int
    height: int
    faces: tuple[Region, ...]

    def leaves(self) -> dict[str, str]:
        """Key → text of all that hold a text, in order."""
        size = REGIONS_SIZE
        leaves = {
            f"{size}/stDim:w": str(self.width),
            f"{size}/stDim:h": str(self.height),
            f"{size}/stDim:unit": "pixel",
        }
        for number, face in enumerate(self.faces, start=1):
            region, person = f"{REGION_LIST}[{number}]", f"{PEOPLE_LIST}[{number}]"
            x, y, across, down = face.centre
            leaves |= {
                f"{region}/mwg-rs:Name": face.name,
                f"{region}/mwg-rs:Type": FACE,
                f"{region}/mwg-rs:Area/stArea:x": x,
                f"{region}/mwg-rs:Area/stArea:y": y,
                f"{region}/mwg-rs:Area/stArea:w": across,
                f"{region}/mwg-rs:Area/stArea:h": down,
                f"{region}/mwg-rs:Area/stArea:unit": "normalized",
                f"{person}/MPReg:PersonDisplayName": face.name,
                f"{person}/MPReg:Rectangle": face.rectangle,
            }
        return leaves

    def rdf(self) -> str:
        """Both kinds, as elements."""
        areas, people = [], []
        for face in self.faces:
            name = _escaped(face.name, _IN_ATTRIBUTE)
            x, y, across, down = face.centre
            areas.append(
                f'<rdf:li> <rdf:Description mwg-rs:Name="{name}" mwg-rs:Type="Face"> <mwg-rs:Area stArea:x="{x}"'
                f' stArea:y="{y}" stArea:w="{across}" stArea:h="{down}" stArea:unit="normalized"/>'
                " </rdf:Description> </rdf:li> "
            )
            people.append(f'<rdf:li MPReg:PersonDisplayName="{name}" MPReg:Rectangle="{face.rectangle}"/> ')
        return (
            f'<mwg-rs:Regions rdf:parseType="Resource"> <mwg-rs:RegionList> <rdf:Bag> {"".join(areas)}</rdf:Bag>'
            f' </mwg-rs:RegionList> <mwg-rs:AppliedToDimensions stDim:w="{self.width}" stDim:h="{self.height}"'
            ' stDim:unit="pixel"/> </mwg-rs:Regions> <MP:RegionInfo rdf:parseType="Resource"> <MPRI:Regions>'
            f" <rdf:Bag> {''.join(people)}</rdf:Bag> </MPRI:Regions> </MP:RegionInfo> "
        )


def put_regions(exiv2: Any, xmp: TagIndex, regions: Regions) -> None:
    """Add them through exiv2, to XMP that has none."""
    structure, bag = exiv2.XmpTextValue(""), exiv2.XmpTextValue("")
    structure.setXmpStruct(exiv2.XmpValue.XmpStruct.xsStruct)
    bag.setXmpArrayType(exiv2.XmpValue.XmpArrayType.xaBag)
    for node, value in ((REGIONS, structure), (REGION_LIST, bag), (PEOPLE, structure), (PEOPLE_LIST, bag)):
        xmp.put(node, value)
    for key, text in regions.leaves().items():
        xmp.put(key, text)


class NewXmp(TagIndex):
    """The XMP of a header that has none, as plain values for as long as nobody asks for anything else."""

    __slots__ = ("_exiv2", "_handed_over", "_said")

    def __init__(self, exiv2: Any, data: Any) -> None:
        """`data`: exiv2's, empty."""
        self._exiv2 = exiv2
        self._said: dict[str, str | tuple[str, ...] | Regions] | None = {}
        """By key, in the order they were set; None once exiv2 has them."""
        super().__init__(data)

    @property
    def _data(self) -> Any:
        """exiv2's, which has all of it from now on."""
        if self._said is not None:
            said, self._said, changed = self._said, None, self.changed
            for key, value in said.items():
                if isinstance(value, Regions):
                    put_regions(self._exiv2, self, value)
                elif isinstance(value, tuple):
                    super().put_list(self._exiv2, key, value)
                elif key in _TEXTS_BY_LANGUAGE:
                    super().put_text_by_language(self._exiv2, key, value)
                else:
                    super().put(key, value)
            self.changed = changed
        return self._handed_over

    @_data.setter
    def _data(self, data: Any) -> None:
        self._handed_over = data

    # ── questions ─────────────────────────────────────────────────────────────────────────────────────────────────

    def __contains__(self, key: str) -> bool:
        if self._said is None or key.startswith((REGIONS, PEOPLE)):
            return super().__contains__(key)
        return key in self._said

    @property
    def empty(self) -> bool:
        return super().empty if self._said is None else not self._said

    def text(self, key: str) -> str:
        value = "" if self._said is None else self._said.get(key, "")
        if self._said is None or (key not in _NUMBERS and value != ""):
            return super().text(key)
        return str(value)

    def text_by_language(self, key: str) -> str:
        if self._said is None or key not in _TEXTS_BY_LANGUAGE:
            return super().text_by_language(key)
        return str(self._said.get(key, ""))

    def items_of(self, key: str) -> tuple[str, ...]:
        if self._said is None or key not in _LISTS:
            return super().items_of(key)
        found = self._said.get(key, ())
        assert isinstance(found, tuple)
        return found

    # ── changes ───────────────────────────────────────────────────────────────────────────────────────────────────

    def put(self, key: str, value: Any) -> None:
        if self._said is None or key not in _NUMBERS:
            super().put(key, value)
        else:
            self._say(self._said, key, value)

    def put_text_by_language(self, exiv2: Any, key: str, text: str) -> None:
        if self._said is None or key not in _TEXTS_BY_LANGUAGE:
            super().put_text_by_language(exiv2, key, text)
        else:
            self._say(self._said, key, text)

    def put_list(self, exiv2: Any, key: str, texts: tuple[str, ...]) -> None:
        if self._said is None or key not in _LISTS:
            super().put_list(exiv2, key, texts)
        else:
            self._say(self._said, key, texts)

    def put_regions(self, regions: Regions) -> bool:
        """Whether there was room for them: exiv2 has nothing to do with this XMP yet, and there are no others."""
        if self._said is None or REGIONS in self._said:
            return False
        self._say(self._said, REGIONS, regions)
        return True

    def erase_where(self, unwanted: Callable[[str], bool]) -> bool:
        return bool(self._said != {}) and super().erase_where(unwanted)

    def _say(self, said: dict[str, Any], key: str, value: str | tuple[str, ...] | Regions) -> None:
        said[key] = value
        self.changed = True

    # ── written ───────────────────────────────────────────────────────────────────────────────────────────────────

    def segments(self) -> tuple[bytes, ...] | None:
        if not self._said:
            return None
        frame = _frame_of_exiv2(self._exiv2)
        if frame is None:
            return None
        packet = f"{frame[0]}{_description(self._said)}{frame[1]}".encode()
        if len(packet) > _MOST_BYTES:
            return None
        return (b"".join((b"\xff\xe1", (2 + len(XMP) + len(packet)).to_bytes(2, "big"), XMP, packet)),)


def _description(said: dict[str, str | tuple[str, ...] | Regions]) -> str:
    """The element with all properties, its name spaces declared in their order."""
    prefixes: dict[str, str] = {}
    attributes, elements = [], []
    for key, value in said.items():
        if isinstance(value, Regions):
            prefixes["mwg-rs"] = _OF_REGIONS
            elements.append(value.rdf())
        elif isinstance(value, tuple):
            name = _LISTS[key]
            prefix = name.partition(":")[0]
            prefixes.setdefault(prefix, _DECLARED[prefix])
            items = "".join([f"<rdf:li>{_escaped(text, _IN_TEXT)}</rdf:li> " for text in value])
            elements.append(f"<{name}> <rdf:Bag> {items}</rdf:Bag> </{name}> ")
        elif key in _NUMBERS:
            prefixes["xmp"] = _DECLARED["xmp"]
            attributes.append(f' {_NUMBERS[key]}="{value}"')
        else:
            name = _TEXTS_BY_LANGUAGE[key]
            prefixes["dc"] = _DECLARED["dc"] + _DECLARED["xml"]
            text = _escaped(value, _IN_TEXT)
            elements.append(f'<{name}> <rdf:Alt> <rdf:li xml:lang="x-default">{text}</rdf:li> </rdf:Alt> </{name}> ')
    start = f'<rdf:Description rdf:about=""{"".join(prefixes.values())}{"".join(attributes)}'
    return f"{start}> {''.join(elements)}</rdf:Description>" if elements else f"{start}/>"


def _escaped(text: str, table: dict[int, str]) -> str:
    return text if _ESCAPED.search(text) is None else text.translate(table)


_frames: list[tuple[str, str] | None] = []


def _frame_of_exiv2(exiv2: Any) -> tuple[str, str] | None:
    """What exiv2 writes before and behind the description; None if it writes otherwise than this module."""
    if not _frames:
        sample = NewXmp(exiv2, exiv2.XmpData())
        area = Region('A "type" <&>\t', ("0.3", "0.4", "0.1", "0.2"), "0.25, 0.3, 0.1, 0.2")
        sample.put_text_by_language(exiv2, "Xmp.dc.title", 'é <b> & "c"\n\td')
        sample.put_list(exiv2, "Xmp.dc.subject", ("one", "<two>"))
        sample.put_list(exiv2, "Xmp.iptcExt.PersonInImage", ("Ann",))
        sample.put_regions(Regions(640, 480, (area, area)))
        sample.put("Xmp.xmp.Rating", "5")
        assert sample._said is not None
        ours = _description(sample._said)
        flags = exiv2.XmpParser.XmpFormatFlags
        _, packet = exiv2.XmpParser.encode(sample.data, flags.useCompactFormat | flags.omitAllFormatting)
        before, found, after = packet.partition(ours)
        _frames.append((before, after) if found else None)
    return _frames[0]
