"""Stands before a real S3 server and makes it fail: what is not to fail passes through with its signature."""

import http.client
import re
from urllib.parse import urlsplit

from tests.clouds import Answer, Fault, Request, etag_of, operation, xml_refusal


class FaultyProxy:
    def __init__(self, endpoint: str) -> None:
        self._address = urlsplit(endpoint).netloc
        self.ahead_seconds = 0.0  # the real server's clock cannot be set
        self.faults: list[Fault] = []
        self.seen: list[str] = []
        self.requests: list[Request] = []

    def operation(self, request: Request) -> str:
        return operation(request)

    def refusal(self, status: int, code: str) -> Answer:
        return xml_refusal(status, code)

    def with_wrong_etag(self, answer: Answer) -> Answer:
        etag = etag_of(b"something else").lower()
        body = re.sub(rb"(<ETag>)[^<]*(</ETag>)", lambda match: match[1] + etag.strip('"').encode() + match[2], answer.body)
        headers = {name: etag if name.lower() == "etag" else value for name, value in answer.headers.items()}
        return Answer(answer.status, headers, body)

    def truncate(self, request: Request) -> None:
        raise NotImplementedError

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        connection = http.client.HTTPConnection(self._address, timeout=20)
        try:
            connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                connection.putheader(name, value)
            connection.endheaders(request.body)
            answer = connection.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name not in ("Connection", "Transfer-Encoding", "Date", "Server")}
            body = answer.read()
            if request.method != "HEAD":
                kept["Content-Length"] = str(len(body))
            return Answer(answer.status, kept, body)
        finally:
            connection.close()
