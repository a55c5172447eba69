"""Figures that others publish for decoding on FPGAs and small machines, with their source; the pages set ours beside
them.

``silicon`` says that a figure is known to come from a board; ours are simulated.
"""
from dataclasses import dataclass


@dataclass(frozen=True)
class Decoder:
    """A published decoder; ``percent`` is of its own memory's peak, at the upper end of what ``share`` says; None where
    none is stated."""
    name: str
    device: str
    model: str
    tokens_per_s: str
    percent: float | None
    share: str
    silicon: bool
    source: str


DECODERS = (
    Decoder("Hummingbird", "KV260, ZCU104", "LLaMA3-8B, W4", "4.8, 8.6", 94, "93 to 94 %, claimed", True,
            "arXiv 2507.03308"),
    Decoder("DATE'25", "KV260, 19.2 GB/s", "LLaMA2-7B, W4A16", "4.9", 87, "84.5 to 87 %", True, "arXiv 2502.10659"),
    Decoder("llama2.hls", "KV260, 2.4 GB/s port", "stories15M, Q8_0", "112.9", 80.4, "80.4 %, of its one port", True,
            "github.com/ruhai-lin/llama2.hls"),
    Decoder("ternfpga", "Arty A7-35T", "BitNet 2B, pieces of a token", "0.38, composed", 89,
            "89 %, cycle counts printed; no whole token", True,
            "Neumann-Labs, 2026-06"),
    Decoder("bitnet-kv260", "KV260", "BitNet 2B, base 3", "16.8", 80, "80 % (12.7 GB/s); 0.381 J a token, measured",
            True,
            "github.com/MerlijnW70/bitnet-kv260"),
    Decoder("HLSTransform", "VU9P", "stories110M, Q8", "57", 11, "about 11 %", True, "arXiv 2405.00738"),
    Decoder("LlamaF", "ZCU102", "TinyLlama 1.1B, W8A8", "1.5", 10, "about 10 %", True, "arXiv 2409.11424"),
    Decoder("Gemmini", "Nexys Video, 16-bit DDR3", "stories15M, int8", "3", 3, "about 3 %", True,
            "chipyard with Gemmini on the Nexys Video"),
    Decoder("ztachip", "Arty A7-100T", "SmolLM2-135M, Q4", "8", None, "not stated; memory 1.2 GB/s", True,
            "its README"),
    Decoder("TerEffic", "U280-class, HBM", "2.7B, ternary", "727", None, "not stated", False, "arXiv 2502.16473"),
    Decoder("Hummingbird+", "ZU3EG, 24 GB", "Qwen3-30B-A3B, 4 bits", "> 18", None, "not stated", False, "FPGA'26"),
    Decoder("FlexLLM", "U280", "Llama-3.2-1B, 4 bits", "1.64 x an A100's", None, "not stated", False,
            "arXiv 2601.15710"),
)

#: Cycles per token of stories260K: (work, cycles, what was counted)
STORIES260K = (
    ("llama2.clash", 112_400, "Clash, simulated"),
    ("Proton v1", 2_330_000, "CVA6 and Ara, Verilator; the first call of its decoder"),
    ("Gemmini", 3_300_000, "Rocket and Gemmini on AWS F2"),
)

#: Tokens per second of stories260K on other small machines: (machine, tokens/s, program)
MACHINES = (
    ("ESP32-S3 at 240 MHz", "19 to 25", "DaveBben/esp32-llm, wuhanstudio/llm-embedded"),
    ("K210 (RISC-V) at 400 MHz", "44", "llama2.c"),
    ("Raspberry Pi 4", "917", "llama2.c's run.c"),
)
