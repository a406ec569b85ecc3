"""A headless Chromium, where this machine has one, and what it finds wrong with a page."""

import contextlib
import functools
import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# What is cut off or sticks out: of the window, of the page's column, of a drawing.
STICKS_OUT = """() => {
  const found = [], edge = document.documentElement.clientWidth + 0.5;
  const name = e => e.tagName + ' ' + (e.textContent || '').trim().slice(0, 60);
  for (const e of document.querySelectorAll('main *')) {
    const box = e.getBoundingClientRect();
    if (box.width && (box.right > edge || box.left < -0.5)) found.push('window: ' + name(e));
  }
  for (const e of document.querySelectorAll('main, section, figure, td, th, p, li, dd, div')) {
    if (e.clientWidth && e.scrollWidth > e.clientWidth + 1) found.push('box: ' + name(e));
  }
  for (const text of document.querySelectorAll('svg text')) {
    const inner = text.getBoundingClientRect();
    const outer = text.closest('svg').getBoundingClientRect();
    if (inner.width && (inner.left < outer.left - 2 || inner.right > outer.right + 2 ||
        inner.top < outer.top - 2 || inner.bottom > outer.bottom + 2))
      found.push('drawing: ' + name(text));
  }
  return found;
}"""
OPEN_ALL = "() => document.querySelectorAll('details').forEach(e => e.open = true)"


@functools.cache
def program():
    """The path of a Chromium; "" where there is none."""
    named = os.environ.get("FAIRGRAPE_CHROMIUM", "")
    return named or next(filter(None, map(shutil.which, NAMES)), "")


@contextlib.contextmanager
def started():
    """A browser of playwright's."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program(), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


class Page:
    """A file opened in a window, with what it asked for and complained of."""

    def __init__(self, browser, path, width, height=900, **options):
        self.requests, self.complaints = [], []
        viewport = {"width": width, "height": height}
        self.page = browser.new_page(viewport=viewport, **options)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda line: self.complaints.append(line.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.url = path.resolve().as_uri()
        self.page.goto(self.url)

    def asked_for(self):
        """What it wanted beside itself and what it holds."""
        return [url for url in self.requests if url != self.url and not url.startswith("data:")]

    def sticks_out(self):
        return self.page.evaluate(STICKS_OUT)

    def bottom(self, selector):
        """Where the first element of a kind ends, in pixels from the top of the page."""
        box = self.page.locator(selector).first.bounding_box()
        return box["y"] + box["height"]
