"""Sources of other commits, in folders of their own."""
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def commit_of(name: str) -> str | None:
    """The whole name of the commit that ``name`` stands for; None if it stands for none."""
    found = subprocess.run(["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"],
                           cwd=ROOT, text=True, capture_output=True)
    return found.stdout.strip() if found.returncode == 0 else None


def check_out(name: str, tree: Path, *paths: str) -> None:
    """Write the sources of a commit, all or those below ``paths``, into the new folder ``tree``. Ends the program in a
    line if there is no such commit."""
    commit = commit_of(name)
    if commit is None:
        raise SystemExit(f"{name} is no commit of this repository: name one, as git log shows it")
    tree.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=tree.parent) as partial:
        archive = Path(partial)/"sources.tar"
        subprocess.run(["git", "archive", "-o", str(archive), commit, *paths], cwd=ROOT, check=True)
        (Path(partial)/"tree").mkdir()
        # Python's own reader of archives has no safe way of it before 3.11.4; Debian 12 has 3.11.2.
        subprocess.run(["tar", "-xf", archive, "-C", Path(partial)/"tree"], check=True)
        (Path(partial)/"tree").rename(tree)
