"""A static check of AppleScript source, for machines that have no AppleScript. It compiles nothing.

It knows the part of the language that scripts/osxPhotoExporter.scpt uses and refuses the rest, so that a word nobody
has looked up cannot slip in: a new word means looking it up and adding it here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

# Photos.sdef, as docs/photos-app.md lists it. Classes come in singular and plural, longer terms first.
PHOTOS_CLASSES: Final = ("media item", "album", "folder", "container")
PHOTOS_PLURALS: Final = ("media items", "albums", "folders", "containers")
PHOTOS_PROPERTIES: Final = (
    "favorites album", "recently deleted album", "slideshow running", "parent folder", "name", "frontmost", "version",
    "selection", "keywords", "description", "favorite", "date", "id", "height", "width", "filename", "altitude", "size",
    "location",
)  # fmt: skip
PHOTOS_COMMANDS: Final = ("count", "exists", "open", "quit", "import", "export", "duplicate", "make", "delete", "add")
PHOTOS_TERMS: Final = tuple(
    sorted(
        (*PHOTOS_CLASSES, *PHOTOS_PLURALS, *PHOTOS_PROPERTIES, *PHOTOS_COMMANDS, "using originals"),
        key=lambda term: -len(term.split()),
    )
)

# AppleScript Language Guide: reserved words, classes and properties of the language itself.
LANGUAGE: Final = frozenset(
    """
    a an and application as begins by class contain contains contents continue copy count div does doesn't each else
    end equal equals error every exit false first from get greater if ignoring in is integer into it its item items
    last less list log me missing mod month day year time not number of on or property real repeat rest return returning
    returned run running script second set some starts string tell text than that the then thru times to true try
    try until using value where while with without character characters date id length timeout seconds my name
    applescript's delimiters alias posix path file quoted form after before beginning current start reverse record
    activate
    """.split()
)
# StandardAdditions.sdef.
ADDITIONS: Final = frozenset(
    """
    do shell choose folder prompt default location title ok button buttons multiple selections allowed display dialog
    cancel icon stop caution delay round home path
    """.split()
)

_COME_TO_FRONT: Final = ["tell", "current", "application", "to", "activate"]
_DIALOGS: Final = (["display", "dialog"], ["choose", "from", "list"], ["choose", "folder"])
_FAR: Final = 4
"""Statements between coming to the front and the dialog that is to be there."""

_TOKEN: Final = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*")
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*(?:'s)?)
      | (?P<number>[0-9]+(?:\.[0-9]+)?(?:[Ee][+-]?[0-9]+)?)
      | (?P<sign>>=|<=|/=|[-+*/&=<>(){},:^])
    """,
    re.VERBOSE | re.DOTALL,
)
_EXPORT: Final = re.compile(
    r"export (?:\{ \w+ \}|\w+) to (?:\w+|posix file \w+)"
    r"(?: (?:with|without) using originals| using originals (?:true|false))?\Z"
)


@dataclass(frozen=True, slots=True)
class Token:
    text: str
    """Words in lower case, since AppleScript ignores it; strings with their quotes."""
    kind: str


@dataclass(slots=True)
class Statement:
    line: int
    tokens: list[Token]
    blocks: tuple[str, ...] = ()
    """The blocks around it, outermost first: `on NAME`, `tell photos`, `try` …"""
    handler: str = ""

    @property
    def words(self) -> list[str]:
        return [token.text for token in self.tokens]


@dataclass(slots=True)
class Script:
    statements: list[Statement] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    handlers: dict[str, int] = field(default_factory=dict)
    """Number of parameters, by name."""
    names: dict[str, set[str]] = field(default_factory=dict)
    """Variables and parameters by handler; properties under ``""``."""

    def complain(self, line: int, problem: str) -> None:
        self.problems.append(f"{line}: {problem}")


def check(source: str) -> list[str]:
    """What is wrong with a script, `LINE: problem`; empty where nothing is found."""
    script = Script()
    if not source.isascii():
        number = next(n for n, line in enumerate(source.splitlines(), 1) if not line.isascii())
        script.complain(number, "a character that is not ASCII: its meaning depends on the encoding osascript assumes")
    for line, tokens in _statements(source, script):
        script.statements.append(Statement(line, tokens))
    _check_blocks(script)
    _collect_names(script)
    for statement in script.statements:
        _check_form(script, statement)
        _check_words(script, statement)
        _check_calls(script, statement)
        _check_shell(script, statement)
        _check_export(script, statement)
    _check_loops(script)
    _check_dialogs(script)
    return script.problems


# ── forms ─────────────────────────────────────────────────────────────────────────────────────────────────────────

