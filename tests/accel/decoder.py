"""A core in Amaranth's simulator with DRAM and a driver: decodes tokens and hands back logits, for tests."""
import random

import numpy as np

from llama2_spec import image as image_module
from llama2_spec.image import Image, row_layout
from llama2_spec.model import ModelConfig
from llama2_spec.program import commands, slot_beats
from llama2_spec.registers import Model, Result, Window
from tests.accel.streams import simulate

KV_BASE = 1 << 16       #: beats; every test image is smaller


def random_image(config: ModelConfig, seed=0, format="q8", group=None, plan=None) -> Image:
    """A model of random weights that behaves like a trained one: norms near 1, a few outliers."""
    rng = np.random.default_rng(seed)
    c, t = config, {}

    def matrix(rows, columns):
        return (rng.normal(size=(rows, columns)) / np.sqrt(columns) * 1.5).astype(np.float32)
    t["embedding"] = rng.normal(size=(c.vocab_size, c.dim)).astype(np.float32)
    for i in range(c.n_layers):
        t[f"layers.{i}.attention_norm"] = (1 + .2 * rng.normal(size=c.dim)).astype(np.float32)
        t[f"layers.{i}.ffn_norm"] = (1 + .2 * rng.normal(size=c.dim)).astype(np.float32)
        for name, rows, columns in (("wq", c.q_dim, c.dim), ("wk", c.kv_dim, c.dim), ("wv", c.kv_dim, c.dim),
                                    ("wo", c.dim, c.q_dim), ("w1", c.hidden_dim, c.dim), ("w3", c.hidden_dim, c.dim),
                                    ("w2", c.dim, c.hidden_dim)):
            t[f"layers.{i}.{name}"] = matrix(rows, columns) * (3 if name in ("wq", "wk") else 1)
    t["final_norm"] = np.ones(c.dim, np.float32)
    if not c.tied:
        t["classifier"] = matrix(c.vocab_size, c.dim)
    return Image.parse(image_module.build(config, t, format=format, group=group, plan=plan))


def program(image: Image, tokens, position, *, argmax=False, every=False, slot=0, **options):
    """The commands of one step of ``len(tokens)`` consecutive positions of one slot; ``every``: with a result of each;
    see :func:`mixed`."""
    columns = [(slot, position + i) for i in range(len(tokens))]
    return mixed(image, tokens, columns, last_token=argmax, **({"first": 0} if every else {}), **options)


def mixed(image: Image, tokens, columns, **options):
    """The commands of one step of (slot, position) pairs; see :func:`llama2_spec.program.commands`."""
    _, row = row_layout(image.config)
    return commands(image, tokens, columns, kv_base=KV_BASE, row_beats=row, **options)


def kv_place(config, slot, layer, position) -> range:
    """Beats of a row of the cache."""
    _, row = row_layout(config)
    base = KV_BASE + slot * slot_beats(config, row) + (layer * config.seq_len + position) * row
    return range(base, base + row)


def kv_row(memory, config, slot, layer, position) -> bytes:
    """A row of the cache as it is in DRAM."""
    place = kv_place(config, slot, layer, position)
    return b"".join(memory.beats.get(beat, 0).to_bytes(16, "little") for beat in place)


def preload(memory, config, slot, golden, count):
    """Put the first ``count`` positions of a golden's cache into a slot in DRAM."""
    for layer in range(config.n_layers):
        for position in range(count):
            row = golden.kv_row(layer, position)
            for i, beat in enumerate(kv_place(config, slot, layer, position)):
                memory.beats[beat] = int.from_bytes(row[16 * i:16 * i + 16], "little")


