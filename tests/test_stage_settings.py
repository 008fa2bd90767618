"""Sections of stages, which other programs share, and commands of the user's own as stages."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest

from skicyclerun.errors import ConfigError, ConfigErrors, EnvironmentUnset, StageError
from skicyclerun.settings.command_stages import CommandStageSettings
from skicyclerun.settings.later_stages import later_stages
from skicyclerun.settings.load import check_source_and_outputs, load_settings
from skicyclerun.settings.models import Settings, default_config
from skicyclerun.settings.placeholders import fill_in
from skicyclerun.settings.section import Section, StageSection, Text
from skicyclerun.stages import registry
from skicyclerun.stages.registry import parse_stages
from skicyclerun.stages.stage import Stage


class Caption(Section):
    content: Text = "{{year}}"
    font: Text | None = None


class Painting(StageSection):
    size: int = 2048
    colour: Literal["red", "green"] = "red"
    limit: int | Literal["none"] = "none"
    text: Caption = Caption()


PAINT = Stage("paint", "", section="painting", settings=Painting)
VARNISH = Stage("varnish", "", section="painting", settings=Painting, reads="paint")


@pytest.fixture
def painting(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = (*registry.STAGES, PAINT, VARNISH)
    monkeypatch.setattr(registry, "STAGES", stages)
    monkeypatch.setattr(registry, "STAGE_BY_NAME", {stage.name: stage for stage in stages})
    monkeypatch.setattr("skicyclerun.settings.loader.STAGES", stages)


def load(tmp_path: Path, config: object, overrides: Mapping[str, object] | None = None, **environ: str) -> Settings:
    file = tmp_path / "given.json"
    file.write_text(json.dumps(config))
    variables = {"SKICYCLERUN_LIB_ROOT": str(tmp_path / "lib"), "HOME": str(tmp_path / "home")}
    return load_settings(file, environ=variables | environ, overrides=overrides or {})


def refused(tmp_path: Path, config: object, **more: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, config, **more)
    return caught.value


def painted(settings: Settings) -> Painting:
    section = settings.stages["painting"]
    assert isinstance(section, Painting)
    return section


# ── sections that other programs share ────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("painting")
def test_a_section_that_is_absent_has_its_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, {}).stages["painting"] == Painting()
    given = Painting().model_dump(mode="json")
    assert default_config()["painting"] == given | {"text": {"content": "{{year}}"}}


@pytest.mark.usefixtures("painting")
def test_a_section_is_read_with_its_placeholders_and_the_command_line_on_top(tmp_path: Path) -> None:
    config = {"painting": {"size": 5, "text": {"font": "{lib_root}/${NAME}.ttf"}}}
    section = painted(load(tmp_path, config, {"painting.text.content": "{x}", "painting.colour": "green"}, NAME="a"))
    assert (section.size, section.colour) == (5, "green")
    assert section.text == Caption(content="{x}", font=f"{tmp_path}/lib/a.ttf")


@pytest.mark.usefixtures("painting")
def test_keys_of_other_programs_are_named_once_and_carried_along(tmp_path: Path) -> None:
    foreign = {"optimize": {"size": "{nothing}"}, "text": {"shadow": True, "_why": 1}, "_note": 2}
    ours = {"size": 7, "text": {"shadow": True, "_why": 1, "content": "x"}}
    settings = load(tmp_path, {"painting": foreign | ours})
    (warning,) = settings.warnings
    said = "painting.optimize, painting.text.shadow mean nothing to skicyclerun and are left alone."
    assert warning == f"{tmp_path}/given.json: {said}"
    assert settings.carried == {"painting": foreign}
    shown = settings.as_json()["painting"]
    assert shown["size"] == 7
    assert shown["optimize"] == {"size": "{nothing}"}
    assert shown["text"] == {"content": "x", "font": None, "shadow": True, "_why": 1}


@pytest.mark.usefixtures("painting")
def test_a_foreign_key_very_near_to_one_that_the_file_does_not_have_is_asked_about(tmp_path: Path) -> None:
    (warning,) = load(tmp_path, {"painting": {"colours": 1}}, {"painting.colour": "green"}).warnings
    assert warning.endswith("painting.colours means nothing to skicyclerun and is left alone. Did you mean 'colour'?")
    (warning,) = load(tmp_path, {"painting": {"colours": 1, "colour": "red"}}).warnings
    assert "Did you mean" not in warning
    (warning,) = load(tmp_path, {"painting": {"colours": 1, "z": 1}}).warnings
    assert "Did you mean 'colour' rather than 'colours'?" in warning


@pytest.mark.usefixtures("painting")
@pytest.mark.parametrize("stage", ["paint", "varnish"])
@pytest.mark.parametrize(
    ("section", "key", "words"),
    [
        ({"size": "big"}, "painting.size", "must be a whole number, not"),
        ({"text": {"content": ""}}, "painting.text.content", "must be a text of 1 to 4096 characters"),
        ({"text": {"font": 3}}, "painting.text.font", "must be a text of 1 to 4096 characters or null, not 3"),
        ({"limit": []}, "painting.limit", 'must be a whole number or "none", not an empty list'),
        ({"text": {"content": "${NOT_SET}"}}, "painting.text.content", "NOT_SET is not set"),
        ("x", "painting", "must be an object"),
    ],
    ids=["value", "nested", "optional", "union", "variable", "no object"],
)
def test_a_wrong_value_is_an_error_only_where_a_requested_stage_has_the_section(
    tmp_path: Path, stage: str, section: object, key: str, words: str
) -> None:
    settings = load(tmp_path, {"painting": section})
    assert painted(settings) == Painting()
    assert any(f"{key}: " in warning and words in warning for warning in settings.warnings)
    error = refused(tmp_path, {"pipeline": {"stages": ["export", stage]}, "painting": section})
    assert {each.key for each in (error.errors if isinstance(error, ConfigErrors) else [error])} == {key}
    assert words in str(error)


@pytest.mark.usefixtures("painting")
def test_what_was_typed_wrongly_is_an_error_whichever_stages_run(tmp_path: Path) -> None:
    assert "given on the command line" in str(refused(tmp_path, {}, overrides={"painting.size": "big"}))
    with pytest.raises(LookupError):
        load(tmp_path, {}, {"framing.size": 3})


@pytest.mark.usefixtures("painting")
def test_sections_that_no_stage_has_are_carried_untouched(tmp_path: Path) -> None:
    config = {"framing": {"size": "{nothing}"}, "notifications": {"x": "${UNSET}"}}
    settings = load(tmp_path, config)
    assert (settings.carried, settings.warnings) == (config, ())
    assert "painting" in settings.stages
    assert "framing" not in settings.stages


# ── commands of the user's own ────────────────────────────────────────────────────────────────────────────────────

COMMAND = ["python", "restyle.py", "--in={input}", "{output}"]


def test_a_command_is_a_stage_with_a_folder_of_its_own(tmp_path: Path) -> None:
    config = {
        "pipeline": {"stages": ["export", "restyle"]},
        "paths": {"input": "/not/this"},
        "stages": {
            "_note": 1,
            "restyle": {"command": ["${HOME}/x", "{lib_root}{{}}", "$${input}", "{output}"], "reads": "preprocessing"},
            "collage": {"command": ["sh", "-c", "make {album_input} {album_output}"], "output_folder": "c"},
        },
    }
    settings = load(tmp_path, config)
    assert settings.warnings == ()
    restyle, collage = settings.command_stages["restyle"], settings.command_stages["collage"]
    filled = [fill_in(each, input="/i{n}", output="/o") for each in restyle.command]
    assert filled == [f"{tmp_path}/home/x", f"{tmp_path}/lib{{}}", "$/i{n}", "/o"]
    assert (restyle.per, collage.per) == ("picture", "album")
    assert restyle.output_folder == tmp_path / "lib" / "pipeline" / "restyle"
    assert collage.output_folder == tmp_path / "lib" / "c"
    assert settings.path_of("stages.collage.output_folder") == tmp_path / "lib" / "c"
    assert (restyle.reads, collage.reads, restyle.at_once, restyle.extension) == ("preprocessing", "export", 1, ".jpg")
    again = load(tmp_path, settings.as_json())
    assert again.as_json() == settings.as_json()
    assert again.command_stages == settings.command_stages


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("lora_processing", "lora_processed"),
        ("preprocessing", "scaled"),
        ("watermarking", "watermarked_final"),
        ("post_lora_watermarking", "watermarked_final"),
        ("llm_image_analysis", "llm_image_analysis"),
    ],
)
def test_a_command_in_the_place_of_a_stage_of_ours_writes_where_that_would(
    tmp_path: Path, name: str, folder: str
) -> None:
    settings = load(tmp_path, {"stages": {name: {"command": COMMAND}}, name: {"anything": 1}})
    assert settings.command_stages[name].output_folder == tmp_path / "lib" / "pipeline" / folder
    assert settings.carried == {name: {"anything": 1}}


def test_the_time_of_a_command_is_the_time_out_of_its_picture_or_album(tmp_path: Path) -> None:
    album = ["x", "{album_input}", "{album_output}"]
    stages = {
        "a": {"command": COMMAND, "timeout_seconds": 7},
        "b": {"command": album, "timeout_seconds": 7},
        "c": {"command": COMMAND, "timeout_seconds": 7, "timeouts": {"photo": 9}},
    }
    read = load(tmp_path, {"stages": stages}).command_stages
    assert [(read[name].timeouts.photo, read[name].timeouts.album) for name in "abc"] == [
        (7, 3600),
        (120, 7),
        (9, 3600),
    ]


@pytest.mark.parametrize(
    ("name", "entry", "key", "words"),
    [
        ("cleanup", {"command": COMMAND}, "", "no command can take the place"),
        ("export", {"command": COMMAND}, "", "no command can take the place"),
        ("Restyle", {"command": COMMAND}, "", "begins with a letter"),
        ("a" * 41, {"command": COMMAND}, "", "up to 40"),
        ("../x", {"command": COMMAND}, "", "a to z"),
        ("x", 3, "", "must be an object .* not 3"),
        ("x", {}, ".command", "is missing; it must be a list of texts"),
        ("x", {"command": []}, ".command", "names no program"),
        ("x", {"command": "x {input} {output}"}, ".command", "must be a list of texts, not"),
        ("x", {"command": [*COMMAND, 3]}, ".command[4]", "must be a text that is not empty, not 3"),
        ("x", {"command": ["x", "{input}"]}, ".command", "must hold both {input} and {output}"),
        ("x", {"command": ["x", "{album_input}", "{output}"]}, ".command", "not a mix"),
        ("x", {"command": [*COMMAND, "{album_input}", "{album_output}"]}, ".command", "not a mix"),
        ("x", {"command": ["x", "{input}", "{{output}}"]}, ".command", "must hold both"),
        ("x", {"command": ["{input}{outptu}"]}, ".command[0]", "{outptu} is no key of paths"),
        ("x", {"command": [*COMMAND, "{timestamp}"]}, ".command[4]", "filled in only in logging.file"),
        ("x", {"command": COMMAND, "output_folder": "{input}"}, ".output_folder", "{input} is no key of paths"),
        ("x", {"command": COMMAND, "output_folder": 3}, ".output_folder", "must be a path, not 3"),
        ("x", {"command": COMMAND, "extension": "webp"}, ".extension", "must be a dot and up to 10"),
        ("x", {"command": COMMAND, "extension": ".a/b"}, ".extension", "must be a dot"),
        ("x", {"command": COMMAND, "at_once": 0}, ".at_once", "from 1 to 64, not 0"),
        ("x", {"command": COMMAND, "timeout_second": 3}, ".timeout_second", "Did you mean 'timeout_seconds'"),
        ("x", {"command": COMMAND, "reads": "exprt"}, ".reads", "Did you mean 'export'"),
        ("x", {"command": COMMAND, "reads": "cleanup"}, ".reads", "no stage that makes pictures"),
        ("x", {"command": COMMAND, "reads": "x"}, ".reads", "x → x"),
    ],
)
def test_a_wrong_command_is_refused_whether_or_not_it_is_requested(
    tmp_path: Path, name: str, entry: object, key: str, words: str
) -> None:
    error = refused(tmp_path, {"stages": {name: entry}})
    assert error.key == f"stages.{name}{key}"
    assert re.search(words.replace("{", r"\{"), str(error)), str(error)


def test_stages_that_read_each_other_are_refused_once(tmp_path: Path) -> None:
    stages = {
        "a": {"command": COMMAND, "reads": "b"},
        "b": {"command": COMMAND, "reads": "a"},
        "c": {"command": COMMAND, "reads": "b"},
    }
    assert "a → b → a" in str(refused(tmp_path, {"stages": stages}))


@pytest.mark.parametrize(
    "wrong",
    [{"command": ["x"]}, {"command": COMMAND, "reads": "exprt"}, {"command": COMMAND, "reads": "b"}, "x"],
    ids=["command", "unknown", "cycle", "no object"],
)
def test_what_only_reads_goes_on_without_a_stage_that_is_wrong_and_those_that_read_it(
    tmp_path: Path, wrong: object
) -> None:
    stages = {"a": wrong, "b": {"command": COMMAND, "reads": "a"}, "c": {"command": COMMAND}}
    file = tmp_path / "given.json"
    file.write_text(json.dumps({"stages": stages}))
    settings = load_settings(file, environ={"SKICYCLERUN_LIB_ROOT": str(tmp_path / "lib")}, only=())
    assert list(settings.command_stages) == ["c"]
    assert "c" in later_stages(settings)
    assert settings.problems


def test_a_command_that_nobody_asks_for_may_lack_its_variable(tmp_path: Path) -> None:
    stages: dict[str, object] = {"paint": {"command": ["${PAINTER}", *COMMAND]}}
    settings = load(tmp_path, {"stages": stages})
    assert settings.command_stages == {}
    assert settings.carried == {"stages": stages}
    (warning,) = settings.warnings
    assert "PAINTER is not set. The stage paint is left out." in warning
    assert isinstance(refused(tmp_path, {"pipeline": {"stages": ["paint"]}, "stages": stages}), EnvironmentUnset)
    # So may one that reads it.
    stages["dry"] = {"command": COMMAND, "reads": "paint"}
    settings = load(tmp_path, {"stages": stages})
    assert (settings.command_stages, settings.carried) == ({}, {"stages": stages})
    assert isinstance(refused(tmp_path, {"pipeline": {"stages": ["dry"]}, "stages": stages}), EnvironmentUnset)


def test_an_unknown_stage_in_the_pipeline_is_refused_with_the_nearest_of_all_names(tmp_path: Path) -> None:
    config = {"pipeline": {"stages": ["export", "restile"]}, "stages": {"restyle": {"command": COMMAND}}}
    error = refused(tmp_path, config)
    assert error.key == "pipeline.stages"
    assert "There is no stage 'restile'. Did you mean 'restyle'?" in str(error)


@pytest.mark.parametrize(
    ("folder", "other"),
    [
        ("{archive}", "paths.archive"),
        ("{archive}/x", "paths.archive"),
        ("{apple_photos_export}/x", "paths.apple_photos_export"),
        ("{preprocessed}", "paths.preprocessed"),
        ("{lib_root}/state", "paths.state_db"),
        ("{lib_root}/logs", "logging.file"),
        ("{pipeline_base}", "paths.pipeline_base"),
        ("{lib_root}", "lib_root"),
        ("~", "your home directory"),
        ("/", "lib_root"),
        ("{pipeline_base}/first/x", "stages.first.output_folder"),
    ],
)
def test_the_folder_of_a_command_neither_holds_nor_lies_in_another(tmp_path: Path, folder: str, other: str) -> None:
    stages = {"first": {"command": COMMAND}, "x": {"command": COMMAND, "output_folder": folder}}
    error = refused(tmp_path, {"stages": stages})
    assert error.key == "stages.x.output_folder"
    assert f" {other} (" in str(error)


def test_the_source_is_not_where_a_command_writes(tmp_path: Path) -> None:
    settings = load(tmp_path, {"stages": {"x": {"command": COMMAND, "output_folder": "/photos/x"}}})
    with pytest.raises(ConfigError, match=r"stages\.x\.output_folder: /photos/x lies in the source"):
        check_source_and_outputs(settings, Path("/photos"))


def test_commands_run_after_the_stage_they_read(tmp_path: Path) -> None:
    stages = {
        "second": {"command": COMMAND, "reads": "first"},
        "first": {"command": COMMAND, "reads": "preprocessing"},
        "preprocessing": {"command": COMMAND},
        "watermarking": {"command": COMMAND, "reads": "second"},
    }
    own = load(tmp_path, {"stages": stages}).own_stages()
    names = "watermarking first second preprocessing export cleanup"
    parsed = [stage.name for stage in parse_stages(names, own)]
    assert parsed == ["cleanup", "export", "preprocessing", "first", "second", "watermarking"]
    with pytest.raises(StageError, match="Did you mean 'second'"):
        parse_stages("secnd", own)


def test_a_command_is_a_stage_with_its_own_version_and_folder(tmp_path: Path) -> None:
    (stage,) = load(tmp_path, {"stages": {"x": {"command": COMMAND, "version": 4}}}).own_stages()
    assert (stage.version, stage.output, stage.settings) == (4, "stages.x.output_folder", CommandStageSettings)


# ── what looks like a slip ────────────────────────────────────────────────────────────────────────────────────────


def uploading(**further: object) -> dict[str, object]:
    cloudfront = {"enabled": True, "distribution_id": "E1", **further}
    section = {"bucket_name": "abc", "bucket_prefix": "my site", "cloudfront": cloudfront}
    return {"pipeline": {"stages": ["export", "s3_deployment"]}, "s3_deployment": section}


def test_a_path_for_the_cdn_that_can_match_nothing_is_warned_of(tmp_path: Path) -> None:
    settings = load(tmp_path, uploading(paths=["/my site/Alps/*", "/other/*", "/my%20site/*"]))
    (warning,) = settings.warnings
    assert 's3_deployment.cloudfront.paths[1] ("/other/*") matches nothing' in warning
    assert "/my%20site/" in warning


def test_an_origin_path_beside_the_prefix_is_warned_of(tmp_path: Path) -> None:
    (warning,) = load(tmp_path, uploading(origin_path="/site", paths=["/*"])).warnings
    assert "s3_deployment.cloudfront.origin_path (/site) and bucket_prefix (my site) lie apart" in warning
    assert load(tmp_path, uploading(origin_path="/my site", paths=["/Alps/*"])).warnings == ()


def test_a_path_for_the_cdn_may_be_written_in_any_letters(tmp_path: Path) -> None:
    assert load(tmp_path, uploading(paths=["/my site/Zürich/*"])).warnings == ()
    assert "has its `*` elsewhere" in str(refused(tmp_path, uploading(paths=["/my site/a\nb"])))
