"""Timing reports: Vivado's with several clocks, all kinds of slack and fields that are empty; nextpnr's."""
import json

import pytest

from soc import timing

TITLES = ("WNS(ns)", "TNS(ns)", "TNS Failing Endpoints", "TNS Total Endpoints", "WHS(ns)", "THS(ns)",
          "THS Failing Endpoints",
          "THS Total Endpoints", "WPWS(ns)", "TPWS(ns)", "TPWS Failing Endpoints", "TPWS Total Endpoints")


def table(texts, rows, titles=TITLES):
    """A table as Vivado writes it: ``texts`` are the titles of columns on the left, figures end where their title
    does."""
    widths = [max(len(text), *(len(row[i]) for row in rows)) for i, text in enumerate(texts)]
    heads  = "    ".join([*(text.ljust(width) for text, width in zip(texts, widths)), *titles])
    rules  = "    ".join([*("-"*width for width in widths), *("-"*len(title) for title in titles)])
    lines  = [heads, rules]
    for row in rows:
        lines.append("    ".join([*(cell.ljust(width) for cell, width in zip(row, widths)),
                                  *(cell.rjust(len(title)) for cell, title in zip(row[len(texts):], titles))]))
    return "\n".join(lines)


def figures(wns="0.121", whs="0.020", wpws="0.264"):
    return (wns, "0.000", "0", "9763", whs, "0.000", "0", "9763", wpws, "0.000", "0", "4163")


MET = figures()


def report(design=MET, intra=(), inter=(), other=(), words="All user specified timing constraints are met.", paths=""):
    head = "-"*96
    def section(title):
        return f"\n{head}\n| {title}\n| {'-'*len(title)}\n{head}\n"
    text = "Copyright 1986-2022 Xilinx, Inc. All Rights Reserved.\n" + section("Design Timing Summary") + "\n" + \
           "\n".join("    " + line for line in table((), [design]).splitlines()) + f"\n\n\n{words}\n\n"
    text += section("Clock Summary") + "\nClock    Waveform(ns)    Period(ns)    Frequency(MHz)\n" \
            "-----    ------------    ----------    --------------\n" \
            "clk100   {0.000 5.000}   10.000        100.000         \n\n"
    if intra:
        text += section("Intra Clock Table") + "\n" + table(("Clock",), intra) + "\n\n"
    if inter:
        text += section("Inter Clock Table") + "\n" + table(("From Clock", "To Clock"), inter, TITLES[:8]) + "\n\n"
    if other:
        text += (section("Other Path Groups Table") + "\n" +
                 table(("Path Group", "From Clock", "To Clock"), other, TITLES[:8]) + "\n\n")
    return text + section("Timing Details") + paths


BLANK = ("",)*12


def test_met():
    found = timing.parse_vivado(report(intra=[("clk100", *figures()),
                                              ("  sys4x_clk", "", "", "", "", "", "", "", "", *figures()[8:])]))
    assert found.met and found.worst.ns == 0.020 and str(found) == "timing met, worst slack +0.020 ns (hold)"


@pytest.mark.parametrize("kind, field", [("setup", "wns"), ("hold", "whs"), ("pulse width", "wpws")])
def test_each_kind_of_slack_counts(kind, field):
    found = timing.parse_vivado(report(figures(**{field: "-0.001"})))
    assert not found.met and found.worst == timing.Slack(-0.001, kind)
    assert str(found).startswith("timing NOT met, worst slack -0.001 ns")


def test_zero_is_met():
    assert timing.parse_vivado(report(figures("0.000", "0.000", "0.000"))).met


@pytest.mark.parametrize("section, row, what", [
    ("intra", ("a_clock_of_a_long_name", *figures("-0.250")), "setup, clock a_clock_of_a_long_name"),
    ("inter", ("sys_clk", "eth_rx_clk", *figures("0.3", "-0.25")[:8]), "hold, clock sys_clk to eth_rx_clk"),
    ("other", ("**async_default**", "sys_clk", "sys_clk", *figures("-0.25")[:8]),
     "setup, clock **async_default** to sys_clk")])
def test_every_clock_group_counts(section, row, what):
    """Even where the design's own line says nothing."""
    met   = (*(f"clock{i}" for i in range(len(row) - 12)), *figures()) if len(row) > 12 else None
    other = [row] if met is None or len(met) != len(row) else [met, row]
    found = timing.parse_vivado(report(("NA",)*12, **{section: other}))
    assert not found.met and found.worst == timing.Slack(-0.25, what)


def test_figures_wider_than_their_title():
    assert timing.parse_vivado(report(figures("-1234.567"))).worst.ns == -1234.567


@pytest.mark.parametrize("blank", ["NA", "", "inf", "n/a"])
def test_fields_without_a_figure_say_nothing(blank):
    found = timing.parse_vivado(report(figures(wns=blank), intra=[("idle_clk", *[blank]*12)]))
    assert found.met and found.worst.ns == 0.020


def test_words_and_paths_count():
    assert not timing.parse_vivado(report(words="Timing constraints are not met.")).met
    found = timing.parse_vivado(report(paths="Slack (MET) :             0.121ns  (x)\nSlack (VIOLATED) :        "
                                             "-0.007ns  (required time)\n"))
    assert not found.met and found.worst.ns == -0.007


@pytest.mark.parametrize("text", ["", "nothing\n", report(("NA",)*12), report(BLANK)[:300]])
def test_report_without_slack_is_unreadable(text):
    with pytest.raises(timing.UnreadableReport, match="names no slack"):
        timing.parse_vivado(text)


def nextpnr(**clocks):
    return json.dumps({"fmax": {f"$glbnet${name}": {"achieved": achieved, "constraint": wanted}
                                for name, (achieved, wanted) in
                                clocks.items()}})


def test_nextpnr():
    found = timing.parse_nextpnr(nextpnr(sys_clk=(100.37, 75.01), init_clk=(404, 25)))
    assert found.met and found.worst.what == "setup, clock sys_clk" and abs(found.worst.ns - 3.368) < 1e-3
    found = timing.parse_nextpnr(nextpnr(sys_clk=(100.37, 75.01), init_clk=(24.9, 25)))
    assert not found.met and found.worst.what == "setup, clock init_clk"
    assert timing.parse_nextpnr(nextpnr(sys_clk=(75, 75))).met


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"fmax": {}}', '{"fmax": {"a": {}}}',
                                  '{"fmax": {"a": {"achieved": 0, "constraint": 5}}}',
                                  '{"fmax": {"a": {"achieved": null, "constraint": 5}}}',
                                  '{"fmax": {"a": {"achieved": NaN, "constraint": 5}}}'])
def test_other_json_is_unreadable(text):
    with pytest.raises(timing.UnreadableReport):
        timing.parse_nextpnr(text)
