"""The budget of a model, as bytes of its weight stream: ``4MB``, ``4MiB``, ``6bits`` a weight, or ``500tok/s``."""
import re
from dataclasses import dataclass

from llama2_host.errors import HostError
from llama2_host.sizes import UNITS
from llama2_spec import image
from llama2_spec.model import ModelConfig
from llama2_spec.packing import BEAT
from llama2_spec.traffic import TARGETS, kv_beats

TARGET = "arty"         #: whose speed is meant


@dataclass(frozen=True)
class Budget:
    """An amount and its unit."""
    amount: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Raises :class:`HostError` with what was expected."""
        match = re.fullmatch(r"([0-9]*\.?[0-9]+) ?(bits|tok/s|[kKMG]i?B)", text.strip())
        if match is None or match[2].upper() not in (*UNITS, "BITS", "TOK/S") or not float(match[1]) > 0:
            raise HostError(f"--budget {text}: expected an amount like 4MB, 3.5MiB, 6bits (a weight) or 500tok/s")
        return cls(float(match[1]), match[2])

    def stream_bytes(self, config: ModelConfig) -> int:
        """The longest weight stream that the budget allows. A rate applies to half of the context, on ``TARGET``."""
        if self.unit == "bits":
            return int(self.amount * (image.weights(config) + (2 * config.n_layers + 1) * config.dim) / 8)
        if self.unit != "tok/s":
            return int(self.amount * UNITS[self.unit.upper()])
        target = TARGETS[TARGET]
        weights = target.clock_hz * target.share / self.amount - kv_beats(config, config.seq_len // 2 + 1)
        # An embedding of its own is stored, but only one row of it is read.
        return int(max(weights, 0) * BEAT) + (0 if config.tied
                                              else image.tensor_bytes(config, image.Kind.EMBEDDING, "q8"))