# What a statement may look like, as the AppleScript Language Guide gives it; E stands for an expression, N for a name,
# L for what can be set. Longer forms first: the first that fits decides.
_FORMS: Final = tuple(
    re.compile(form.replace("E", r"(.+?)").replace("N", r"[a-z_]\w*").replace("L", r"([a-z_{].*?)"))
    for form in (
        "set L to E",
        "copy E to L",
        "else if E then",
        "else",
        "if E then return E",
        "if E then return",
        "if E then exit repeat",
        "if E then (set) L to E",
        "if E then error E number E",
        "if E then",
        "if E then (?:N) \\((.*)\\)",
        "repeat with N in E",
        "repeat with N from E to E by E",
        "repeat with N from E to E",
        "repeat E times",
        "repeat while E",
        "repeat until E",
        "repeat",
        "exit repeat",
        'tell application "Photos" to set L to E',
        'tell application "Photos" to E',
        "tell current application to activate",
        "tell E",
        "try",
        "on error N number N",
        "on error N",
        "on error",
        "on run N",
        "on N \\((.*)\\)",
        "end(?: N)?",
        "return E",
        "return",
        "error E number E",
        "error E",
        "property N : E",
        "with timeout of E seconds",
        "ignoring application responses",
        "log E",
        "delay E",
        "activate",
        "display dialog E(?: buttons E)?(?: default button E)?(?: cancel button E)?(?: with title E)?",
        "export E to E",
        "do shell script E",
        "my N \\((.*)\\)",
        "N \\((.*)\\)",
    )
)
_OPERATORS: Final = frozenset("& + - * / = < > ^ div mod and or is".split())
_UNARY: Final = frozenset({"-", "not"})
_PAIRS: Final = {"(": ")", "{": "}"}


def _check_form(script: Script, statement: Statement) -> None:
    """That the statement is one of the known forms, and that its expressions can be read."""
    words = [f'"{number}"' if token.kind == "string" else token.text for number, token in enumerate(statement.tokens)]
    words = [
        '"Photos"' if token.text == '"Photos"' else word for word, token in zip(words, statement.tokens, strict=True)
    ]
    text = " ".join(words)
    for form in _FORMS:
        match = form.fullmatch(text)
        if match is not None and all(_is_expression(part) for part in match.groups() if part):
            return
    script.complain(statement.line, f"no known form of a statement: {' '.join(statement.words)[:60]}")


def _is_expression(text: str) -> bool:
    """Balanced brackets, and no operator without something on each side."""
    words, open_brackets = text.split(), list[str]()
    for at, word in enumerate(words):
        before, after = words[at - 1] if at else "", words[at + 1] if at + 1 < len(words) else ""
        if word in _PAIRS:
            open_brackets.append(_PAIRS[word])
        elif word in _PAIRS.values():
            if not open_brackets or open_brackets.pop() != word or before in _OPERATORS:
                return False
        elif word in _OPERATORS and (not after or after in (_OPERATORS - _UNARY - {"<", ">", "="})):
            return False
        elif word in _OPERATORS - _UNARY and (not before or before in "({,"):
            return False
    return not open_brackets


# ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _statements(source: str, script: Script) -> Iterator[tuple[int, list[Token]]]:
    position, line, start, tokens, depth = 0, 1, 1, list[Token](), 0
    while position < len(source):
        if source.startswith("(*", position):
            depth, begin = 1, position
            position += 2
            while depth and position < len(source):
                if source.startswith("(*", position):
                    depth, position = depth + 1, position + 2
                elif source.startswith("*)", position):
                    depth, position = depth - 1, position + 2
                else:
                    position += 1
            if depth:
                script.complain(line, "a comment that does not end")
            line += source.count("\n", begin, position)
        elif source.startswith("--", position) or source[position] == "#":
            end = source.find("\n", position)
            position = len(source) if end < 0 else end
        elif source[position] == "\n":
            if tokens:
                yield start, tokens
                tokens = []
            position, line = position + 1, line + 1
            start = line
        elif source[position] in " \t":
            position += 1
        elif (match := _TOKEN.match(source, position)) is not None:
            kind, text = match.lastgroup or "", match.group()
            if not tokens:
                start = line
            tokens.append(Token(text if kind == "string" else text.lower(), kind))
            line += text.count("\n")
            position = match.end()
        else:
            script.complain(line, f"a character that begins nothing: {source[position]!r}")
            position += 1
    if tokens:
        yield start, tokens


