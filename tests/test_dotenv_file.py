"""Variables out of a `.env` beside the configuration, what `config check` says of them and of paths, and secrets."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from skicyclerun.actors.stage_runs import stage_runs
from skicyclerun.errors import ConfigError, EnvironmentUnset
from skicyclerun.settings.dotenv_file import (
    Variables,
    lend_to_libraries,
    looks_secret,
    referred_variables,
    variables_beside,
)
from skicyclerun.settings.load import load_settings
from skicyclerun.settings.models import Settings
from skicyclerun.stages.registry import check_stage_needs
from skicyclerun.stages.stage import Stage
from tests.command_line import Ended, make_library, skicyclerun

SECRET: Final = "s3cr3t-value-of-mine"


def write(folder: Path, dotenv: str | bytes | None, **config: object) -> Path:
    """A configuration, and a `.env` beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    if dotenv is not None:
        (folder / ".env").write_bytes(dotenv.encode() if isinstance(dotenv, str) else dotenv)
    file = folder / "c.json"
    file.write_text(json.dumps(config))
    return file


def load(file: Path, **environ: str) -> Settings:
    return load_settings(file, lib_root=file.parent / "lib", environ={"HOME": "/home/me"} | environ)


# ── where a value comes from ──────────────────────────────────────────────────────────────────────────────────────


def test_a_variable_comes_from_the_environment_first_and_from_the_file_where_it_is_unset_or_empty(
    tmp_path: Path,
) -> None:
    file = write(tmp_path, "DISK=/from/file\n", paths={"archive": "${DISK}/zips"})
    assert load(file).paths.archive == Path("/from/file/zips")
    assert load(file, DISK="").paths.archive == Path("/from/file/zips")
    assert load(file, DISK="/from/environment").paths.archive == Path("/from/environment/zips")
    assert load(file).variables.origin("DISK") == ".env"
    assert load(file, DISK="/x").variables.origin("DISK") == "the environment"


def test_an_empty_value_of_the_file_counts_as_unset(tmp_path: Path) -> None:
    file = write(tmp_path, "DISK=\nBARE\n", paths={"archive": "${DISK}"})
    with pytest.raises(EnvironmentUnset, match="DISK"):
        load(file)
    file = write(tmp_path, "DISK=\n", paths={"archive": "${DISK:/default}"})
    assert load(file).paths.archive == Path("/default")


def test_lib_root_may_stand_in_it(tmp_path: Path) -> None:
    file = write(tmp_path, f"SKICYCLERUN_LIB_ROOT={tmp_path / 'mine'}\n")
    assert load_settings(file, environ={"HOME": "/home/me"}).lib_root == tmp_path / "mine"
    environ = {"HOME": "/home/me", "SKICYCLERUN_LIB_ROOT": "/other"}
    assert load_settings(file, environ=environ).lib_root == Path("/other")
    assert load_settings(file, environ=environ, lib_root=Path("/flag")).lib_root == Path("/flag")


def test_it_lies_beside_the_configuration_or_above_a_folder_called_config(tmp_path: Path) -> None:
    file = write(tmp_path / "config", None, paths={"archive": "${DISK}"})
    (tmp_path / ".env").write_text("DISK=/above\n")
    assert load(file).paths.archive == Path("/above")
    (tmp_path / "config" / ".env").write_text("DISK=/beside\n")
    assert load(file).paths.archive == Path("/beside")
    other = write(tmp_path / "other", None, paths={"archive": "${DISK}"})
    with pytest.raises(EnvironmentUnset):
        load(other)


def test_beside_the_shipped_default_none_is_looked_for() -> None:
    assert load_settings(None, lib_root=Path("/data/lib"), environ={"HOME": "/home/me"}).variables.file is None


def test_a_file_is_read_as_data(tmp_path: Path) -> None:
    text = (
        "\ufeff# a comment\n"
        "export A='single $B `date` ${B}'\n"
        'B="with \\"quotes\\" and # no comment"\n'
        "C=${A} $(touch /tmp/x) # a comment\n"
        "D=a=b=c\n"
        "A=the last one counts ${D}\n"
    )
    file = write(tmp_path, text)
    assert dict(load(file).variables.dotenv) == {
        "A": "the last one counts ${D}",
        "B": 'with "quotes" and # no comment',
        "C": "${A} $(touch /tmp/x)",
        "D": "a=b=c",
    }


def test_a_value_with_braces_is_taken_literally(tmp_path: Path) -> None:
    file = write(tmp_path, "DISK=/x/{archive}/${HOME}\n", paths={"archive": "${DISK}"})
    assert load(file).paths.archive == Path("/x/{archive}/${HOME}")


