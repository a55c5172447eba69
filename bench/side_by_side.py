"""Compares two simulators that do the same work in turns, in one run: their speed, and whether their tokens are
equal."""
import contextlib
import os
import signal
import statistics
import subprocess
import sys
from pathlib import Path

from bench.session import session
from bench.trees import check_out, commit_of
from llama2_host.generation import Options, Sampling
from llama2_host.statistics import token_cycles
from soc.sim.compile import VSIM
from targets import sim

BUILDS = sim.ROOT/"build"/"against"
BOS    = 1
REFRESH_SHARE = .002    # of a run's cycles


def find(old):
    """Vsim of ``old``: a build's folder, such as build/sim of another clone, or a commit, which is built once below
    build/against."""
    if Path(old).is_dir():
        vsim = Path(old).resolve()/"gateware"/VSIM
        if not vsim.exists():
            raise SystemExit(f"bench.simulator: {old} holds no simulator (gateware/{VSIM}): name a folder such as "
                             "build/sim, or a commit")
        return vsim
    commit = commit_of(old)
    if commit is None:
        raise SystemExit(f"bench.simulator: {old} is neither the folder of a build nor a commit")
    return build(commit)


def build(commit):
    """Vsim of a commit, by its own sources and this Python."""
    tree = BUILDS/commit[:12]
    if not tree.exists():
        check_out(commit, tree)
    if subprocess.run([sys.executable, "targets/sim.py", "--build"], cwd=tree).returncode:
        raise SystemExit(f"bench.simulator: {commit[:12]} did not build in {tree}")
    return tree/"build"/"sim"/"gateware"/VSIM


@contextlib.contextmanager
def running(simulator):
    """Let a paused simulator run; it is paused again afterwards, so that it takes no time from another."""
    os.kill(simulator.pid, signal.SIGCONT)
    try:
        yield
    finally:
        os.kill(simulator.pid, signal.SIGSTOP)


def decode(simulator, device, steps):
    """Tokens, cycles between the first and the last of them, and simulated kHz of processor time."""
    with running(simulator):
        before = simulator.time_ps(), simulator.cpu_s()
        events = list(device.generate([BOS], Options(0, steps, Sampling(temperature=0), stops=())))
        ps, cpu_s = simulator.time_ps() - before[0], simulator.cpu_s() - before[1]
    return [event.token for event in events], sum(token_cycles(events)), ps*sim.SYS_CLK_FREQ/1e12/cpu_s/1e3


def compare(old, new, image, steps, rounds):
    """Rates of two Vsims that decode ``image``, whether tokens are equal, and how far cycles differ.

    They take turns, and the order changes from round to round. Cycles may differ by a refresh of the DRAM, because the
    moment at which a request arrives depends on the machine.
    """
    with contextlib.ExitStack() as stack:
        devices = {}
        for name, vsim in (("old", old), ("new", new)):
            simulator, device = stack.enter_context(session(vsim, image, image))
            stack.callback(os.kill, simulator.pid, signal.SIGCONT)     # a paused one would not end
            os.kill(simulator.pid, signal.SIGSTOP)
            devices[name] = simulator, device
        runs = {name: [] for name in devices}
        for turn in range(rounds):
            for name in sorted(devices, reverse=turn % 2):
                runs[name].append(decode(*devices[name], steps))
    return summary(runs)


def summary(runs):
    """Summary of the rounds of both simulators, each of which is (tokens, cycles, kHz)."""
    ratios = [new[2]/old[2] for old, new in zip(runs["old"], runs["new"])]
    texts  = {tuple(tokens) for run in runs.values() for tokens, _, _ in run}
    cycles = {name: [taken for _, taken, _ in run] for name, run in runs.items()}
    return {"ratio": round(statistics.median(ratios), 3), "ratios": [round(ratio, 3) for ratio in ratios],
            **{f"{name}_khz_of_cpu": round(statistics.median(khz for _, _, khz in run)) for name, run in runs.items()},
            "equal_tokens": len(texts) == 1, "tokens": len(next(iter(texts))), "cycles": cycles}


def equal(result):
    """Returns whether both gave the same tokens and took the same cycles, but for a refresh here and there; True
    without a comparison."""
    if not result:
        return True
    taken = [cycles for run in result["cycles"].values() for cycles in run]
    return result["equal_tokens"] and max(taken) - min(taken) <= REFRESH_SHARE*min(taken)
