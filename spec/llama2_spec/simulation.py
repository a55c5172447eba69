"""What the simulated SoC and its client have in common, beside what boards have."""

#: Faults that can be planted in the simulated DRAM, see soc/sim/lanes.py.
DRAM_FAULTS = ("stuck", "shifted", "row")
