"""The report: its text, and its behaviour in a real browser."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from lth.experiment.recipe import identity
from tests.conftest import Composer
from tests.test_analysis import analysis, write_run

EVIL = "seed=<script>alert(1)</script>"


@pytest.fixture
def page(tmp_path: Path, composed: Composer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the report of three seeds of two arms of LeNet, and of a run that failed."""
    mnist = {"model": "lenet_300_100", "dataset": "mnist"}
    for seed in range(3):
        for number, kind, shift in ((seed, "init", 0.01 * seed), (3 + seed, "reinit", -0.1)):
            own = identity(composed("preset=lenet", f"rewind={kind}", f"seed={seed}"))
            write_run(tmp_path / f"{number}", seed=seed, kind=kind, rate=20.0, shift=shift,
                      settings=own, preset="lenet", groups=mnist)  # fmt: skip
    failed = tmp_path / "6"
    failed.mkdir()
    status = {"state": "failed", "overrides": [EVIL], "error": "no <b>disk</b>"}
    (failed / "run.json").write_text(json.dumps(status))
    out = tmp_path / "out" / "report.html"
    assert analysis(monkeypatch, "report", tmp_path, "--out", out) == 0
    return out


def test_it_has_runs_claims_levels_and_failures(page: Path) -> None:
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.read_text()))
    assert "Lottery tickets: lenet_300_100 on mnist" in text
    assert "winning ticket 20 % 0, 1, 2 3 9 9 finished" in text
    assert "test accuracy at early stop below the ticket" in text
    assert "95 % intervals of Student's t" in text
    assert "0 100.0 3 100 100 100 91.00 90.00 92.00 90.90" in text
    assert "failed no &lt;b&gt;disk&lt;/b&gt;" in text


def test_text_of_runs_is_escaped_and_nothing_comes_from_elsewhere(page: Path) -> None:
    html = page.read_text()
    assert EVIL not in html
    assert "seed=&lt;script&gt;" in html
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", html)


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        pytest.skip("no chromium here: make browser installs it")
    options = Options()
    options.binary_location = str(shutil.which("chromium"))
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-background-networking"):
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options, Service(str(shutil.which("chromedriver"))))
    yield driver
    driver.quit()


def column(browser: webdriver.Chrome, table: str, place: int) -> list[str]:
    cells = browser.find_elements(By.CSS_SELECTOR, f"{table} tbody td:nth-child({place})")
    return [str(cell.get_attribute("textContent")) for cell in cells]


@pytest.mark.slow
def test_a_browser_shows_its_figures_and_sorts_its_tables(
    page: Path, browser: webdriver.Chrome
) -> None:
    browser.set_window_size(420, 900)
    browser.get(page.as_uri())
    assert browser.get_log("browser") == []
    pictures = browser.find_elements(By.CSS_SELECTOR, "figure img")
    assert len(pictures) >= 5
    assert all(int(str(picture.get_property("naturalWidth"))) > 100 for picture in pictures)
    page_width = browser.execute_script("return document.documentElement.scrollWidth")
    assert page_width <= browser.execute_script("return window.innerWidth")
    table = "#levels details:first-of-type table"
    (density,) = browser.find_elements(By.CSS_SELECTOR, f"{table} th:nth-child(2) button")
    assert column(browser, table, 2) == ["100.0", "50.0", "25.0"]
    density.click()
    assert column(browser, table, 2) == ["25.0", "50.0", "100.0"]
    density.click()
    assert column(browser, table, 1) == ["0", "1", "2"]
