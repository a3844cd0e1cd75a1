"""A page in headless Chromium: what is on it, shadow trees included, what it asked for, and what it complained of."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

SECONDS = 60.0  # that something may take to appear, on a busy machine
DEEP = """
const found = [];
const walk = (root, see) => { for (const e of root.querySelectorAll('*')) { see(e); if (e.shadowRoot) walk(e.shadowRoot, see); } };
"""  # noqa: E501
FIND = DEEP + "walk(document, e => { if (e.matches(arguments[0])) found.push(e); }); return found;"
TEXTS = (
    DEEP
    + """
const own = e => [...e.childNodes].filter(n => n.nodeType === 3).map(n => n.textContent.trim()).join(' ').trim();
const silent = ['STYLE', 'SCRIPT', 'NOSCRIPT'];
walk(document.body, e => { const text = own(e); if (text && !silent.includes(e.tagName)) found.push(text); });
return found;
"""
)


class Page:
    """One tab.

    Args:
        driver: Of selenium.
        screenshots: Where pictures are kept.
    """

    def __init__(self, driver: Any, screenshots: Path) -> None:
        self.driver = driver
        self.screenshots = screenshots

    def open(self, url: str, width: int = 1300, height: int = 1000) -> None:
        """Opens an address anew, at a width in pixels; those of a phone are a phone's."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.get("about:blank")
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)  # what is left of the page before
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.get(url)

    def all(self, selector: str) -> list[Any]:
        return self.driver.execute_script(FIND, selector)

    def texts(self) -> list[str]:
        return self.driver.execute_script(TEXTS)

    def until(self, found: Callable[[], Any], what: str) -> Any:
        """What ``found`` gives, once that is something.

        Raises:
            AssertionError: It is nothing for too long.
        """
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            if something := found():
                return something
            time.sleep(0.3)
        self.shoot("missing")
        raise AssertionError(f"{what} did not appear; what did is in {self.screenshots / 'missing.png'}")

    def shoot(self, name: str, whole: bool = False) -> None:
        """Keeps a picture of what is in the window, or of the whole page."""
        if whole:
            height = self.driver.execute_script("return document.documentElement.scrollHeight")
            width = self.driver.execute_script("return window.innerWidth")
            metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
            self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            time.sleep(0.5)  # what is drawn anew
        self.driver.save_screenshot(str(self.screenshots / f"{name}.png"))

    def colors(self, element: Any) -> int:
        """How many colours an element shows: a few if nothing is drawn."""
        with Image.open(io.BytesIO(element.screenshot_as_png)) as image:
            return len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0))

    def errors(self) -> list[str]:
        """What the console has of errors since the page was opened."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def requests(self) -> Iterator[str]:
        """Addresses asked for since the page was opened, but for data that the page itself holds."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
                if urlsplit(url).scheme not in ("data", "blob", "about"):
                    yield url
