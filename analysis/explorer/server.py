"""The command `python -m analysis explore`, and who may open its page."""

import argparse
import hmac
import secrets
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from dash import Dash
from flask import Response, abort, request
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from analysis.explorer.layout import layout
from analysis.explorer.live import Live
from analysis.explorer.updates import connect
from lth.errors import LotteryError
from lth.runs.places import check_runs

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
"""Names by which a browser on this machine may call the server."""
TOKEN = "token"
"""Parameter of the address that is printed; afterwards, a browser sends the token as a cookie."""
PORTS = range(65536)


class Quiet(WSGIRequestHandler):
    """Prints nothing about single requests."""

    def log_request(self, *_: object) -> None: ...


def explore(arguments: argparse.Namespace) -> int:
    """Serve the page until it is interrupted."""
    check_runs(arguments.folders)
    token = secrets.token_urlsafe(16)
    server = make(arguments.folders, token, arguments.port)
    address = f"http://{HOST}:{server.server_port}/?{TOKEN}={token}"
    print(f"{address}  (Ctrl-C ends it)", flush=True)
    if arguments.open:
        webbrowser.open(address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    return 0


def make(folders: Sequence[Path], token: str, port: int = 0) -> BaseWSGIServer:
    """Return a server of the page on this machine alone; port 0 stands for any free one."""
    if port not in PORTS:
        raise LotteryError(f"--port must be in 0 to {max(PORTS)}, got {port}")
    app = application(folders, token).server
    try:
        return make_server(HOST, port, app, threaded=True, request_handler=Quiet)
    except (OSError, SystemExit) as error:  # werkzeug exits where a port is taken
        reason = getattr(error, "strerror", None) or "another program listens there"
        message = f"--port {port} cannot be used ({reason}). Without --port, any free one is taken."
        raise LotteryError(message) from error


def application(folders: Sequence[Path], token: str) -> Dash:
    """Return the page as an application that answers those who know the token.

    Other users of this machine can reach the port, but do not know the token. A page elsewhere
    could let its own name stand for this machine, so the name in a request must be one of NAMES.
    """
    app = Dash(__name__, title="lth", update_title="")
    app.layout = layout(folders)
    connect(app, Live(folders))

    def refuse_others() -> None:
        known = _is(request.args.get(TOKEN), token) or _is(request.cookies.get(_cookie()), token)
        name = request.host.rpartition(":")[0] or request.host
        own = f"http://{request.host}"
        if not known or name not in NAMES or request.headers.get("Origin", own) != own:
            abort(403)

    def remember(response: Response) -> Response:
        if _is(request.args.get(TOKEN), token):
            response.set_cookie(_cookie(), token, httponly=True, samesite="Strict")
        return response

    app.server.before_request(refuse_others)
    app.server.after_request(remember)
    return app


def _is(given: str | None, token: str) -> bool:
    return hmac.compare_digest((given or "").encode(), token.encode())


def _cookie() -> str:
    """Return the name of the cookie: browsers give a cookie to all ports of a machine."""
    return f"lth-{request.host.rpartition(':')[2]}"
