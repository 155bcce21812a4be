"""Addresses of stores that customers name."""

import re
from urllib.parse import urlsplit

from storage.errors import BadOptions


def endpoint_url(endpoint: str | None) -> str:
    """`host`, `host:port` or a URL of these; https unless it says http.

    Raises:
        BadOptions: it is something else.
    """
    text = endpoint or ""
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not re.search(r"[\s\x00-\x1f\\]", text)
    except ValueError:
        good = False
    if not good or parts.username is not None or parts.password is not None or parts.path.strip("/") or parts.query or parts.fragment:
        raise BadOptions("the storage endpoint is not a host name or URL")
    return f"{parts.scheme}://{parts.netloc}"
