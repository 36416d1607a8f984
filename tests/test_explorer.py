"""The explorer: what it answers, to whom, and its behaviour in a real browser."""

import json
import math
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dash import dcc
from flask.testing import FlaskClient
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from analysis import charts
from analysis.collect import collect
from analysis.explorer import server
from analysis.explorer.layout import FILTERS
from analysis.explorer.live import Live
from analysis.explorer.run_panel import details
from analysis.explorer.updates import names, progress, selected, table_rows
from lth.errors import LotteryError
from lth.store.files import checksum
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
    first = live.refresh()
    assert live.refresh() == first
    assert first < 2**53  # what a browser does not round
    before = len(live.runs.levels)
    write_run(folder / "7", seed=7)
    assert live.refresh() > first
    assert len(live.runs.levels) == before + 3


def test_a_run_that_was_replaced_or_deleted_is_no_longer_shown(folder: Path) -> None:
    live = Live([folder])
    live.refresh()
    shutil.rmtree(folder / "0")
    shutil.rmtree(folder / "1")
    write_run(folder / "0", seed=5, shift=-0.5, started=1.0)
    live.refresh()
    tickets = live.runs.where(arm="winning ticket", level=0).levels
    assert dict(zip(tickets["seed"], tickets["final_test_accuracy"], strict=True)) == (
        pytest.approx({5: 0.399, 2: 0.989})
    )


def test_a_run_whose_table_comes_back_is_shown_again(folder: Path) -> None:
    (folder / "0/levels.csv").rename(folder / "aside")
    live = Live([folder])
    live.refresh()
    assert str(folder / "0") not in live.runs.identities
    (folder / "aside").rename(folder / "0/levels.csv")
    live.refresh()
    assert str(folder / "0") in live.runs.identities


@pytest.mark.parametrize(
    "content", ['{"state": "running", "level": 1}', '{"state": "failed", "overrides": null}', "[]"]
)
def test_a_foreign_run_json_is_unreadable_and_the_others_are_shown(
    folder: Path, content: str
) -> None:
    (folder / "foreign").mkdir()
    (folder / "foreign/run.json").write_text(content)
    live = Live([folder])
    live.refresh()
    assert "unreadable" in str(progress(live))
    rows = {row["run"]: row["state"] for row in table_rows(live, everything(live))}
    assert rows["foreign"] == "unreadable"
    assert len(rows) == 8


def test_a_run_that_cannot_be_read_does_not_hold_up_others(folder: Path) -> None:
    (folder / "loop").mkdir()
    (folder / "loop/run.json").symlink_to("run.json")
    live = Live([folder])
    live.refresh()
    with live._lock:  # as while another thread waits for it
        assert live.refresh() == live.version


