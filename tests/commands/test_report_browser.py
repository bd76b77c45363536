"""The report in a real browser: sorted, slid, darkened, and held as small as a phone."""

import pytest

from deblur_lab.finished_runs import find_runs
from deblur_lab.leaderboard import tables_across
from deblur_lab.overview import overviews
from deblur_lab.report_page import page as page_of
from tests.browser import opened, started_browser
from tests.compared_runs import LEGENDS, NAMES, write_compared
from tests.written_runs import result, write_evaluation, write_run

PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser():
    with started_browser() as started:
        yield started


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_compared(folder)
    runs = find_runs(folder)
    boards, comparisons = tables_across(runs)
    path = folder / "report.html"
    path.write_text(page_of(runs, comparisons, 4, boards), encoding="utf-8")
    assert path.stat().st_size < 10_000_000
    return path.as_uri()


def test_tables_are_sorted_by_their_headings(browser, report):
    with opened(browser, report) as page:
        table = page.locator("table.sorts").first
        heading = table.locator("thead th", has_text="PSNR").first

        def models():
            return table.locator("tbody tr th:first-child").all_inner_texts()

        assert models() == ["blurry input", "M2AENet", "NAFNet"]
        heading.get_by_role("button").click()
        assert heading.get_attribute("aria-sort") == "descending"
        assert models() == ["blurry input", "M2AENet", "NAFNet"]
        page.keyboard.press("Enter")  # the button has the focus
        assert heading.get_attribute("aria-sort") == "ascending"
        assert models() == ["blurry input", "NAFNet", "M2AENet"]
        other = table.locator("thead th").first
        other.get_by_role("button").click()
        assert (other.get_attribute("aria-sort"), heading.get_attribute("aria-sort")) == ("ascending", "none")
        assert models() == ["blurry input", "M2AENet", "NAFNet"]


def test_columns_in_groups_are_sorted_one_by_one(browser, tmp_path):
    """Each dataset's group stands over its own columns."""
    for name, net, first, second in (("a", "NAFNet", 21.0, 31.0), ("b", "M2AENet", 22.0, 30.0)):
        settings = {"net": {"_target_": f"deblur_lab.models.{net}"}}
        write_run(tmp_path / name, 0, settings, result(first, dataset="one", made_up=True))
        checkpoint = str(tmp_path / name / "checkpoints" / "last.ckpt")
        other = result(second, dataset="two", made_up=True)
        write_evaluation(tmp_path / f"e{name}", other, checkpoint=checkpoint, trained_on=["GoPro"])
    runs = find_runs(tmp_path)
    boards, comparisons = tables_across(runs)
    path = tmp_path / "report.html"
    path.write_text(page_of(runs, comparisons, 0, boards, overviews(runs, boards)), encoding="utf-8")
    with opened(browser, path.as_uri()) as page:
        table = page.locator("#datasets-1 table")
        groups, psnr = table.locator("th.group"), table.locator("thead th", has_text="PSNR")
        assert groups.all_inner_texts() == ["one (made up)", "two (made up)"]
        for at in range(2):
            above, below = groups.nth(at).bounding_box(), psnr.nth(at).bounding_box()
            assert above["x"] == pytest.approx(below["x"], abs=1)
        assert groups.locator("button").count() == 0
        found = []
        for at in range(2):
            psnr.nth(at).get_by_role("button").click()
            found.append(table.locator("tbody tr th:first-child").all_inner_texts())
        assert found == [["blurry input", "M2AENet", "NAFNet"], ["blurry input", "NAFNet", "M2AENet"]]


def test_the_slider_follows_mouse_and_keyboard(browser, report):
    with opened(browser, report) as page:
        stage, wipe = page.locator(".stage"), page.locator(".wipe")
        stage.scroll_into_view_if_needed()
        box = stage.bounding_box()
        place = lambda share: (box["x"] + box["width"] * share, box["y"] + box["height"] / 2)  # noqa: E731
        handle = lambda: page.locator(".handle").bounding_box()["x"] + 1 - box["x"]  # noqa: E731
        page.mouse.move(*place(0.5))
        page.mouse.down()
        page.mouse.move(*place(0.2))
        page.mouse.up()
        assert wipe.input_value() == "20"
        assert handle() == pytest.approx(box["width"] * 0.2, abs=2)
        page.mouse.move(*place(0.9))  # not held
        assert wipe.input_value() == "20"
        wipe.focus()
        page.keyboard.press("ArrowRight")
        assert wipe.input_value() == "21"
        assert handle() == pytest.approx(box["width"] * 0.21, abs=2)
        # What lies above is cut off where the handle is.
        assert (
            page.locator(".above").evaluate("image => getComputedStyle(image).clipPath").startswith("inset(0")
        )


