"""The stages `watermarking` and `post_lora_watermarking`: their settings, and how a picture gets its watermark.

The section is `watermark`, with the keys that existing files have; docs/watermark.md has each of them.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

from pydantic import BeforeValidator, Field

from skicyclerun.errors import StageError
from skicyclerun.settings.section import Section, StageSection, Text, Texts
from skicyclerun.stages.stage import ForNow, Made, Picture, Recipe, Stage, Surroundings
from skicyclerun.stages.watermark_text import Facts, Words, line_of, parse

if TYPE_CHECKING:
    from skicyclerun.images.fonts import Font
    from skicyclerun.images.watermark import LineStyle, Style

#: Characters of a template.
MAX_TEMPLATE: Final = 400

Rgba = tuple[int, int, int, int]

_HEX: Final = re.compile(r"#([0-9a-fA-F]{6}|[0-9a-fA-F]{8})")


# ── values ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _template(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"must be a text with placeholders such as {{place}}, not {value!r:.60}")
    if len(value) > MAX_TEMPLATE:
        raise ValueError(f"is {len(value)} characters long; at most {MAX_TEMPLATE} are allowed")
    parse(value)
    return value


def _color(value: object) -> Rgba | None:
    if value is None:
        return None
    if isinstance(value, str) and (found := _HEX.fullmatch(value)):
        numbers = list(bytes.fromhex(found[1]))
    elif isinstance(value, list | tuple):
        numbers = [part for part in value if type(part) is int and 0 <= part <= 255]
        if len(numbers) != len(value):
            numbers = []
    else:
        numbers = []
    if len(numbers) not in (3, 4):
        raise ValueError(
            f"must be a colour: three or four whole numbers from 0 to 255 (red, green, blue, opacity), or a text such "
            f'as "#ffffff" or "#ffffffdc", not {value!r:.60}'
        )
    red, green, blue, opacity = (*numbers, 255)[:4]
    return red, green, blue, opacity


def _position(value: object) -> object:
    """`bottom-right` and `Bottom Right` are `bottom_right`; the middle of a side has either name."""
    if not isinstance(value, str):
        return value
    name = re.sub(r"[\s-]+", "_", value.strip().lower()).replace("centre", "center").replace("middle", "center")
    vertical, _, horizontal = name.partition("_")
    if name == "center_center":
        return "center"
    return f"{horizontal}_{vertical}" if vertical in ("left", "right") else name


def _year(value: object) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= 9999:
        raise ValueError(f"must be a year or null, not {value!r:.60}")
    return value


def _number(low: float, high: float, what: str) -> BeforeValidator:
    """A number that may be left to its default."""

    def check(value: object) -> float | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(f"must be {what} from {low:g} to {high:g}, not {value!r:.60}")
        return float(value)

    return BeforeValidator(check)


TemplateText = Annotated[str | None, BeforeValidator(_template)]
Color = Annotated[Rgba | None, BeforeValidator(_color)]
Size = Annotated[float | None, _number(1, 2000, "a size in pixels")]
Width = Annotated[float | None, _number(0, 200, "a width in pixels")]
Year = Annotated[int | None, BeforeValidator(_year)]
Position = Annotated[
    Literal[
        "top_left",
        "top_center",
        "top_right",
        "center_left",
        "center",
        "center_right",
        "bottom_left",
        "bottom_center",
        "bottom_right",
    ],
    BeforeValidator(_position),
]


# ── the section ───────────────────────────────────────────────────────────────────────────────────────────────────


class WatermarkFont(Section):
    """The fonts, and how both lines look where their own sections do not say."""

    path: Text | None = None
    """A font file; relative to the folder of the configuration file."""
    fallback_paths: Texts = ()
    """Asked in this order where `path` is not there or lacks a character."""
    family: Text | None = None
    """Family and style, looked for in the system's font folders by the names of the files."""
    system_fallback: bool = True
    """Whether the system's own fonts may draw what the ones above lack."""
    size: Size = None
    min_size: Size = None
    color: Color = None
    stroke_color: Color = None
    stroke_width: Width = None
    max_width_percent: float = Field(default=65.0, gt=0, le=100, allow_inf_nan=False)
    fit_mode: Literal["shrink_to_fit", "none"] = "shrink_to_fit"


class WatermarkLine(Section):
    """One of the two lines; what is left out is as in `font`."""

    format: TemplateText = None
    font_size: Size = None
    min_size: Size = None
    color: Color = None
    stroke_color: Color = None
    stroke_width: Width = None


class WatermarkMargin(Section):
    """Pixels between the watermark and the edges of the picture."""

    x: float = Field(default=50.0, ge=0, le=10_000, allow_inf_nan=False)
    y: float = Field(default=40.0, ge=0, le=10_000, allow_inf_nan=False)


#: Of the first and the second line: size, smallest size, stroke.
_DEFAULT_SIZES: Final = ((28.0, 20.0, 3.0), (16.0, 12.0, 2.0))
_WHITE: Final = (255, 255, 255, 220)
_BLACK: Final = (0, 0, 0, 255)
_LINE_1: Final = "{place}"
_LINE_2: Final = "© {year} {symbol}"


