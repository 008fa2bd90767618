"""The page in a real browser, from the disk: nothing leaves it, nothing is wrong with it, and it works by keyboard.

Chromium as the system has it, driven by playwright; axe-core looks for what shuts people out. Skipped, with the
reason, where there is no Chromium.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import skicyclerun
from tests.staged_sample import Staged

pytestmark = pytest.mark.long

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 800}
#: Of axe's four grades those that keep somebody out.
SERIOUS = ("serious", "critical")
HOSTILE = 'Z<script>document.title="owned"<\N{FRACTION SLASH}script>"onload=x \u202egpj'
#: ISO/IEC 14496-12: a file of the kind, with nothing in it.
MOVIE = bytes.fromhex("00000018667479706973616d000002006973616d69736f32") + bytes.fromhex("000000086d6f6f76")


def chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser(page_file: Path) -> Iterator[Any]:
    """Begun when the page is there: its event loop would stand in the way of ours."""
    path = chromium()
    assert path is not None
    options = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=options)
        yield started
        started.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a stage, positions, a photo that failed, a film, and names that are out for trouble."""
    if chromium() is None:
        pytest.skip("no Chromium here; `apt-get install chromium` brings it")
    sample = Staged(tmp_path_factory.mktemp("browser"))
    for number in range(3):
        sample.picture(f"Alps/IMG_{number}.jpg", number * 60, position=True, size=(480, 320))
    sample.picture("Alps/upright.jpg", 200, size=(320, 480))
    sample.picture(f"{HOSTILE}/IMG_1.jpg", 90, date="2024:02:11 07:52:10")
    (sample.library / "Beach").mkdir()
    (sample.library / "Beach" / "waves.mp4").write_bytes(MOVIE)
    (sample.library / "Alps" / "z_broken.jpg").write_bytes(b"no picture")
    ended = sample.export("preprocessing")
    assert ended.code == 3, ended.stderr
    assert skicyclerun("report", "--lib-root", sample.lib_root).code == 0
    return sample.lib_root / "report.html"


@contextmanager
def opened(
    browser: Any, file: Path, *, size: dict[str, int] = WIDE, may_complain: bool = False, **options: Any
) -> Iterator[Any]:
    """The page in a tab of its own. Whatever it asks of anything but the disk, or complains of, fails the test."""
    context = browser.new_context(viewport=size, **options)
    tab = context.new_page()
    complaints: list[str] = []
    tab.on("console", lambda message: complaints.append(f"console: {message.text}"))
    tab.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    tab.on("request", lambda request: complaints.extend([request.url] if not request.url.startswith("file:") else []))
    tab.on("requestfailed", lambda request: complaints.append(f"not there: {request.url}"))
    tab.goto(file.as_uri())
    try:
        yield tab
        assert may_complain or complaints == []
    finally:
        context.close()


def albums(page_file: Path) -> list[Path]:
    return sorted(page_file.with_name("report_files").glob("album-*.html"))


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_shut_out_and_nothing_leaves_the_page(
    browser: Any, page_file: Path, size: dict[str, int], scheme: str
) -> None:
    for file in (page_file, albums(page_file)[0]):
        # The page forbids every script but its own: axe is let in by the browser, not by the page.
        with opened(browser, file, size=size, color_scheme=scheme, bypass_csp=True) as tab:
            found = axe.Axe().run(tab).response["violations"]
            assert [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in SERIOUS] == []
            assert tab.evaluate("document.documentElement.scrollWidth") == size["width"]
            ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, ground.strip("rgb()").split(","))) > 384) is (scheme == "light")


def test_the_large_view_shuts_nobody_out(browser: Any, page_file: Path) -> None:
    with opened(browser, albums(page_file)[0], bypass_csp=True) as tab:
        tab.click("#photo-1 a")
        found = axe.Axe().run(tab).response["violations"]
        assert [each["id"] for each in found if each["impact"] in SERIOUS] == []


def test_the_reason_of_a_failed_photo_is_in_sight_without_scrolling(browser: Any, page_file: Path) -> None:
    with opened(browser, page_file) as tab:
        trouble = tab.locator("#attention li", has_text="z_broken.jpg")
        assert trouble.is_visible()
        assert trouble.bounding_box()["y"] < WIDE["height"]
        assert len(trouble.inner_text()) > len("z_broken.jpg") + 10
        assert "skicyclerun retry-failed" in tab.locator("#attention code").inner_text()


def test_an_album_opens_and_its_pictures_are_there(browser: Any, page_file: Path) -> None:
    with opened(browser, page_file) as tab:
        assert loaded(tab) > 0
        tab.click("#album-1 a")
        tab.wait_for_url("**/album-0001.html")
        assert tab.locator(".tile").count() == 4
        assert loaded(tab) == 4
        tab.click("header >> text=Run 1")
        tab.wait_for_url("**/report.html#album-1")


