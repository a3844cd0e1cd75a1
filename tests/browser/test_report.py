"""The page of ``inspect`` in Chromium, as wide as a desk's and as a phone's."""

import json

import pytest

from bayesdual.cli import run

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore")]
WIDTHS = {"desk": 1280, "phone": 390}


@pytest.fixture(scope="module", params=[1, 2], ids=["one_run", "two_runs"])
def report(request, page, run_directory, tmp_path_factory):
    output = tmp_path_factory.mktemp("report")
    run(["inspect", *[str(run_directory)] * request.param, "--output", str(output)])
    return output / "report.html", request.param


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_the_page_is_whole_and_asks_for_nothing(page, report, width):
    path, runs = report
    page.open(path.as_uri(), width)
    charts = page.all(".chart")
    assert len(charts) >= 7 * runs
    page.until(lambda: len(page.all(".chart svg.marks")) == len(charts), "all charts")
    images = page.all("img")
    assert len(images) >= 8 * runs
    assert all(image.get_property("naturalWidth") and image.get_attribute("alt") for image in images)
    covered = [not image.is_displayed() for image in images]
    assert 0 < sum(covered) < len(images), "figures are behind the charts, and seen where there are none"
    inside = page.driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert inside, "nothing has to be scrolled sideways to be read"
    page.shoot(f"report_{runs}_{width}", whole=True)
    assert not page.errors()
    assert list(page.requests()) == [path.as_uri()], "the page itself, and nothing else"


def test_what_is_pointed_at_is_shown_to_the_last_digit(page, report, run_directory):
    from selenium.webdriver import ActionChains

    page.open(report[0].as_uri())
    cell = page.until(lambda: page.all(".chart svg .mark-rect path"), "a heat map")[14]
    ActionChains(page.driver).move_to_element(cell).perform()
    page.until(lambda: page.all("#vg-tooltip-element.visible"), "what is told of a cell")
    last = json.loads((run_directory / "results.json").read_text())["accuracy_matrix"][4][4]
    told = page.all("#vg-tooltip-element.visible")[0].text
    assert float(told.split()[-1]) == last != round(last, 6)
