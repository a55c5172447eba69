"""Fetches a model from a Hugging Face hub: the files that a conversion reads and no others, each checked against the
hub's hash.

huggingface_hub does the transfer: HF_ENDPOINT, HF_TOKEN and the proxies' variables are its own. An interrupted transfer
resumes within its last 10 MB.
"""
import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llama2_host.checkpoint.fields import Fields, read_json
from llama2_host.checkpoint.huggingface import CONFIG, refuse_other_architectures
from llama2_host.checkpoint.shards import INDEX, SINGLE
from llama2_host.errors import HostError
from llama2_host.progress import Progress, quantity

ENDPOINT = "https://huggingface.co"
#: beside the weights: shapes, vocabulary, templates, ends
BESIDE = re.compile(
    r"config\.json|generation_config\.json|tokenizer\.json|tokenizer\.model|tokenizer_config\.json|"
    r"special_tokens_map\.json|added_tokens\.json|vocab\.json|merges\.txt|chat_template\.jinja|chat_template\.json|"
    r"additional_chat_templates/[A-Za-z0-9_.-]+\.jinja")
REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
HASHED_BYTES = 1 << 20
RESERVE_BYTES = 64 << 20        #: that a disk keeps free


@dataclass(frozen=True)
class File:
    """A file of a repository. ``sha256`` of a large one, ``git_sha1`` of a small one, as git names a blob."""
    name: str
    size: int
    sha256: str | None = None
    git_sha1: str | None = None


@dataclass(frozen=True)
class Pulled:
    """A fetched model: its folder, the path that names the model, its commit, and its files."""
    folder: Path
    model: Path
    commit: str
    files: tuple[File, ...]


class Hub:
    """A repository at one commit."""

    def __init__(self, repository: str, revision: str | None = None):
        import huggingface_hub
        import huggingface_hub.errors
        import huggingface_hub.file_download
        import huggingface_hub.utils
        if not REPOSITORY.fullmatch(repository):
            raise HostError(f"{repository} names no model: write ORG/NAME, for example karpathy/tinyllamas")
        self.library, self.repository = huggingface_hub, repository
        self.endpoint = os.environ.get("HF_ENDPOINT") or ENDPOINT
        info = self._ask(revision)
        self.commit = info.sha
        self.files = [File(one.rfilename, one.size or 0, one.lfs.sha256 if one.lfs else None,
                           None if one.lfs else one.blob_id)
                      for one in info.siblings or []]

    def _ask(self, revision: str | None):
        api = self.library.HfApi(endpoint=self.endpoint)
        try:
            return api.model_info(self.repository, revision=revision, files_metadata=True)
        except Exception as error:              # of huggingface_hub, its transport, or the system: one line for all
            raise HostError(self._explain(error, revision)) from error

    def _explain(self, error: Exception, revision: str | None = None) -> str:
        errors = self.library.errors
        if isinstance(error, errors.GatedRepoError):
            return (f"{self.repository} is gated: accept its terms at {self.endpoint}/{self.repository}, and set "
                    "HF_TOKEN to a token of yours")
        if isinstance(error, errors.RepositoryNotFoundError):
            return (f"{self.endpoint} has no model {self.repository}, or not for everyone: check its name, or set "
                    "HF_TOKEN")
        if isinstance(error, errors.RevisionNotFoundError):
            return (f"{self.repository} has no revision {revision}: leave --revision out, or name a branch, tag or "
                    "commit")
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return (f"{self.endpoint} does not give {self.repository}: {reason[:200]}; pull again, it goes on where it "
                "stopped")

    def fetch(self, file: File, folder: Path, progress: Progress) -> Path:
        """One file, in ``folder``, as the hub has it."""
        path = folder / file.name
        if path.is_file():
            if matches(path, file):
                return path
            progress.note(f"{path} is not what the hub says that it is: fetching it anew")
        _make(path.parent)
        # Named by its hash: what another commit left half fetched is none of it.
        partial = path.with_name(f".{(file.sha256 or file.git_sha1 or 'new')[:32]}.part")
        for _ in range(2):                      # a second try from the beginning, if the first one got other content
            self._transfer(file, partial, progress)
            if matches(partial, file):
                partial.replace(path)
                return path
            partial.unlink()
            progress.note(f"{file.name} was damaged on the way: fetching it anew")
        raise HostError(f"{file.name} does not have the hash that {self.endpoint} names, twice: pull again later, or "
                        "through another mirror")

    def _transfer(self, file: File, partial: Path, progress: Progress) -> None:
        """Fetch what is missing. huggingface_hub's own hf_hub_download begins anew in every process; its http_get does
        not."""
        url = self.library.hf_hub_url(self.repository, file.name, revision=self.commit, endpoint=self.endpoint)
        with open(partial, "ab") as opened:
            if opened.tell() > file.size:
                opened.truncate(0)
                opened.seek(0)
            start = opened.tell()
            with progress.bar(file.name, file.size, start=start) as bar:
                try:
                    self.library.file_download.http_get(url, opened, resume_size=start,
                                                        headers=self.library.utils.build_hf_headers(),
                                                        expected_size=file.size, tqdm_class=_bar_class(bar))
                except Exception as error:
                    raise HostError(self._explain(error)) from error
                bar.update(file.size)


