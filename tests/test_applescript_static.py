"""The AppleScript, checked as far as it can be where there is no AppleScript; and the check itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.applescript import check
from tests.standin_osascript.play import VERBS
from tests.standin_osascript.scenario import SCRIPT

GOOD = """\
(* a comment (* in a comment *) with "quotes *)
property limit : 600

on run argv
	-- tell nothing
	set {theNames, theFolder} to {{}, "/tmp"}
	repeat with thisId in argv
		if thisId is "x" then exit repeat
		try
			with timeout of limit seconds
				tell application "Photos"
					set theItem to media item id (contents of thisId)
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
    ("media item id (contents", "media item (contents", "`media item` picked by"),
    ("media item id (contents of thisId)", "first album whose name is thisId", "`whose` picks by name"),
    ("media item id (contents of thisId)", 'album "Lake"', "`album` picked by"),
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


@pytest.mark.skipif(shutil.which("osacompile") is None, reason="osacompile is only on macOS")
def test_the_script_compiles(tmp_path: Path) -> None:
    done = subprocess.run(
        ["osacompile", "-o", os.fspath(tmp_path / "exporter.scpt"), os.fspath(SCRIPT)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
