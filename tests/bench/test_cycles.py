"""What bench.cycles makes of counters and runs: sums that hold exactly, extrapolation, images, arguments."""
from dataclasses import replace

import numpy as np
import pytest

from bench import cycles, shapes
from llama2_spec.image import Image, row_layout
from soc.sim.simulator import WATCH_CAUSES


def watched(*columns, strays=0):
    """What the simulator says at each result: running sums of ``columns``, one for each cause."""
    sums = np.cumsum(columns, axis=1)
    return [{"cycles": int(at.sum()), "strays": strays*n, **dict(zip(WATCH_CAUSES, map(int, at)))}
            for n, at in enumerate(sums.T)]


def test_beats_and_stalls_sum_to_the_cycles_exactly():
    counted = np.random.default_rng(0).integers(0, 1 << 20, (len(WATCH_CAUSES), 5))
    total = int(counted[:, 2:4].sum())
    parts = cycles.stalls(watched(*counted), 1, 3, total)
    with pytest.raises(SystemExit, match="do not add up"):
        cycles.stalls(watched(*counted), 1, 3, total + 1)
    assert parts.pop("cycles") == sum(parts.values()) == total
    assert parts["beats"] == counted[0, 2:4].sum() and parts["commands"] == counted[-1, 2:4].sum()


def test_counts_that_do_not_add_up_are_refused():
    counted = np.ones((len(WATCH_CAUSES), 5), int)
    broken = watched(*counted)
    broken[3]["row"] += 1
    for watch in (broken, watched(*counted, strays=1)):
        with pytest.raises(SystemExit, match="do not add up"):
            cycles.stalls(watch, 1, 3, 2*len(WATCH_CAUSES))


def test_further_layers_cost_what_the_last_ones_did():
    few = {"positions": [1, 3], "cycles": 1000 + 2*300, "useful_beats": 900 + 2*280, "per_position": [800, 800]}
    more = {"positions": [1, 3], "cycles": 1000 + 4*300, "useful_beats": 900 + 4*280, "per_position": [1100, 1100]}
    run = cycles.extrapolate(few, more, 2, 4, 30)
    assert (run["cycles"], run["useful_beats"]) == (1000 + 30*300, 900 + 30*280)
    assert run["per_position"] == [800 + 14*300]*2 and run["simulated_layers"] == [2, 4] and run["layers"] == 30
    figures = cycles.per_token({**run, "moved_over_useful": 1.5})
    assert figures["cycles_per_token"] == 5000 and figures["useful_bytes"] == 16*9300/2
    assert figures["moved_bytes"] == 1.5*figures["useful_bytes"]
    assert figures["roofline_percent"] == 93 and figures["tokens_per_second"] == 20_000


@pytest.mark.parametrize("text", ["5", "3:3", "4:2", "a:b", ":4", "-1:4"])
def test_bad_positions_are_refused(text, capsys):
    with pytest.raises(SystemExit):
        cycles.parse(["--shape", "stories15M", "--positions", text])
    assert "--positions" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--model", "x.bin", "--layers", "2"],
                                       ["--shape", "stories15M", "--layers", "3"],
                                       ["--shape", "stories15M", "--softmax-pipes", "2"],
                                       ["--model", "x.bin", "--kv", "k8v8"],
                                       ["--shape", "nothing"], ["--model", "x.bin", "--shape", "stories15M"], []])
def test_bad_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as refused:
        cycles.parse(arguments)
    assert refused.value.code == 2 and "error: " in capsys.readouterr().err


def test_command_can_be_typed_again():
    arguments = ["--shape", "stories15M", "--format", "q4", "--positions", "3:9", "--columns", "1", "--prefill", "64",
                 "--speculate", "3", "--attention-lanes", "16", "--softmax-pipes", "2", "--max-dim", "2048", "--kv",
                 "k8v8"]
    again = cycles.command(cycles.parse(arguments)).split()[3:]
    assert vars(cycles.parse(again)) == vars(cycles.parse(arguments))


@pytest.mark.parametrize("format", ["q8", "q4"])
def test_image_of_a_shape_is_whole_and_its_cache_is_filled(format, monkeypatch, tmp_path):
    monkeypatch.setattr(shapes, "CACHE", tmp_path)
    path = shapes.random_image("stories260K", format, layers=2, seq_len=20)
    config = shapes.config_of("stories260K", 2, 20)
    image = Image.parse(path.read_bytes())
    assert replace(image.config, norm_epsilon=1e-5) == config    # the image holds it as float32
    filled = shapes.with_cache(path, config).read_bytes()
    start = -(-len(image.data)//2048)*2048
    head, beats = row_layout(config)
    assert filled[:len(image.data)] == image.data and len(filled) - start == 2*20*beats*16
    rows = np.frombuffer(filled[start:], np.uint8).reshape(40, beats*16)
    assert (rows[:, :8] == 4).all() and (rows[:, 8:16*head] == 0).all() and rows[:, 16*head:].std() > 60
