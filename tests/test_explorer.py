"""The explorer: what it answers, to whom, and its behaviour in a real browser."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from analysis import charts
from analysis.collect import collect
from analysis.explorer import server
from analysis.explorer.layout import FILTERS
from analysis.explorer.live import Live
from analysis.explorer.updates import names, selected, table_rows
from tests.conftest import ROOT, TINY
from tests.test_analysis import write_run, write_sweep

HOSTILE = "<img src=x onerror=alert(1)>"
SECONDS = 60
"""A page that does not show something after this time will not."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write six runs, of which one is running, and one with a hostile name that failed."""
    write_sweep(tmp_path)
    hostile = tmp_path / HOSTILE
    hostile.mkdir()
    status = {"state": "failed", "overrides": [HOSTILE], "error": HOSTILE}
    (hostile / "run.json").write_text(json.dumps(status))
    (hostile / "run.log").write_text(f"</script>{HOSTILE}")
    return tmp_path


def everything(live: Live) -> list[list[str]]:
    return [names(live.runs.levels, column) for column in FILTERS]


def test_a_refresh_reads_what_changed_and_a_look_without_changes_keeps_the_version(
    folder: Path,
) -> None:
    live = Live([folder])
    assert (live.refresh(), live.refresh()) == (1, 1)
    before = len(live.runs.levels)
    write_run(folder / "7", seed=7)
    assert live.refresh() == 2
    assert len(live.runs.levels) == before + 3


def test_filters_leave_the_runs_that_are_on_and_keep_those_without_results(folder: Path) -> None:
    live = Live([folder])
    live.refresh()
    filters = everything(live)
    assert filters[2] == ["winning ticket", "random reinit"]
    filters[2] = ["winning ticket"]
    assert {*selected(live.runs, filters)["arm"]} == {"winning ticket"}
    rows = {row["run"]: row for row in table_rows(live, filters)}
    assert {*rows} == {"0", "1", "2", HOSTILE}
    assert rows["1"]["final_test_accuracy"] == pytest.approx(100 * (0.9 - 0.02 + 0.03 - 0.001))
    assert rows[HOSTILE]["state"] == "failed"


def test_numbers_of_a_chart_are_those_of_the_runs(folder: Path) -> None:
    levels = collect([folder]).levels
    figure = charts.against_density(levels, "early_stop_test_accuracy", trials=True)
    (line,) = [t for t in figure.data if t.name == "winning ticket" and "lines" in t.mode]
    assert [*line.x] == [1.0, 0.5, 0.25]
    assert [*line.y] == pytest.approx([0.94, 0.93, 0.92])
    assert "level 1, 50 % of the weights<br>93.00 %, n = 3<br>89.00 % to 98.00 %" in line.text[1]
    (dots,) = [t for t in figure.data if t.name == "winning ticket" and t.mode == "markers"]
    assert len(dots.y) == 9
    assert {run for run, _ in dots.customdata} == {str(folder / name) for name in "012"}


def test_a_censored_early_stop_is_a_lower_bound() -> None:
    assert charts.value("early_stop_iteration", 1200.0, censored=True) == "at least iteration 1,200"


def test_only_files_of_the_runs_are_read(folder: Path) -> None:
    secret = folder / "secret"
    secret.mkdir()
    (secret / "run.log").write_text("secret")
    live = Live([folder])
    live.refresh()
    assert live.log(str(folder / HOSTILE)).startswith("</script>")
    for run in (secret, folder / "0/../secret", Path("/etc"), folder / "none"):
        assert live.log(str(run)) == ""
    (folder / "0/run.log").symlink_to(secret / "run.log")
    assert live.log(str(folder / "0")) == ""


def test_it_answers_this_machine_alone(folder: Path) -> None:
    client = server.application([folder]).server.test_client()
    assert client.get("/").status_code == 200
    assert client.get("/", headers={"Host": "localhost:8050"}).status_code == 200
    assert client.get("/", headers={"Host": "evil.example:8050"}).status_code == 403
    elsewhere = {"Host": "127.0.0.1:8050", "Origin": "http://evil.example"}
    assert client.post("/_dash-update-component", headers=elsewhere).status_code == 403
    made = server.make([folder])
    made.server_close()
    assert made.server_address[0] == "127.0.0.1"


def test_the_page_loads_nothing_from_elsewhere(folder: Path) -> None:
    page = server.application([folder]).server.test_client().get("/").get_data(as_text=True)
    assert "//" not in "".join(part.split('"')[0] for part in page.split('src="')[1:])


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    made = server.make([folder])
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}/"
    made.shutdown()
    thread.join()
    made.server_close()


def text(browser: Chrome, selector: str) -> str:
    return "\n".join(str(e.text) for e in browser.find_elements(By.CSS_SELECTOR, selector))


def wait(browser: Chrome, selector: str, words: str) -> None:
    WebDriverWait(browser, SECONDS).until(lambda b: words in text(b, selector))


def lines(browser: Chrome) -> Any:  # noqa: ANN401 - any value of JavaScript
    """Return the names of the lines of the chart."""
    return browser.execute_script(
        "return (document.querySelector('#chart .js-plotly-plot')?.data ?? [])"
        ".filter(trace => trace.showlegend !== false).map(trace => trace.name)"
    )


@pytest.mark.slow
def test_a_browser_shows_states_filters_hovers_and_opens_a_run(
    address: str, folder: Path, browser: Chrome
) -> None:
    browser.set_window_size(1300, 1500)
    browser.get(address)
    wait(browser, "#progress", "1 failed, 5 finished, 1 killed")
    WebDriverWait(browser, SECONDS).until(lambda b: lines(b) == ["winning ticket", "random reinit"])

    point = browser.find_elements(By.CSS_SELECTOR, "#chart .trace:nth-child(2) path.point")[0]
    ActionChains(browser).move_to_element(point).perform()
    wait(browser, "#chart .hoverlayer", "level 0, 100 % of the weights")

    (reinit,) = browser.find_elements(By.XPATH, "//aside//label[contains(., 'random reinit')]")
    reinit.click()
    WebDriverWait(browser, SECONDS).until(lambda b: lines(b) == ["winning ticket"])

    rows = browser.find_elements(By.CSS_SELECTOR, "#runs .ag-cell[col-id=run]")
    (hostile,) = [cell for cell in rows if cell.text == HOSTILE]
    hostile.click()
    wait(browser, "#run-name", str(folder / HOSTILE))
    wait(browser, "#log", f"</script>{HOSTILE}")
    assert not browser.find_elements(By.CSS_SELECTOR, "img[src=x]")
    severe = [log for log in browser.get_log("browser") if log["level"] == "SEVERE"]
    assert not severe


@pytest.mark.slow
def test_a_browser_follows_a_sweep(address: str, folder: Path, browser: Chrome) -> None:
    browser.get(address)
    wait(browser, "#progress", "5 finished")
    words = [sys.executable, str(ROOT / "run.py"), "-m", *TINY, "seed=0,1", "pruning.levels=6",
             "training.iterations=2000", f"store={folder}/store",
             f"hydra.sweep.dir={folder}/sweep"]  # fmt: skip
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, cwd=ROOT):
        wait(browser, "#progress", "running")
    wait(browser, "#progress", "7 finished")
    wait(browser, "#runs", "sweep/1")
    wait(browser, "aside", "iterations 2000")