@pytest.mark.parametrize(
    ("dotenv", "words"),
    [
        ("A=1\nthis says nothing\nB=2\n", "line 2 is no NAME=value"),
        ("one two\nthree four\n", "lines 1, 2 are no NAME=value"),
        ("1A=x\n", "line 1 is no NAME=value"),
        ("A='never closed\n", "line 1 is no NAME=value"),
        (b"A=x\0y\n", "line 1 is no NAME=value"),
        (b"A=1\nB=\xff\n", "line 2 is not UTF-8"),
        (b"A=" + b"x" * 1_000_001, "larger than 1 MB"),
    ],
    ids=["a line", "lines", "a name", "quotes", "NUL", "bytes", "size"],
)
def test_what_says_nothing_is_named_by_its_line_and_passed_over(
    tmp_path: Path, dotenv: str | bytes, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, dotenv)
    (warning,) = load(file).warnings
    assert words in warning
    assert warning.startswith(str(tmp_path / ".env"))
    assert "never closed" not in warning
    assert capfd.readouterr() == ("", "")


def test_what_is_no_file_is_no_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert load(write(tmp_path, None)).variables.file is None
    (tmp_path / ".env").rmdir()
    os.mkfifo(tmp_path / ".env")
    assert load(write(tmp_path, None)).variables.file is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_warned_of(tmp_path: Path) -> None:
    file = write(tmp_path, "A=1\n")
    (tmp_path / ".env").chmod(0)
    (warning,) = load(file).warnings
    assert "Permission denied" in warning
    (tmp_path / ".env").chmod(stat.S_IRUSR)


@hypothesis_settings(max_examples=150)
@given(st.binary(max_size=80) | st.text(alphabet="AB=\"'\\$#{} \n\r\0é", max_size=60).map(str.encode))
def test_any_bytes_are_read_or_passed_over(tmp_path: Path, data: bytes) -> None:
    (tmp_path / ".env").write_bytes(data)
    found = variables_beside(tmp_path / "c.json", {})
    assert all("\0" not in value for value in found.dotenv.values())
    assert len(found.warnings) <= 1


def test_nothing_goes_into_the_environment_but_what_libraries_look_for_there(tmp_path: Path) -> None:
    file = write(tmp_path, "PATH=/evil\nLD_PRELOAD=x\nMINE=1\nAWS_PROFILE=p\nHF_HOME=/models\nOMP_NUM_THREADS=2\n")
    before = dict(os.environ)
    settings = load(file)
    assert dict(os.environ) == before
    environ = {"PATH": "/usr/bin", "HF_HOME": "/others"}
    lend_to_libraries(settings.variables, environ)
    assert environ == {"PATH": "/usr/bin", "HF_HOME": "/others", "AWS_PROFILE": "p", "OMP_NUM_THREADS": "2"}


def test_what_libraries_look_for_is_there_once_stages_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "")
    settings = load(write(tmp_path, "AWS_PROFILE=mine\nNOT_THEIRS=1\n"))
    stage_runs(settings, ["preprocessing"], {})
    assert os.environ["AWS_PROFILE"] == "mine"
    assert "NOT_THEIRS" not in os.environ


def test_a_variable_that_a_stage_needs_may_stand_in_it(tmp_path: Path) -> None:
    stage = Stage("upload", "", needs_environment=("BUCKET_OWNER",))
    check_stage_needs(load(write(tmp_path, "BUCKET_OWNER=me\n")), [stage])
    with pytest.raises(ConfigError, match="BUCKET_OWNER, which is not set"):
        check_stage_needs(load(write(tmp_path, "")), [stage])


def test_the_variables_that_a_configuration_refers_to_are_found() -> None:
    config = {"a": ["${ONE}", {"b": "x${TWO:{y}${THREE}}"}], "c": "$${NOT} ${{NOR}} {key}", "d": "${TWO}", "e": "${F:}"}
    assert referred_variables(config) == {"ONE": False, "TWO": False, "THREE": False, "F": True}


# ── secrets ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name",
    ["API_KEY", "aws_secret_access_key", "HF_TOKEN", "DB_PASSWORD", "DbPwd", "GOOGLE_CREDENTIALS", "AUTH_HEADER"],
)
def test_a_name_that_says_so_is_a_secret(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name", ["PWD", "OLDPWD", "HOME", "SKICYCLERUN_LIB_ROOT", "HUGGINGFACE_CACHE_LIB", "AWS_PROFILE"]
)
def test_other_names_are_none(name: str) -> None:
    assert not looks_secret(name)


def test_an_address_with_a_password_is_a_secret() -> None:
    assert looks_secret("SERVER", "https://me:hidden@example.org/x")
    assert not looks_secret("SERVER", "https://example.org/x")


