"""Stages: which there are, how they are named, and that only what a requested one needs is checked and created."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from skicyclerun.errors import ConfigError, ConfigErrors, DiskFull, NotWritable, StageError
from skicyclerun.settings.load import load_settings
from skicyclerun.settings.models import PathTexts, Settings
from skicyclerun.stages.registry import STAGES, check_stage_needs, missing_packages, parse_stages, prepare_folders
from skicyclerun.stages.stage import Stage


def settings_with(
    tmp_path: Path, paths: Mapping[str, str], stages: tuple[str, ...] = ("cleanup", "export")
) -> Settings:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"pipeline": {"stages": stages}, "paths": dict(paths)}))
    return load_settings(file, lib_root=tmp_path / "lib", environ={"HOME": str(tmp_path / "home")})


def names(stages: tuple[Stage, ...]) -> list[str]:
    return [stage.name for stage in stages]


def test_the_ten_names_of_the_pipeline_are_known() -> None:
    assert {stage.name for stage in STAGES} == {
        "export",
        "cleanup",
        "metadata_extraction",
        "geocode_sweep",
        "llm_image_analysis",
        "preprocessing",
        "watermarking",
        "lora_processing",
        "post_lora_watermarking",
        "s3_deployment",
    }


def test_every_path_a_stage_needs_is_one_of_ours() -> None:
    for stage in STAGES:
        assert set(stage.needs_paths) <= set(PathTexts.model_fields)
        assert set(stage.makes_paths) <= set(stage.needs_paths)


@pytest.mark.parametrize(
    "wanted",
    ["export,cleanup", "cleanup export", " export , export,,cleanup ", ("export", "cleanup"), ("export,cleanup",)],
)
def test_stages_come_once_each_and_in_pipeline_order(wanted: str | tuple[str, ...]) -> None:
    assert names(parse_stages(wanted)) == ["cleanup", "export"]


@pytest.mark.parametrize(("typed", "meant"), [("exprt", "export"), ("clean_up", "cleanup"), ("EXPORT", "export")])
def test_an_unknown_stage_is_refused_with_the_nearest_name(typed: str, meant: str) -> None:
    with pytest.raises(StageError, match=f"no stage '{typed}'. Did you mean '{meant}'"):
        parse_stages(typed)


@pytest.mark.parametrize("nothing", ["", " , ", ()])
def test_naming_no_stage_is_refused(nothing: str | tuple[str, ...]) -> None:
    with pytest.raises(StageError, match="No stage is named"):
        parse_stages(nothing)


def test_an_export_asks_for_nothing_that_only_other_stages_need(tmp_path: Path) -> None:
    unset = {
        "lora_processed": "${LORA_LIB}/out",
        "preprocessed": "${SCALED}",
        "geocode_cache": "${GEO}",
        "huggingface_cache": "${HUGGINGFACE_CACHE_LIB}",
    }
    settings = settings_with(tmp_path, unset, ("export",))
    check_stage_needs(settings, parse_stages("export"))
    prepare_folders(settings, parse_stages("export"))
    assert sorted(path.name for path in (tmp_path / "lib").rglob("*")) == [
        "albums",
        "archive",
        "logs",
        "metadata",
        "pipeline",
        "state",
    ]
    with pytest.raises(ConfigError, match=r"paths\.lora_processed: the environment variable LORA_LIB is not set"):
        check_stage_needs(settings, parse_stages("cleanup,export"))
    with pytest.raises(ConfigError, match="LORA_LIB"):
        settings_with(tmp_path, unset, ("cleanup",))


def test_checking_creates_nothing(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, {})
    check_stage_needs(settings, parse_stages("cleanup,export"))
    assert not (tmp_path / "lib").exists()


def test_a_file_in_the_place_of_a_folder_and_the_reverse_are_told_together(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, {})
    settings.paths.apple_photos_export.parent.mkdir(parents=True)
    settings.paths.apple_photos_export.write_text("in the way")
    settings.paths.state_db.mkdir(parents=True)
    with pytest.raises(ConfigErrors) as caught:
        check_stage_needs(settings, parse_stages("export"))
    assert "paths.apple_photos_export" in str(caught.value)
    assert "is a file; a folder is meant" in str(caught.value)
    assert "paths.state_db" in str(caught.value)
    assert "is a folder; a file is meant" in str(caught.value)


def test_a_stage_says_which_variable_and_which_package_it_lacks(tmp_path: Path) -> None:
    stage = Stage("upload", "", needs_environment=("AWS_PROFILE",), needs_packages=("no_such_package_here", "json"))
    settings = settings_with(tmp_path, {})
    with pytest.raises(ConfigErrors) as caught:
        check_stage_needs(settings, [stage], {})
    assert len(caught.value.errors) == 2
    assert "upload needs the environment variable AWS_PROFILE" in str(caught.value)
    assert "upload needs the package no_such_package_here" in str(caught.value)
    with pytest.raises(ConfigError, match="package"):
        check_stage_needs(settings, [stage], {"AWS_PROFILE": "me"})


def test_the_extra_that_brings_all_missing_packages_is_named_once(tmp_path: Path) -> None:
    stage = Stage("upload", "", needs_packages=("no_such_package_here", "json", "nor_this_one"), extra="s3")
    assert missing_packages(stage) == ("no_such_package_here", "nor_this_one")
    with pytest.raises(ConfigError, match="no_such_package_here") as caught:
        check_stage_needs(settings_with(tmp_path, {}), [stage], {})
    assert caught.value.next_step is not None
    assert 'pip install "skicyclerun[s3]"' in caught.value.next_step


def test_preparing_twice_changes_nothing(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, {})
    prepare_folders(settings, parse_stages("cleanup,export"))
    made = sorted(tmp_path.rglob("*"))
    prepare_folders(settings, parse_stages("cleanup,export"))
    assert sorted(tmp_path.rglob("*")) == made
    assert not settings.paths.lora_processed.exists()


def test_a_file_on_the_way_to_a_folder_is_named(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, {})
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "pipeline").write_text("a file")
    with pytest.raises(NotWritable, match=r"paths\.apple_photos_export.*/pipeline is in the way"):
        prepare_folders(settings, parse_stages("export"))


def test_a_symbolic_link_to_nothing_is_named_and_left(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, {})
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "archive").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotWritable, match=r"paths\.archive.* is in the way"):
        prepare_folders(settings, parse_stages("cleanup"))
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, {})
    (tmp_path / "lib").mkdir(mode=0o500)
    with pytest.raises(NotWritable, match=r"paths\.\w+.*permission denied"):
        prepare_folders(settings, parse_stages("export"))
    (tmp_path / "lib").chmod(0o700)


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, DiskFull, "no space is left"),
        (errno.EDQUOT, DiskFull, "no space is left"),
        (errno.EROFS, NotWritable, "the disk is read-only"),
        (errno.EACCES, NotWritable, "permission denied"),
        (errno.ENAMETOOLONG, NotWritable, "File name too long"),
    ],
)
def test_what_the_disk_refuses_becomes_a_sentence_with_path_and_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception], words: str
) -> None:
    settings = settings_with(tmp_path, {})

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(kind, match=rf"albums \(paths\.apple_photos_export\) could not be made: .*{words}"):
        prepare_folders(settings, parse_stages("export"))


def test_a_name_longer_than_the_disk_takes_is_a_sentence(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, {"archive": "{lib_root}/" + "n" * 300})
    settings.lib_root.mkdir()
    with pytest.raises(ConfigError, match="File name too long"):
        check_stage_needs(settings, parse_stages("cleanup"))