# ── blocks ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _check_blocks(script: Script) -> None:
    stack: list[tuple[str, int]] = []
    for statement in script.statements:
        words = statement.words
        first = words[0]
        top = stack[-1][0] if stack else ""
        if first == "end":
            _close(script, statement, stack)
        elif first == "else":
            if top != "if":
                script.complain(statement.line, f"`else` inside {top or 'nothing'}")
            elif words[1:] and (words[1] != "if" or words[-1] != "then"):
                script.complain(statement.line, "`else` that is neither alone nor `else if … then`")
            elif not words[1:]:
                stack[-1] = ("if, else", stack[-1][1])
        elif words[:2] == ["on", "error"]:
            if top != "try":
                script.complain(statement.line, f"`on error` inside {top or 'nothing'}")
        else:
            if first in ("on", "to"):
                if stack:
                    script.complain(statement.line, f"a handler inside {top}")
                statement.handler = words[1]
            opened = _opened(statement)
            statement.blocks = tuple(block for block, _ in stack)
            if opened:
                stack.append((opened, statement.line))
        statement.blocks = tuple(block for block, _ in stack)
        statement.handler = next((name.removeprefix("on ") for name, _ in stack if name.startswith("on ")), "")
    for block, line in stack:
        script.complain(line, f"`{block}` that does not end")


def _opened(statement: Statement) -> str:
    """The block that a statement opens, empty for one that opens none."""
    words = statement.words
    match words[0]:
        case "on" | "to":
            return f"on {words[1]}"
        case "tell":
            # `tell X to …` is one statement; the name of an application cannot be the word `to`.
            return "" if "to" in words else ("tell photos" if _tells_photos(words) else "tell")
        case "if":
            return "if" if words[-1] == "then" else ""
        case "repeat" | "try" | "considering" | "ignoring":
            return words[0]
        case "with":
            return "timeout" if words[1] == "timeout" else ""
        case _:
            return ""


def _close(script: Script, statement: Statement, stack: list[tuple[str, int]]) -> None:
    words = statement.words
    if not stack:
        script.complain(statement.line, f"`{' '.join(words)}` ends nothing")
        return
    block, line = stack.pop()
    name = block.removeprefix("on ") if block.startswith("on ") else block.split(",")[0].split()[0]
    if words[1:] != [name]:
        script.complain(statement.line, f"`{' '.join(words)}` where `end {name}` ends the block of line {line}")


def _tells_photos(words: Sequence[str]) -> bool:
    return words[:3] == ["tell", "application", '"Photos"']


# ── names ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _collect_names(script: Script) -> None:
    properties = script.names.setdefault("", set())
    for statement in script.statements:
        words, names = statement.words, script.names.setdefault(statement.handler, set())
        match words:
            case ["property", name, ":", *_]:
                properties.add(name)
            case ["on", "error", *rest]:
                names.update(word for word in rest if word != "number")
            case ["on", name, "(", *rest]:
                parameters = [word for word in rest if word not in (",", ")")]
                script.handlers[name] = len(parameters)
                names.update(parameters)
            case ["on", name, *rest]:
                names.update(rest)
            case ["repeat", "with", name, *_]:
                names.add(name)
            case _:
                pass
        for at, word in enumerate(words):
            if word == "set" and words[at + 1 : at + 2] == ["{"]:
                names.update(each for each in words[at + 2 : words.index("}", at)] if each != ",")
            elif word == "set" and words[at + 2 : at + 3] == ["to"]:
                names.add(words[at + 1])
            elif at and word == ":" and words[0] != "property":
                properties.add(words[at - 1])  # the label of a record's field
    for handler, names in script.names.items():
        for name in names & _SINGLE_TERMS:
            script.complain(0, f"{handler or 'the script'}: the name {name} means something else to Photos")


_SINGLE_TERMS: Final = frozenset(term for term in PHOTOS_TERMS if " " not in term)


def _inside_photos(statement: Statement) -> Sequence[str] | None:
    """The words that Photos' dictionary applies to, None where there are none."""
    words = statement.words
    if _tells_photos(words):
        return words[words.index("to") + 1 :] if "to" in words else words[3:]
    return words if "tell photos" in statement.blocks else None


