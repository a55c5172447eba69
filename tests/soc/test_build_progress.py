"""The line that a build shows says which step it is at, and how many files are done."""
import os

from soc.sim.progress import BuildProgress


def test_steps_are_told_from_what_lies_there(tmp_path):
    objects = tmp_path/"obj_sim"
    progress = BuildProgress(objects)
    assert progress.step()[0].startswith("generating gateware")
    objects.mkdir()
    (objects/"Vsim__0.cpp").touch()
    assert progress.step()[0].startswith("translating")
    for name in ("Vsim__1.cpp", "Vsim.mk", "Vsim__0.o"):
        (objects/name).touch()
    assert progress.step() == ("compiling it", "1 of 2 files")


def test_what_an_earlier_build_left_is_no_progress(tmp_path):
    objects = tmp_path/"obj_sim"
    objects.mkdir()
    os.utime(objects, (1, 1))
    assert BuildProgress(objects).step()[0].startswith("generating gateware")


def test_it_speaks_where_the_output_goes_elsewhere(tmp_path, capfd):
    with BuildProgress(tmp_path/"obj_sim") as progress:
        saved = os.dup(2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        while not progress._said:
            progress._stop.wait(.1)
        os.dup2(saved, 2)
    assert "generating gateware" in capfd.readouterr().err
