"""Reports in a headless browser at three widths: nothing sticks out, asks for more or complains."""

import csv
import importlib.util
import random

import pytest

from fairgrape_jax.cli.main import main
from fairgrape_jax.reports import document, run
from tests.helpers import browser, made_runs
from tests.helpers.charts import DOCUMENT

pytestmark = [
    pytest.mark.whole,
    pytest.mark.browser,
    pytest.mark.skipif(not browser.program(), reason="no Chromium here: apt install chromium"),
    pytest.mark.skipif(not importlib.util.find_spec("playwright"), reason="no playwright here"),
]
WIDTHS = (1280, 768, 390)
RACES = ("White", "Black", "Latino_Hispanic", "East Asian", "Southeast Asian", "Indian", "Other")
FORTY = tuple(map(str, range(40)))
LONG = "a_name_without_any_blank_that_is_far_longer_than_a_column_of_a_table_could_ever_be"


def predictions(path, groups, classes, right, samples=600):
    rng = random.Random(path.name)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "label", "prediction", "group"])
        for number in range(samples):
            label, group = number % len(classes), groups[number // 7 % len(groups)]
            guess = label if rng.random() < right else rng.randrange(len(classes))
            rows.writerow([f"faces/{number}.jpg", classes[label], classes[guess], group])
    return str(path)


def audited(folder, groups, classes, sets):
    """An audit of some sets of one model each, or of the first of them alone."""
    names = ["dense", *[f"set{number}" for number in range(sets)]]
    paths = [
        predictions(folder / f"{name}.csv", groups, classes, 0.95 - 0.06 * place)
        for place, name in enumerate(names)
    ]
    words = ["audit", "--dense", paths[0], "--replicates", "40", "--out", str(folder / "out")]
    for path in paths[1:]:
        words += ["--compressed", path]
    assert main(words) == 0
    return folder / "out" / "report.html"


def of_run(folder, monkeypatch, groups=made_runs.GROUPS, classes=made_runs.CLASSES, **options):
    monkeypatch.setattr(made_runs, "GROUPS", groups)
    monkeypatch.setattr(made_runs, "CLASSES", classes)
    made = made_runs.make(folder / "made", **options)
    run.write([made], folder)
    return folder / "report.html"


METHODS = ("magnitude", "importance", "fairgrape", "random", "snip")
# Of few and of many groups, classes, methods and sets; with names that no line could hold.
PAGES = {
    "run": lambda folder, patch: of_run(folder, patch),
    "run of one method": lambda folder, patch: of_run(folder, patch, methods=("fairgrape",)),
    "run of many": lambda folder, patch: of_run(folder, patch, RACES, methods=METHODS, rounds=2),
    "run of long names": lambda folder, patch: of_run(folder, patch, (LONG, "b"), (LONG, "no")),
    "audit": lambda folder, patch: audited(folder, ("f", "m"), ("no", "yes"), 1),
    "audit of many": lambda folder, patch: audited(folder, RACES, tuple("abcdefghi"), 6),
    "audit of a model alone": lambda folder, patch: audited(folder, ("f", "m"), (LONG, "b"), 0),
    "audit of many classes": lambda folder, patch: audited(folder, (LONG, "m"), FORTY, 2),
}  # fmt: skip


@pytest.fixture(scope="module")
def chromium():
    with browser.started() as started:
        yield started


@pytest.mark.parametrize("name", PAGES)
def test_nothing_sticks_out_asks_for_more_or_complains(name, chromium, tmp_path, monkeypatch):
    path = PAGES[name](tmp_path, monkeypatch)
    for width in WIDTHS:
        seen = browser.Page(chromium, path, width)
        assert seen.sticks_out() == [], width
        seen.page.evaluate(browser.OPEN_ALL)
        assert seen.sticks_out() == [], f"{width}, unfolded"
        assert (seen.asked_for(), seen.complaints) == ([], [])
        seen.page.close()


def test_the_first_screen_holds_the_answer_the_picture_and_the_table(
    chromium, tmp_path, monkeypatch
):
    seen = browser.Page(chromium, of_run(tmp_path, monkeypatch), 1280)
    assert seen.bottom(".verdict") < 250
    assert seen.bottom(".first figure") < 700
    assert seen.bottom(".first table") <= 900
    seen.page.close()


def test_a_click_on_a_word_leads_to_what_it_means(chromium, tmp_path, monkeypatch):
    seen = browser.Page(chromium, of_run(tmp_path, monkeypatch), 1280)
    words = seen.page.locator("a").all()
    places = {word.get_attribute("href") for word in words}
    assert {"#extra-loss", "#interval", "#cautions", "#definitions"} <= places
    for place in places:
        assert seen.page.locator(f"[id='{place[1:]}']").count() == 1, place
    seen.page.locator("a[href='#extra-loss']").first.click()
    assert seen.page.locator("dt#extra-loss").is_visible()
    seen.page.close()


def test_paper_has_all_that_is_folded_and_the_dark_is_dark(chromium, tmp_path):
    document.write(DOCUMENT, tmp_path)
    seen = browser.Page(chromium, tmp_path / "report.html", 1280, color_scheme="dark")
    color = "() => getComputedStyle(document.body).backgroundColor"
    assert seen.page.evaluate(color) == "rgb(22, 24, 27)"
    item = seen.page.get_by_text("item 24")
    assert not item.is_visible()
    seen.page.emulate_media(media="print")
    assert seen.page.evaluate(color) == "rgb(255, 255, 255)"
    assert item.bounding_box()["height"] > 0
    seen.page.close()


def test_what_sticks_out_is_found(chromium, tmp_path):
    """The check itself: a page with a wide table, a request and an error fails on each."""
    bad = "<main><table><td style='min-width: 999px'>x</td></table><img src='http://localhost:9/x'>"
    (tmp_path / "bad.html").write_text(f"{bad}<script>nothing()</script></main>")
    seen = browser.Page(chromium, tmp_path / "bad.html", 390)
    assert seen.sticks_out()
    assert seen.asked_for() == ["http://localhost:9/x"]
    assert any("nothing" in line for line in seen.complaints)
    seen.page.close()
