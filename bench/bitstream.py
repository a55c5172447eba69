"""The whole SoC to an ECP5 bitstream by open tools, with its timing: ``make bitstream``.

The build fails if the routed design misses the target's clock; what it reached is recorded either way.
"""
import argparse
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

from bench import records
from targets.ecpix5 import SEED

ROOT   = Path(__file__).resolve().parent.parent
RESULT = ROOT/"bench"/"results"/"bitstream-ecp5.json"
OUT    = ROOT/"build"/"ecpix5-85f"
NAME   = "lambdaconcept_ecpix5"


def clocks(report: dict) -> dict:
    """MHz reached and wanted, by clock; nextpnr's names without its decorations."""
    return {name.removeprefix("$glbnet$"): {"mhz": round(clock["achieved"], 2),
                                            "wanted_mhz": round(clock["constraint"], 2)}
            for name, clock in report["fmax"].items()}


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m bench.bitstream", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=SEED, help="of the placement (%(default)s)")
    args = parser.parse_args(argv)
    command = ["targets/ecpix5.py", "--build", f"--nextpnr-seed={args.seed}"]
    started = time.monotonic()
    OUT.mkdir(parents=True, exist_ok=True)
    report_file = OUT/"gateware"/"report.json"
    report_file.unlink(missing_ok=True)
    with open(OUT/"build.log", "w") as log:
        status = subprocess.run([sys.executable, *command], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT).returncode
    if not report_file.exists():
        print(f"{parser.prog}: the build ended before it was routed: {(OUT/'build.log').read_text().splitlines()[-1]}; "
              f"see {OUT/'build.log'}", file=sys.stderr)
        return 1
    report    = json.loads(report_file.read_text())
    bitstream = OUT/"gateware"/f"{NAME}.bit"
    result = {
        "command": f"python -m bench.bitstream --seed {args.seed}", "device": "LFE5UM5G-85F-8", "met": status == 0,
        "clocks": clocks(report),
        "used": {name: cell["used"] for name, cell in sorted(report["utilization"].items()) if cell["used"]},
        "bitstream_bytes": bitstream.stat().st_size if status == 0 else None,
        "bitstream_sha256": hashlib.sha256(bitstream.read_bytes()).hexdigest() if status == 0 else None,
        "seconds": round(time.monotonic() - started),
    }
    records.write(RESULT, RESULT.stem, result)
    for name, clock in result["clocks"].items():
        print(f"{name}: {clock['mhz']} MHz, wanted {clock['wanted_mhz']}")
    print(bitstream if status == 0 else f"timing not met, no bitstream: see {OUT/'build.log'}")
    return status

if __name__ == "__main__":
    sys.exit(main())
