"""Puts the project's own model into the package; everything else about it stands in pyproject.toml."""
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

MODEL = ("stories.bin", "stories.tokenizer.bin")


class BuildWithModel(build_py):
    """Copies models/stories.* to llama2_host/models; an editable install finds them in the clone."""

    def run(self):
        super().run()
        if not self.editable_mode:
            to = Path(self.build_lib) / "llama2_host" / "models"
            to.mkdir(parents=True, exist_ok=True)
            for name in MODEL:
                shutil.copyfile(Path(__file__).parent / "models" / name, to / name)


setup(cmdclass={"build_py": BuildWithModel})
