"""The steps of an examination: each is a function from its object to a finding."""
from llama2_host.device.device import Device
from llama2_host.device.link import DeviceError
from llama2_host.doctor import dram, known, line, ports
from llama2_host.doctor.report import Step, failed, ok, skipped, warning
from llama2_host.errors import HostError
from llama2_host.progress import Progress, quantity
from llama2_host.statistics import WORD32, saturations
from llama2_spec.image import HEADER_BYTES, crcs
from llama2_spec.protocol import MAX_PLACES, MAX_STREAM, PLACE_BYTES, Board, ModelState, Status
from llama2_spec.registers import CRC_CYCLES
from llama2_spec.traffic import BEAT_BYTES

CHECK_SHARE = 0.95          #: of a beat every CRC_CYCLES, which DRAM lets the core's check have at least
SIM_PLACES = 64             #: of one request to a simulator, which would not answer in time otherwise
SLOW_CLOCK = "build with a slower --sys-clk-freq; if it stays, the memory or its solder joints are bad"
OLD_FIRMWARE = "build client and firmware from the same sources"


def access(port: str) -> Step:
    """May this user open the port?"""
    found = ports.obstacle(port)
    if found is not None:
        fault, text, advice = found
        return failed("access", text, fault, advice=advice)
    if "://" in port:
        return ok("access", f"{port} is no serial port: no permission is needed")
    rules = ports.rules_installed()
    missing = f"; the udev rules ({ports.rules_file()}) are not installed"
    note = "" if rules is None else "; the udev rules are installed" if rules else missing
    known_port = next((one for one in ports.ports() if one.device == port), None)
    if known_port is not None and known_port.role == "JTAG":
        return warning("access", f"{known_port.line()}", "JTAG port",
                       advice="the board's other port is its serial line")
    return ok("access", f"{known_port.line() if known_port else port}{note}",
              data=known_port.to_json() if known_port else {})


def greeting(device: Device) -> Step:
    """The rate at which the device answered, and its own description."""
    info, link = device.info, device.link
    tried = list(link.tried)
    at = f" at {link.transport.baud} baud" if link.transport.has_rate else ""
    others = f" (not at {', '.join(map(str, tried[:-1]))})" if len(tried) > 1 else ""
    return ok("hello", f"firmware {info.firmware or 'of unknown build'} answers{at}{others}, up "
                       f"{info.uptime / info.clock_hz:,.1f} s",
              data={"rates_tried": tried, "baud": link.transport.baud if link.transport.has_rate else 0,
                    "firmware": info.firmware, "protocol": info.version, "uptime_cycles": info.uptime})


def geometry(device: Device, board: Board) -> Step:
    """The parameters of the device's build."""
    info = device.info
    names = ("core_version", "columns", "lanes", "candidates", "max_dim", "max_hidden_dim", "max_head_dim",
             "max_kv_dim", "max_heads", "max_vocab_size", "max_seq_len", "max_layers", "clock_hz", "dram_bytes")
    return ok("geometry",
              f"{info.clock_hz / 1e6:g} MHz, {quantity(info.dram_bytes)} of DRAM with {board.pin_bytes} bytes a cycle, "
              f"{info.columns} columns of {info.lanes} multipliers, {info.candidates} candidates; dim up to "
              f"{info.max_dim}, hidden dim {info.max_hidden_dim}, vocabulary {info.max_vocab_size}",
              data={name: getattr(info, name) for name in names} | {"pin_bytes": board.pin_bytes})


def training(device: Device, board: Board) -> Step:
    """Each byte lane of the DRAM at every delay."""
    if not board.lanes:
        return skipped("training", "this DRAM interface has no lanes to train")
    found = [dram.judge_lane(lane, board.lanes, [device.lane(lane, bitslip, dram.lane_mask(lane, board.lanes))
                                                 for bitslip in range(board.bitslips)]) for lane in range(board.lanes)]
    data = {"lanes": [one.to_json() for one in found], "delays": board.delays, "bitslips": board.bitslips}
    details = [line for one in found for line in (one.text(), *one.picture())]
    bad = [one for one in found if one.fault]
    if not bad:
        return ok("training", f"{board.lanes} byte lanes of {board.delays} delays read right where training left them",
                  data=data, details=details)
    text = ", ".join(f"lane {one.lane}: {one.fault}" for one in bad)
    advice = ("a stuck lane is a pin: its solder joint, or its place in the platform's file"
              if bad[0].fault == "stuck lane" else SLOW_CLOCK)
    return failed("training", text, bad[0].fault or "", advice=advice, data=data, details=details)


