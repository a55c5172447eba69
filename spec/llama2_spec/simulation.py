"""Facts that the simulated SoC and its client share, and that boards do not have."""

#: Faults that the simulator can plant in its DRAM, see soc/sim/lanes.py.
DRAM_FAULTS = ("stuck", "shifted", "row")
