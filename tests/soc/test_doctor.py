"""The doctor at the simulated SoC, whose DRAM liblitedram trains: all in order, and each planted fault named."""
import json

import pytest

from llama2_host import cli
from llama2_host.doctor import known
from soc.sim.lanes import BAD_ROW

pytestmark = pytest.mark.soc


def doctor(capsys, *options):
    status = cli.main(["doctor", "--sim", "--json", *options])
    told = json.loads(capsys.readouterr().out)
    assert told["simulated"] and told["ok"] == (status == 0)
    return {step["name"]: step for step in told["steps"]}, told


def test_the_simulated_soc_is_in_order(capsys):
    steps, told = doctor(capsys)
    assert told["ok"] and not told["faults"], told
    assert {step["verdict"] for name, step in steps.items() if name != "flash"} == {"ok"}
    # as dram_lanes.v has them
    assert [lane["window"] for lane in steps["training"]["data"]["lanes"]] == [[1, 1, 5], [0, 2, 6]]
    assert all(abs(lane["delay"] - sum(lane["window"][1:]) / 2) <= 1 for lane in steps["training"]["data"]["lanes"])
    assert tuple(steps["known answer"]["data"]["ids"]) == known.IDS
    assert steps["stream"]["data"]["pins_percent"] > 90


def test_a_stuck_lane_is_named(capsys):
    steps, told = doctor(capsys, "--dram-fault", "stuck")
    assert steps["training"]["text"] == "lane 1: stuck lane" and "no DRAM" in told["faults"]
    assert steps["DRAM at start"]["data"]["lanes"] == [1]


def test_a_shifted_window_is_named(capsys):
    steps, told = doctor(capsys, "--dram-fault", "shifted")
    assert told["faults"] == ["shifted window"]
    assert steps["training"]["text"] == "lane 1: shifted window"
    assert steps["memory"]["verdict"] == steps["known answer"]["verdict"] == "ok"       # it works, for now


def test_a_bad_row_is_named_with_its_place(capsys):
    steps, told = doctor(capsys, "--dram-fault", "row")
    assert told["faults"] == ["bad row"]
    assert steps["memory"]["data"]["first"] // 2048 == BAD_ROW
    assert f"bank {BAD_ROW % 8}, row {BAD_ROW // 8}" in steps["memory"]["text"]
