"""docs/performance.md and its plot are what bench/results say."""
from xml.etree import ElementTree

import pytest

from bench import emit_docs, fitting, published
from bench.plot import LETTER
from llama2_host.image.model import Model
from llama2_spec import traffic

PAGE = emit_docs.PAGE.read_text()
fresh = emit_docs.without_notes    # how old a record is, tests/bench/test_records.py asks


def test_page_is_up_to_date():
    assert fresh(emit_docs.render(PAGE)) == fresh(PAGE), "run python -m bench.emit_docs"


def test_page_of_models_is_up_to_date():
    page = emit_docs.MODELS.read_text()
    assert fresh(emit_docs.render(page)) == fresh(page), "run python -m bench.emit_docs"
    assert sorted(emit_docs.marked(page)) == sorted(emit_docs.CONFORMANCE)


@pytest.mark.parametrize("path", emit_docs.ROOMS, ids=lambda path: path.name)
def test_page_with_a_module_of_its_own_is_up_to_date(path):
    page = path.read_text()
    assert fresh(emit_docs.render(page)) == fresh(page), "run python -m bench.emit_docs"
    assert sorted(emit_docs.marked(page)) == sorted(emit_docs.ROOMS[path].TABLES)


def test_plot_is_up_to_date():
    assert fresh(emit_docs.plot()) == fresh(emit_docs.PLOT.read_text()), "run python -m bench.emit_docs"


def test_every_table_has_its_place():
    assert sorted(emit_docs.marked(PAGE)) == sorted(emit_docs.TABLES)


def test_every_run_is_on_the_page_with_its_figures():
    runs = emit_docs.read("cycles-*.json")
    assert runs
    for run in runs.values():
        line = next(line for line in PAGE.splitlines() if f"`{run['command']}`" in line)
        assert f"{run['cycles_per_token']:,.0f}" in line and f"{run['roofline_percent']:.1f} %" in line


def test_sampled_and_greedy_runs_are_told_apart():
    labels = [(emit_docs.label(run), emit_docs.positions(run)) for run in emit_docs.runs()]
    assert len(set(labels)) == len(labels)


def test_a_changed_figure_shows(monkeypatch):
    read = emit_docs.read
    monkeypatch.setattr(emit_docs, "read", lambda pattern: {
        name: {**run, "cycles_per_token": run.get("cycles_per_token", 0) + 1000}
        for name, run in read(pattern).items()})
    assert fresh(emit_docs.render(PAGE)) != fresh(PAGE)


@pytest.mark.parametrize("damage", [lambda page: page.replace("<!-- cycles: end -->", ""),
                                    lambda page: page.replace("<!-- cycles: begin", "<!-- circles: begin")])
def test_a_damaged_mark_is_named(damage):
    with pytest.raises(ValueError, match="cycles|circles"):
        emit_docs.render(damage(PAGE))


def test_plot_has_a_bar_as_long_as_its_share_for_every_decoder_that_states_one():
    namespace = "{http://www.w3.org/2000/svg}"
    root = ElementTree.fromstring(emit_docs.plot())
    widths = [float(r.get("width")) for r in root.iter(f"{namespace}rect") if r.find(f"{namespace}title") is not None]
    shares = ([d.percent for d in published.DECODERS if d.percent is not None] +
              [run["roofline_percent"] for run in emit_docs.shown_runs()])
    assert len(widths) == len(shares) > 10
    first, *others = zip(widths, sorted(shares, reverse=True))
    assert all(width/share == pytest.approx(first[0]/first[1], abs=.02) for width, share in others)


def test_plot_s_labels_fit():
    """Each ends left of its bar; at 6.6 pixels a letter it begins inside the picture."""
    root = ElementTree.fromstring(emit_docs.plot())
    labels = [text for text in root.iter("{http://www.w3.org/2000/svg}text") if text.get("text-anchor") == "end"]
    assert labels and all(float(text.get("x")) - LETTER*len(text.text) > 0 for text in labels)


def test_few_of_our_runs_are_shown_and_they_differ():
    shares = [run["roofline_percent"] for run in emit_docs.shown_runs()]
    assert 3 <= len(shares) <= 5 and min(run["roofline_percent"] for run in emit_docs.runs()) in shares


@pytest.mark.parametrize("format", ["q8", "q4"])
@pytest.mark.parametrize("position", [0, 100])
def test_what_fits_is_reckoned_as_of_an_image(format, position):
    image = Model.load(emit_docs.ROOT/"models"/"stories.bin", format=format).image
    assert (fitting.useful_beats(image.config, format, position) ==
            traffic.useful_beats(image.config, image.entries, position))


def test_what_does_not_fit_is_said():
    rows = [line for line in fitting.fits_table(emit_docs.RESULTS).splitlines() if "1.1B" in line or "460M" in line]
    assert len(rows) == 4 and all("no room" in line or "at most" in line for line in rows)
