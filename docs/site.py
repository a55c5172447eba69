"""A hook of MkDocs: gives the site README and its neighbours, and a page for every file of the repository that a page
links to.

Pages link as they lie in the repository, so that they also work where it is browsed. Here such a link becomes one
within the site: to a page of docs/, to a page that shows the file's text, or to a list of a folder's files.
"""
import posixpath
import re
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
#: pages that lie elsewhere than in docs/
OUTSIDE = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md",
           "SECURITY.md": "security.md", "models/README.md": "models.md"}
WHERE = {page: path for path, page in OUTSIDE.items()}
LINK = re.compile(r"(?<!`)\]\((?!\w+:)([^)#\s]*)(#[^)\s]*)?\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
#: how the text of a file is coloured, by its suffix
LANGUAGES = {".py": "python", ".c": "c", ".h": "c", ".json": "json", ".toml": "toml", ".sh": "sh"}
LARGEST_BYTES = 1 << 18


def on_files(files, config):
    """Add the pages from outside docs/, and those that any page links to."""
    for path, page in OUTSIDE.items():
        if (ROOT / path).is_file():
            files.append(File.generated(config, page, content=(ROOT / path).read_text("utf-8")))
    wanted = set()
    for file in [file for file in files if file.src_uri.endswith(".md")]:
        wanted |= {path for path in linked(file.content_string, place(file.src_uri))
                   if page_of(path).startswith("source/")}
    if not files.get_file_from_path("decisions/index.md"):
        files.append(File.generated(config, "decisions/index.md", content=decisions()))
    for path in sorted(wanted):
        files.append(File.generated(config, page_of(path), content=shown(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Point a page's links at the site's pages."""
    here = page.file.src_uri

    def point(match):
        link, anchor = match[1], match[2] or ""
        if not link or here.startswith("source/"):
            return match[0]
        target = page_of(posixpath.normpath(posixpath.join(posixpath.dirname(place(here)), link)))
        return f"]({posixpath.relpath(target, posixpath.dirname(here) or '.')}{anchor})"
    return outside_fences(markdown, lambda text: LINK.sub(point, text))


def place(page: str) -> str:
    """Where in the repository a page of the site lies."""
    return WHERE.get(page, f"docs/{page}")


def page_of(path: str) -> str:
    """The site's page, or asset, of a file or folder of the repository."""
    if path in OUTSIDE:
        return OUTSIDE[path]
    if path == "docs/decisions":
        return "decisions/index.md"
    if path.startswith("docs/") and not (ROOT / path).is_dir():
        return path.removeprefix("docs/")
    return f"source/{path}.md"


def linked(markdown: str, where: str) -> set[str]:
    """Paths in the repository that a page links to; an error for one that is not there."""
    found = set()
    for match in LINK.finditer(FENCE.sub("", markdown)):
        if match[1]:
            path = posixpath.normpath(posixpath.join(posixpath.dirname(where), match[1]))
            if not (ROOT / path).exists():
                raise PluginError(f"{where} links to {match[1]}: there is no {path}")
            found.add(path)
    return found


def outside_fences(markdown: str, change) -> str:
    """``change`` of what is no block of code."""
    parts, at = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [change(markdown[at:fence.start()]), fence[0]]
        at = fence.end()
    return "".join([*parts, change(markdown[at:])])


def shown(path: str) -> str:
    """A page with a file's text, or with the names of a folder's files."""
    whole = ROOT / path
    if whole.is_dir():
        names = sorted(child.name for child in whole.iterdir() if child.is_file())
        return f"# {path}/\n\n" + "".join(f"- `{name}`\n" for name in names)
    if whole.stat().st_size > LARGEST_BYTES:
        return f"# {path}\n\nToo long to be shown here: {whole.stat().st_size:,} bytes.\n"
    return f"# {path}\n\n~~~~~~{LANGUAGES.get(whole.suffix, 'text')}\n{whole.read_text('utf-8').rstrip()}\n~~~~~~\n"


def decisions() -> str:
    """The list of docs/decisions, by the titles of its pages."""
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    titles = [(page.read_text("utf-8").split("\n", 1)[0].lstrip("# "), page.name) for page in pages
              if page.name != "index.md"]
    return "# Decisions\n\nChoices that shaped the design: context, choice, what it costs.\n\n" + \
        "".join(f"- [{title}]({name})\n" for title, name in titles)
