"""The report: its text, and its behaviour in a real browser."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from plotly.offline import get_plotlyjs
from selenium import webdriver
from selenium.webdriver import ActionChains
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
    own = html.replace(get_plotlyjs(), "")
    assert len(own) < len(html)
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", own)


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


@pytest.mark.slow
def test_a_browser_switches_the_quantity_of_the_chart(
    page: Path, browser: webdriver.Chrome
) -> None:
    browser.set_window_size(1200, 1000)
    browser.get(page.as_uri())

    def shown() -> tuple[str, Any]:
        title = str(browser.find_element(By.CSS_SELECTOR, "#charts .g-ytitle").text)
        script = (
            "return document.querySelector('#charts .js-plotly-plot')._fullData.map(t => [...t.y])"
        )
        (_, ticket, *_) = browser.execute_script(script)
        return title, ticket

    assert shown() == ("Test accuracy at early stop", pytest.approx([0.91, 0.90, 0.89]))
    click(browser, ".updatemenu-header")
    click(browser, ".updatemenu-dropdown-button:nth-of-type(2)")
    assert shown() == ("Early-stop iteration", [100, 200, 300])


def click(browser: webdriver.Chrome, selector: str) -> None:
    place = browser.find_element(By.CSS_SELECTOR, selector)
    ActionChains(browser).scroll_to_element(place).click(place).perform()
