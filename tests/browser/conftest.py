"""Headless Chromium, and a run to look at. Screenshots are left in ``screenshots/``, or where ``SCREENSHOTS`` says."""

import os
import shutil
from pathlib import Path

import pytest

from tests.browser.page import Page

NEEDED = ("chromium", "chromedriver")  # Debian: apt install chromium chromium-driver
RUN = ["fit", "--config", "configs/split_digits.yaml", "--data.epochs", "4", "--board.share", "1000"]
RUN += ["--board.old_every_n_steps", "10"]  # the stability gap, too


@pytest.fixture(scope="session")
def page():
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="selenium is missing: pip install 'bayesdual[browser]'"
    )
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        pytest.skip(f"{' and '.join(missing)} not found: apt install chromium chromium-driver")
    screenshots = Path(os.environ.get("SCREENSHOTS", "screenshots"))
    screenshots.mkdir(exist_ok=True, parents=True)
    options = webdriver.ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--enable-unsafe-swiftshader"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))  # selenium would look for one elsewhere
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_page_load_timeout(120)
    yield Page(driver, screenshots)
    driver.quit()


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory):
    """A short run of Split Digits, as the command leaves it, in a folder of its own."""
    from bayesdual.cli import run

    directory = tmp_path_factory.mktemp("runs") / "digits"
    run([*RUN, "--run_dir", str(directory)])
    return directory
