"""Answers where Grafana would: health, and what it was given (data sources, dashboards, password file).

Ends with an error where Grafana would start without what it needs: a provisioning file that cannot
be read, a dashboard folder that is not mounted, a password file that is empty.
"""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import yaml

PROVISIONING = Path("/etc/grafana/provisioning")


def provisioned(kind: str) -> list[Any]:
    files = sorted((PROVISIONING / kind).glob("*.y*ml"))
    return [yaml.safe_load(path.read_text(encoding="utf-8")) for path in files]


datasources = [source for file in provisioned("datasources") for source in file["datasources"]]
folders = [Path(provider["options"]["path"]) for file in provisioned("dashboards") for provider in file["providers"]]
dashboards = [
    json.loads(path.read_text(encoding="utf-8")) for folder in folders for path in sorted(folder.glob("*.json"))
]
assert datasources, "no data source is provisioned"
assert dashboards, "no dashboard is provisioned"
assert Path(os.environ["GF_SECURITY_ADMIN_PASSWORD__FILE"]).read_text(encoding="utf-8").strip(), "the password is empty"

ANSWERS = {
    "/api/health": {"database": "ok", "version": "stand-in"},
    "/api/datasources": datasources,
    "/api/search": [{"uid": board["uid"], "title": board["title"]} for board in dashboards],
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/api/datasources/health":  # is the data source reachable from in here?
            with urlopen(f"{datasources[0]['url']}/-/ready", timeout=5) as answer:
                self.reply(answer.status, {"status": "OK"})
        elif self.path in ANSWERS:
            self.reply(200, ANSWERS[self.path])
        else:
            self.reply(404, {})

    def reply(self, status: int, value: object) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    def log_message(self, *_args: object) -> None:
        """Probes come every few seconds; they are no news."""


ThreadingHTTPServer(("", 3000), Handler).serve_forever()