class WatermarkSettings(StageSection):
    """The section `watermark`. Pixels are those of a picture whose longest side is `reference_dimension`."""

    templates: ClassVar[frozenset[str]] = frozenset(
        {"line1", "line2", "format", "location_line.format", "copyright_line.format"}
    )

    line1: TemplateText = None
    line2: TemplateText = None
    format: TemplateText = None
    """Of older files: the only line."""
    layout: Literal["one_line", "two_line"] | None = None
    location_line: WatermarkLine = WatermarkLine()
    """How the first line looks."""
    copyright_line: WatermarkLine = WatermarkLine()
    """How the second line looks."""
    line1_prefer_llm: bool = False
    line2_prefer_llm: bool = False
    symbol: Annotated[str, Field(max_length=32)] = ""
    fixed_year: Year = None
    year_offset: int = Field(default=0, ge=-1000, le=1000)
    line_spacing: float = Field(default=8.0, ge=0, le=1000, allow_inf_nan=False)
    font: WatermarkFont = WatermarkFont()
    position: Position = "bottom_right"
    margin: WatermarkMargin = WatermarkMargin()
    reference_dimension: int = Field(default=2048, ge=0, le=100_000)
    quality: int = Field(default=90, ge=1, le=100)
    dry_run: bool = False

    def line_templates(self) -> tuple[str, str]:
        """The templates of the two lines; an empty one is not drawn.

        The first is `line1`, else `location_line.format`, else `format`, else `{place}`. The second is `line2`, else
        `copyright_line.format`, else `© {year} {symbol}`; there is none where `format` is the first or `layout` is
        `one_line`. With `layout: two_line` `format` means nothing: such files have it left over.
        """
        only = self.format if self.layout != "two_line" else None
        first = _first(self.line1, self.location_line.format, only, _LINE_1)
        alone = only is not None and self.line1 is None and self.location_line.format is None
        second = _first(self.line2, self.copyright_line.format, "" if alone else _LINE_2)
        return first, "" if self.layout == "one_line" else second

    def style(self) -> Style:
        """How it is to be drawn, every default filled in."""
        from skicyclerun.images.watermark import Style

        vertical, _, horizontal = self.position.partition("_")
        return Style(
            lines=(self._line_style(self.location_line, 0), self._line_style(self.copyright_line, 1)),
            vertical=vertical,
            horizontal=horizontal or "center",
            margin_x=self.margin.x,
            margin_y=self.margin.y,
            line_spacing=self.line_spacing,
            max_width_percent=self.font.max_width_percent,
            shrink=self.font.fit_mode == "shrink_to_fit",
            reference_dimension=self.reference_dimension,
        )

    def _line_style(self, line: WatermarkLine, number: int) -> LineStyle:
        from skicyclerun.images.watermark import LineStyle

        size, min_size, stroke = _DEFAULT_SIZES[number]
        font = self.font
        return LineStyle(
            size=_first(line.font_size, font.size, size),
            min_size=_first(line.min_size, font.min_size, min_size),
            color=_first(line.color, font.color, _WHITE),
            stroke_color=_first(line.stroke_color, font.stroke_color, _BLACK),
            stroke_width=_first(line.stroke_width, font.stroke_width, stroke),
        )


def _first(*values: Any) -> Any:
    """The first that is set; an empty text is."""
    return next(value for value in values if value is not None)


# ── the recipe ────────────────────────────────────────────────────────────────────────────────────────────────────