def test_config_show_and_errors_have_the_name_of_a_secret_in_place_of_its_value(tmp_path: Path) -> None:
    stages = {"x": {"command": ["curl", "-H", "key: ${MY_TOKEN}", "{input}", "{output}"]}}
    file = write(tmp_path, f"MY_TOKEN={SECRET}\n", stages=stages, export={"source": "auto"})
    shown = json.dumps(load(file).as_json())
    assert SECRET not in shown
    assert "key: ${MY_TOKEN}" in shown
    assert SECRET not in repr(load(file).variables)
    wrong = write(tmp_path, f"MY_TOKEN={SECRET}\n", export={"source": "${MY_TOKEN}"}, logging={"level": "${MY_TOKEN}"})
    with pytest.raises(ConfigError) as refused:
        load(wrong)
    assert SECRET not in str(refused.value)
    assert "${MY_TOKEN}" in str(refused.value)


def test_a_command_finds_the_file_in_its_environment_and_a_secret_comes_into_no_log_and_no_state(
    tmp_path: Path,
) -> None:
    script = tmp_path / "stamp.py"
    script.write_text(
        "import os, shutil, sys\n"
        "assert os.environ['MY_TOKEN'] == sys.argv[3] and os.environ['PLAIN'] == 'yes'\n"
        "shutil.copyfile(sys.argv[1], sys.argv[2])\n"
        "print('asked with', os.environ['MY_TOKEN'])\n"
    )
    library = make_library(tmp_path / "photos", {"Alps": ["IMG_1.jpg", "IMG_2.jpg"]})
    command = [sys.executable, str(script), "{input}", "{output}", "${MY_TOKEN}"]
    file = write(
        tmp_path / "conf",
        f"MY_TOKEN={SECRET}\nPLAIN=yes\n",
        pipeline={"stages": ["export", "stamp"]},
        export={"source": "folder", "library": str(library)},
        logging={"level": "DEBUG"},
        stages={"stamp": {"command": command}},
    )
    options = ("--config", file, "--lib-root", tmp_path / "lib", "--yes")
    ran = skicyclerun("run", *options)
    assert ran.code == 0, ran.stdout
    assert len(list((tmp_path / "lib" / "pipeline" / "stamp").rglob("*.jpg"))) == 2
    log = "".join(path.read_text() for path in (tmp_path / "lib" / "logs").iterdir())
    assert "asked with ${MY_TOKEN}" in log
    told = [ran, skicyclerun("status", "--json", *options[:4]), skicyclerun("config", "check", *options[:4])]
    assert all(SECRET not in each.stdout + each.stderr for each in told)
    for path in (tmp_path / "lib").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
    with closing(sqlite3.connect(tmp_path / "lib" / "state" / "skicyclerun.sqlite3")) as state:
        assert "${MY_TOKEN}" in state.execute("SELECT options FROM runs").fetchone()[0]
    again = skicyclerun("run", "--stages", "stamp", *options)
    assert "2 up to date" in again.stderr + again.stdout


def test_what_is_kept_without_its_secret_is_read_again_with_it() -> None:
    variables = Variables({"MY_TOKEN": SECRET, "OTHER": "plain text"}, referred={"MY_TOKEN": False, "OTHER": False})
    value = {"command": ["-k", f"key={SECRET}", "plain text"], "n": 3, "none": None}
    kept = variables.hidden(value)
    assert kept == {"command": ["-k", "key=${MY_TOKEN}", "plain text"], "n": 3, "none": None}
    assert variables.revealed(kept) == value


# ── config check ──────────────────────────────────────────────────────────────────────────────────────────────────


def checked(file: Path, *words: str | Path) -> tuple[Ended, dict[str, list[str]]]:
    """How `config check` ended, and its rows by their first word."""
    ended = skicyclerun("config", "check", "--config", file, "--lib-root", file.parent / "lib", *words)
    rows = [line.split(maxsplit=2) for line in ended.stdout.splitlines() if line.startswith("  ")]
    return ended, {row[0]: row[1:] for row in rows}


