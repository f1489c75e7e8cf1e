"""A headless browser for the tests of pages; `python tests/browser.py FOLDER` brings one there.

Chromium built for servers comes as an npm package: no root, no system libraries, 65 MB to fetch.
A browser that is on the machine already is not used: another version lays pages out otherwise.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

PACKAGE = "@sparticuz/chromium@147.0.0"
FOLDER = "PERIMETRY_BROWSER"
"""Environment variable that names the folder with the browser; tox sets it."""
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-zygote", "--disable-background-networking"]
LINKS = "#table a[data-model]"
"""Selects the models of the ranking."""
AS_IT_IS = '.tabulator-col[tabulator-field="asis"]'
"""Selects the head of the column with the numbers of models as they are."""
CLIPPED = """() => [...document.querySelectorAll(
    ".tabulator-cell, .tabulator-cell *, .tabulator-col-title *, .tools *, header *")]
  .filter((node) => node.clientWidth && getComputedStyle(node).overflowX !== "visible"
    && node.scrollWidth > node.clientWidth + 1)
  .filter((node) => !["SELECT", "INPUT", "OPTION"].includes(node.tagName))
  .map((node) => node.textContent)"""
"""Texts of elements that do not show all of their text."""
WANTED = f"no browser: run `python tests/browser.py FOLDER` and set {FOLDER}=FOLDER (needs npm)"


def fetch(folder: Path) -> None:
    """Unpack the browser, its libraries and a font into `folder`, unless it is there."""
    import brotli

    if (folder / "chromium").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit(f"npm is not installed; it is needed to fetch {PACKAGE} for the tests")
    with tempfile.TemporaryDirectory() as place:
        subprocess.run([npm, "pack", "--silent", PACKAGE], cwd=place, check=True)
        (archive,) = Path(place).glob("*.tgz")
        with tarfile.open(archive) as package:
            _unpack(package, place)
        parts = Path(place) / "package" / "bin"
        for name in ("al2023", "fonts"):
            data = brotli.decompress((parts / f"{name}.tar.br").read_bytes())
            with tarfile.open(fileobj=io.BytesIO(data)) as inner:
                _unpack(inner, folder / name)
        unfinished = folder / "chromium.part"
        unfinished.write_bytes(brotli.decompress((parts / "chromium.br").read_bytes()))
        unfinished.chmod(0o755)
        unfinished.rename(folder / "chromium")


def _unpack(archive: tarfile.TarFile, folder: Path | str) -> None:
    """Files and folders alone; Python before 3.11.4 cannot refuse other things."""
    safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    archive.extractall(folder, **safe)  # noqa: S202 (a package of a known version)


@contextmanager
def opened():
    """A running browser. Skips, saying how to get one, where there is none; in CI it fails."""
    folder = Path(os.environ.get(FOLDER, ""))
    if not (folder / "chromium").is_file():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(WANTED)
    from playwright.sync_api import sync_playwright

    libraries = f"{folder / 'al2023' / 'lib'}:{os.environ.get('LD_LIBRARY_PATH', '')}"
    variables = {**os.environ, "LD_LIBRARY_PATH": libraries}
    with sync_playwright() as driver:
        started = start(
            lambda: driver.chromium.launch(
                executable_path=folder / "chromium", args=FLAGS, env=variables
            )
        )
        try:
            yield started
        finally:
            started.close()


def start(launch, attempts=3):
    """What `launch` gives, tried again where the browser dies before it has seen a page.

    That says nothing of any page. The last attempt raises what it meets.
    """
    from playwright.sync_api import Error

    for _ in range(attempts - 1):
        with suppress(Error):
            return launch()
    return launch()


class Visit:
    """A page from disk in its own window, with everything that it logged, asked for or threw."""

    def __init__(
        self,
        browser,
        path,
        *,
        width=1400,
        height=900,
        scale=1,
        dark=False,
        ready="html[data-ready=yes]",
    ):
        self.context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            device_scale_factor=scale,
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(120_000)  # a limit for what hangs: a busy machine is slow
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", self._log)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", self._dialog)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri(), timeout=120_000)
        self.page.wait_for_selector(ready)

    def _log(self, message):
        if message.type in ("error", "warning"):
            self.problems.append(message.text)

    def _dialog(self, dialog):
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def texts(self, selector):
        """The text of every element that matches, in the order of the page."""
        return self.page.locator(selector).all_inner_texts()

    def close(self):
        self.context.close()


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