def test_images_and_sides_are_chosen_and_overlays_where_there_are_some(browser, report):
    with opened(browser, report) as page:
        sides = {name: page.locator(f"select.{name}") for name in ("pick", "left", "right", "overlay")}
        shown = lambda side: page.locator(f".stage .{side}").get_attribute("alt")  # noqa: E731
        assert (shown("above"), shown("below")) == (
            f"blurry input of {NAMES[0]}",
            f"M2AENet, seed 0 of {NAMES[0]}",
        )
        sides["overlay"].select_option(label="predicted mask")
        assert shown("below") == f"predicted mask: M2AENet, seed 0 of {NAMES[0]}"
        key = page.locator(".viewer .key")
        assert key.inner_text() == LEGENDS["mask"]
        sides["overlay"].select_option(label="true mask")
        sides["right"].select_option(label="NAFNet, seed 0")
        assert shown("below") == f"true mask of {NAMES[0]}"
        assert key.inner_text() == LEGENDS["true_mask"]
        # It predicts no mask.
        assert sides["overlay"].locator("option").all_inner_texts() == ["none", "true mask"]
        sides["overlay"].select_option(label="none")
        assert not page.locator(".viewer .key").is_visible()
        assert shown("below") == f"NAFNet, seed 0 of {NAMES[0]}"
        sides["pick"].select_option(label=NAMES[1])
        sides["left"].select_option(label="sharp truth")
        assert (shown("above"), shown("below")) == (
            f"sharp truth of {NAMES[1]}",
            f"NAFNet, seed 0 of {NAMES[1]}",
        )
        page.get_by_role("button", name="swap sides").click()
        assert shown("below") == f"sharp truth of {NAMES[1]}"
        assert "26.50 dB" in page.locator(".about").inner_text()
        # A worst case opens itself in it.
        page.locator(f'.worst a[aria-label="pictures of {NAMES[-1]}"]').first.click()
        assert (shown("above"), shown("below")) == (
            f"blurry input of {NAMES[-1]}",
            f"M2AENet, seed 0 of {NAMES[-1]}",
        )
        assert page.locator(".stage .below").evaluate("image => image.naturalWidth") == 48


def test_strips_tell_their_images_to_the_keyboard(browser, report):
    with opened(browser, report) as page:
        strip = page.locator(".strip", has_text="M2AENet").first
        strip.focus()
        page.keyboard.press("Home")
        said = page.locator(".said").first
        assert said.inner_text() == f"M2AENet, {NAMES[0]}: 26.55 dB"
        page.keyboard.press("ArrowRight")
        assert said.inner_text() == f"M2AENet, {NAMES[1]}: 27.55 dB"


@pytest.mark.parametrize("dark", [False, True])
def test_colours_are_the_systems_until_somebody_chooses(browser, report, dark):
    paper = "getComputedStyle(document.body).backgroundColor"
    colours = {False: "rgb(255, 255, 255)", True: "rgb(18, 22, 27)"}
    with opened(browser, report, dark=dark) as page:
        assert page.evaluate(paper) == colours[dark]
        page.get_by_label("light" if dark else "dark").check(force=True)
        assert page.evaluate(paper) == colours[not dark]
        page.reload()
        assert page.evaluate(paper) == colours[not dark]
        page.get_by_label("system").check(force=True)
        assert page.evaluate(paper) == colours[dark]


def test_it_fits_a_phone(browser, report):
    with opened(browser, report, **PHONE) as page:
        for details in page.locator("details").all():
            details.evaluate("one => one.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        # The slider is all there, and high enough to be used.
        box = page.locator(".stage").bounding_box()
        assert 0 <= box["x"] <= box["x"] + box["width"] <= PHONE["width"]
        assert box["width"] > 300


def test_without_its_script_all_can_be_read(browser, report):
    context = browser.new_context(java_script_enabled=False, viewport=PHONE)
    try:
        page = context.new_page()
        page.goto(report)
        assert page.locator("table").first.is_visible()
        assert not page.locator(".viewer").is_visible()
        assert not page.locator(".theme").is_visible()
        assert page.get_by_alt_text(f"sharp truth of {NAMES[0]}", exact=True).is_visible()
    finally:
        context.close()