def test_config_check_prints_each_path_with_its_state(tmp_path: Path) -> None:
    lib = tmp_path / "lib"
    (lib / "metadata").mkdir(parents=True)
    (lib / "metadata" / "master.json").write_text("{}")
    (lib / "in the way").write_text("a file")
    paths = {
        "archive": "/no/such/disk/zips",
        "state_db": "{lib_root}/in the way/state.sqlite3",
        "models": "{lib_root}/metadata",
        "gone": "/nowhere",
        "other": "${NOT_SET_HERE}",
        "preprocessed": "${NOT_SET_EITHER}/x",
        "_note": "nothing",
    }
    file = write(tmp_path, None, paths=paths, export={"library": "/no/such/library"})
    ended, rows = checked(file)
    assert ended.code == 0
    states = {key: row[-1] for key, row in rows.items()}
    assert states["lib_root"] == "there"
    assert states["paths.metadata_dir"] == "there"
    assert states["paths.master_catalog"] == "there"
    assert states["paths.apple_photos_export"] == "will be made"
    assert states["paths.pipeline_base"] == "will be made"
    assert states["logging.file"] == "will be made"
    assert states["paths.archive"] == "missing: /no does not exist"
    assert states["paths.state_db"].endswith("in the way is in the way and is not a folder")
    assert states["paths.watermarked_final"] == "not there; these stages do not write it"
    assert "NOT_SET_EITHER is not set" in states["paths.preprocessed"]
    assert states["paths.models"] == "there"
    assert states["paths.gone"] == "not there"
    assert "NOT_SET_HERE is not set" in states["paths.other"]
    assert states["export.library"] == "missing"
    assert "paths._note" not in rows


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_config_check_says_what_may_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "lib" / "archive").mkdir(parents=True)
    (tmp_path / "lib" / "archive").chmod(0o500)
    _, rows = checked(write(tmp_path, None))
    assert rows["paths.archive"][-1] == "not writable"


def test_what_may_not_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the test above, where whoever runs the tests may write everywhere."""
    (tmp_path / "lib" / "archive").mkdir(parents=True)
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "archive" not in str(path) and allowed(path, mode))
    _, rows = checked(write(tmp_path, None))
    assert rows["paths.archive"][-1] == "not writable"
    assert rows["paths.metadata_dir"][-1] == "will be made"


def test_config_check_prints_each_variable_and_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_HERE", "/here")
    monkeypatch.delenv("NOWHERE", raising=False)
    config: dict[str, Any] = {
        "paths": {"archive": "${FROM_HERE}/x", "a": "${FROM_FILE}", "b": "${DEFAULTED:/d}", "c": "${NOWHERE}"},
        "s3_deployment": {"key": "${AWS_SECRET_ACCESS_KEY}"},
    }
    file = write(tmp_path, f"FROM_FILE=/file\nAWS_SECRET_ACCESS_KEY={SECRET}\nNOT_REFERRED_TO=1\n", **config)
    ended, rows = checked(file)
    assert rows["FROM_HERE"] == ["/here", "from the environment"]
    assert rows["FROM_FILE"] == ["/file", "from .env"]
    assert rows["DEFAULTED"] == ["-", "not set; the configuration gives a default"]
    assert rows["NOWHERE"] == ["-", "not set"]
    assert rows["AWS_SECRET_ACCESS_KEY"] == ["(hidden)", "from .env"]
    assert "NOT_REFERRED_TO" not in rows
    assert SECRET not in ended.stdout + ended.stderr


def test_config_check_takes_stages(tmp_path: Path) -> None:
    file = write(tmp_path, None, preprocessing={"max_dimension": "big"}, paths={"preprocessed": "${NOT_SET_HERE}/x"})
    ended, _ = checked(file)
    assert ended.code == 0
    assert "Stages: cleanup, export." in ended.stdout
    ended, rows = checked(file, "--stages", "preprocessing, export")
    assert ended.code == 2
    assert "preprocessing.max_dimension: must be a whole number" in ended.stderr
    assert "NOT_SET_HERE is not set" in ended.stderr
    assert rows["lib_root"][-1] == "will be made"
    assert checked(write(tmp_path, None), "--stages", "preprocessing")[1]["paths.preprocessed"][-1] == "will be made"
    refused, _ = checked(file, "--stages", "exprot")
    assert refused.code == 2
    assert "Did you mean 'export'?" in refused.stderr


def test_config_check_says_what_a_run_leaves_out_and_makes_nothing(tmp_path: Path) -> None:
    stages = {"x": {"command": ["true", "{input}", "{output}"]}}
    file = write(tmp_path, None, pipeline={"stages": ["export", "x"]}, stages=stages)
    ended, rows = checked(file)
    assert ended.code == 0
    assert rows["stages.x.output_folder"][-1] == "will be made"
    assert "Stages: export, x." in ended.stdout
    assert sorted(os.listdir(tmp_path)) == ["c.json"]


def test_config_check_shows_paths_also_where_something_else_is_wrong(tmp_path: Path) -> None:
    ended, rows = checked(write(tmp_path, None, export={"sorce": "x"}, pipeline={"stages": ["exprot", "export"]}))
    assert ended.code == 2
    assert rows["paths.archive"][-1] == "will be made"
    assert "export.sorce" in ended.stderr
    assert "no stage 'exprot'" in ended.stderr
