"""Measures the cycles of the doctor's known answer on the simulated SoC: ``python -m bench.known_answer`` prints the
figures that known.py holds; ``--columns`` are those of the core."""
import argparse

from llama2_host.device.device import Device
from llama2_host.device.simulator import COLUMNS
from llama2_host.doctor import known
from llama2_host.files import temporary_file
from soc.sim.simulator import Simulator
from targets import sim


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.known_answer", description=__doc__)
    parser.add_argument("--columns", type=int, choices=COLUMNS, default=sim.COLUMNS)
    vsim  = sim.build(columns=parser.parse_args().columns, variant=sim.USUAL)
    image = temporary_file(known.known_image(), ".llm")
    with Simulator(vsim, image) as simulator, Device.open(simulator.url, wait_s=5.0, hello_tries=10) as device:
        ids, counters, crc = known.ask_device(device)
        assert (tuple(ids), crc) == (known.IDS, known.LOGITS_CRC), "the simulated SoC does not say what golden says"
        info, board = device.info, device.board()
        per_token = round((counters[-1] - counters[0]) % (1 << 32) / (len(counters) - 1))
        print(f"Cycles({info.columns}, {info.lanes}, {board.pin_bytes}, {per_token})")


if __name__ == "__main__":
    main()
