"""A small server that speaks the Hub's HTTP protocol on loopback, for the real clients.

It covers what `huggingface_hub`, `datasets` and `sentence_transformers` ask for: who am I, create,
info, refs, tree, paths-info, validate-yaml, preupload, LFS batch, upload and verify, commit, tag,
resolve with redirects to a content store, byte ranges, and the Hub's errors with their headers.
Large files go through LFS, so clients run with ``HF_HUB_DISABLE_XET=1``.

Bad days are made with `HubServer.fail`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from hub_faults import Cut, Fault, HubError, User
from hub_repos import Commit, File, Repo, entries

ENVIRONMENT = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "0"}
LFS_SUFFIXES = (".parquet", ".safetensors", ".bin", ".arrow")
LICENCES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "odc-by", "other", "unknown"}
PAGE = 3
"""Entries of a page of a tree; small, so that clients have to follow the links."""


class HubServer:
    """The server and its state. Use it as a context manager; `url` is for ``HF_ENDPOINT``."""

    def __init__(self) -> None:
        self.users = {
            "hf_writer": User("writer", frozenset({"writer", "syneg"})),
            "hf_reader": User("reader", frozenset()),
        }
        self.repos: dict[tuple[str, str], Repo] = {}
        self.store: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.lock = threading.RLock()
        # Contents are served from another address, as the Hub does it: clients treat a redirect to
        # the Hub itself as a renamed repository.
        handler = type("Bound", (Handler,), {"hub": self})
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
        self.url, self.contents = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)

    def __enter__(self) -> HubServer:
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def fail(self, method: str, path: str, **how: Any) -> Fault:
        fault = Fault(method, path, **how)
        self.faults.append(fault)
        return fault

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and re.search(fault.path, path):
                    if fault.skip > 0:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    return fault
        return None

    def repo(self, kind: str, name: str) -> Repo:
        return self.repos[kind, name]

    def seen(self, pattern: str) -> list[str]:
        return [line for line in self.requests if re.search(pattern, line)]


class Handler(BaseHTTPRequestHandler):
    """One request. The routes are at the end."""

    hub: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes; the second would wait for 40 ms

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.handle_request()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def handle_request(self) -> None:
        parts = urlsplit(self.path)
        self.route, self.query = parts.path, parse_qs(parts.query)
        self.hub.requests.append(f"{self.command} {unquote(self.route)}")
        fault = self.hub.fault_for(self.command, unquote(self.route))
        try:
            self.body = self.read_body(fault.cut if fault else None)
            if fault and fault.status:
                raise HubError(fault.status, fault.message, headers=fault.headers)
            with self.hub.lock:
                answer = self.dispatch()
            if fault and fault.lose_reply:
                raise Cut
            status, headers, content = answer
        except Cut:
            self.close_connection = True
            self.connection.close()
            return
        except HubError as error:
            status = error.status
            headers = {"X-Error-Message": error.message, "Content-Type": "application/json"}
            headers |= {"X-Error-Code": error.code} if error.code else {}
            headers |= error.extra.pop("headers", {})
            content = json.dumps({"error": error.message, **error.extra}).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def read_body(self, cut: int | None) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(chunks)
        else:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length if cut is None else min(cut, length))
        if cut is not None:
            raise Cut
        return body

    def dispatch(self) -> tuple[int, dict[str, str], bytes]:
        for method, pattern, function in ROUTES:
            match = re.fullmatch(pattern, self.route)
            if match and self.command in method:
                groups = {name: unquote(value) for name, value in match.groupdict().items() if value}
                answer = function(self, **groups)
                if isinstance(answer, tuple):
                    return answer
                return 200, {"Content-Type": "application/json"}, json.dumps(answer).encode()
        raise HubError(404, f"no route for {self.command} {self.route}")

    def user(self) -> User | None:
        words = (self.headers.get("Authorization") or "").split()
        if not words:
            return None
        user = self.hub.users.get(words[-1])
        if user is None:
            raise HubError(401, "Invalid credentials in Authorization header")
        return user

    def find(self, name: str, kind: str = "model", write: bool = False) -> Repo:
        user, repo = self.user(), self.hub.repos.get((kind, name))
        may_write = user is not None and name.split("/")[0] in user.can_write
        if repo is None or (repo.private and not may_write):
            raise HubError(404 if user else 401, "Repository not found", "RepoNotFound")
        if write and not may_write:
            raise HubError(
                403, f"Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request on {name}"
            )
        return repo

    def find_commit(self, repo: Repo, revision: str = "main") -> Commit:
        commit = repo.at(revision)
        if commit is None:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def json(self) -> Any:
        return json.loads(self.body)

    # The routes.

    def whoami(self) -> Any:
        user = self.user()
        if user is None:
            raise HubError(401, "Invalid username or password.")
        return {
            "type": "user",
            "name": user.name,
            "orgs": [{"name": name} for name in sorted(user.can_write)],
        }

    def create(self) -> Any:
        user, wanted = self.user(), self.json()
        if user is None:
            raise HubError(401, "Invalid username or password.")
        owner, kind = wanted.get("organization") or user.name, wanted.get("type") or "model"
        name = f"{owner}/{wanted['name']}"
        url = f"{self.hub.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
        if owner not in user.can_write:
            raise HubError(
                403, f'You don\'t have the rights to create a {kind} under the namespace "{owner}"'
            )
        if (kind, name) in self.hub.repos:
            raise HubError(409, f"You already created this {kind} repo: {name}", url=url)
        repo = Repo(kind, name, wanted.get("visibility") == "private" or bool(wanted.get("private")))
        repo.commit({".gitattributes": File(b"*.parquet filter=lfs\n", False)}, "initial commit")
        self.hub.repos[kind, name] = repo
        return {"url": url, "name": name}

    def info(self, kind: str, name: str, revision: str = "main") -> Any:
        repo = self.find(name, kind)
        commit = self.find_commit(repo, revision)
        return {
            "id": name,
            "sha": commit.oid,
            "private": repo.private,
            "gated": False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "createdAt": "2026-01-01T00:00:00.000Z",
            "lastModified": "2026-01-01T00:00:00.000Z",
            "siblings": [{"rfilename": path} for path in sorted(commit.files)],
        }

    def refs(self, kind: str, name: str) -> Any:
        repo = self.find(name, kind)
        return {
            "branches": [
                {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.commits[-1].oid},
            ],
            "converts": [],
            "tags": [
                {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": oid}
                for tag, oid in repo.tags.items()
            ],
        }

    def tree(self, kind: str, name: str, revision: str, path: str = "") -> Any:
        listed = entries(self.find_commit(self.find(name, kind), revision))
        prefix = f"{path}/" if path else ""
        if path and path not in listed:
            raise HubError(404, f"{path} does not exist on {revision}", "EntryNotFound")
        found = [entry for where, entry in sorted(listed.items()) if where.startswith(prefix)]
        if self.query.get("recursive", ["false"])[0].lower() not in ("true", "1"):
            found = [entry for entry in found if "/" not in entry["path"].removeprefix(prefix)]
        start = int(self.query.get("cursor", ["0"])[0])
        headers = {"Content-Type": "application/json"}
        if start + PAGE < len(found):
            rest = "&".join(f"{key}={values[0]}" for key, values in self.query.items() if key != "cursor")
            headers["Link"] = f'<{self.hub.url}{self.route}?{rest}&cursor={start + PAGE}>; rel="next"'
        return 200, headers, json.dumps(found[start : start + PAGE]).encode()

    def paths_info(self, kind: str, name: str, revision: str) -> Any:
        listed = entries(self.find_commit(self.find(name, kind), revision))
        text = self.body.decode()
        wanted = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text).get("paths", [])
        return [listed[path] for path in wanted if path in listed]

    def validate_yaml(self) -> Any:
        head = re.match(r"---\n(.*?)\n---", self.json()["content"], re.DOTALL)
        try:
            data = yaml.safe_load(head.group(1)) if head else {}
        except yaml.YAMLError as error:
            raise HubError(400, "invalid", errors=[{"message": f"YAML: {error}"}]) from None
        if data.get("license", "unknown") not in LICENCES:
            message = f'"license" must be one of {sorted(LICENCES)}'
            raise HubError(400, "invalid", errors=[{"message": message}], warnings=[])
        return {"errors": [], "warnings": []}

    def preupload(self, kind: str, name: str, revision: str) -> Any:
        files = self.find_commit(self.find(name, kind, write=True), revision).files
        answer = []
        for wanted in self.json()["files"]:
            path = wanted["path"]
            now = files.get(path)
            answer.append(
                {
                    "path": path,
                    "uploadMode": "lfs" if path.endswith(LFS_SUFFIXES) else "regular",
                    "shouldIgnore": False,
                    "oid": (now.sha256 if now.lfs else now.git_oid) if now else None,
                }
            )
        return {"files": answer}

    def lfs_batch(self, name: str, kind: str = "model") -> Any:
        self.find(name, kind, write=True)
        objects = []
        for wanted in self.json()["objects"]:
            found = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.store:
                href = f"{self.hub.contents}/lfs/{wanted['oid']}"
                found["actions"] = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
            objects.append(found)
        return {"transfer": "basic", "objects": objects}

    def lfs_put(self, oid: str) -> Any:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise HubError(400, "the content does not have this hash")
        self.hub.store[oid] = self.body
        return {}

    def lfs_verify(self, oid: str) -> Any:
        if len(self.hub.store.get(oid, b"")) != self.json()["size"]:
            raise HubError(422, "the object is not there")
        return {}

    def commit(self, kind: str, name: str, revision: str) -> Any:
        repo = self.find(name, kind, write=True)
        lines = [json.loads(line) for line in self.body.splitlines() if line.strip()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit") not in (None, repo.commits[-1].oid):
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repo.commits[-1].files)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]), lfs=False)
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.store:
                    raise HubError(400, f"LFS pointer pointed to a file that does not exist: {value['path']}")
                files[value["path"]] = File(self.hub.store[value["oid"]], lfs=True)
            elif line["key"] == "deletedFile" and files.pop(value["path"], None) is None:
                raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
        made = repo.commit(files, header["summary"])
        return {"commitUrl": f"{self.hub.url}/{name}/commit/{made.oid}", "commitOid": made.oid}

    def tag(self, kind: str, name: str, revision: str) -> Any:
        repo = self.find(name, kind, write=True)
        if self.command == "DELETE":
            if repo.tags.pop(revision, None) is None:
                raise HubError(404, "no such tag", "RevisionNotFound")
            return {}
        tag = self.json()["tag"]
        if tag in repo.tags:
            raise HubError(409, f"Tag {tag} already exists")
        repo.tags[tag] = self.find_commit(repo, revision).oid
        return {}

    def resolve(self, name: str, revision: str, path: str, kind: str = "model") -> Any:
        commit = self.find_commit(self.find(name, kind), revision)
        file = commit.files.get(path)
        where = {"X-Repo-Commit": commit.oid}
        if file is None:
            raise HubError(404, f"Entry not found: {path}", "EntryNotFound", headers=where)
        if file.lfs:
            where |= {
                "Location": f"{self.hub.contents}/cdn/{file.sha256}",
                "X-Linked-Size": str(len(file.content)),
                "X-Linked-Etag": f'"{file.sha256}"',
            }
            return 302, where, b""
        return self.ranged(file.content, where | {"ETag": f'"{file.git_oid}"'})

    def cdn(self, oid: str) -> Any:
        return self.ranged(self.hub.store[oid], {"ETag": f'"{oid}"'})

    def ranged(self, content: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        headers |= {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not wanted:
            return 200, headers, content
        start, stop = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{stop}/{len(content)}"
        return 206, headers, content[start : stop + 1]


_API = r"/api/(?P<kind>model|dataset)s/(?P<name>[^/]+/[^/]+)"
_REPO = r"/(?:(?P<kind>dataset)s/)?(?P<name>[^/]+/[^/]+)"
ROUTES = [
    (("GET",), "/api/whoami-v2", Handler.whoami),
    (("POST",), "/api/repos/create", Handler.create),
    (("POST",), "/api/validate-yaml", Handler.validate_yaml),
    (("GET",), _API, Handler.info),
    (("GET",), _API + "/revision/(?P<revision>[^/]+)", Handler.info),
    (("GET",), _API + "/refs", Handler.refs),
    (("GET",), _API + "/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?", Handler.tree),
    (("POST",), _API + "/paths-info/(?P<revision>[^/]+)", Handler.paths_info),
    (("POST",), _API + "/preupload/(?P<revision>[^/]+)", Handler.preupload),
    (("POST",), _API + "/commit/(?P<revision>[^/]+)", Handler.commit),
    (("POST", "DELETE"), _API + "/tag/(?P<revision>[^/]+)", Handler.tag),
    (("POST",), _REPO + r"\.git/info/lfs/objects/batch", Handler.lfs_batch),
    (("PUT",), "/lfs/(?P<oid>[0-9a-f]{64})", Handler.lfs_put),
    (("POST",), "/lfs/(?P<oid>[0-9a-f]{64})/verify", Handler.lfs_verify),
    (("GET", "HEAD"), "/cdn/(?P<oid>[0-9a-f]{64})", Handler.cdn),
    (("GET", "HEAD"), _REPO + "/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Handler.resolve),
]