def loaded(tab: Any) -> int:
    """Pictures that have come, all of them: a broken one fails."""
    pictures = tab.locator("main img")
    for number in range(pictures.count()):
        pictures.nth(number).scroll_into_view_if_needed()
    tab.wait_for_function("[...document.querySelectorAll('main img')].every(each => each.complete)")
    widths = tab.evaluate("[...document.querySelectorAll('main img')].map(each => each.naturalWidth)")
    assert all(widths)
    return len(widths)


def test_the_large_view_shows_the_exported_file_and_goes_by_keyboard(browser: Any, page_file: Path) -> None:
    with opened(browser, albums(page_file)[0]) as tab:
        first = tab.locator("#photo-1 a")
        first.focus()
        tab.keyboard.press("Enter")
        large = tab.locator("#viewer [data-large] img")
        large.wait_for(state="visible")
        files = [
            f"/{tab.locator(f'#photo-{number} a').get_attribute('href').rpartition('/')[2]}" for number in (1, 2, 4)
        ]
        assert large.get_attribute("src").endswith(files[0])
        assert tab.evaluate("document.activeElement.closest('dialog') !== null")
        assert "Zermatt" in tab.locator("#viewer").inner_text() or "46.0200° N" in tab.locator("#viewer").inner_text()
        tab.keyboard.press("ArrowRight")
        assert large.get_attribute("src").endswith(files[1])
        tab.keyboard.press("ArrowLeft")
        tab.keyboard.press("ArrowLeft")
        assert large.get_attribute("src").endswith(files[2])
        assert tab.url.endswith("#photo-4")
        tab.keyboard.press("Escape")
        assert not tab.locator("#viewer").is_visible()
        assert tab.evaluate("document.activeElement.closest('[data-photo]').id") == "photo-4"


def test_a_link_to_a_photo_opens_it(browser: Any, page_file: Path) -> None:
    with opened(browser, albums(page_file)[0]) as tab:
        tab.goto(albums(page_file)[0].as_uri() + "#photo-2")
        tab.reload()
        assert tab.locator("#viewer").is_visible()
        assert tab.locator("#viewer [data-count]").inner_text() == "2 of 4"


def test_everything_can_be_reached_with_the_tab_key_and_its_focus_is_seen(browser: Any, page_file: Path) -> None:
    with opened(browser, page_file) as tab:
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.textContent") == "Skip to the content"
        reached = set()
        for _ in range(60):
            tab.keyboard.press("Tab")
            told = tab.evaluate(
                "(each => [each.outerHTML.slice(0, 80), getComputedStyle(each).outlineStyle])(document.activeElement)"
            )
            if told[0].startswith("<body"):
                break
            reached.add(told[0])
            assert told[1] != "none", told
        links = tab.locator("a:visible:not(.skip), button:visible, summary:visible")
        assert len(reached) >= links.count() * 0.9


def test_a_film_plays_in_the_large_view(browser: Any, page_file: Path) -> None:
    with opened(browser, albums(page_file)[1], may_complain=True) as tab:  # of a film that has no frames
        assert tab.locator(".tile a").text_content().strip() == "Play waves.mp4"
        tab.click(".tile a")
        film = tab.locator("#viewer video")
        assert film.is_visible()
        assert film.get_attribute("src").endswith("/Beach/waves.mp4")


def test_it_works_without_its_script(browser: Any, page_file: Path) -> None:
    with opened(browser, albums(page_file)[0], java_script_enabled=False) as tab:
        assert not tab.locator("#viewer").is_visible()
        href = tab.locator("#photo-1 a").get_attribute("href")
        tab.click("#photo-1 a")
        assert tab.url.endswith(href.rpartition("/")[2])


def test_hostile_names_are_text_and_no_script_of_theirs_runs(browser: Any, page_file: Path) -> None:
    for file in (page_file, albums(page_file)[-1]):
        with opened(browser, file) as tab:
            assert tab.title() != "owned"
            shown = tab.locator("main").inner_text()
            assert 'Z<script>document.title="owned"' in shown
            assert "\\u202egpj" in shown
            assert tab.evaluate("document.scripts.length") == 1


def test_the_page_forbids_what_it_does_not_need(browser: Any, page_file: Path) -> None:
    with opened(browser, page_file, may_complain=True) as tab:
        told = tab.evaluate(
            """async () => {
                const refused = new Promise(said => document.addEventListener("securitypolicyviolation", said));
                fetch("http://127.0.0.1:9/").catch(() => null);
                return (await refused).effectiveDirective;
            }"""
        )
        assert told == "connect-src"
        tab.evaluate(
            """() => {
                const one = document.createElement("script");
                one.textContent = "window.ran = 1";
                document.body.append(one);
            }"""
        )
        assert tab.evaluate("window.ran") is None
