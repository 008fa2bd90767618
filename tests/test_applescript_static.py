"""The AppleScript, checked as far as it can be where there is no AppleScript; and the check itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from skicyclerun.sources import osascript
from tests.applescript import check
from tests.standin_osascript.play import VERBS
from tests.standin_osascript.scenario import SCRIPT

GOOD = """\
(* a comment (* in a comment *) with "quotes *)
property limit : 600

on run argv
	-- tell nothing
	set {theNames, theFolder} to {{}, "/tmp"}
	repeat with idReference in argv
		set thisId to contents of idReference
		if thisId is "x" then exit repeat
		try
			with timeout of limit seconds
				tell application "Photos"
					set theItem to media item id thisId
					export {theItem} to POSIX file theFolder
				end tell
			end timeout
			tell application "Photos" to set theName to filename of theItem
			set end of theNames to padded(theName, 3)
		on error errorText number errorNumber
			error errorText number errorNumber
		end try
	end repeat
	do shell script "test -d " & quoted form of "/tmp"
	return theNames
end run

on padded(theText, theWidth)
	if theWidth > 1 then
		return theText
	else if theWidth is 1 then
		return ""
	else
		return theText & theText
	end if
end padded
"""

BAD = [
    ("		end try\n", "", "where `end repeat`|where `end try`"),
    ("				end tell\n", "", "where `end tell`"),
    ("			end timeout\n", "", "where `end timeout`"),
    ("	end repeat\n", "", "where `end repeat`"),
    ("	end if\n", "", "where `end if`"),
    ("end run\n", "", "where `end run`|a handler inside"),
    ("end padded\n", "end padding\n", "where `end padded`"),
    ("end padded\n", "", "does not end"),
    ("end padded\n", "end padded\nend tell\n", "ends nothing"),
    ("then exit repeat", "then", "where `end if`"),
    ("	else\n", "	else\n		return 1\n	else\n", "`else` inside"),
    (
        "		on error errorText number errorNumber\n",
        "		end try\n		on error errorText number errorNumber\n",
        "`on error`",
    ),
    ("(* a comment (*", "(* (* (*", "does not end"),
    (
        "theFolder\n				end",
        "theFolder with metadata and GPS\n				end",
        "takes `to` and `using originals`",
    ),
    ("theFolder\n				end", "theFolder as JPEG\n				end", "takes `to`|not in the dictionary"),
    ("theFolder\n				end", "theFolder using originals true with GPS\n				end", "takes `to`"),
    (
        "			with timeout of limit seconds\n",
        "			repeat\n",
        "where `end repeat`|outside of `with timeout`",
    ),
    ("filename of theItem", "originalName of theItem", "`originalname` is not in the dictionary"),
    ("filename of theItem", "modification date of theItem", "`modification` is not in the dictionary"),
    ("media item id thisId", "media item thisId", "`media item` picked by"),
    ("media item id thisId", "first album whose name is thisId", "`whose` picks by name"),
    ("media item id thisId", 'album "Lake"', "`album` picked by"),
    ("media item id thisId", "media item id idReference", "used without `contents of`"),
    ("contents of idReference", "idReference", "used without `contents of`"),
    ("	return theNames\n", '	display dialog "x"\n', "does not come to the front"),
    ("	return theNames\n", '	choose folder with prompt "x"\n', "does not come to the front"),
    ("	return theNames\n", "	tell current application to quit\n", "only Photos is to be told"),
    ('quoted form of "/tmp"', "theNames", "without `quoted form of`"),
    ('quoted form of "/tmp"', '"\'" & theNames & "\'"', "without `quoted form of`|quote stays open"),
    ("	return theNames\n", "	run script theNames\n", "made of text"),
    ("padded(theName, 3)", "padded(theName)", "takes 2 arguments and is given 1"),
    ("padded(theName, 3)", "pad(theName, 3)", "no handler is called `pad`"),
    ("filename of theItem", "padded(theItem, 1)", "without `my`"),
    ("	return theNames\n", "	return theName2\n", "nobody knows the word `thename2`"),
    ("	return theNames\n", '	tell application "Finder" to quit\n', "only Photos is to be told"),
    ("	return theNames\n", "	set keywords to 1\n", "means something else to Photos"),
    ("	return theNames\n", "	export theNames to theNames\n", "`export` outside of"),
    ("a comment", "a comm\N{LATIN SMALL LETTER E WITH ACUTE}nt", "not ASCII"),
    ("property limit", "property ? limit", "begins nothing"),
    *(
        ("	return theNames\n", f"	{statement}\n", "no known form")
        for statement in (
            "set theNames 3",
            "set theNames to",
            "set theNames to (1 + 2",
            "set theNames to 1 + * 2",
            "set theNames to and 2",
            "set theNames to {1, 2)",
            "return 1 &",
            "exit",
            "log",
            "delay",
            "copy theNames",
            "count theNames",
        )
    ),
    ("if theWidth > 1 then", "if theWidth > then", "no known form"),
    ("else if theWidth is 1 then", "else if then", "no known form"),
    ("repeat with idReference in argv", "repeat with idReference argv", "no known form"),
    ("repeat with idReference in argv", "repeat with in argv", "no known form"),
    ("with timeout of limit seconds", "with timeout limit seconds", "no known form"),
]


def test_the_script_is_sound() -> None:
    assert check(SCRIPT.read_text("utf-8")) == []


def test_the_check_finds_nothing_in_a_good_sample() -> None:
    assert check(GOOD) == []


@pytest.mark.parametrize("ending", ["", " with using originals", " without using originals", " using originals false"])
def test_the_two_parameters_of_export_are_taken(ending: str) -> None:
    assert check(GOOD.replace("theFolder\n				end", f"theFolder{ending}\n				end")) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"), BAD, ids=[problem[:40] + str(n) for n, (_, _, problem) in enumerate(BAD)]
)
def test_the_check_finds_what_is_wrong(old: str, new: str, problem: str) -> None:
    assert GOOD.count(old) >= 1
    bad = GOOD.replace(old, new, 1)
    assert bad != GOOD
    found = check(bad)
    assert any(part in line for line in found for part in problem.split("|")), found


@pytest.mark.parametrize("ending", ["tell", "if", "repeat", "try", "timeout"])
def test_every_end_of_the_script_counts(ending: str) -> None:
    source = SCRIPT.read_text("utf-8")
    lines = source.splitlines(keepends=True)
    ends = [number for number, line in enumerate(lines) if line.strip() == f"end {ending}"]
    assert ends
    for number in ends:
        assert check("".join(lines[:number] + lines[number + 1 :])) != []


def test_the_script_and_the_stand_in_know_the_same_verbs() -> None:
    source = SCRIPT.read_text("utf-8")
    assert [line.split('"')[1] for line in source.splitlines() if "if theVerb is " in line] == list(VERBS)
    assert VERBS == osascript.VERBS


# ── the script by itself ──────────────────────────────────────────────────────────────────────────────────────────


def handler(name: str) -> list[str]:
    """The lines of one handler of our script, without indentation."""
    lines = [line.strip() for line in SCRIPT.read_text("ascii").splitlines()]
    start = next(number for number, line in enumerate(lines) if line.startswith(f"on {name}("))
    return lines[start : lines.index(f"end {name}", start)]


def test_each_album_of_a_stand_alone_export_ends_with_a_line_that_is_logged_and_filed() -> None:
    lines = handler("exportChosenAlbums")
    exported = lines.index("set {albumExported, albumFailed} to exportAlbum(entryId of thisEntry, theFolderPath)")
    completed = 'note("Completed: " & (entryName of thisEntry) & " (" & albumExported & " photos exported)")'
    assert exported < lines.index(completed) < lines.index("end repeat")
    noted = handler("note")
    assert "log theLine" in noted
    assert any(line.endswith('>> " & quoted form of logPath') for line in noted)
    for name in ("exportWithDialogs", "exportFolder", "exportChosenAlbums", "exportAlbum"):
        assert not [line for line in handler(name) if line.startswith("log ")], "all of it is in the file too"


def shell_of(line: str) -> str:
    """The shell command in a line of AppleScript, its parts that are variables as $1 and $2."""
    command, number = "", 0
    for part in line.partition("do shell script ")[2].split(" & "):
        if part.startswith("quoted form of"):
            number += 1
            command += f'"${number}"'
        else:
            command += part[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return command


def in_shell(command: str, *words: str, **environment: str) -> str:
    called = ["/bin/sh", "-c", command, "sh", *words]
    return subprocess.run(called, env=environment, capture_output=True, text=True, check=True).stdout


def test_the_log_file_lies_in_the_folder_that_is_named_only_where_it_is_there(tmp_path: Path) -> None:
    command = shell_of(next(line for line in handler("openLog") if "do shell script" in line))
    lib_root, home = tmp_path / "a root", tmp_path / "home"
    lib_root.mkdir()
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    named = in_shell(command, **environment, SKICYCLERUN_LIB_ROOT=str(lib_root))
    assert Path(named).parent == lib_root / "logs"
    assert Path(named).parent.is_dir()
    for missing in ({}, {"SKICYCLERUN_LIB_ROOT": str(tmp_path / "no disk")}):
        other = in_shell(command, **environment, **missing)
        assert Path(other).parent == home / "Library" / "Logs" / "skicyclerun"
    assert not (tmp_path / "no disk").exists()


def test_a_noted_line_is_one_line_of_the_file_whatever_it_holds(tmp_path: Path) -> None:
    command = shell_of(next(line for line in handler("note") if "do shell script" in line))
    file = tmp_path / "a log"
    text = """Completed: O'Brien's "$(touch pwned)" %s \\n (3 photos exported)"""
    for _ in range(2):
        in_shell(command, text, str(file), PATH=os.environ["PATH"])
    assert [line.partition(" ")[2] for line in file.read_text().splitlines()] == [text, text]


@pytest.mark.skipif(shutil.which("osacompile") is None, reason="osacompile is only on macOS")
def test_the_script_compiles(tmp_path: Path) -> None:
    done = subprocess.run(
        ["osacompile", "-o", os.fspath(tmp_path / "exporter.scpt"), os.fspath(SCRIPT)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
