"""The report in headless Chromium: on a phone and on a desktop, light and dark, without console messages or requests.

Needs `pip install playwright` and a Chromium on the PATH (Debian: `apt-get install chromium`).
"""

import shutil

import pytest
import synthetic_records as synthetic

from jepa_jax.study import report

pytestmark = pytest.mark.slow
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if BROWSER is None:
        pytest.skip("no chromium or google-chrome on the PATH")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    synthetic.write(folder / "results", synthetic.whole(), plan=synthetic.study(), pixels=synthetic.controls())
    report.write(folder / "results", folder)
    return folder / "report.html"


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_and_is_silent(browser, file, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    messages, requests = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert messages == []
    assert requests == [file.as_uri()]
    # Text of every tone has a contrast of at least 4.5 with the page (WCAG AA).
    for tone in ("gain", "loss", "unclear", "caption"):
        assert contrast(page, tone) >= 4.5, tone
    page.close()


def contrast(page, tone):
    colors = page.evaluate(
        "tone => [getComputedStyle(document.querySelector('main .' + tone)).color,"
        " getComputedStyle(document.body).backgroundColor]",
        tone,
    )
    light, dark = sorted((luminance(color) for color in colors), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color):
    """Relative luminance of `rgb(r, g, b)`, as WCAG 2 defines it."""
    shares = [int(value) / 255 for value in color[4:-1].split(",")]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