class Dram:
    """Beats, served to the core's native ports: in order, ``latency`` cycles later, commands refused at random.

    ``withhold`` = (address, cycles): when this beat is due for the first time, its port falls silent for so long.
    While ``reset`` it forgets what it was asked for.
    """
    reset = False

    def __init__(self, image: Image, *, latency=14, stall=0.0, write_stall=0.0, withhold=(None, 0), seed=0):
        self.withheld, self.silence = withhold
        self.latency, self.stall, self.write_stall, self.seed = latency, stall, write_stall, seed
        self.beats = {i: int.from_bytes(image.data[16 * i:16 * i + 16], "little")
                      for i in range(len(image.data) // 16 + 1)}
        self.written = []

    def testbench(self, dut):
        """One background process for all four ports; of the data of ``read0`` and ``read1``, one comes in a cycle."""
        async def serve(ctx):
            rng = random.Random(self.seed)
            ports = (dut.read0, dut.read1, dut.embed)
            lines = [[None] * self.latency for _ in ports]
            pending, silent = [], [0] * len(ports)
            bus = 0                 # the port that had the bus last
            while True:
                if self.reset:
                    lines, pending = [[None] * self.latency for _ in ports], []
                ready = [rng.random() >= self.stall for _ in ports]
                taken = False
                for i in (1 - bus, bus, 2):
                    port, line = ports[i], lines[i]
                    ctx.set(port.cmd_ready, ready[i])
                    while len(line) > self.latency and line[0] is None:     # catching up after a silence
                        line.pop(0)
                    if line[0] is not None and line[0] == self.withheld:
                        silent[i], self.withheld = self.silence, None
                    silent[i] = max(silent[i] - 1, 0)
                    data = None if silent[i] or (taken and i < 2) else line.pop(0)
                    ctx.set(port.rdata_valid, data is not None)
                    if data is not None:
                        if i < 2:
                            taken, bus = True, i
                        ctx.set(ports[i & 2].rdata_data, self.beats.get(data, 0xdead))
                w = dut.write
                w_ready = rng.random() >= self.write_stall
                d_ready = bool(pending) and rng.random() >= self.write_stall
                ctx.set(w.cmd_ready, w_ready)
                ctx.set(w.wdata_ready, d_ready)
                sampled = await ctx.tick().sample(*(s for p in ports for s in (p.cmd_valid, p.cmd_addr)),
                                                  w.cmd_valid, w.cmd_addr, w.wdata_valid, w.wdata_data)
                s = sampled[2:]
                for i, line in enumerate(lines):
                    line.append(s[2 * i + 1] if s[2 * i] and ready[i] else None)
                if d_ready:
                    assert s[8], "write data was not there when it was fetched"
                    address = pending.pop(0)
                    self.beats[address] = s[9]
                    self.written.append(address)
                if s[6] and w_ready:
                    pending.append(s[7])
        return serve


class Driver:
    """Firmware's part, in a testbench."""

    def __init__(self, ctx, dut):
        self.ctx, self.dut = ctx, dut

    async def _access(self, address, we, value=0):
        ctx, bus = self.ctx, self.dut.bus
        for name, v in (("adr", address >> 2), ("we", we), ("dat_w", value), ("sel", 15), ("cyc", 1), ("stb", 1)):
            ctx.set(getattr(bus, name), v)
        data, = await ctx.tick().sample(bus.dat_r).until(bus.ack)
        ctx.set(bus.cyc, 0)
        ctx.set(bus.stb, 0)
        await ctx.tick()
        return data

    async def write(self, address, value):
        await self._access(address, 1, value & 0xffffffff)

    async def read(self, address):
        return await self._access(address, 0)

    async def setup(self, image):
        c, h = image.config, image.header
        for word, value in ((Model.DIM, c.dim), (Model.HEAD_DIM, c.head_dim), (Model.N_HEADS, c.n_heads),
                            (Model.N_KV_HEADS, c.n_kv_heads), (Model.EPSILON, h["epsilon"]),
                            (Model.SCORE_SCALE, h["score_scale"]), (Model.POSITIONS, c.seq_len),
                            (Model.KV_FORMAT, c.kv)):
            await self.write(Window.MODEL + 4 * word, value)
        for i, f in enumerate(image.rope):
            await self.write(Window.ROPE + 4 * i, int(f))

    async def push(self, command):
        while not self.ctx.get(self.dut.csr.status.queue_free):
            await self.ctx.tick()
        for i, word in enumerate(command):
            await self.write(Window.COMMAND + 4 * i, word)

    async def dumped(self, count):
        """Logits of a pass that dumps them."""
        values = []
        while len(values) < count:
            await self.ctx.tick().until(self.dut.csr.status.logit_valid)
            value = await self.read(Window.LOGIT)
            values.append(value - (1 << 32) * (value >> 31))
            await self.write(Window.LOGIT, 0)
        return values

    async def result(self):
        await self.ctx.tick().until(self.dut.csr.status.result_valid)
        values = [await self.read(Window.RESULT + 4 * word) for word in Result]
        await self.write(Window.RESULT, 0)
        return dict(zip((r.name.lower() for r in Result), values))

    async def drawn(self):
        """The token of the largest candidate, which is popped."""
        place = await self.read(Window.NEXT) >> 16
        return await self.read(Window.CANDIDATES + 8 * place)


def run(dut, image, body, *, deadline=2_000_000, **dram):
    """``await body(driver, memory)`` against a core with ``image`` in its DRAM; returns the memory."""
    memory = Dram(image, **dram)

    async def testbench(ctx):
        driver = Driver(ctx, dut)
        await driver.setup(image)
        await body(driver, memory)
    simulate(dut, testbench, deadline=deadline, background=(memory.testbench(dut),))
    return memory
