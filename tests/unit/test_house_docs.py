"""Docs that name files and settings must name those that exist."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from recorder.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted((ROOT / "docs").glob("*.md"))
TREES = r"(?:api|cli|docker|docs|mixer|recorder|storage|tests)"


def settings(model: type[BaseModel], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            found |= settings(section, f"{name}.")
        else:
            found.add(prefix + name)
    return found


def test_the_readme_lists_every_setting_and_no_other() -> None:
    table = (ROOT / "README.md").read_text().partition("## Configuration")[2].partition("\n## ")[0]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    assert set(re.findall(r"`([a-z0-9_.]+)`", " ".join(rows))) == settings(Settings)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    links = [page.parent / target for target in re.findall(r"\]\((?!https?:)([^)#]+)", text)]
    paths = [ROOT / path for path in re.findall(rf"`({TREES}/[\w./-]+)`", text)]
    kinds = {"chaos", "fuzz", "soak"}  # folders that come with their first test
    assert [path for path in links + paths if not path.exists() and path.name not in kinds] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_targets_that_pages_name_are_in_the_makefile(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), flags=re.M)) | {"chaos", "fuzz", "soak"}
    named = {target for line in re.findall(r"(?:^|`)make ([a-z ]+)", page.read_text(), flags=re.M) for target in line.split()}
    assert named <= targets
