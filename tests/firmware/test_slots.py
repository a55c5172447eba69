"""Several generations at a time: each one's tokens are those it has alone, whatever the others do."""
import ctypes
import random
from dataclasses import replace
from itertools import groupby

import pytest

from llama2_spec.frame import Frame
from llama2_spec.protocol import (MAX_SLOTS, SLOT_SHIFT, Abort, Generate, GenerateFlag, Hello, LoadBegin, Logits,
                                  Opcode, Reason, Resend, Slots, Status, Subject)
from llama2_spec.registers import COMMON, LAYOUTS, Dest
from llama2_spec.registers import Model as ModelWord
from llama2_spec.registers import Opcode as Command
from llama2_spec.sampling import ONE
from tests.firmware import library
from tests.firmware.images import CONFIG, SEQ_LEN, VOCAB, layout, small_image
from tests.firmware.library import Device
from tests.firmware.many import Many
from tests.firmware.test_generate import greedy
from tests.firmware.test_history import Model

GREEDY = dict()
SAMPLED = dict(temperature=ONE, seed=7)
COLD = dict(temperature=ONE // 3, seed=5, top_k=12)
PENALISED = dict(temperature=2 * ONE, repetition_penalty=2 * ONE, repetition_window=64, seed=3)
GUESSING = dict(speculate=3)
KINDS = [GREEDY, SAMPLED, COLD, PENALISED, GUESSING]


@pytest.fixture
def alone(built, tmp_path):
    """What a generation yields on a device of its own."""
    device = Device(library.load(built, tmp_path / "alone.so"), small_image(), 2)

    def run(**request):
        device.send(Opcode.HELLO, Hello())
        device.poll(4)
        device.frames()
        tokens, done = device.generate(**request)
        return tokens, (done.count, done.reason, done.position, done.draws, done.dropped)
    return run


def told(done):
    return done.count, done.reason, done.position, done.draws, done.dropped


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_each_generation_is_as_it_is_alone(firmware, alone, columns):
    many = Many(Device(firmware, small_image(), columns), len(KINDS))
    requests = [dict(ids=tuple(range(1, 4 + 3 * slot)), max_new=40 + slot, **kind) for slot, kind in enumerate(KINDS)]
    begun = [many.begin(slot, **request) for slot, request in enumerate(requests)]
    many.finish()
    for sequence, request in zip(begun, requests):
        tokens, end = alone(**request)
        assert many.tokens[sequence] == tokens and told(many.done[sequence]) == end
    assert many.heard != sorted(many.heard), "they came one after the other"


@pytest.mark.parametrize("seed", range(6))
def test_random_arrivals_and_aborts(firmware, alone, seed):
    """Requests of all kinds come at any time, some are ended; those that are not are as they are alone."""
    rng = random.Random(seed)
    columns = rng.choice([1, 2, 4])
    many = Many(Device(firmware, small_image(), columns, sets=columns if seed % 2 else 1), 4, 256)
    running: dict[int, int] = {}
    asked, aborted = {}, set()
    for _ in range(40):
        many.poll(rng.choice([0, 3, 20, 60]), rng.choice([1, 8, 40]))
        running = {slot: sequence for slot, sequence in running.items() if sequence not in many.done}
        free = [slot for slot in range(4) if slot not in running]
        if running and rng.random() < .25:
            sequence = rng.choice(list(running.values()))
            aborted.add(sequence)
            many.abort(sequence)
        elif free:
            request = dict(ids=tuple(rng.randrange(VOCAB) for _ in range(rng.choice([1, 3, 90]))),
                           max_new=rng.choice([0, 1, 30, 150]), **rng.choice(KINDS))
            if rng.random() < .3:
                request |= dict(stop_count=2, stops=(rng.randrange(VOCAB), rng.randrange(VOCAB)))
            slot = rng.choice(free)
            running[slot] = many.begin(slot, **request)
            asked[running[slot]] = request
    many.finish()
    whole = 0
    for sequence, request in asked.items():
        tokens, end = alone(**request)
        found = many.tokens[sequence]
        if many.done[sequence].reason == Reason.ABORT:
            assert sequence in aborted and found == tokens[:len(found)]
        else:
            assert found == tokens and told(many.done[sequence]) == end, request
            whole += 1
    assert whole > 3


def test_turns_of_slots_find_their_rows_and_history_again(firmware):
    """Two conversations at a time, each with a penalty that looks back into its own."""
    many = Many(Device(firmware, small_image(), 2), 2)
    models, texts = [Model(firmware), Model(firmware)], [[5], [9]]
    for _ in range(4):
        begun = [many.begin(slot, position=len(text) - 1, ids=(text[-1],), max_new=70, **PENALISED)
                 for slot, text in enumerate(texts)]
        many.finish()
        for sequence, model, text in zip(begun, models, texts):
            assert many.tokens[sequence] == model.generate(len(text) - 1, (text[-1],), 70, **PENALISED)
            text += many.tokens[sequence]
    assert texts[0][1:] != texts[1][1:]


def classifiers(device):
    return [command for command in device.commands()
            if field(command, "opcode") == Command.MATVEC and field(command, "dest") == Dest.LOGITS]


def test_conversations_share_passes(firmware):
    """Four on four columns take as many passes as one."""
    many = Many(Device(firmware, small_image(), 4), 4)
    for slot in range(4):
        many.begin(slot, ids=(1, 5 + slot), max_new=50)
    many.finish()
    assert len(classifiers(many.device)) <= 50 + 4 * 2, "they come one after the other"


def test_a_prompt_that_arrives_lets_nobody_pause_for_long(firmware):
    """256 tokens while three others decode on four columns: passes between two tokens of the same slot."""
    many = Many(Device(firmware, small_image(), 4), 4)
    others = [many.begin(slot, ids=(1, 5 + slot), max_new=250) for slot in range(3)]
    many.poll(30)
    ids = tuple(i % VOCAB for i in range(256))
    begin = len(many.device.commands())
    feeding = [many.begin(3, ids=ids[:200], max_new=0)]
    while feeding[0] not in many.done:
        many.poll()
    last = many.begin(3, position=200, ids=ids[200:], max_new=5)
    many.finish()
    region = many.division.length * layout(small_image())[2] * 2
    base, steps = layout(small_image())[1], []
    for command in many.device.commands()[begin:]:
        if field(command, "opcode") == Command.EMBED and field(command, "column") == 0:
            steps.append(set())
        elif field(command, "opcode") == Command.ATTEND:
            steps[-1].add((command[2] - base) // region)
    feeding_steps = [at for at, slots in enumerate(steps) if 3 in slots]
    for slot in range(3):
        served = [at for at in range(feeding_steps[0], feeding_steps[-1] + 1) if slot in steps[at]]
        assert max(after - before for before, after in zip(served, served[1:])) <= 2, "more than one pass without it"
    assert len(feeding_steps) < 256 / 2 + 10
    assert many.tokens[last] == greedy(many.device, ids[-1], 255, 5)
    for slot, sequence in enumerate(others):
        assert many.tokens[sequence] == greedy(many.device, 5 + slot, 1, 250)


def test_aborting_one_leaves_the_others_alone(firmware):
    many = Many(Device(firmware, small_image()), 3)
    first, second, third = (many.begin(slot, ids=(1, 5 + slot), max_new=100) for slot in range(3))
    many.poll(60)
    many.abort(second)
    many.finish()
    assert many.done[second].reason == Reason.ABORT and many.done[second].count < 100
    assert many.tokens[first] == greedy(many.device, 5, 1, 100) and many.tokens[third] == greedy(many.device, 7, 1, 100)


def test_abort_without_a_word_ends_all(firmware):
    """As a client asks that knows no slots."""
    many = Many(Device(firmware, small_image()), 3)
    begun = [many.begin(slot, ids=(1, 5), max_new=300) for slot in range(3)]
    many.poll(60)
    many.device.send(Opcode.ABORT)
    many.finish()
    assert [many.done[sequence].reason for sequence in begun] == [Reason.ABORT] * 3
    again = many.begin(1, ids=(1, 5), max_new=5)
    many.finish()
    assert many.tokens[again] == greedy(many.device, 5, 1, 5)


def test_a_cache_that_is_only_filled_is_whole_before_anything_is_dropped(firmware):
    """The last generation that runs is aborted: what an ended one still has in the queue must be executed."""
    many = Many(Device(firmware, small_image()), 2)
    long = many.begin(1, ids=(1, 5), max_new=300)
    many.poll(20)
    fed = many.begin(0, ids=tuple(range(30)), max_new=0)
    while fed not in many.done:
        many.poll(1, execute=1)
    many.abort(long)
    many.finish()
    many.device.poll(200)
    assert firmware.fake_aborted() == 0 and firmware.fake_executed() == firmware.fake_log_count()
    assert executed_rows(many.device, segment_beats=0) >= set(range(30))


def field(command, name):
    layout = (*COMMON, *LAYOUTS[Command(command[0] & 15)])
    bits = next(bits for bits in layout if bits.name == name)
    return command[bits.word] >> bits.low & (1 << bits.size) - 1


def stored(command):
    """Rows that a STORE writes."""
    return field(command, "column") - field(command, "first") + 1


def executed_rows(device, segment_beats):
    """Positions of the rows that STOREs of the first layer wrote, of the slot that begins there; only executed ones
    count."""
    _, base, row_beats, _ = layout(small_image())
    first, rows = base + segment_beats, set()
    for command in device.commands()[:device.library.fake_executed() - device.begin]:
        if field(command, "opcode") == Command.STORE and first <= command[2] < first + SEQ_LEN * row_beats:
            start = (command[2] - first) // row_beats
            rows |= set(range(start, start + stored(command)))
    return rows


def test_every_slot_stays_in_its_region(firmware):
    """Addresses of the rows that are written and read, layer by layer."""
    length = 64
    many = Many(Device(firmware, small_image(), 2), 3, length)
    image, base, row_beats, _ = layout(small_image())
    region = image.config.n_layers * length * row_beats
    for slot in range(3):
        many.begin(slot, ids=(1,) * 50, max_new=14, position=0)
    many.finish()
    seen = {slot: set() for slot in range(3)}
    for command in many.device.commands():
        if field(command, "opcode") == Command.STORE:
            first, count = command[2], stored(command)
            slot, offset = divmod(first - base, region)
            layer, row = divmod(offset, length * row_beats)
            assert layer < image.config.n_layers and row % row_beats == 0
            assert row // row_beats + count <= length, "it reaches into the next layer"
            seen[slot] |= {(layer, row // row_beats + i) for i in range(count)}
        elif field(command, "opcode") == Command.ATTEND:
            assert (command[2] - base) % (length * row_beats) == 0 and (command[2] - base) // region < 3
    expected = {(layer, row) for layer in range(image.config.n_layers) for row in range(63)}
    assert all(rows == expected for rows in seen.values())


def test_the_candidates_scale_is_that_of_the_slot(firmware):
    """LOGIT_SCALE changes only between one's candidates and the next classifier; greedy passes do not care."""
    many = Many(Device(firmware, small_image()), 2)
    for slot, temperature in enumerate((ONE, 3 * ONE)):
        many.begin(slot, ids=(1,), max_new=20, temperature=temperature, seed=1)
    scales = set()
    for _ in range(600):
        many.poll(1, execute=4)
        scales.add(firmware.fake_model_word(ModelWord.LOGIT_SCALE))
    many.finish()
    assert len(scales - {0}) == 2


@pytest.mark.parametrize("columns", [2, 4])
def test_sampled_ones_share_passes_where_every_column_has_candidates(firmware, alone, columns):
    """Each has its own temperature; a pass for each token of the longest one, and not for each of all."""
    requests = [dict(ids=(1 + slot,), max_new=20, temperature=(slot + 1) * ONE, seed=slot + 1)
                for slot in range(columns)]
    many = Many(Device(firmware, small_image(), columns, sets=columns), columns)
    sequences = [many.begin(slot, **request) for slot, request in enumerate(requests)]
    scales = set()
    for _ in range(200):
        many.poll(1, execute=4)
        scales.add(frozenset(firmware.fake_model_word(ModelWord.LOGIT_SCALE + column) for column in range(columns)))
    many.finish()
    for sequence, request in zip(sequences, requests):
        assert many.tokens[sequence] == alone(**request)[0]
    assert max(map(len, scales)) == columns
    classified = sum(field(command, "opcode") == Command.MATVEC and field(command, "dest") == Dest.LOGITS
                     for command in many.device.commands())
    assert 20 <= classified <= 24


@pytest.mark.parametrize("kind", [dict(temperature=ONE, seed=3), dict(temperature=0)], ids=["sampled", "greedy"])
@pytest.mark.parametrize("columns", [2, 4])
def test_a_shared_pass_is_pushed_before_its_tokens_are_known(firmware, columns, kind):
    """The core always has the next pass, and waits in it for the tokens only."""
    many = Many(Device(firmware, small_image(), columns, sets=columns), columns)
    begun = [many.begin(slot, ids=(1 + slot,), max_new=40, **kind) for slot in range(columns)]
    while min(len(many.tokens[sequence]) for sequence in begun) < 5:
        many.poll(1, execute=4)
    while max(len(many.tokens[sequence]) for sequence in begun) < 35:
        many.poll(1, execute=1)
        assert firmware.fake_executed() < firmware.fake_log_count()
    many.finish()
    awaited = sum(field(command, "opcode") == Command.EMBED and field(command, "awaited")
                  for command in many.device.commands())
    assert awaited >= 30 * columns


@pytest.mark.parametrize("columns", [1, 2, 4])
@pytest.mark.parametrize("kind", [dict(temperature=ONE, seed=3), dict(temperature=0)], ids=["sampled", "greedy"])
def test_a_prompt_is_not_kept_waiting_by_one_whose_logits_stand_alone(firmware, columns, kind):
    """One set of candidates: the prompt's end needs logits, and so does, in every pass, the slot that is sampled."""
    many = Many(Device(firmware, small_image(), columns), 2)
    first = many.begin(0, ids=(1,), max_new=60, temperature=ONE, seed=1)
    while len(many.tokens[first]) < 5:
        many.poll(1, execute=4)
    second = many.begin(1, ids=(1, 2, 3), max_new=20, **kind)
    many.finish()
    begun = many.heard.index(second)
    assert many.heard[:begun].count(first) < 20, "it had to wait"
    longest = max(len(list(same)) for _, same in groupby(many.heard[begun:many.heard.index(second, begun) + 40]))
    assert longest <= 16


@pytest.mark.parametrize("payload, error", [
    (Slots(MAX_SLOTS + 1), (Status.BAD_VALUE, Subject.SLOT, MAX_SLOTS + 1, MAX_SLOTS)),
    (Slots(2, SEQ_LEN + 1), (Status.BAD_VALUE, Subject.SEQ_LEN, SEQ_LEN + 1, SEQ_LEN))])
def test_a_division_that_cannot_be_is_refused(firmware, payload, error):
    device = Device(firmware, small_image())
    assert library.error(device.request(Opcode.SLOTS, payload)) == error
    assert device.ask(Opcode.SLOTS, Slots()).count == 1


def test_slots_are_checked_against_the_memory(firmware):
    """Rows, histories and what firmware keeps of each must fit; what is refused has changed nothing."""
    device = Device(firmware, small_image(replace(CONFIG, seq_len=4096)))
    device.generate(ids=(1, 5), max_new=3)
    status, _, needed, present = library.error(device.request(Opcode.SLOTS, Slots(8)))
    assert status == Status.NO_MEMORY and needed > present == library.DRAM_BYTES
    assert device.ask(Opcode.HELLO, Hello()).kv_positions == 4
    divided = device.ask(Opcode.SLOTS, Slots(4, 512))
    assert (divided.count, divided.length) == (4, 512)
    info = device.ask(Opcode.HELLO, Hello())
    assert (info.seq_len, info.kv_positions) == (512, 0)
    reply = device.request(Opcode.GENERATE, Generate(ids=(1,) * 200, flags=3 << SLOT_SHIFT | GenerateFlag.PRELOADED,
                                                     position=400))
    assert library.error(reply) == (Status.CONTEXT_FULL, Subject.NONE, 600, 512)


def test_the_same_division_again_keeps_the_caches(firmware):
    device = Device(firmware, small_image())
    many = Many(device, 2)
    sequence = many.begin(0, ids=(1, 5), max_new=3)
    many.finish()
    device.ask(Opcode.SLOTS, Slots(2))
    assert device.ask(Opcode.HELLO, Hello()).kv_positions == many.done[sequence].position == 4
    device.ask(Opcode.SLOTS, Slots(1))
    assert device.ask(Opcode.HELLO, Hello()).kv_positions == 0


def test_what_one_slot_does_the_others_do_not_see(firmware):
    device = Device(firmware, small_image())
    many = Many(device, 2)
    begun = many.begin(1, ids=(1, 5), max_new=400)
    many.poll(30)
    assert library.error(device.request(Opcode.GENERATE, Generate(ids=(1,), flags=1 << SLOT_SHIFT)))[0] == Status.BUSY
    assert library.error(device.request(Opcode.GENERATE, Generate(ids=(1,), flags=2 << SLOT_SHIFT))) == (
        Status.BAD_VALUE, Subject.SLOT, 2, 1)
    assert library.error(device.request(Opcode.GENERATE, Generate(ids=(1,), position=1))) == (
        Status.BAD_POSITION, Subject.NONE, 1, 0)
    assert library.error(device.request(Opcode.SLOTS, Slots(1)))[0] == Status.BUSY
    assert library.error(device.request(Opcode.LOAD_BEGIN, LoadBegin(100, 1)))[0] == Status.BUSY
    reply = device.ask(Opcode.RESEND, Resend(0, begun, 1))
    assert reply.entries[0] == greedy(device, 5, 1, 1)[0]
    assert library.error(device.request(Opcode.RESEND, Resend(0, begun + 99)))[0] == Status.FORGOTTEN
    device.send(Opcode.ABORT, Abort(begun + 99))
    device.poll(20)
    assert device.ask(Opcode.RESEND, Resend(0, begun, 1)).running == 1, "somebody else's abort"


def test_a_slot_that_is_not_acknowledged_holds_only_itself(firmware):
    device = Device(firmware, small_image())
    many = Many(device, 2)
    silent = device.send(Opcode.GENERATE, Generate(ids=(1, 5), max_new=400, flags=1 << SLOT_SHIFT))
    many.tokens[silent], many._acknowledged[silent] = [], 10 ** 6       # its tokens are taken, and never acknowledged
    other = many.begin(0, ids=(1, 9), max_new=400)
    for _ in range(20000):
        many.poll()
        if other in many.done:
            break
    assert many.tokens[other] == greedy(device, 9, 1, 400)
    assert silent not in many.done and len(many.tokens[silent]) <= 128
    device.send(Opcode.RESEND, Resend(len(many.tokens[silent]), silent, 1))
    many._acknowledged[silent] = len(many.tokens[silent])
    many.finish()
    assert many.tokens[silent] == greedy(device, 5, 1, 400)


def test_logits_of_two_are_not_mixed(firmware):
    device = Device(firmware, small_image())
    many = Many(device, 2)
    rows: dict[int, list] = {}
    take = many._take

    def keep(frame):
        if frame.opcode == Opcode.LOGITS:
            rows.setdefault(frame.sequence, []).extend(Logits.unpack(frame.payload).logits)
        take(frame)
    many._take = keep
    begun = [many.begin(slot, ids=(1, 5 + slot), max_new=2, flags=GenerateFlag.DUMP_LOGITS) for slot in range(2)]
    many.finish()
    for slot, sequence in enumerate(begun):
        token, expected = 5 + slot, []
        for position in (1, 2):
            row = [device.library.fake_logit(token, position, i) for i in range(VOCAB)]
            expected, token = expected + row, row.index(max(row))
        assert rows[sequence] == expected


def test_logits_of_the_next_pass_are_its_own_on_a_slow_line(firmware):
    """While logits wait for the line, the core begins the other one's pass: what it offers then is not this one's."""
    device = Device(firmware, small_image(), 1)
    many, rows = Many(device, 2), {}
    take = many._take

    @ctypes.CFUNCTYPE(None)
    def line():
        buffer = ctypes.create_string_buffer(64)
        count = firmware.fake_drain(buffer, len(buffer))
        device.received += buffer.raw[:count]
        firmware.fake_execute(200)

    def keep(frame):
        if frame.opcode == Opcode.LOGITS:
            rows.setdefault(frame.sequence, []).extend(Logits.unpack(frame.payload).logits)
        take(frame)
    many._take = keep
    firmware.fake_transmitter(64)
    firmware.fake_when_full(line)
    begun = [many.begin(slot, ids=(1, 5 + slot), max_new=20, flags=GenerateFlag.DUMP_LOGITS) for slot in range(2)]
    many.finish()
    firmware.fake_when_full(None)
    for slot, sequence in enumerate(begun):
        token, expected = 5 + slot, []
        for position in range(1, 21):
            row = [firmware.fake_logit(token, position, i) for i in range(VOCAB)]
            expected, token = expected + row, row.index(max(row))
        assert rows[sequence] == expected


def at_once(device, opcode, payload):
    """A request that is read while the core executes nothing."""
    frame = Frame(opcode, 1 << 20, payload.pack()).encode()
    device.library.fake_feed(frame, len(frame))
    device.poll(2, execute=0)


def test_the_cache_is_not_divided_below_what_still_runs(firmware):
    """What an aborted generation has in the queue writes rows where other slots would be."""
    device = Device(firmware, small_image(), 2)
    many, met = Many(device, 2), 0
    for delay in range(240, 320, 4):
        other, fed = many.begin(1, ids=(1, 5), max_new=12), many.begin(0, ids=tuple(range(80)), max_new=0)
        many.poll(delay, execute=1)
        at_once(device, Opcode.ABORT, Abort(fed))
        while other not in many.done:
            many.poll(1, execute=1)
        if firmware.fake_executed() != firmware.fake_log_count() and fed in many.done:
            met += 1
            at_once(device, Opcode.SLOTS, Slots(3))
            device.poll(2, execute=0)
            assert [library.error(frame)[0] for frame in device.frames()] == [Status.BUSY]
        device.poll(200)
        assert device.ask(Opcode.SLOTS, Slots(2)).count == 2
    assert met


def test_hello_ends_all(firmware):
    many = Many(Device(firmware, small_image()), 3)
    for slot in range(3):
        many.begin(slot, ids=(1, 5), max_new=400)
    many.poll(50)
    many.device.ask(Opcode.HELLO, Hello())
    many.device.poll(50)
    assert many.device.frames() == []
    many.tokens.clear()
    sequence = many.begin(2, ids=(1, 5), max_new=5)
    many.finish()
    assert many.tokens[sequence] == greedy(many.device, 5, 1, 5)
