"""`cloud-recorder usage`: what a customer's recordings have used, asked of the API."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import click
import httpx
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from api.usage_routes import columns
from recorder.settings import load
from recorder.tools.api_client import Credentials
from recorder.usage import CATEGORIES

_PAGE = "1000"
_FORMULA = ("=", "+", "-", "@")  # what spreadsheets would run; a channel's name may begin so


def fetch(url: str, credentials: Credentials, query: dict[str, str]) -> dict[str, Any]:
    """The whole answer, all pages in one.

    Raises:
        ClickException: there is none; the message says why.
    """
    whole: dict[str, Any] = {}
    try:
        login = (credentials.customer_id, credentials.customer_secret.get_secret_value())
        with httpx.Client(base_url=url, auth=login, timeout=30, trust_env=False) as http:
            while True:
                response = http.get("/v1/ext/usage", params={**query, "limit": _PAGE})
                if not response.is_success:
                    raise click.ClickException(f"the API answers {response.status_code}: {_reason(response)}")
                page = response.json()
                whole = {**page, "rows": [*whole.get("rows", ()), *page["rows"]]}
                if "next" not in page:
                    return whole
                query = {**query, "after": page["next"]}
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise click.ClickException(f"no answer from {url}: {type(error).__name__}") from error


def _reason(response: httpx.Response) -> str:
    try:
        body = response.json()
        return str(body.get("reason") or body["message"])
    except (ValueError, KeyError, AttributeError):
        return "not an answer of this service"


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with settings: where the API and the credentials are")
@click.option("--url", help="of the API; default: this machine's, by the settings")
@click.option("--credentials", type=click.Path(path_type=Path), help="file of the customer's credentials; default: that of the first start")
@click.option("--from", "first", metavar="DAY", help="first day, YYYY-MM-DD in UTC; default: the first of the month")
@click.option("--to", "last", metavar="DAY", help="last day, included; default: today")
@click.option("--app", help="only this app id")
@click.option("--channel", help="only channels of this name")
@click.option("--group", "groups", default="day", show_default=True, help="month, day, app, channel, session; several with commas")
@click.option("--csv", "as_csv", is_flag=True, help="rows as CSV, seconds by category")
@click.option("--json", "as_json", is_flag=True, help="the API's answer, all pages in one")
def command(
    *,
    config: Path | None,
    url: str | None,
    credentials: Path | None,
    first: str | None,
    last: str | None,
    app: str | None,
    channel: str | None,
    groups: str,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Show how long your recordings have run in each category: per row in seconds, per month in minutes and, where the operator
    has set prices, money."""
    if as_csv and as_json:
        raise click.UsageError("--csv and --json do not go together")
    settings = load(config)
    path = credentials or settings.credentials_file
    try:
        who = Credentials.read(path)
    except OSError as error:
        raise click.ClickException(f"the credentials in {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise click.ClickException(f"{path} is no file of credentials") from error
    query = {"from": first, "to": last, "app": app, "channel": channel, "groupBy": groups}
    given = {name: text for name, text in query.items() if text is not None}
    answer = fetch(url or _local(settings.api.host, settings.api.port), who, given)
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    elif as_csv:
        _write_csv(answer)
    else:
        _show(answer, Console())


def _local(host: str, port: int) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # replaced, not listened on
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _columns(answer: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The keys of the rows, and the categories that there are."""
    times = [part["seconds"] for part in (*answer["rows"], *answer["months"])]
    return columns(answer["groupBy"]), [name for name in CATEGORIES if any(name in time for time in times)]


def _write_csv(answer: dict[str, Any]) -> None:
    keys, _ = _columns(answer)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*keys, "sessions", *CATEGORIES])  # always the same columns
    for row in answer["rows"]:
        names = (f"'{row[key]}" if row[key].startswith(_FORMULA) else row[key] for key in keys)
        writer.writerow([*names, row["sessions"], *(row["seconds"].get(category, 0) for category in CATEGORIES)])


def _show(answer: dict[str, Any], console: Console) -> None:
    keys, categories = _columns(answer)
    console.print(f"{answer['from']} to {answer['to']} (UTC)", highlight=False)
    if not answer["rows"]:
        console.print("nothing was recorded")
        return
    rows = Table(title="seconds")
    for key in keys:
        rows.add_column(key, overflow="fold")
    for name in ("sessions", *categories):
        rows.add_column(name, justify="right")
    for row in answer["rows"]:
        times = (f"{row['seconds'].get(category, 0):,.3f}" for category in categories)
        rows.add_row(*(Text(row[key]) for key in keys), str(row["sessions"]), *times)
    months = Table("month", *categories, title="minutes, rounded up by month and category")
    priced = any("price" in month for month in answer["months"])
    if priced:
        months.add_column("price", justify="right")
    for month in answer["months"]:
        price = (Text(f"{month.get('price', '')} {month.get('currency', '')}".strip()),) if priced else ()
        months.add_row(month["month"], *(str(month["minutes"].get(category, 0)) for category in categories), *price)
    console.print(rows, months)
