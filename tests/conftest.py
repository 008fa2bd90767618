"""What every test starts from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.bucket_server import BucketThere, Service

#: A busy machine is no fault of an input, and fixtures are shared by all inputs of a test on purpose.
_ALWAYS: Final = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
#: Whether the suite passes is not left to chance: each test tries the same inputs every time.
settings.register_profile("suite", _ALWAYS, derandomize=True, database=None)
#: `make explore` tries others, and says how to come back to what failed.
settings.register_profile("explore", _ALWAYS, print_blob=True)
settings.load_profile("suite")

#: Modules that take longest, longest first: begun before the others, none is still at work when all is done but it.
_LONGEST: Final = (
    "test_photos_app_runs",
    "test_s3_deployment",
    "test_cli_terminal",
    "test_stages_run",
    "test_s3_campaign",
    "test_two_at_once",
    "test_verify_stages",
    "test_stage_campaign",
    "test_crash_campaign",
    "test_archive_push",
    "test_bucket_refusals",
    "test_s3_verification",
    "test_s3_moves",
    "test_llm_runs",
    "test_images_heic",
    "test_outputs_campaign",
    "test_stages_on_real_libraries",
    "test_verify",
    "test_photos_app",
    "test_hostile_input",
    "test_choose_albums",
    "test_report",
    "test_report_browser",
    "test_cli_signals",
    "test_check_on_a_mac",
    "test_s3_corrected",
    "test_photos_app_campaign",
    "test_archive_remote",
    "test_archive_places",
    "test_preprocessing",
    "test_source_contract",
    "test_rebuild_state",
    "test_archive_clean",
    "test_archive_create",
    "test_existing_configuration",
    "test_python_api",
    "test_images_convert",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """xdist hands modules out in the order of their first tests."""
    place = {name: number for number, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: one more than there are cores. A third of their time the tests wait, for servers, time-outs, disks."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of whoever runs the tests have no say in them."""
    for name in [name for name in os.environ if name.startswith("SKICYCLERUN_")]:
        # The crash campaign is steered by these two.
        if name not in ("SKICYCLERUN_CRASHES", "SKICYCLERUN_SEED"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The program runs on asyncio, and so do its tests."""
    return "asyncio"


@pytest.fixture(scope="session")
def sample_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of `skicyclerun demo`, which takes seconds to draw. Read only: whoever changes it copies it."""
    from skicyclerun.sources.sample_library import make_sample_library

    root = tmp_path_factory.mktemp("library") / "sample"
    make_sample_library(root)
    return root


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """S3 and CloudFront on the loopback. Its modules are imported where it is asked for: boto3 takes a while."""
    from tests.bucket_server import running_service

    with running_service() as running:
        yield running


@pytest.fixture
def bucket(service: Service) -> BucketThere:
    """A new, empty one."""
    return service.bucket()


@pytest.fixture
def bucket_credentials(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the service asks for, in the environment. Nothing that the test does makes anything public."""
    from tests.bucket_server import CREDENTIALS, assert_nothing_public

    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDFRONT", service.proxy.address)
    service.proxy.clear()
    yield
    service.proxy.let_go.set()
    assert_nothing_public(service.proxy.asked)
