"""The way that a user goes, in a real browser, on a phone and at a desk."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

expect = pytest.importorskip("playwright.sync_api", reason="the group [browser] is not installed").expect

from sharpzo_edge.demo import DEFAULT_TASK, TASKS
from support.processes import ROOT

from .conftest import SIZES, WAIT, Tab

AXE = ROOT / "build" / "npm" / "node_modules" / "axe-core" / "axe.min.js"
HELD_OUT = TASKS / DEFAULT_TASK / "test"
CONNECTIONS = 6  # that a browser has to one server
# While thumbnails are drawn, asks for something else, and counts those that came before it.
MEANWHILE = """async () => {
  const drawn = () => [...document.querySelectorAll(".tile img")].filter((image) => image.complete).length;
  while (drawn() < 3) await new Promise(requestAnimationFrame);
  const before = drawn();
  await fetch("/contents");
  return drawn() - before;
}"""


def column(page: Any, name: str) -> Any:
    return page.locator(f'.class[data-class="{name}"]')


def tiles(page: Any, name: str) -> Any:
    return column(page, name).locator(".tile")


def show(page: Any, name: str) -> None:
    """Go to a class: its pictures are loaded when it comes near."""
    column(page, name).scroll_into_view_if_needed()
    page.wait_for_selector(f'.class[data-class="{name}"] .tile')


def wait_for_tiles(page: Any, name: str, n: int) -> None:
    expect(tiles(page, name)).to_have_count(n, timeout=WAIT)


def points(page: Any) -> int:
    found = page.locator("#accuracy-chart polyline").first
    return len((found.get_attribute("points") or "").split()) if found.count() else 0


@pytest.mark.parametrize("size", SIZES)
def test_the_whole_way(browser: Any, url: str, photos: Path, size: str) -> None:
    """Label, tune, watch the curve, correct a picture, tune again, try one."""
    tab = Tab(browser, url, size)
    page = tab.open()

    # Pictures: what cannot be read is shown with its reason.
    page.wait_for_selector('.tile.unreadable:has-text("damaged")')
    # A wrong picture is moved to its class, and back.
    tile = page.locator('.tile[data-word="clothing/1F428.png"]')
    show(page, "clothing")
    tab.press(tile)
    page.wait_for_load_state("networkidle")
    tab.shoot("pictures")
    tab.press(page.locator("#targets button", has_text="animal mammal"))
    wait_for_tiles(page, "animal_mammal", 20)
    assert (photos / "animal_mammal" / "1F428.png").exists()
    tab.press(page.locator("#news button"))
    wait_for_tiles(page, "animal_mammal", 19)
    # One is put aside.
    show(page, "alphanum")
    tab.press(page.locator(".tile.unreadable"))
    tab.press(page.locator("#selection [data-do=aside]"))
    column(page, "put-aside").scroll_into_view_if_needed()
    wait_for_tiles(page, "put-aside", 1)
    assert (photos / ".put-aside" / "alphanum" / "0-torn.png").exists()
    # Pictures are added.
    show(page, "sport")
    new = sorted((HELD_OUT / "sport").iterdir())[:2]
    column(page, "sport").locator("input[data-do=add]").last.set_input_files(new)
    wait_for_tiles(page, "sport", 18)

    # Tune: the forecast first, then the run, its curve growing.
    page.goto(f"{url}tune")
    page.locator("select").select_option("demo")
    page.wait_for_selector("#plan dl")
    tab.press(page.locator("#run-buttons button:visible"))
    page.wait_for_selector("#tune[data-state=running]")
    page.wait_for_selector("#accuracy-chart polyline")
    before = points(page)
    page.wait_for_selector("#tune[data-state=finished]")
    assert points(page) > before >= 1
    assert re.fullmatch(r"\d+ / \d+ MiB", page.locator("#f-memory").inner_text())
    tab.shoot("tune")

    # Result: the wrong picture is among those to look at; one press moves it.
    page.goto(f"{url}result")
    wrong = page.locator('.correction[data-name="clothing/1F428.png"]')
    wrong.wait_for()
    page.locator("#report .large").wait_for()
    tab.shoot("result")
    tab.press(wrong.locator("[data-do=look]"))
    tab.press(page.locator("#look-targets button", has_text="animal mammal"))
    page.wait_for_selector(".correction.moved")
    assert (photos / "animal_mammal" / "1F428.png").exists()
    page.locator("#to-look-at").evaluate("each => each.scrollIntoView()")
    tab.shoot("corrected")
    tab.press(page.locator("#corrected button"))
    page.wait_for_url("**/tune")
    page.wait_for_selector("#tune[data-state=running]")
    page.wait_for_selector("#tune[data-state=finished]")

    # Try one.
    page.goto(f"{url}try")
    page.locator("input[data-do=try]").first.set_input_files(sorted((HELD_OUT / "geometric").iterdir())[0])
    page.wait_for_selector("#try-labels li")
    assert page.locator("#try-labels li").count() == 5
    assert re.fullmatch(r"\d+\.\d\d s", page.locator("#try-seconds").inner_text())
    tab.shoot("try")
    tab.close()


def test_many_are_selected_by_shift_and_by_drawing(browser: Any, url: str) -> None:
    tab = Tab(browser, url, "desk")
    page = tab.open()
    wait_for_tiles(page, "geometric", 18)
    some = tiles(page, "geometric")
    some.nth(1).click()
    some.nth(5).click(modifiers=["Shift"])
    assert page.locator("#n-selected").inner_text() == "5"
    page.locator("#selection [data-do=clear]").click()
    start, end = some.nth(2).bounding_box(), some.nth(8).bounding_box()
    page.mouse.move(start["x"] + 20, start["y"] + 20)
    page.mouse.down()
    page.mouse.move(end["x"] + 20, end["y"] + 20, steps=8)
    page.mouse.up()
    assert page.locator("#n-selected").inner_text() == "7"
    # And what is selected is drawn to another class.
    some.nth(3).drag_to(column(page, "food_prepared").locator("h2"))
    wait_for_tiles(page, "food_prepared", 27)
    wait_for_tiles(page, "geometric", 11)
    tab.close()


def test_the_keyboard_alone_is_enough(browser: Any, url: str, photos: Path) -> None:
    """Select three pictures, move them, go to Tune, and start and stop a run."""
    tab = Tab(browser, url, "desk")
    page = tab.open()
    wait_for_tiles(page, "animal_mammal", 19)
    press = page.keyboard.press

    def tab_until(selector: str) -> None:
        for _ in range(60):
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
            press("Tab")
        raise AssertionError(f"no Tab leads to {selector}")

    tab_until('.class[data-class="animal_mammal"] .tile')
    press("ArrowRight")
    press("Space")
    press("Shift+ArrowRight")
    press("Shift+ArrowRight")
    assert page.locator("#n-selected").inner_text() == "3"
    press("m")
    tab_until("#targets button:nth-of-type(3)")
    press("Enter")
    wait_for_tiles(page, "animal_mammal", 16)
    assert len(list((photos / "clothing").iterdir())) == 24
    page.evaluate("document.activeElement.blur(); document.querySelector('.skip').focus()")
    tab_until('nav a[href="/tune"]')
    press("Enter")
    page.wait_for_selector("#plan dl")
    tab_until("#run-buttons button")
    press("Enter")
    page.wait_for_selector("#tune[data-state=running]")
    page.wait_for_selector("#accuracy-chart polyline")
    tab_until('[data-do="stop"]')
    press("Enter")
    page.wait_for_selector("#tune[data-state=interrupted]")
    tab.close()


def test_a_change_from_outside_appears(browser: Any, url: str, photos: Path) -> None:
    tab = Tab(browser, url, "desk")
    page = tab.open()
    wait_for_tiles(page, "clothing", 21)
    sorted((photos / "clothing").iterdir())[0].unlink()
    wait_for_tiles(page, "clothing", 20)
    (photos / "clothing").rename(photos / "garments")
    page.wait_for_selector('.class[data-class="garments"]')
    tab.close()


def test_a_class_is_made_named_and_given_words(browser: Any, url: str, photos: Path) -> None:
    tab = Tab(browser, url, "phone")
    page = tab.open()
    page.locator("#new-class-name").fill("sea animal")
    page.keyboard.press("Enter")
    page.wait_for_selector('.class[data-class="sea_animal"]')
    column(page, "sea_animal").locator("[data-do=edit]").tap()
    page.locator("#edit input[name=name]").fill("water animal")
    page.locator("#edit input[name=words]").fill("<b>an animal</b> in water")
    page.locator("#edit button[value=save]").tap()
    page.wait_for_selector('.class[data-class="water_animal"]')
    assert "<b>an animal</b> in water" in column(page, "water_animal").inner_text()
    assert (photos / "water_animal").is_dir()
    tab.close()


def test_what_a_user_does_overtakes_thumbnails(browser: Any, url: str) -> None:
    tab = Tab(browser, url, "desk")
    page = tab.open()
    page.wait_for_selector(".tile img")
    assert page.evaluate(MEANWHILE) <= CONNECTIONS
    tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_contrast_and_labels_are_good(browser: Any, url: str, size: str, scheme: str) -> None:
    """By axe-core's rules, in every part of the page."""
    if not AXE.exists():
        pytest.skip("axe-core is not installed: make test-page installs it")
    tab = Tab(browser, url, size, scheme)
    page = tab.open("tune")
    page.evaluate("fetch('/start', {method: 'POST', body: new URLSearchParams({preset: 'head'})})")
    page.wait_for_selector("#tune[data-state=finished]")
    for part in ("", "tune", "result", "try"):
        page = tab.open(part)
        page.wait_for_timeout(1500)
        if part == "":
            tab.press(page.locator(".tile").first)
            page.wait_for_selector("#selection:not([hidden])")
        if part == "result":
            tab.press(page.locator(".correction [data-do=move]").first)
            page.wait_for_selector(".correction.moved")
        page.evaluate(AXE.read_text(encoding="utf-8"))
        found = page.evaluate("axe.run()")
        assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == [], part
    tab.close()
