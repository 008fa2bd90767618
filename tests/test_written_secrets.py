"""Secrets in the configuration: refused where credentials have no business, warned of elsewhere, and shown nowhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from skicyclerun.errors import ConfigError, ConfigErrors
from skicyclerun.settings.load import load_settings
from skicyclerun.settings.models import Settings, default_config
from skicyclerun.settings.written_secrets import HIDDEN, hidden_secrets, is_called_secret
from tests.command_line import skicyclerun
from tests.test_existing_configuration import EXISTING

SECRET: Final = "TOP-SECRET-1234"
KEY_ID: Final = "AKIAIOSFODNN7EXAMPLE"
#: As AWS's documentation has it, so nobody's.
BESIDE: Final = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"

CALLED_SECRET: Final = (
    "aws_secret_access_key",
    "aws_access_key_id",
    "accessKeyId",
    "AWSSecretKey",
    "awssecretaccesskey",
    "aws_session_token",
    "aws_token",
    "token",
    "tokens",
    "key",
    "keys",
    "key_id",
    "aws_key",
    "pass",
    "passphrase",
    "password",
    "smtp-password",
    "db_passwd",
    "secret",
    "client_secret",
    "clientsecret",
    "credentials",
    "api_key",
    "apikey",
    "auth",
    "Authorization",
    "private_key",
    "sse_customer_key",
    "_aws_secret_access_key",
    "__token",
)
NO_SECRET: Final = (
    "key_prefix",
    "object_key",
    "cache_key",
    "public_key",
    "sse_kms_key_id",
    "keywords",
    "monkey",
    "bypass",
    "compass",
    "passes",
    "author",
    "secretary",
    "max_tokens",
    "token_limit",
    "tokenizer",
    "credentials_file",
    "password_file",
    "auth_type",
    "bucket_name",
)


def load(tmp_path: Path, config: object, *, only: tuple[str, ...] | None = None) -> Settings:
    file = tmp_path / "given.json"
    file.write_text(json.dumps(config))
    return load_settings(file, lib_root=tmp_path / "lib", environ={}, only=only)


def refused(tmp_path: Path, config: object) -> list[ConfigError]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, config)
    error = caught.value
    assert not error.warnings
    return list(error.errors) if isinstance(error, ConfigErrors) else [error]


def uploading(**further: Any) -> dict[str, Any]:
    return {"pipeline": {"stages": ["export", "s3_deployment"]}, "s3_deployment": {"bucket_name": "abc", **further}}


# ── in a section where none may stand ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", CALLED_SECRET)
def test_a_name_that_says_so_is_refused_in_the_section_of_the_bucket(tmp_path: Path, name: str) -> None:
    (error,) = refused(tmp_path, uploading(**{name: SECRET}))
    assert error.key == f"s3_deployment.{name}"
    assert "holds a credential" in str(error)
    assert "aws configure" in error.next_step
    assert SECRET not in f"{error} {error.next_step}"


@pytest.mark.parametrize("name", NO_SECRET)
def test_a_name_that_only_sounds_like_one_is_not(tmp_path: Path, name: str) -> None:
    assert not is_called_secret(name, of_aws=True)
    load(tmp_path, uploading(**({} if name == "bucket_name" else {name: "something"})))


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"auth": [{"aws_secret_access_key": SECRET}]}, "auth"),
        ({"more": [{"deep": [[{"_token": SECRET}]]}]}, "more[0].deep[0][0]._token"),
        ({"_notes": {"old": {"secretKey": SECRET}}}, "_notes.old.secretKey"),
        ({"cloudfront": {"session_token": SECRET}}, "cloudfront.session_token"),
        ({"credentials": {"id": SECRET}}, "credentials"),
        ({"note": f"use {KEY_ID} for it"}, "note"),
        ({"_note": KEY_ID}, "_note"),
        ({"aws_profile": KEY_ID}, "aws_profile"),
        ({"cloudfront": {"paths": [f"/{KEY_ID}/*"]}}, "cloudfront.paths[0]"),
        ({"people": {KEY_ID: "x"}}, "people.(hidden)"),
        ({"proxy": f"http://me:{SECRET}@proxy.example.org"}, "proxy"),
        ({"endpoint_url": f"https://me:{SECRET}@s3.example.org"}, "endpoint_url"),
        ({"pem": f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}"}, "pem"),
        ({"pin": {"password": 123456}}, "pin.password"),
    ],
)
def test_a_secret_is_found_at_any_depth_by_name_and_by_look(tmp_path: Path, section: dict[str, Any], key: str) -> None:
    (error,) = refused(tmp_path, uploading(**section))
    assert error.key == f"s3_deployment.{key}"
    assert not any(secret in str(error) for secret in (SECRET, KEY_ID, "123456"))


def test_what_looks_like_the_secret_of_a_key_id_is_one_only_beside_it(tmp_path: Path) -> None:
    errors = refused(tmp_path, uploading(first={"a": KEY_ID}, second=[BESIDE]))
    assert [error.key for error in errors] == ["s3_deployment.first.a", "s3_deployment.second[0]"]
    settings = load(tmp_path, uploading(source_folder=BESIDE))
    assert settings.as_json()["s3_deployment"]["source_folder"] == BESIDE


@pytest.mark.parametrize("value", ["", None, True, [], {}, "${AWS_SECRET_ACCESS_KEY}", 0])
def test_a_name_without_a_secret_under_it_is_left_alone(tmp_path: Path, value: object) -> None:
    settings = load(tmp_path, uploading(aws_secret_access_key=value))
    assert settings.as_json()["s3_deployment"]["aws_secret_access_key"] == value


def test_other_stages_run_beside_it_and_it_is_warned_of_once(tmp_path: Path) -> None:
    settings = load(tmp_path, {"s3_deployment": {"bucket_name": "abc", "more": [{"aws_token": SECRET}]}})
    (warning,) = settings.warnings
    assert "s3_deployment.more[0].aws_token: holds a credential" in warning
    assert "aws configure" in warning
    assert SECRET not in json.dumps(settings.as_json()) + warning
    assert settings.stages["s3_deployment"].model_dump()["bucket_name"] == "abc"


@pytest.mark.parametrize("part", [{"aws_secret_access_key": SECRET}, {"_token": SECRET}, {"aws_profile": KEY_ID}])
def test_none_may_stand_at_the_service_of_the_archives_either(tmp_path: Path, part: dict[str, str]) -> None:
    (error,) = refused(tmp_path, {"cleanup": {"remote_service": part}})
    assert error.key == f"cleanup.remote_service.{next(iter(part))}"
    assert "cleanup.remote_service.aws_profile" in error.next_step
    settings = load(tmp_path, {"cleanup": {"remote_service": part}}, only=())
    shown = json.dumps(settings.as_json())
    assert SECRET not in shown
    assert KEY_ID not in shown


# ── elsewhere ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_belongs_to_other_programs_is_warned_of_once_and_hidden_and_stays(tmp_path: Path) -> None:
    config = {
        "aws": {"aws_secret_access_key": SECRET, "key": SECRET, "region": "eu-central-1"},
        "notifications": {"smtp": [{"password": SECRET, "host": "mail.example.org"}], "key": "subject"},
        "export": {"api_token": SECRET},
        "_hint": f"{KEY_ID} and {BESIDE}",
        "push": f"https://me:{SECRET}@example.org/x",
        "people": {KEY_ID: BESIDE},
        "list": [[BESIDE]],
    }
    settings = load(tmp_path, config)
    secrets = [warning for warning in settings.warnings if "look like secrets" in warning]
    assert len(secrets) == 1
    for key in (
        "aws.aws_secret_access_key",
        "aws.key",
        "notifications.smtp[0].password",
        "export.api_token",
        "_hint",
        "push",
        "people.(hidden)",
        "list[0][0]",
    ):
        assert key in secrets[0]
    shown = settings.as_json()
    told = json.dumps(shown) + "".join(settings.warnings)
    assert SECRET not in told
    assert KEY_ID not in told
    assert BESIDE not in told
    assert shown["aws"] == {"aws_secret_access_key": HIDDEN, "key": HIDDEN, "region": "eu-central-1"}
    assert shown["notifications"] == {"smtp": [{"password": HIDDEN, "host": "mail.example.org"}], "key": "subject"}
    assert shown["push"] == "https://(hidden)@example.org/x"
    assert settings.carried["aws"] == config["aws"]  # what is carried along is carried as it is


def test_a_problem_elsewhere_does_not_repeat_a_secret(tmp_path: Path) -> None:
    (error,) = refused_with_warnings(tmp_path, {"export": {"format": f"{KEY_ID}:{BESIDE}"}})
    assert error.key == "export.format"
    assert KEY_ID not in str(error)
    assert BESIDE not in str(error)


def refused_with_warnings(tmp_path: Path, config: object) -> list[ConfigError]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, config)
    assert not any(KEY_ID in warning for warning in caught.value.warnings)
    return [caught.value]


def test_existing_configurations_and_the_defaults_hold_nothing_that_looks_like_a_secret() -> None:
    for config in (json.loads(EXISTING.read_text()), default_config()):
        assert hidden_secrets(config) == config


@hypothesis_settings(max_examples=150)
@given(
    st.recursive(
        st.text(max_size=8) | st.integers() | st.none(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(CALLED_SECRET),
)
def test_wherever_it_stands_it_is_hidden_and_nothing_else_changes(inner: Any, name: str) -> None:
    plain = {"around": [inner, {"aws": {"other": inner}}]}
    assume(hidden_secrets(plain) == plain)
    hidden = hidden_secrets({"around": [inner, {"aws": {"other": inner, name: [{"x": SECRET}]}}]})
    assert hidden == {"around": [inner, {"aws": {"other": inner, name: [{"x": HIDDEN}]}}]}
    assert hidden_secrets(hidden) == hidden


# ── at the keyboard ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_says_one_refusal_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "given.json"
    file.write_text(json.dumps({"s3_deployment": {"bucket_name": "abc", "_aws_token": SECRET}}))
    ended = skicyclerun(
        "run", "--config", file, "--lib-root", tmp_path / "lib", "--stages", "export,s3_deployment", "--check-config"
    )
    assert ended.code == 2
    assert "Warning:" not in ended.stderr
    assert ended.stderr.count("s3_deployment._aws_token") == 1
    shown = skicyclerun("config", "show", "--config", file, "--lib-root", tmp_path / "lib")
    assert SECRET not in ended.stderr + ended.stdout + shown.stderr + shown.stdout


@pytest.mark.parametrize("section", [{"bucket_name": "no bucket"}, {"endpoint_url": "nowhere"}])
def test_what_is_wrong_in_a_section_that_runs_is_not_called_unneeded(tmp_path: Path, section: dict[str, str]) -> None:
    file = tmp_path / "given.json"
    file.write_text(json.dumps({"s3_deployment": {"bucket_name": "abc", **section}}))
    place = ("--config", file, "--lib-root", tmp_path / "lib", "--check-config")
    ended = skicyclerun("run", "--stages", "export,s3_deployment", *place)
    assert ended.code == 2
    assert "No stage that runs needs it" not in ended.stderr
    others = skicyclerun("run", "--stages", "export", *place)
    assert others.code == 0
    assert others.stderr.count("No stage that runs needs it") == 1
