"""Links between pages lead somewhere, headings included; every page is in the site's list; none shows a reference of
Sphinx."""
import re
from pathlib import Path

import pytest

ROOT  = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT/"models"/"README.md", *ROOT.glob("*.md"), *(ROOT/"docs").rglob("*.md")])
CODE  = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK  = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]*))?\)")


def anchors(text):
    """What a page's headings are called in links: as GitHub and MkDocs make it of plain words."""
    found = []
    for heading in re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL),
                              re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found.append(slug)
    return found


def broken(page, text):
    """Links of a page's text that lead nowhere."""
    for path, anchor in LINK.findall(CODE.sub("", text)):
        target = (page.parent/path).resolve() if path else page
        if not target.is_relative_to(ROOT) or not target.exists():
            yield f"{path}: no such file"
        elif anchor and anchor not in anchors(target.read_text("utf-8")):
            yield f"{path}#{anchor}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert list(broken(page, page.read_text("utf-8"))) == []


@pytest.mark.parametrize("text, count", [
    ("[a](quickstart.md) [b](../README.md#limits) [c](https://example.org/x) `[d](nowhere.md)`", 0),
    ("[a](nowhere.md)", 1), ("[a](quickstart.md#nowhere)", 1), ("[a](#nowhere)", 1), ("[a](../../outside.md)", 1)])
def test_sees_broken_links(text, count):
    assert len(list(broken(ROOT/"docs"/"host.md", text))) == count


def test_every_page_is_in_the_site():
    listed = re.findall(r": (\S+\.md)$", (ROOT/"mkdocs.yml").read_text(), re.MULTILINE)
    assert {page.name for page in (ROOT/"docs").glob("*.md")} <= set(listed)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_shows_no_reference_of_sphinx(page):
    assert not re.findall(r":\w+:`[^`]*`", page.read_text("utf-8"))