class Watermarking(Recipe):
    """Writes the watermark on one picture after the other."""

    extension = "="

    def __init__(self, settings: WatermarkSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._surroundings = surroundings
        self._templates = tuple(map(parse, settings.line_templates()))
        self._words = Words(settings.symbol, settings.fixed_year, settings.year_offset)
        self._lock = threading.Lock()
        self._chain: tuple[Font, ...] = ()
        self._look: dict[str, object] = {}
        """What all pictures share of what a result depends on."""
        self._of_first: set[str] = set()
        """Characters that the first font is known to have."""
        self._drawable: set[str] = set()
        """Characters that the fonts are known to draw."""

    def check(self) -> None:
        """Raises StageError where Pillow was built without FreeType and cannot draw texts at all."""
        from PIL import features

        if not features.check("freetype2"):
            raise StageError(
                "This Pillow was built without FreeType and cannot draw a watermark.",
                next_step="`pip install --force-reinstall pillow` brings one that can.",
            )

    def open(self) -> None:
        """Look for the fonts. One that is not there is said, and another one is used."""
        self._fonts()

    def depends_on(self, picture: Picture) -> Mapping[str, object]:
        """The texts, all that says how they look, and the fonts that draw them."""
        from skicyclerun.images.watermark import layout_engine

        lines, _ = self._lines(picture)
        if not any(lines):
            return {"lines": lines}
        if not self._look:
            self._look = {
                "style": asdict(self._settings.style()),
                "quality": self._settings.quality,
                "layout": layout_engine(),
            }
        return {**self._look, "lines": lines, "fonts": [font.sha256 for font in self._fonts_of(lines)]}

    def left_out(self, picture: Picture) -> str:
        """With `dry_run`: every picture, and what would be written on it."""
        if not self._settings.dry_run:
            return ""
        said = " / ".join(f'"{line}"' for line in self._lines(picture)[0] if line)
        return ForNow(f"dry_run: would say {said or 'nothing'}")

    def make(self, picture: Picture, staged: Path | None) -> Made:
        """Write the picture with its watermark; `watermark` of its entry says which text it got."""
        from skicyclerun.images.watermark import write_watermarked

        if staged is None:
            raise ValueError("a watermark needs a file to be written to")
        lines, missing = self._lines(picture)
        fonts = self._fonts_of(lines)
        settings = self._settings
        written = write_watermarked(picture.path, staged, lines, settings.style(), fonts, settings.quality)
        notes = [written.note] if written.note else []
        if missing:
            notes.append(f"no font here has {' '.join(missing[:20])}; the watermark does without")
        facts: dict[str, object] = {}
        if written.drawn:
            text = "\n".join(line for line in lines if line)
            facts["watermark"] = {"text": text, "font": fonts[0].name, "position": settings.position}
        return Made(facts, written.width, written.height, "; ".join(notes))

    def _lines(self, picture: Picture) -> tuple[list[str], list[str]]:
        """The texts of both lines, as they can be drawn, and the characters that no font has."""
        from skicyclerun.images.text_runs import Fitting

        fitting = Fitting(self._fonts(), self._drawable)
        facts = Facts(picture.facts, self._words, picture.variant, fitting.text)
        prefer_llm = (self._settings.line1_prefer_llm, self._settings.line2_prefer_llm)
        lines = []
        for number, template in enumerate(self._templates):
            suggested = facts.suggested(f"watermark_line{number + 1}") if prefer_llm[number] else ""
            lines.append(suggested or fitting.characters(line_of(template, facts.text)).strip())
        return lines, list(fitting.missing)

    # ── fonts ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _fonts(self) -> tuple[Font, ...]:
        """All fonts, in the order in which they are asked for a character; the first gives the lines their height."""
        with self._lock:
            if not self._chain:
                self._chain = self._look_for_fonts()
            return self._chain

    def _fonts_of(self, lines: Sequence[str]) -> tuple[Font, ...]:
        """The first font, and those among the others that draw something of these lines."""
        from skicyclerun.images.text_runs import runs_of

        chain = self._fonts()
        first = chain[0]
        unknown = set().union(*lines) - self._of_first
        if all(map(first.has, unknown)):
            self._of_first |= unknown
            return (first,)
        used = {id(run.font) for line in lines if line for run in runs_of(line, chain)}
        return tuple(font for font in chain if font is chain[0] or id(font) in used)

    def _look_for_fonts(self) -> tuple[Font, ...]:
        from skicyclerun.images.fonts import WIDE_FONTS, FontFiles, built_in, font_file, system_folders

        wanted = self._settings.font
        system = FontFiles(system_folders())
        chain: list[Font] = []
        absent: list[str] = []
        for text in filter(None, (wanted.path, *wanted.fallback_paths)):
            font = font_file(self._surroundings.config_folder / Path(text).expanduser())
            if font.usable:
                chain.append(font)
            elif text == wanted.path:
                absent.append(text)
        if wanted.family:
            found = system.find(wanted.family)
            if found is not None and (font := font_file(found)).usable:
                chain.append(font)
            else:
                absent.append(wanted.family)
        if wanted.fallback_paths and not wanted.path and not chain:
            absent.append(wanted.fallback_paths[0])
        if wanted.system_fallback:
            # Read only when something is to be drawn that the ones before them lack.
            chain += [font_file(found) for name in WIDE_FONTS if (found := system.find(name)) is not None]
        chain.append(built_in())
        while not chain[0].usable:
            del chain[0]
        for name in absent:
            self._surroundings.say(
                f"watermark: the font {name} is not there or cannot be read; {chain[0].name} is used"
            )
        return tuple(chain)


_PATHS: Final = ("watermarked_final", "metadata_dir", "master_catalog", "state_db")

STAGES: Final = (
    Stage(
        "watermarking",
        "writes the watermark on the scaled pictures",
        needs_paths=("preprocessed", *_PATHS),
        makes_paths=_PATHS,
        section="watermark",
        settings=WatermarkSettings,
        recipe=Watermarking,
        reads="preprocessing",
        output="watermarked_final",
        entry_type="watermarked",
    ),
    Stage(
        "post_lora_watermarking",
        "writes the watermark on restyled pictures",
        needs_paths=("lora_processed", *_PATHS),
        makes_paths=_PATHS,
        section="watermark",
        settings=WatermarkSettings,
        recipe=Watermarking,
        reads="lora_processing",
        output="watermarked_final",
        entry_type="lora_watermarked",
    ),
)
