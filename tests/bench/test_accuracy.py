"""Accuracy without reference data: our own stories are what is measured."""
import subprocess
import sys

import pytest

from bench import accuracy, reference_data
from models.stories import read_stories

OWN = accuracy.ROOT/"bench"/"stories.txt"


@pytest.fixture
def without_reference_data(monkeypatch):
    monkeypatch.delenv(reference_data.VARIABLE, raising=False)


def test_our_stories_stand_in_for_missing_ones(without_reference_data):
    stories = accuracy.stories(30)
    assert stories == read_stories(OWN) and len(stories) == 20
    assert all(len(story) > 300 for story in stories) and len(set(stories)) == 20
    assert accuracy.stories(3) == stories[:3]


def test_golden_measured_on_them_is_near_float32(without_reference_data):
    result = accuracy.measure(accuracy.ROOT/"models"/"stories.bin", accuracy.ROOT/"models"/"stories.tokenizer.bin",
                              "q8", 1)
    assert result["text"] == "stories.txt" and result["tokens"] > 100
    assert result["kl_same_weights"] < 1e-6 and abs(result["delta_percent"]) < 0.5
    assert 4 < result["perplexity_float32"] < 20 and result["flags"] == []


def test_model_card_measures_them_without_a_corpus():
    printed = subprocess.run([sys.executable, "-m", "models.card"], cwd=accuracy.ROOT, check=True, text=True,
                             stdout=subprocess.PIPE).stdout
    assert printed in (accuracy.ROOT/"models"/"README.md").read_text()