def _bar_class(bar):
    """A bar class for huggingface_hub's progress."""
    from huggingface_hub.utils import tqdm

    class Silent(tqdm):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **{**options, "disable": True})
            self.done = options.get("initial") or 0

        def update(self, n=1):
            self.done += n or 0
            bar.update(min(int(self.done), bar.total))
    return Silent


def matches(path: Path, file: File) -> bool:
    """Returns whether a file has the size and hash that the hub names."""
    if path.stat().st_size != file.size:
        return False
    if not file.sha256 and not file.git_sha1:
        return True
    found = hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % file.size)
    with open(path, "rb") as data:
        while piece := data.read(HASHED_BYTES):
            found.update(piece)
    return found.hexdigest() == (file.sha256 or file.git_sha1)


def weights(files: Sequence[File], named: str | None, repository: str) -> list[File]:
    """The files with the weights: the one that is named, one or several safetensors, or the only GGUF file."""
    by_name = {file.name: file for file in files}
    if named is not None:
        if named not in by_name or "/" in named:
            raise HostError(f"{repository} has no file {named}: it has {_list(files)}")
        return [by_name[named]]
    if SINGLE in by_name:
        return [by_name[SINGLE]]
    if INDEX in by_name:
        return [by_name[INDEX]]                 # which names the others
    found = [file for file in files if "/" not in file.name and file.name.endswith((".gguf", ".bin"))
             and not file.name.startswith("pytorch_model")]
    ggufs = [file for file in found if file.name.endswith(".gguf")]
    if len(ggufs or found) == 1:
        return ggufs or found
    if found:
        raise HostError(f"{repository} has several models: choose one with --file: {_list(ggufs or found)}")
    raise HostError(f"{repository} has neither safetensors nor a GGUF file: it has {_list(files)}; convert it with "
                    "transformers' save_pretrained first")


def _list(files: Sequence[File]) -> str:
    names = [file.name for file in files if "/" not in file.name]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "") if names else "no files"


def shards(index: Path, files: Sequence[File]) -> list[File]:
    """The files that an index names, which must be the repository's and lie in its folder."""
    named = read_json(index).get("weight_map")
    names = sorted({str(name) for name in named.values()}) if isinstance(named, dict) else []
    by_name = {file.name: file for file in files}
    missing = [name for name in names if name not in by_name or "/" in name]
    if missing or not names:
        raise HostError(f"{index.name} names {missing[0][:80] if missing else 'no files'}, which the repository does "
                        "not have: it is not complete")
    return [by_name[name] for name in names]


def pull(repository: str, folder: Path, *, revision: str | None = None, file: str | None = None,
         progress: Progress = Progress.silent) -> Pulled:
    """Fetch what a conversion reads; refused before the weights where it would refuse the model."""
    hub = Hub(repository, revision)
    chosen = weights(hub.files, file, repository)
    in_folder = chosen[0].name in (SINGLE, INDEX)
    beside = [one for one in hub.files if BESIDE.fullmatch(one.name)] if in_folder else \
        [one for one in hub.files if one.name in ("tokenizer.bin", "tokenizer.model", "tokenizer.json")
         and not chosen[0].name.endswith(".gguf")]
    _make(folder)
    for one in beside:
        hub.fetch(one, folder, progress)
    if in_folder:
        if not (folder / CONFIG).is_file():
            raise HostError(f"{repository} has weights and no {CONFIG}: nothing says their shapes")
        refuse_other_architectures(Fields(read_json(folder / CONFIG), folder / CONFIG))
    if chosen[0].name == INDEX:
        chosen += shards(hub.fetch(chosen[0], folder, progress), hub.files)
    _check_room(folder, [one for one in chosen if not (folder / one.name).exists()])
    for one in chosen:
        hub.fetch(one, folder, progress)
    return Pulled(folder, folder if in_folder else folder / chosen[0].name, hub.commit, tuple([*beside, *chosen]))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"cannot make the folder {folder}: {error.strerror or error}: name another with -o") from error


def _check_room(folder: Path, files: Sequence[File]) -> None:
    needed, free = sum(file.size for file in files), shutil.disk_usage(folder).free
    if needed + RESERVE_BYTES > free:
        raise HostError(f"the weights take {quantity(needed)}, {folder} has {quantity(free)} free: make room, or name "
                        "another folder with -o")
