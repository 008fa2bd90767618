"""Plays one call of `osascript` from a scenario; README.md has the format.

Only the standard library, and of that what nearly every call needs: tests make some thousands of calls.
"""

from __future__ import annotations

import fcntl
import getopt
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

TYPE_CHECKING = False  # that of `typing` would have to be imported
if TYPE_CHECKING:
    from typing import Any, NoReturn

FIELD, RECORD, MEMBER = "\x1f", "\x1e", "\x1d"
VERBS = (
    "preflight",
    "list-albums",
    "album-counts",
    "item-ids",
    "item-facts",
    "export-item",
    "choose-albums",
    "choose-folder",
)
LONGEST_LIFE = 30.0
"""Seconds after which a process that plays Photos gives up, so that none outlives its test for long."""


class ScriptError(Exception):
    def __init__(self, number: int, text: str, form: str = "offsets") -> None:
        super().__init__(text)
        self.number, self.text, self.form = number, text, form


def main(arguments: list[str]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if arguments[:1] == ["--photos"]:
        return play_photos(json.loads(arguments[1]))
    script, words = script_and_words(arguments)
    scenario_path = Path(os.environ["SKICYCLERUN_STANDIN"])
    scenario = json.loads(scenario_path.read_text("utf-8"))
    try:
        answer = Call(scenario, scenario_path.parent, script, words).play()
    except ScriptError as error:
        sys.stdout.flush()
        say(error_line(script, error))
        return 1
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
    return 0


def script_and_words(arguments: list[str]) -> tuple[str, list[str]]:
    """As osascript(1) reads its command line: options end at the first word that is none."""
    try:
        options, words = getopt.getopt(arguments, "e:l:s:i")
    except getopt.GetoptError as error:
        say(f"osascript: illegal option -- {error.opt}")
        say("usage: osascript [-l language] [-e script] [-i] [-s {ehso}] [programfile] [argument ...]")
        sys.exit(1)
    source = [value for option, value in options if option == "-e"]
    if source:
        return "", words
    if not words or words[0] == "-":
        sys.stdin.read()
        return "", words[1:]
    script = words[0]
    if not os.path.isfile(script):
        say(f"osascript: {script}: No such file or directory")
        sys.exit(1)
    text = Path(script).read_text("ascii")
    if "on run argv" not in text or any(f'"{verb}"' not in text for verb in VERBS):
        say(f"{script}: the stand-in knows only the script that skicyclerun ships.")
        sys.exit(1)
    return script, words[1:]


def say(line: str) -> None:
    sys.stderr.buffer.write(line.encode("utf-8", "surrogateescape") + b"\n")
    sys.stderr.buffer.flush()


def error_line(script: str, error: ScriptError) -> str:
    if error.form == "syntax":
        return f"39:41: syntax error: {error.text} ({error.number})"
    prefix = {
        "offsets": "25:1126: ",
        "path": f"{script}:18777:18833: ",
        "name": f"{os.path.basename(script)}: ",
    }[error.form]
    return f"{prefix}execution error: {error.text} ({error.number})"


class Call:
    """One call: its words, the fault that it meets, and its answer."""

    def __init__(self, scenario: dict[str, Any], folder: Path, script: str, words: list[str]) -> None:
        self.scenario, self.folder, self.script = scenario, folder, script
        self.library: dict[str, Any] = scenario["library"]
        self.verb = words[0] if words else ""
        self.words = words[1:]
        while len(self.words) > 1 and self.words[0] in ("--timeout", "--growth"):
            if not self.words[1].isdecimal():
                raise ScriptError(-1700, f'Can\u2019t make "{self.words[1]}" into type integer.')
            self.words = self.words[2:]
        self.note({"argv": sys.argv[1:], "pid": os.getpid(), "verb": self.verb, "words": self.words})

    def play(self) -> bytes:
        if self.verb not in VERBS:
            raise ScriptError(9001, f"osxPhotoExporter: neither a verb nor a path: {self.verb}")
        fault = self.fault()
        for line in fault.get("log", ()):
            say(line)
        for number in range(fault.get("flood", 0) // 100):
            say(f"(*flood {number:08d} {'x' * 80}*)")
        if "stderr" in fault:
            import base64

            sys.stderr.buffer.write(base64.b64decode(fault["stderr"]))
            sys.stderr.buffer.flush()
        if "until" in fault:
            self.note({"waiting": os.getpid()})
            wait_for(Path(fault["until"]))
        if "kill" in fault:
            os.kill(os.getpid(), fault["kill"])
        if "hang" in fault:
            if "files" in fault:
                self.export(fault["files"])
            self.hang(fault)
        if "error" in fault:
            if "files" in fault:
                self.export(fault["files"])
            error = fault["error"]
            raise ScriptError(error["number"], error.get("text", "…"), error.get("form", "offsets"))
        if "caught" in fault:
            say(f"Error: {fault['caught'].get('text', '…')} ({fault['caught']['number']})")
        answer = self.answer(fault)
        if fault.get("linger"):
            self.note({"lingering": start_photos({"hold": True}, inherit=True)})
        if "output" in fault:
            import base64

            return base64.b64decode(fault["output"])
        printed = (answer + "\n").encode("utf-8", "surrogateescape")
        return printed[: fault["cut_output"]] if "cut_output" in fault else printed

    # ── the script's verbs ────────────────────────────────────────────────────────────────────────────────────────

    def answer(self, fault: dict[str, Any]) -> str:
        if self.verb == "preflight":
            records = [FIELD.join(("10.0", str(len(self.library["albums"])), str(len(self.library["items"]))))]
        elif self.verb == "list-albums":
            records = [
                FIELD.join(
                    (
                        album["id"],
                        MEMBER.join(clean(name) for name in album.get("folders", ())),
                        clean(album["title"]),
                    )
                )
                for album in self.library["albums"]
            ]
            say(f"skicyclerun: listed {len(records)}")
        elif self.verb == "album-counts":
            records = self.album_counts()
        elif self.verb == "item-ids":
            records = self.item_ids()
        elif self.verb == "item-facts":
            records = [self.facts(word) for word in self.words]
        elif self.verb == "export-item":
            records = [self.facts(self.words[0])]
            if "caught" not in fault:
                item = self.library["items"][self.words[0]]
                if megabytes := round(item.get("size", 0) / 1_000_000):
                    say(f"skicyclerun: size {megabytes}")
                self.export(fault["files"] if "files" in fault else item["files"])
        else:
            records = self.dialog()
        header = FIELD.join(("skicyclerun", "2", self.verb))
        return RECORD.join((header, *records, "end", ""))

    def album_counts(self) -> list[str]:
        counts = {album["id"]: len(album["items"]) for album in self.library["albums"]}
        records = []
        for number, album_id in enumerate(self.words, 1):
            if album_id in counts:
                records.append(FIELD.join((album_id, str(counts[album_id]))))
            else:
                say("An album was removed while the albums were listed.")
            say(f"skicyclerun: counted {number}")
        return records

    def item_ids(self) -> list[str]:
        for album in self.library["albums"]:
            if album["id"] == self.words[0]:
                names = [self.library["items"].get(each, {}).get("filename") for each in album["items"]]
                # A list that AppleScript joins: an absent value becomes its name, nothing is cleaned.
                joined = FIELD.join("missing value" if name is None else name for name in names)
                for what in ("ids", "names", "ids"):
                    say(f"skicyclerun: at {what}")
                return [str(len(names)), FIELD.join(album["items"]), joined]
        raise ScriptError(-1728, f'Photos got an error: Can\u2019t get album id "{self.words[0]}".')

    def facts(self, item_id: str) -> str:
        item = self.library["items"].get(item_id)
        if item is None:
            raise ScriptError(-1728, f'Photos got an error: Can\u2019t get media item id "{item_id}".')
        refused = item.get("refused", [])
        latitude, longitude = item.get("location") or (None, None)
        favorite = item.get("favorite")
        fields = {
            "id": item_id,
            "filename": clean(item.get("filename")),
            "date": item.get("date") or "",
            "latitude": "" if "location" in refused else decimal(latitude),
            "longitude": "" if "location" in refused else decimal(longitude),
            "altitude": decimal(item.get("altitude")),
            "favorite": "" if favorite is None else str(int(favorite)),
            "name": clean(item.get("title")),
            "description": clean(item.get("description")),
            "keywords": MEMBER.join(clean(word) for word in item.get("keywords", ())),
        }
        for name in refused:
            if name in fields:
                fields[name] = ""
        return FIELD.join((*fields.values(), MEMBER.join(refused)))

    def export(self, files: list[dict[str, Any]]) -> None:
        directory = Path(self.words[1])
        if not directory.is_dir():
            raise ScriptError(-10000, "Photos got an error: AppleEvent handler failed.")
        for file in files:
            if "when" in file or "after_exit" in file or "grow" in file:
                if "grow" in file:
                    write_file(directory, file)
                start_photos({"directory": str(directory), "file": file, "pid": os.getpid()})
                if "grow" in file:
                    wait_until_larger(directory / file["name"])
            else:
                write_file(directory, file)

    def dialog(self) -> list[str]:
        reply = self.scenario.get("dialogs", {}).get(self.verb, "cancel")
        if reply == "cancel":
            raise ScriptError(-128, "User canceled.")
        return list(reply) if self.verb == "choose-albums" else [reply]

    # ── faults ────────────────────────────────────────────────────────────────────────────────────────────────────

    def fault(self) -> dict[str, Any]:
        about = self.words[0] if self.words else None
        for number, fault in enumerate(self.scenario.get("faults", ())):
            abouts = self.words if self.verb == "album-counts" else [about]
            if fault["verb"] not in ("*", self.verb) or fault.get("about", abouts[0] if abouts else None) not in abouts:
                continue
            visit = self.visits(number)
            first, times = fault.get("skip", 0), fault.get("times", 1)
            if visit > first and (times < 0 or visit <= first + times):
                return dict(fault)
        return {}

    def visits(self, number: int) -> int:
        """How often a fault has met a matching call, this one included; counted across processes."""
        state = self.folder / self.scenario["state"]
        state.mkdir(exist_ok=True)
        with open(state / f"fault_{number}", "a+", encoding="ascii") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.write(".")
            stream.flush()
            return stream.tell()

    def hang(self, fault: dict[str, Any]) -> NoReturn:
        if fault["hang"] == "line":
            sys.stderr.buffer.write(b"Exporting IMG_00")
            sys.stderr.buffer.flush()
        if fault.get("deaf"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if fault.get("child"):
            import subprocess

            child = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    "import signal; signal.signal(15, signal.SIG_IGN); signal.alarm(60); signal.pause()",
                ]
            )
            self.note({"child": child.pid})
        self.note({"hanging": os.getpid()})
        signal.alarm(60)
        while True:
            signal.pause()

    def note(self, entry: dict[str, Any]) -> None:
        with open(self.folder / self.scenario["calls"], "a", encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.write(json.dumps(entry) + "\n")


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + LONGEST_LIFE
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.005)


def clean(text: str | None) -> str:
    return "" if text is None else "".join(" " if each in FIELD + RECORD + MEMBER else each for each in text)


def decimal(number: float | None) -> str:
    return "" if number is None else f"{number:.8f}"


def wait_until_larger(path: Path) -> None:
    """Until the process that appends has begun: on a busy machine its start takes a while."""
    size = os.path.getsize(path)
    deadline = time.monotonic() + LONGEST_LIFE
    while os.path.getsize(path) == size and time.monotonic() < deadline:
        time.sleep(0.002)


def write_file(directory: Path, file: dict[str, Any]) -> None:
    target = directory / file["name"]
    if file.get("mode") == "link":
        target.symlink_to(file["from"])
    elif file.get("mode") == "folder":
        target.mkdir()
    elif "cut" in file:
        target.write_bytes(Path(file["from"]).read_bytes()[: file["cut"]])
    elif "from" in file:
        shutil.copyfile(file["from"], target)
    else:
        target.touch()


# ── processes that play Photos itself, which goes on when osascript is gone ──────────────────────────────────────────


def start_photos(part: dict[str, Any], *, inherit: bool = False) -> int:
    import subprocess

    out = None if inherit else subprocess.DEVNULL
    command = [sys.executable, os.path.join(os.path.dirname(os.path.realpath(__file__)), "osascript")]
    process = subprocess.Popen(
        [*command, "--photos", json.dumps(part)],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=out,
        start_new_session=True,
    )
    return process.pid


def play_photos(part: dict[str, Any]) -> int:
    deadline = time.monotonic() + LONGEST_LIFE
    if part.get("hold"):
        signal.alarm(int(LONGEST_LIFE))
        signal.pause()
    directory, file = Path(part["directory"]), part["file"]
    while time.monotonic() < deadline:
        if file.get("grow"):
            try:
                with open(directory / file["name"], "ab") as stream:
                    stream.write(b"x")
            except OSError:
                return 0
        elif os.path.exists(file["when"]) if "when" in file else not is_running(part["pid"]):
            try:
                write_file(directory, file)
            except OSError as error:
                Path(f"{file.get('when', directory)}.failed").write_text(str(error), "utf-8")
            if "when" in file:
                Path(f"{file['when']}.done").touch()
            return 0
        time.sleep(0.002)
    return 1


def is_running(pid: int) -> bool:
    """Whether it is still working; a zombie that its parent has yet to collect is not."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat")
        return not (status.exists() and status.read_text("utf-8").rpartition(")")[2].split()[0] == "Z")
    except OSError:
        return False