def _check_words(script: Script, statement: Statement) -> None:
    known = script.names[""] | script.names.get(statement.handler, set())
    if "whose" in statement.words:
        script.complain(statement.line, "`whose` picks by name, and names repeat")
    if statement.words[0] == "tell" and not _tells_photos(statement.words) and statement.words != _COME_TO_FRONT:
        script.complain(statement.line, f"tells {' '.join(statement.words[1:3])}; only Photos is to be told")
    inside = _inside_photos(statement)
    if inside is None:
        if "export" in statement.words:
            script.complain(statement.line, '`export` outside of `tell application "Photos"`')
        for token in statement.tokens:
            word = token.text
            if token.kind != "word" or word in known or word in LANGUAGE or word in ADDITIONS:
                continue
            if word not in script.handlers and not (statement.words[0] in ("on", "end") and word == "run"):
                script.complain(statement.line, f"nobody knows the word `{word}`")
        return
    at = 0
    while at < len(inside):
        word = inside[at]
        term = next((t for t in PHOTOS_TERMS if inside[at : at + len(t.split())] == t.split()), None)
        if term is not None:
            before, after = (inside[at - 1] if at else ""), inside[at + len(term.split()) :][:1]
            if term in PHOTOS_CLASSES and before != "every" and after != ["id"]:
                script.complain(statement.line, f"`{term}` picked by something else than its id")
            at += len(term.split())
            continue
        if re.match(r"[a-z_]", word) and word not in known and word not in LANGUAGE:
            script.complain(statement.line, f"`{word}` is not in the dictionary of Photos")
        at += 1


def _check_calls(script: Script, statement: Statement) -> None:
    words = statement.words
    if words[0] == "on":
        return
    for at, token in enumerate(statement.tokens[:-1]):
        if token.kind != "word" or words[at + 1] != "(" or token.text in LANGUAGE or token.text in ADDITIONS:
            continue
        if token.text not in script.handlers:
            script.complain(statement.line, f"no handler is called `{token.text}`")
            continue
        if _inside_photos(statement) is not None and words[at - 1] != "my":
            script.complain(statement.line, f"`{token.text}` is called inside a tell without `my`")
        given = _arguments(words[at + 1 :])
        if given != script.handlers[token.text]:
            wanted = script.handlers[token.text]
            script.complain(statement.line, f"`{token.text}` takes {wanted} arguments and is given {given}")


def _arguments(words: Sequence[str]) -> int:
    """How many arguments stand in the parentheses that these words begin with."""
    depth, commas = 0, 0
    for at, word in enumerate(words):
        if word in "({":
            depth += 1
        elif word in ")}":
            depth -= 1
            if depth == 0:
                return 0 if at == 1 else commas + 1
        elif word == "," and depth == 1:
            commas += 1
    return -1


# ── what must not happen ──────────────────────────────────────────────────────────────────────────────────────────


def _check_shell(script: Script, statement: Statement) -> None:
    words = statement.words
    for at in range(len(words)):
        if words[at : at + 2] in (["run", "script"], ["load", "script"]):
            script.complain(statement.line, "a script is run that is made of text")
        if words[at : at + 3] != ["do", "shell", "script"]:
            continue
        operands: list[list[Token]] = [[]]
        for token in statement.tokens[at + 3 :]:
            if token.text == "&":
                operands.append([])
            else:
                operands[-1].append(token)
        for operand in operands:
            texts = [token.text for token in operand]
            if len(operand) == 1 and operand[0].kind == "string":
                if texts[0].count("'") % 2:
                    script.complain(statement.line, "a quote stays open across the parts of a shell command")
            elif texts[:3] != ["quoted", "form", "of"] or len(texts) != 4:
                script.complain(statement.line, "part of a shell command without `quoted form of`")


def _check_loops(script: Script) -> None:
    """The variable of `repeat with … in` is a reference to a place in a list: what stands there is `contents of` it."""
    variables: set[tuple[str, str]] = set()
    for statement in script.statements:
        words = statement.words
        known, begin = {name for handler, name in variables if handler == statement.handler}, 0
        if words[:2] == ["repeat", "with"] and words[3:4] == ["in"]:
            variables.add((statement.handler, words[2]))
            begin = 4
        for at in range(begin, len(words)):
            if words[at] in known and words[max(at - 2, 0) : at] != ["contents", "of"]:
                script.complain(statement.line, f"`{words[at]}` is a reference into a list, used without `contents of`")


def _check_dialogs(script: Script) -> None:
    front = {each.handler for each in script.statements if each.words == _COME_TO_FRONT}
    for number, statement in enumerate(script.statements):
        words = statement.words
        if not any(words[at : at + len(each)] == each for at in range(len(words)) for each in _DIALOGS):
            continue
        before = [
            each for each in script.statements[max(0, number - _FAR) : number] if each.handler == statement.handler
        ]
        if not any(each.words[:2] == [name, "("] for each in before for name in front):
            script.complain(statement.line, "a dialog that does not come to the front")


def _check_export(script: Script, statement: Statement) -> None:
    inside = _inside_photos(statement)
    if inside is None or "export" not in inside:
        return
    command = " ".join(inside[inside.index("export") :])
    if not _EXPORT.match(command):
        script.complain(statement.line, f"`export` takes `to` and `using originals`, nothing else: {command}")
    if "timeout" not in statement.blocks:
        script.complain(statement.line, "`export` outside of `with timeout`")