def start(board: Board) -> Step:
    """The result of the DRAM test at start."""
    if board.dram_status:
        return ok("DRAM at start", "initialised, trained and tested")
    lanes = dram.wrong_lanes(board.failed_bits, board.lanes)
    where = (f"; its test failed first at byte {board.failed_offset:#x}, wrong bits {board.failed_bits:#010x}"
             + (f" (byte lane {', '.join(map(str, lanes))})" if lanes else "")) if board.failed_bits else ""
    return failed("DRAM at start", f"it did not come up{where}", "no DRAM", advice=SLOW_CLOCK,
                  data={"failed_offset": board.failed_offset, "failed_bits": board.failed_bits, "lanes": lanes})


def memory(device: Device, board: Board, size: int, whole: bool, progress: Progress) -> Step:
    """A place in every row of the first ``size`` bytes, or every byte of them; what is there stays."""
    most = SIM_PLACES if board.simulated else MAX_PLACES
    step = PLACE_BYTES if whole else board.row_bytes
    size = min(size, device.info.dram_bytes) // step * step
    found, places = [], size // step
    with progress.bar("testing memory", size, patience_s=2.0) as bar:
        for first in range(0, places, most):
            found.append(device.test_memory(first * step, step, min(most, places - first)))
            bar.update(min(first + most, places) * step)
    fault, text = dram.judge_rows(found, board)
    extent = f"{'every byte' if whole else 'every row'} of {'the' if size < device.info.dram_bytes else 'all'} " \
             f"{f'first {quantity(size)}' if size < device.info.dram_bytes else quantity(size)}"
    bad = [one for one in found if one.bad]
    data = {"bytes": size, "step": step, "places": sum(one.tested for one in found),
            "bad": sum(one.bad for one in found),
            "first": min((one.first for one in bad), default=None),
            "last": max((one.last for one in bad), default=None)}
    if fault is None:
        return ok("memory", f"{extent}: {text}", data=data)
    return failed("memory", f"{extent}: {text}", fault, data=data,
                  advice="the memory chip is bad there" if fault == "bad row" else SLOW_CLOCK)


def stream(device: Device, board: Board, length: int) -> Step:
    """The rate at which the core reads and checks DRAM, twice; the same bytes must come."""
    length = min(length, MAX_STREAM, device.info.dram_bytes) // BEAT_BYTES * BEAT_BYTES
    first, again = device.stream(0, length), device.stream(0, length)
    share = first.beats * BEAT_BYTES / (first.cycles * board.pin_bytes) if first.cycles else 0.0
    of_check = CRC_CYCLES * first.beats / first.cycles if first.cycles else 0.0
    rate = share * board.pin_bytes * device.info.clock_hz
    data = {"bytes": length, "check_percent": 100 * of_check, "cycles": first.cycles, "beats": first.beats,
            "starved": first.starved, "bytes_per_s": rate,
            "pins_percent": 100 * share, "crc": [first.crc, again.crc]}
    text = (f"{rate / 1e6:,.1f} MB/s, {100 * share:.1f} % of the pins and {100 * of_check:.1f} % of what the core's "
            f"check takes ({first.cycles:,} cycles for {first.beats:,} beats, starved in {first.starved:,})")
    if first.crc != again.crc:
        return failed("stream", f"two readings of the same {quantity(length)} differ (CRC {first.crc:#010x}, "
                                f"{again.crc:#010x}); {text}",
                      "unsteady reads", data=data, advice=SLOW_CLOCK)
    if of_check < CHECK_SHARE:
        return warning("stream", text, "slow stream", data=data,
                       advice="the controller's settings are not this project's: see soc/base.py")
    return ok("stream", text, data=data)


