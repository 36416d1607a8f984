"""The command `python -m analysis explore`, and who may open its page."""

import argparse
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from dash import Dash
from flask import abort, request
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from analysis.explorer.layout import layout
from analysis.explorer.live import Live
from analysis.explorer.updates import connect
from lth.errors import LotteryError
from lth.runs.places import check_runs

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
"""Names by which a browser on this machine may call the server."""


class Quiet(WSGIRequestHandler):
    """Prints nothing about single requests."""

    def log_request(self, *_: object) -> None: ...


def explore(arguments: argparse.Namespace) -> int:
    """Serve the page until it is interrupted."""
    check_runs(arguments.folders)
    server = make(arguments.folders, arguments.port)
    address = f"http://{HOST}:{server.server_port}/"
    print(f"{address}  (Ctrl-C ends it)", flush=True)
    if arguments.open:
        webbrowser.open(address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    return 0


def make(folders: Sequence[Path], port: int = 0) -> BaseWSGIServer:
    """Return a server of the page on this machine alone; port 0 stands for any free one."""
    try:
        return make_server(
            HOST, port, application(folders).server, threaded=True, request_handler=Quiet
        )
    except (OSError, SystemExit) as error:  # werkzeug exits where a port is taken
        raise LotteryError(
            f"--port must be free, and {port} is not; 0 takes any free one"
        ) from error


def application(folders: Sequence[Path]) -> Dash:
    """Return the page as an application, which answers this machine alone.

    A page elsewhere could let its own name stand for this machine, and a browser would then let it
    read what it gets. So the name in the request must be one of NAMES.
    """
    app = Dash(__name__, title="lth", update_title="")
    app.layout = layout(folders)
    connect(app, Live(folders))

    app.server.before_request(refuse_others)
    return app


def refuse_others() -> None:
    """Refuse a request that was not made to this machine by one of NAMES, from its own page."""
    addresses = [f"//{request.host}", request.headers.get("Origin", f"//{HOST}")]
    if any(urlsplit(address).hostname not in NAMES for address in addresses):
        abort(403)
