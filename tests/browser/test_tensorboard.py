"""TensorBoard on a run, tab by tab, in Chromium: our tags are there, and what they name is drawn."""

import io
import json
import socket
import subprocess
import sys
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def board(page, run_directory):
    """The address of a TensorBoard that shows the run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--logdir", str(run_directory.parent), "--host", "127.0.0.1", "--port", str(port), "--load_fast", "false"]
    process = subprocess.Popen([sys.executable, "-m", "tensorboard.main", *words], stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"

    def knows_the_run():
        try:
            return "digits" in json.load(urlopen(f"{address}/data/runs"))
        except URLError:
            return False

    page.until(knows_the_run, "the run in TensorBoard")
    yield address
    process.terminate()
    process.wait()


@pytest.fixture(scope="module")
def results(run_directory):
    return json.loads((run_directory / "results.json").read_text())


def shows(page, *texts):
    page.until(lambda: set(texts) <= set(page.texts()), f"each of {texts}")


def pixels(content):
    with Image.open(content) as image:
        return np.asarray(image.convert("RGB"))


def test_scalars(page, board):
    page.open(f"{board}/#scalars&tagFilter=accuracy%2Fexperience")
    shows(page, *(f"accuracy/experience_{k}" for k in range(1, 6)))
    page.until(lambda: len(page.all("path.line[d]")) >= 5, "a curve of each experience")
    page.shoot("scalars")


def test_the_slider_of_the_heat_map_goes_through_the_experiences(page, board, run_directory):
    from selenium.webdriver.common.keys import Keys

    page.open(f"{board}/#images&tagFilter=accuracy_matrix")
    shows(page, "forgetting/accuracy_matrix")

    (loader,) = [x for x in page.all("tf-image-loader") if x.get_property("tag") == "forgetting/accuracy_matrix"]

    def shown():
        images = loader.shadow_root.find_elements("css selector", "img")
        return next((x.get_attribute("src") for x in images if x.get_property("naturalWidth")), None)

    source = page.until(shown, "the heat map")
    last = pixels(io.BytesIO(urlopen(source).read()))
    assert np.array_equal(last, pixels(run_directory / "accuracy_matrix.png")), "as the run left it beside its results"
    page.shoot("images_last")
    loader.shadow_root.find_element("css selector", "paper-slider").send_keys(Keys.HOME)
    moved = page.until(lambda: (now := shown()) != source and now, "another heat map")
    first = pixels(io.BytesIO(urlopen(moved).read()))
    assert first.shape[0] < last.shape[0], "one row after the first experience, five after the last"
    page.shoot("images_first")


def test_each_figure_is_among_the_images(page, board, run_directory):
    page.open(f"{board}/#images&tagFilter=.")
    figures = {path.stem for path in run_directory.glob("*.png")}
    page.until(
        lambda: figures <= {text.rpartition("/")[2] for text in page.texts() if "/" in text}, f"all of {figures}"
    )
    page.shoot("images_all")


def test_histograms(page, board):
    page.open(f"{board}/#histograms")
    shows(page, *(f"posterior/{layer}.{kind}" for layer in (1, 3, 5) for kind in ("weight", "bias")))
    page.until(lambda: len(page.all("path.outline")) >= 6 * 5, "a curve after each of five experiences")
    page.shoot("histograms")


def test_projector(page, board):
    page.open(f"{board}/#projector")
    try:
        for what in ("the plugin", "the projector in it"):
            page.driver.switch_to.frame(page.until(lambda: page.all("iframe"), what)[0])
        page.until(lambda: "400x256" in page.texts(), "300 test examples and 100 exemplars, of 256 features")
        canvas = page.until(lambda: page.all("canvas"), "what it draws on")[0]
        page.until(lambda: page.colors(canvas) > 50, "pictures of examples")
    finally:
        page.driver.switch_to.default_content()
    page.shoot("projector")


def test_hparams_show_the_final_measures_of_the_results(page, board, results):
    page.open(f"{board}/#hparams")
    shows(page, "memory_budget", "final/average_accuracy", f"{results['average_accuracy']:.5g}")
    page.shoot("hparams")


def test_custom_scalars(page, board):
    page.open(f"{board}/#custom_scalars")
    shows(page, "accuracy of each experience", "parts of the loss", "NLL of old, new and unseen experiences")
    page.until(lambda: any("accuracy/experience_5" in text for text in page.texts()), "the fifth experience's curve")
    page.until(lambda: len(page.all("path.line[d]")) >= 5, "curves")
    page.shoot("custom_scalars")