def test_a_run_without_any_level_can_be_opened(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0/run.json").write_text('{"state": "failed", "overrides": [], "error": "no disk"}')
    live = Live([tmp_path])
    live.refresh()
    assert "failed: no disk" in str(details(live, str(tmp_path / "0")))
    assert [row["state"] for row in table_rows(live, everything(live))] == ["failed"]


def test_a_run_of_two_experiments_has_each_level_once(tmp_path: Path) -> None:
    for run, (seed, split) in enumerate([(0, 0), (1, 1), (2, 2), (1, 0), (2, 0)]):
        write_run(tmp_path / f"{run}", seed=seed, settings={"split_seed": split})
    live = Live([tmp_path])
    live.refresh()
    shown = str(tmp_path / "0")
    assert len(live.runs.where(run=shown).levels) == 6
    (graph,) = [part for part in details(live, shown) if isinstance(part, dcc.Graph)]
    assert [list(line["x"]) for line in graph.to_plotly_json()["props"]["figure"].data] == [
        [0, 1, 2]
    ]


def test_a_run_that_repeats_another_says_so(folder: Path) -> None:
    write_run(folder / "9", seed=0, started=9.0)
    live = Live([folder])
    live.refresh()
    rows = {row["run"]: row["state"] for row in table_rows(live, everything(live))}
    assert (rows["0"], rows["9"]) == ("finished, repeats another", "finished")


def test_curves_that_are_not_as_they_were_written_are_not_shown(folder: Path) -> None:
    run, status = folder / "0", folder / "0/run.json"
    tables = {"metrics.csv": checksum((run / "metrics.csv").read_bytes())}
    status.write_text(json.dumps(json.loads(status.read_text()) | {"tables": tables}))
    live = Live([folder])
    live.refresh()
    assert live.fault(str(run)) == ""
    (run / "metrics.csv").write_text((run / "metrics.csv").read_text().replace("0.5", "0.6"))
    assert "metrics.csv is not as it was written" in live.fault(str(run))


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


def test_a_line_without_a_quantity_keeps_its_place(folder: Path) -> None:
    levels = collect([folder]).levels
    levels.loc[levels["arm"] == "winning ticket", "early_stop_val_loss"] = math.nan
    lines = [*charts.series(levels, "early_stop_val_loss", interval=False, trials=True)]
    assert [(of.name, of.trials, len(of.rows)) for of in lines] == [
        ("winning ticket", True, 0), ("winning ticket", False, 0),
        ("random reinit", True, 8), ("random reinit", False, 3),
    ]  # fmt: skip


def test_names_are_text_and_not_html(tmp_path: Path) -> None:
    write_run(tmp_path / "0", seed=0, arm=f'{HOSTILE} "b"')
    figure = charts.against_density(collect([tmp_path]).levels, "final_test_accuracy")
    assert figure.data[1].name == '&lt;img src=x onerror=alert(1)&gt; "b"'
    assert "<img" not in figure.to_json().replace("\\u003c", "<")


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


@pytest.fixture
def client(folder: Path) -> FlaskClient:
    client: FlaskClient = server.application([folder], "secret").server.test_client()
    return client


def test_it_answers_those_who_know_the_token(client: FlaskClient) -> None:
    assert client.get("/").status_code == 403
    assert client.get("/?token=wrong").status_code == 403
    assert client.get("/_dash-layout").status_code == 403  # a refused request sets no cookie
    assert client.get("/?token=secret").status_code == 200
    assert client.get("/_dash-layout").status_code == 200  # by its cookie


def test_it_answers_this_machine_alone(client: FlaskClient, folder: Path) -> None:
    for host, expected in (("localhost:8050", 200), ("evil.example:8050", 403)):
        assert client.get("/?token=secret", headers={"Host": host}).status_code == expected
    for origin in ("http://evil.example", "http://localhost:3000"):
        elsewhere = {"Host": "localhost:8050", "Origin": origin}
        posted = client.post("/_dash-update-component?token=secret", headers=elsewhere)
        assert posted.status_code == 403
    made = server.make([folder], "secret")
    made.server_close()
    assert made.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize("port", [-1, 70000])
def test_a_port_that_is_none_is_refused(folder: Path, port: int) -> None:
    with pytest.raises(LotteryError, match="--port must be in 0 to 65535"):
        server.make([folder], "secret", port)


def test_the_page_loads_nothing_from_elsewhere(client: FlaskClient) -> None:
    page = client.get("/?token=secret").get_data(as_text=True)
    assert "//" not in "".join(part.split('"')[0] for part in page.split('src="')[1:])


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    made = server.make([folder], "secret")
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}/?token=secret"
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

    def ends() -> Any:  # noqa: ANN401 - any value of JavaScript
        return browser.execute_script(
            "return document.querySelector('#chart .js-plotly-plot').layout.yaxis.range"
        )

    before = ends()
    area = browser.find_element(By.CSS_SELECTOR, "#chart .nsewdrag")
    drag = ActionChains(browser).move_to_element(area).click_and_hold()
    drag.move_by_offset(100, 80).release().perform()
    WebDriverWait(browser, SECONDS).until(lambda _: ends() != before)
    zoomed = ends()
    (reinit,) = browser.find_elements(By.XPATH, "//aside//label[contains(., 'random reinit')]")
    reinit.click()
    WebDriverWait(browser, SECONDS).until(lambda b: lines(b) == ["winning ticket"])
    assert ends() == zoomed
    (scale,) = browser.find_elements(By.XPATH, "//*[@id='look']//label[contains(., 'log y')]")
    scale.click()  # on another axis, these ends are other numbers
    WebDriverWait(browser, SECONDS).until(lambda _: ends() != zoomed)

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
