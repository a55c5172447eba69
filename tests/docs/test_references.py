"""No page refers to itself or names a file that is not there; the glossary is in order, its words are used."""
import re
from functools import cache
from pathlib import Path

import pytest

from llama2_spec.emit_docs import plain

ROOT  = Path(__file__).resolve().parents[2]
PAGES = sorted(path for folder in (ROOT, ROOT/"docs", ROOT/"docs"/"decisions", ROOT/"models")
               for path in folder.glob("*.md"))
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
ROOMS = "accel|soc|spec|host|firmware|targets|bench|tests|docs|models"
#: Rows of the glossary, and the spellings in which its words occur elsewhere.
WORDS = re.findall(r"^\| ([^|]+) \| ", (ROOT/"docs"/"glossary.md").read_text(), re.MULTILINE)[1:]


def test_generated_pages_show_the_name_that_a_reference_is_to():
    assert plain("see :class:`llama2_spec.image.Image`, :func:`~a.b` and ``c``") == "see `Image`, `b` and `c`"


@pytest.mark.parametrize("page", NAMES)
def test_no_page_refers_to_itself(page):
    name = Path(page).name
    itself = re.compile(rf"\]\((?:\.\./)?(?:docs/)?{re.escape(name)}\)|\bdocs/{re.escape(name)}")
    assert not itself.search((ROOT/page).read_text())


@pytest.mark.parametrize("page", NAMES)
def test_files_that_a_page_names_are_there(page):
    found = re.findall(rf"(?<![\w/.-])((?:{ROOMS})/[\w./-]*\.(?:py|c|h|md|json|v|cpp|mk|svg|txt|toml|bin))\b(?![*{{])",
                       (ROOT/page).read_text())
    assert [name for name in found if not (ROOT/name).exists()] == []


def test_the_glossary_is_in_order():
    assert WORDS == sorted(WORDS, key=str.lower)


@cache
def texts():
    """All pages but the glossary, and the sources of four rooms."""
    sources = (path for room in ("accel", "spec", "host", "firmware") for path in (ROOT/room).rglob("*")
               if path.suffix in (".py", ".c", ".h"))
    return "\n".join(path.read_text() for path in (*PAGES, *sources) if path.name != "glossary.md").lower()


@pytest.mark.parametrize("word", WORDS)
def test_a_word_of_the_glossary_is_used(word):
    """In a page or in the sources, beside the glossary."""
    forms = [form.strip().lower() for form in re.split(r",|\.\.\.", word) if form.strip()]
    assert any(re.search(rf"\b{re.escape(form)}s?\b", texts()) for form in forms)