def answer(device: Device, board: Board, force: bool, progress: Progress) -> Step:
    """The tiny model's ids, logits and cycles."""
    image = known.known_image()
    info = device.info
    here, _ = crcs(image[:HEADER_BYTES])
    if info.model_state in (ModelState.READY, ModelState.LOADING) and info.header_crc != here and not force:
        ready = info.model_state == ModelState.READY
        what = f"the device holds {info.name or 'a model'}" if ready else "an upload to the device is not finished"
        return skipped("known answer", f"{what}, which the test's model would replace",
                       advice="doctor --force replaces it")
    if info.model_state != ModelState.READY or info.header_crc != here:
        device.load(image, progress=progress)
    device.require_model()
    ids, counters, crc = known.ask_device(device)
    cycles = (counters[-1] - counters[0]) % WORD32 / max(len(counters) - 1, 1)
    wanted = next((one.per_token for one in known.CYCLES if (one.columns, one.lanes, one.pin_bytes) ==
                   (info.columns, info.lanes, board.pin_bytes)), None)
    errors = device.stats().errors
    data = {"ids": ids, "logits_crc": crc, "cycles_per_token": cycles, "expected_cycles": wanted,
            "errors": saturations(errors)}
    if tuple(ids) != known.IDS or crc != known.LOGITS_CRC:
        at = next((n for n, (got, want) in enumerate(zip(ids, known.IDS)) if got != want), None)
        what = f"logits have CRC {crc:#010x}, not {known.LOGITS_CRC:#010x}"
        if at is not None:
            what = f"token {at} is {ids[at]}, not {known.IDS[at]}"
        return failed("known answer", what, "wrong answer", data=data,
                      advice="the timing of the bitstream, or its sources; then --force once more")
    text = f"{len(ids)} ids and the logits of {known.DUMPED} are as the integer model's, {cycles:,.0f} cycles a token"
    if wanted and cycles > wanted * known.SLOWER:
        return warning("known answer", f"{text}, {wanted:,} in simulation", "slow answer", data=data)
    return ok("known answer", text + (f" ({wanted:,} in simulation)" if wanted else ""), data=data)


def link(device: Device, rounds: int) -> Step:
    """Frames lost at each rate."""
    found = line.survey(device.link, rounds=rounds)
    data, details = {"rates": [one.to_json() for one in found]}, [one.text() for one in found]
    working = [one for one in found if one.works]
    text = f"{len(working)} of {len(found)} rates work" if device.link.transport.has_rate else found[0].text()
    if any(one.damaged or one.resent for one in found):
        return warning("link", f"frames are lost ({text})", "lossy line", data=data, details=details,
                       advice="a shorter cable, another USB port, or --max-baud with a rate that loses none")
    return ok("link", text, data=data, details=details if len(found) > 1 else [])


def flash(device: Device, board: Board) -> Step:
    """The flash's id."""
    if not board.flash_id:
        return skipped("flash", "this build has no flash for a model (--with-spi-flash)")
    stored = device.flash()
    data = {"jedec_id": board.flash_id, "bytes": stored.flash_bytes, "room": stored.room}
    if not stored.flash_bytes:
        return failed("flash", f"what answers has the JEDEC ID {board.flash_id:#08x}: no chip, or none that is known",
                      "no flash", data=data,
                      advice="the flash's pins in the platform's file")
    return ok("flash", f"JEDEC ID {board.flash_id:#08x}, {quantity(stored.flash_bytes)}, room for a model of "
                       f"{quantity(stored.room)}", data=data)


def guarded(name: str, step, *arguments) -> Step:
    """Run a step; if the device refuses, the refusal is the finding."""
    try:
        return step(*arguments)
    except DeviceError as error:
        if error.status == Status.BAD_OPCODE:
            return failed(name, "the firmware is older than this client", "old firmware", advice=OLD_FIRMWARE)
        return failed(name, str(error), "refused")
    except HostError as error:
        return failed(name, str(error), "no answer")
