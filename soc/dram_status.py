"""Holds the outcome of the DRAM's training: liblitedram writes it, and the LEDs show it."""
from litex.gen import *

from litex.soc.interconnect.csr import *

# DramStatus ---------------------------------------------------------------------------------------

class DramStatus(LiteXModule):
    """Two registers that liblitedram writes when a module of the SoC is called ``ddrctrl``."""
    def __init__(self):
        self.init_done  = CSRStorage(description="The DRAM was initialised and trained, or that failed.")
        self.init_error = CSRStorage(description="Training or the memory test failed.")
