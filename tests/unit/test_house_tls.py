"""Who connects to servers, and that nobody looks away from their certificates."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "cli", "mixer", "recorder", "storage")

# What can open connections to others, and who may use it. A new place has to keep the rules of recorder/outbound.py where users name
# the host, and belongs into tests/integration/test_bad_certificates.py.
CLIENTS = {
    "httpx": {
        "cli/demo/session.py",  # a status code
        "cli/serve.py",  # its own listeners
        "cli/usage.py",
        "recorder/channels/hub.py",
        "recorder/tools/api_client.py",
        "recorder/tools/publish.py",
    },
    "httpcore": {"recorder/outbound_http.py"},
    "http.client": {"recorder/outbound.py"},
    "websockets": {"recorder/channels/hub.py"},
    "requests": {"storage/pinned.py", "storage/vendors/cos.py", "storage/vendors/oss.py", "storage/vendors/qiniu.py"},
    "urllib3": {"storage/pinned.py"},
    "botocore": {"storage/pinned.py", "storage/s3_protocol.py"},
    "boto3": {"storage/s3_protocol.py"},
    "oss2": {"storage/vendors/oss.py"},
    "qcloud_cos": {"storage/vendors/cos.py"},
    "qiniu": {"storage/vendors/qiniu.py"},
}
STRANGERS = ("aiohttp", "urllib.request", "ftplib", "smtplib", "imaplib", "poplib", "telnetlib", "xmlrpc", "pycurl")
# Contexts that begin without a look at certificates, as servers' do.
CONTEXTS = {"recorder/tls.py"}


def sources() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text()


def imported(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {client for client in (*CLIENTS, *STRANGERS) for name in found if name == client or name.startswith(f"{client}.")}


def looks_away(source: str) -> list[str]:
    """Where certificates or their names are not looked at."""
    if not any(word in source for word in ("verif", "hostname", "ssl", "SSL", "CERT", "disable_warnings", "cert_reqs")):
        return []  # parsing takes long
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.keyword(
                arg="verify" | "check_hostname" | "assert_hostname" | "verify_ssl" | "ssl" | "use_ssl" | "verify_mode" | "cert_reqs",
                value=ast.Constant(value=False | "CERT_NONE" | 0),
            ):
                found.append(f"{node.value.lineno}: {node.arg}")
            case ast.Assign(targets=[ast.Attribute(attr="verify" | "check_hostname" | "_verify" as name)], value=ast.Constant(value=False)):
                found.append(f"{node.lineno}: {name}")
            case ast.Attribute(attr="CERT_NONE" | "CERT_OPTIONAL" | "_create_unverified_context" | "disable_warnings" as name):
                found.append(f"{node.lineno}: {name}")
            case ast.alias(name="CERT_NONE" | "CERT_OPTIONAL" | "_create_unverified_context" | "disable_warnings" as name):
                found.append(f"{node.lineno}: {name}")
            case ast.Call(func=ast.Attribute(attr="SSLContext") | ast.Name(id="SSLContext")):
                found.append(f"{node.lineno}: SSLContext")
    return found


def test_connections_to_others_are_opened_in_few_places() -> None:
    users = defaultdict(set)
    for name, source in sources():
        if any(client in source for client in (*CLIENTS, *STRANGERS, "urllib")):
            for client in imported(source):
                users[client].add(name)
    assert dict(users) == CLIENTS


def test_nobody_looks_away_from_certificates() -> None:
    assert {name: found for name, source in sources() if (found := looks_away(source)) and name not in CONTEXTS} == {}


@pytest.mark.parametrize(
    "source",
    [
        "httpx.get(url, verify=False)",
        "session.verify = False",
        "boto3.client('s3', verify=False)",
        "context.check_hostname = False",
        "context.verify_mode = ssl.CERT_NONE",
        "ssl._create_unverified_context()",
        "from ssl import CERT_NONE",
        "ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)",
        "urllib3.disable_warnings()",
        "PoolManager(cert_reqs='CERT_NONE')",
        "PoolManager(assert_hostname=False)",
        "connector(ssl=False)",
    ],
)
def test_who_looked_away_would_be_found(source: str) -> None:
    assert looks_away(source)


def test_a_new_client_would_be_found() -> None:
    assert imported("import aiohttp") == {"aiohttp"}
    assert imported("from urllib import request") == {"urllib.request"}
    assert imported("from websockets.asyncio.client import connect") == {"websockets"}


@pytest.mark.parametrize("name", sorted(CONTEXTS))
def test_contexts_of_our_own_are_of_a_server_or_trust_one_certificate(name: str) -> None:
    """The one context of a client that does not look at names trusts exactly the certificate that this service shows itself."""
    source = (ROOT / name).read_text()
    assert source.count("ssl.SSLContext(") == source.count("ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)") + 1
    assert "CERT_NONE" not in source
    users = [other for other, text in sources() if "client_context" in text and other != name]
    assert users == ["cli/serve.py"]
