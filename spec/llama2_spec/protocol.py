"""What host and firmware say to each other: opcodes, status codes and the payload of every request, reply and event.

The host sends requests; each is answered by one reply with the same opcode and sequence number. A request that was
not answered in time is sent again with the same sequence number: it is answered again and has no second effect.
Events carry the sequence number of their GENERATE; tokens are numbered, and RESEND repeats those that were lost. A
device holds a generation rather than overwrite a token that was neither asked for again nor acknowledged; LOGITS are
not kept: each says where it belongs, so that a gap is seen.

A device runs a generation in each of its slots at a time. A slot is a region of the K/V cache with its own history;
there is one, as long as the model's context, until SLOTS says otherwise. A client that knows no slots has number 0.

A device has a boot id: the first HELLO after its reset gives it one. HELLO's reply, every reply that accepts something
and every refusal carry it, so that a client learns of a reset by the next answer.
"""
from enum import IntEnum, IntFlag

from llama2_spec.frame import MAX_PAYLOAD
from llama2_spec.wire import Structure, structure, tail, wire

VERSION = 3
LOAD_CHUNK = 1008        #: most bytes of data in one LOAD; a multiple of a beat
LOAD_WINDOW = 4          #: LOAD requests the host may have unanswered at a time
MAX_STOPS = 32           #: stop tokens of a generation
MAX_PROMPT = 208         #: tokens in one GENERATE; a longer prompt is several, all but the last with max_new = 0
MAX_HISTORY = 256        #: positions the repetition penalty can look back
MAX_SPECULATE = 7        #: tokens guessed in a pass; the core's columns less one are the limit in fact
LOOKUP_HISTORY = 512     #: latest tokens that a guess is looked up in, see spec/llama2_spec/lookup.py
LOOKUP_SUFFIX = 4        #: as many of the last tokens are compared at most
LOOKUP_STEPS = 16        #: earlier places that are compared at most
TOKEN_RING = 128         #: tokens that RESEND can repeat, and that a generation may be ahead of its last RESEND
MAX_SLOTS = 8            #: generations at a time
SLOT_SHIFT = 8           #: bits above it in Generate.flags are the number of the slot
MAX_LAYERS = 64          #: layers that the firmware's command program has room for
MAX_BAUD = 3_000_000     #: fastest serial line: its bytes come no faster than the firmware takes them at 75 MHz
MIN_BAUD = 9600          #: slowest
MAX_CONFIRM = 10_000     #: ms, longest time a new rate may wait for its confirmation
PLACE_BYTES = 32         #: of DRAM that MEMORY tests at each place; a line of the CPU's cache
MAX_PLACES = 1024        #: places of one MEMORY: some milliseconds
MAX_STREAM = 64 << 20    #: bytes of one STREAM: a tenth of a second


class Opcode(IntEnum):
    """What a frame is about."""
    HELLO      = 0x01  #: Hello -> Device; begins a session: generations still running are aborted
    LOAD_BEGIN = 0x02  #: LoadBegin -> Loaded; drops the model, or goes on with the same upload where it stopped
    LOAD       = 0x03  #: Load -> Loaded; in order of offsets, up to LOAD_WINDOW ahead of the replies
    LOAD_END   = 0x04  #: nothing -> Verified; begins to check the image, which then is the model; asked again until it
                       #: is not running
    GENERATE   = 0x05  #: Generate -> Accepted; then TOKENS and LOGITS events, at last DONE
    ABORT      = 0x06  #: Abort, or nothing for all of them -> nothing; DONE follows if the generation was running
    RESEND     = 0x07  #: Resend -> Tokens; acknowledges the tokens before its index; DONE is sent again after it if the
                       #: generation has ended
    STATS      = 0x08  #: nothing -> Stats
    RESET      = 0x09  #: Reset -> nothing
    READ       = 0x0a  #: Read -> bytes of DRAM, as the core sees them
    BAUD       = 0x0b  #: Baud -> Line; switches the serial line's rate after its reply, for good once BAUD is repeated
                       #: at that rate
    STORE      = 0x0c  #: Store -> Stored; writes the model to the board's flash, or tells how far that is
    VERIFY     = 0x0d  #: Verify -> Verified; the core computes the model's CRCs anew from DRAM; asked again until it is
                       #: not running
    BOARD      = 0x0e  #: nothing -> Board; what is around the core: DRAM, its byte lanes, flash
    LANE       = 0x0f  #: Lane -> Eye; how well one byte lane of the DRAM reads at every delay; DRAM's contents stay
    BASELINE   = 0x10  #: reserved: the software baseline, up to 0x1f
    MEMORY     = 0x20  #: Memory -> Tested; writes and reads places of DRAM, and puts back what was there
    STREAM     = 0x21  #: Stream -> Streamed; the core reads and checks DRAM, a beat every four cycles at best
    SLOTS      = 0x22  #: Slots -> Slotted; divides the K/V cache anew, or tells how it is divided
    TOKENS     = 0x81  #: event: Tokens
    LOGITS     = 0x82  #: event: Logits
    DONE       = 0x83  #: event: Done


class Status(IntEnum):
    """How a request went. Anything but OK comes with an Error as its payload."""
    OK             = 0
    BAD_OPCODE     = 1   #: no such request
    BAD_LENGTH     = 2   #: payload of value bytes, expected limit
    BAD_VERSION    = 3   #: protocol or image version value, this build speaks limit
    BAD_VALUE      = 4   #: the field named by subject has a value outside its limit
    BUSY           = 5   #: a generation, here in this slot, or an upload is running
    NO_MODEL       = 6   #: load one first
    NO_DRAM        = 7   #: DRAM initialisation failed
    OUT_OF_ORDER   = 8   #: LOAD at offset value, the device waits for offset limit
    NOT_LOADING    = 9   #: LOAD without LOAD_BEGIN
    INCOMPLETE     = 10  #: LOAD_END after value bytes of limit
    BAD_MAGIC      = 11  #: not a model image
    BAD_HEADER     = 12  #: the CRC of header and metadata is value, the image says limit
    BAD_PAYLOAD    = 13  #: the CRC of the tensors is value, the image says limit
    BAD_DIRECTORY  = 14  #: tensor number value is not what the core's program needs there
    TOO_LARGE      = 15  #: the model's subject is value, this build's maximum is limit
    NO_MEMORY      = 16  #: image and cache take value bytes, DRAM has limit
    BAD_POSITION   = 17  #: position value, but the cache holds limit positions
    CONTEXT_FULL   = 18  #: the prompt ends at value, the context has limit positions
    BAD_TOKEN      = 19  #: token id value, the vocabulary has limit
    OUT_OF_RANGE   = 20  #: READ up to value, DRAM has limit
    NO_FLASH       = 21  #: the board has no flash for a model, or what answers has the unknown JEDEC ID value
    FLASH_SMALL    = 22  #: the image takes value bytes, the flash has room for limit
    FORGOTTEN      = 23  #: RESEND of generation value, which is not the last one of a slot in this session


class Subject(IntEnum):
    """What an Error's numbers are about."""
    NONE          = 0
    DIM           = 1   #: dim or n_heads * head_dim
    HIDDEN_DIM    = 2
    HEAD_DIM      = 3
    KV_DIM        = 4
    HEADS         = 5
    VOCAB_SIZE    = 6
    SEQ_LEN       = 7
    LAYERS        = 8
    PROMPT_COUNT  = 9
    STOP_COUNT    = 10
    TEMPERATURE   = 11
    TOP_P         = 12
    MIN_P         = 13
    PENALTY       = 14
    WINDOW        = 15
    LENGTH        = 16
    CONFIG        = 17  #: shapes that contradict each other
    KV_HEADS      = 18
    BAUD          = 19
    CONFIRM       = 20  #: Baud.confirm_ms
    KV_FORMAT     = 21
    SPECULATE     = 22
    LANE          = 23  #: Lane.lane or Lane.bitslip
    PLACE         = 24  #: a place of MEMORY or STREAM: no multiple of its size, beyond DRAM, or too many
    SLOT          = 25  #: a slot's number, or how many there are


class Restart(IntEnum):
    """Why the device began anew."""
    POWER    = 0   #: power came, or a bitstream
    OUTSIDE  = 1   #: a reset that the firmware did not ask for: the board's button
    WATCHDOG = 2   #: the firmware stood still
    CORE     = 3   #: the decoder core was busy and moved nothing
    BUS      = 4   #: an access that nothing answered
    TRAP     = 16  #: plus the number that RISC-V gives the trap's cause, below TRAP_CAUSES


TRAP_CAUSES        = 16    #: numbers of RISC-V's synchronous traps. Ref: The RISC-V Instruction Set Manual, II, mcause
RESTART_PLACE_BITS = 24    #: of Device.restart: the place's, below the cause


class ModelState(IntEnum):
    """What the device holds."""
    NONE    = 0  #: no image at the start of DRAM
    LOADING = 1  #: an upload has begun
    READY   = 2
    REFUSED = 3  #: an image is there; model_status and model_error say why it is not used
    BOOTING = 4  #: what DRAM holds is being checked, after reset or LOAD_END, or the flash's image copied; ask again


class StoreState(IntEnum):
    """What became of the last Store that began, since reset."""
    NONE    = 0  #: there was none, or an upload ended it
    RUNNING = 1
    DONE    = 2  #: every byte was read back
    FAILED  = 3  #: what was read back differs, or the chip never became ready


class Reason(IntEnum):
    """Why a generation ended."""
    LENGTH  = 0  #: max_new tokens
    STOP    = 1  #: a stop token; it is the last one sent
    CONTEXT = 2  #: the context is full, whether or not max_new is reached, too
    ABORT   = 3
    ERROR   = 4  #: the core reported errors, see Done.errors


class GenerateFlag(IntFlag):
    """Options of a generation."""
    DUMP_LOGITS = 1  #: every logit of every classified position as LOGITS events (slow)
    ALL_LOGITS  = 2  #: classify every prompt position, not only the last
    PRELOADED   = 4  #: the cache holds rows up to the request's position, whatever the device knows of them


class ResetFlag(IntFlag):
    """What RESET sets to zero."""
    COUNTERS = 1  #: the core's phase counters and the sampler's statistics
    ERRORS   = 2  #: sticky error flags


@structure
class Error(Structure):
    """Payload of every reply whose status is not OK."""
    subject: int = wire("I", "Subject")
    value: int = wire("I", "what was found")
    limit: int = wire("I", "what was expected, or the most there may be")
    boot: int = wire("I", "boot id", default=0)


@structure
class Hello(Structure):
    """First request of a session. Of another version it is refused, with an Error of 12 bytes as all versions know
    it."""
    version: int = wire("I", "protocol version of the host", VERSION)
    nonce: int = wire("I", "a random number: the boot id, if this is the first HELLO since reset")


@structure
class Device(Structure):
    """Reply to HELLO: the device, its limits and its model."""
    version: int = wire("I", "protocol version of the firmware")
    clock_hz: int = wire("I", "system clock")
    uptime: int = wire("Q", "cycles since reset")
    dram_bytes: int = wire("I", "size of DRAM")
    dram_status: int = wire("I", "1: DRAM initialised and trained; 0: it failed")
    core_version: int = wire("I", "version of the core's registers")
    columns: int = wire("I", "positions that share one pass over the weights")
    lanes: int = wire("I", "multipliers per column")
    candidates: int = wire("I", "logits kept for sampling")
    max_dim: int = wire("I", "largest dim and n_heads * head_dim")
    max_hidden_dim: int = wire("I", "largest hidden_dim")
    max_head_dim: int = wire("I", "largest head_dim")
    max_kv_dim: int = wire("I", "largest n_kv_heads * head_dim")
    max_heads: int = wire("I", "most query heads")
    max_vocab_size: int = wire("I", "largest vocabulary")
    max_seq_len: int = wire("I", "longest context")
    max_layers: int = wire("I", "most layers")
    model_state: int = wire("I", "ModelState")
    model_status: int = wire("I", "REFUSED: the Status that LOAD_END would give")
    model_error: tuple = wire("3I", "REFUSED: its Error")
    image_bytes: int = wire("I", "READY: length of the image")
    payload_crc: int = wire("I", "READY: CRC-32 of its tensors")
    header_crc: int = wire("I", "READY: CRC-32 of its header and metadata")
    vocab_size: int = wire("I", "READY: the model's vocabulary")
    seq_len: int = wire("I", "READY: positions of a slot; the model's context, unless SLOTS said less")
    kv_positions: int = wire("I", "positions held in the KV cache of slot 0")
    kv_base: int = wire("I", "READY: first beat of the KV cache")
    kv_beats: int = wire("I", "READY: beats of the KV cache")
    link_damaged: int = wire("I", "frames received damaged since reset")
    firmware: str = wire("32s", "firmware build")
    name: str = wire("32s", "READY: the model's name")
    boot: int = wire("I", "boot id, not 0")
    restart: int = wire("I", "why the device began anew: Restart in bits 31:24, below them the place in the firmware "
                             "(bits 23:0 of its address) where one is known")


@structure
class LoadBegin(Structure):
    """An upload: the image as the file is."""
    total: int = wire("I", "bytes of the image")
    crc: int = wire("I", "CRC-32 of the whole file, to recognise an upload that was interrupted")


@structure
class Load(Structure):
    """A piece of the image."""
    offset: int = wire("I", "where it goes; a multiple of 4")
    data: bytes = tail("s", "at most LOAD_CHUNK bytes; only the last piece may have a length that is no multiple of 4")


@structure
class Loaded(Structure):
    """Reply to LOAD_BEGIN and LOAD."""
    received: int = wire("I", "bytes the device has, from the start of the image")
    boot: int = wire("I", "boot id")


@structure
class Verify(Structure):
    """Ask for a check of the model in DRAM. Damage is answered as LOAD_END answers it, and the model is then
    REFUSED."""
    begin: int = wire("I", "1: begin, unless one is running; 0: only ask for the last one")


@structure
class Verified(Structure):
    """Reply to LOAD_END and VERIFY."""
    crc: int = wire("I", "CRC-32 of the tensors, computed by the core from DRAM")
    cycles: int = wire("I", "what the check took")
    running: int = wire("I", "1: not known yet, ask again")
    boot: int = wire("I", "boot id")


@structure
class Generate(Structure):
    """A generation. Probabilities and factors are Q16.16: 0x10000 is 1.0. See spec/llama2_spec/sampling.py for what
    they do."""
    flags: int = wire("I", "GenerateFlag; from bit SLOT_SHIFT up the slot")
    position: int = wire("I", "position of the first id; at most the positions the cache holds")
    max_new: int = wire("I", "most tokens to generate; 0 only fills the cache")
    temperature: int = wire("I", "Q16.16; 0 is greedy, unless temperature_low is not 0")
    top_k: int = wire("I", "keep the k likeliest; 0 is off")
    top_p: int = wire("I", "keep the likeliest up to this probability; 0 and 0x10000 are off")
    min_p: int = wire("I", "drop what is less likely than this times the likeliest; 0 is off")
    repetition_penalty: int = wire("I", "divides positive and multiplies negative logits of recent tokens; 0x10000 is "
                                        "off", 0x10000)
    repetition_window: int = wire("I", "how many recent positions count, at most MAX_HISTORY")
    stop_count: int = wire("I", "stop tokens in use")
    speculate: int = wire("I", "most tokens guessed in a pass, at most MAX_SPECULATE; 0 is off; neither with sampling "
                               "nor with DUMP_LOGITS")
    temperature_low: int = wire("I", "32 more bits of the temperature's fraction: both together are Q16.48")
    seed: int = wire("Q", "of the random numbers; 0 counts as 1")
    stops: tuple = wire(f"{MAX_STOPS}I", "ids that end the generation; they are sent, too")
    ids: tuple = tail("I", "1 to MAX_PROMPT new token ids")


@structure
class Accepted(Structure):
    """Reply to GENERATE."""
    position: int = wire("I", "position of the first token to be generated")
    boot: int = wire("I", "boot id")


@structure
class Abort(Structure):
    """The generation to be ended; those in other slots go on."""
    generation: int = wire("I", "sequence number of its GENERATE; 0: all")


@structure
class Resend(Structure):
    """Ask for tokens again. Those before ``index`` have arrived: the device may overwrite them."""
    index: int = wire("I", "first one wanted, counted from 0")
    generation: int = wire("I", "sequence number of its GENERATE; 0: whichever began last")
    most: int = wire("I", "most tokens in the reply, so that a short one passes a bad line; 0: as many as fit")


@structure
class Tokens(Structure):
    """Event, and reply to RESEND: consecutive tokens; as many per frame as wait to be sent, mostly one."""
    index: int = wire("I", "number of the first one in this generation")
    position: int = wire("I", "its position")
    count: int = wire("I", "tokens generated so far")
    running: int = wire("I", "1 until the generation has ended")
    entries: tuple = tail("I", "pairs: token id, cycle counter when its last logit was known")


@structure
class Logits(Structure):
    """Event: logits of one position, in order of ids."""
    position: int = wire("I", "position that was classified")
    first: int = wire("I", "id of the first logit here")
    logits: tuple = tail("i", "signed Q14.18")


@structure
class Done(Structure):
    """Event: the end of a generation."""
    reason: int = wire("I", "Reason")
    count: int = wire("I", "tokens generated and sent")
    position: int = wire("I", "positions now valid in the KV cache; the last token is not among them")
    prompt_count: int = wire("I", "prompt tokens processed")
    start_cycles: int = wire("I", "cycle counter when the generation began")
    end_cycles: int = wire("I", "cycle counter when it ended")
    errors: int = wire("I", "sticky error flags of the core (register errors)")
    passes: int = wire("I", "passes over the weights that the tokens took")
    guessed: int = wire("I", "tokens guessed for these passes; count - passes of them were right")
    draws: int = wire("I", "tokens that were sampled")
    dropped: int = wire("Q", "probability outside the kept candidates, summed over the draws; 2**32 is 1.0")


@structure
class Stats(Structure):
    """Reply to STATS: counters since RESET."""
    cycles: int = wire("I", "cycle counter now")
    stores: int = wire("I", "K/V beats written since reset")
    errors: int = wire("I", "sticky error flags of the core (register errors)")
    draws: int = wire("I", "tokens sampled")
    dropped: int = wire("Q", "probability outside the kept candidates, summed over the draws; 2**32 is 1.0")
    prompt_tokens: int = wire("I", "prompt positions processed")
    tokens: int = wire("I", "tokens generated")
    passes: int = wire("I", "passes over the weights that they took")
    guessed: int = wire("I", "tokens guessed for these passes")
    resent: int = wire("I", "tokens sent again since boot")
    link_damaged: int = wire("I", "frames received damaged since boot")
    interrupts: int = wire("I", "interrupts taken from the core since boot")
    counters: tuple = wire("45I", "5 counters of each of the 9 phases, see registers: counter c of phase p is number "
                                  "5p + c")


@structure
class Reset(Structure):
    """What to set to zero."""
    flags: int = wire("I", "ResetFlag")


@structure
class Read(Structure):
    """A piece of DRAM."""
    offset: int = wire("I", "bytes from the start of DRAM, a multiple of 4")
    length: int = wire("I", f"bytes, a multiple of 4, at most {MAX_PAYLOAD}")


@structure
class Baud(Structure):
    """A new rate for the serial line. The reply comes at the old one; then the device has the new one for
    ``confirm_ms``, and returns to its first rate (that of its reset) unless the same rate is asked for again, at that
    rate."""
    rate: int = wire("I", "bits per second, MIN_BAUD up to what the device can do; 0 only asks")
    confirm_ms: int = wire("I", "at most MAX_CONFIRM; the first rate needs no confirmation")


@structure
class Line(Structure):
    """Reply to BAUD: the serial line."""
    rate: int = wire("I", "its rate after this reply, bits per second")
    first: int = wire("I", "its rate after reset")
    maximum: int = wire("I", "fastest rate; 0 if the rate is fixed, or there is none")


@structure
class Store(Structure):
    """The model, as DRAM holds it, goes to flash in the background, and is loaded from there when DRAM holds none at
    reset. What the flash holds already is left alone, so that an interrupted Store costs only what is missing."""
    begin: int = wire("I", "1: begin; 0: only ask")


@structure
class Stored(Structure):
    """Reply to STORE: the flash, and how far it is."""
    state: int = wire("I", "StoreState")
    done: int = wire("I", "bytes of the image that were dealt with")
    written: int = wire("I", "of these, bytes that the flash did not hold already")
    flash_bytes: int = wire("I", "size of the flash; 0: none")
    room: int = wire("I", "most bytes of an image; what lies before is the bitstream's")
    failed: int = wire("I", "FAILED: byte of the image in whose sector it happened")
    boot: int = wire("I", "boot id")


@structure
class Board(Structure):
    """Reply to BOARD: what is around the core. It is answered whether or not DRAM works."""
    simulated: int = wire("I", "1: the DRAM's interface is a simulator's model")
    dram_status: int = wire("I", "1: DRAM initialised, trained and tested; 0: it failed")
    lanes: int = wire("I",
                      "byte lanes of the DRAM whose reads are trained; 0: this build's interface needs no training")
    delays: int = wire("I", "delays of a lane that training chooses from")
    bitslips: int = wire("I", "shifts by whole bits that it chooses from")
    pin_bytes: int = wire("I", "bytes that the DRAM's pins carry in a cycle of the system clock")
    banks: int = wire("I", "banks of the DRAM")
    row_bytes: int = wire("I", "bytes of a row in one bank; consecutive rows of the address space go to the banks in "
                               "turn")
    failed_offset: int = wire("I", "dram_status 0: first byte of the first place that failed the test at start")
    failed_bits: int = wire("I", "dram_status 0: bits of a 32-bit word that were wrong anywhere in it")
    flash_id: int = wire("I", "JEDEC ID of the flash for a model; 0: this build has none")
    boot: int = wire("I", "boot id")


@structure
class Lane(Structure):
    """One byte lane of the DRAM at one bitslip."""
    lane: int = wire("I", "byte lane: it carries the bytes whose address modulo Board.lanes is this")
    bitslip: int = wire("I", "0 up to Board.bitslips - 1")
    mask: int = wire("I", "bits of a 32-bit word that are looked at: those of the lane's bytes")


@structure
class Eye(Structure):
    """Reply to LANE: the wrong bits at each delay. Delay and bitslip are then again what training chose."""
    delay: int = wire("I", "that training chose for this lane")
    bitslip: int = wire("I", "that training chose for this lane")
    words: int = wire("I", "32-bit words that were read at each delay")
    boot: int = wire("I", "boot id")
    errors: tuple = tail("I", "wrong bits of those looked at, from delay 0 on")


@structure
class Memory(Structure):
    """Places of DRAM to be tested: PLACE_BYTES at each, with a pattern and its complement."""
    offset: int = wire("I", "first byte of the first place, a multiple of PLACE_BYTES")
    step: int = wire("I", "bytes from one place to the next, a multiple of PLACE_BYTES")
    count: int = wire("I", "places, 1 to MAX_PLACES")


@structure
class Tested(Structure):
    """Reply to MEMORY."""
    tested: int = wire("I", "places that were tested")
    bad: int = wire("I", "of these, places that did not hold what was written")
    first: int = wire("I", "first byte of the first bad one")
    last: int = wire("I", "first byte of the last bad one")
    bits: int = wire("I", "bits of a 32-bit word that were wrong anywhere")
    boot: int = wire("I", "boot id")


@structure
class Stream(Structure):
    """A piece of DRAM for the core to read."""
    offset: int = wire("I", "bytes, a multiple of 16")
    length: int = wire("I", "bytes, a multiple of 16, at most MAX_STREAM")


@structure
class Streamed(Structure):
    """Reply to STREAM, by the core's counters."""
    crc: int = wire("I", "CRC-32 of what was read")
    cycles: int = wire("I", "from the first beat's command to the last beat's result")
    beats: int = wire("I", "beats of 16 bytes")
    starved: int = wire("I", "cycles in which no beat had arrived")
    boot: int = wire("I", "boot id")


@structure
class Slots(Structure):
    """How to divide the K/V cache, which DRAM must have room for. Divided differently from now, all slots are empty."""
    count: int = wire("I", "slots, at most MAX_SLOTS; 0 only asks")
    length: int = wire("I", "positions of each, at most the model's context; 0: that")


@structure
class Slotted(Structure):
    """Reply to SLOTS: how the K/V cache is divided."""
    count: int = wire("I", "slots")
    length: int = wire("I", "positions of each")
    boot: int = wire("I", "boot id", default=0)
    reserved: int = wire("I", "0", default=0)


REQUESTS: dict[int, tuple[type[Structure] | None, type[Structure] | None]] = {
    Opcode.HELLO: (Hello, Device), Opcode.LOAD_BEGIN: (LoadBegin, Loaded), Opcode.LOAD: (Load, Loaded),
    Opcode.LOAD_END: (None, Verified), Opcode.GENERATE: (Generate, Accepted), Opcode.ABORT: (Abort, None),
    Opcode.RESEND: (Resend, Tokens), Opcode.STATS: (None, Stats), Opcode.RESET: (Reset, None),
    Opcode.READ: (Read, None),
    Opcode.BAUD: (Baud, Line), Opcode.STORE: (Store, Stored), Opcode.VERIFY: (Verify, Verified),
    Opcode.BOARD: (None, Board), Opcode.LANE: (Lane, Eye), Opcode.MEMORY: (Memory, Tested),
    Opcode.STREAM: (Stream, Streamed), Opcode.SLOTS: (Slots, Slotted),
}  #: request and reply payloads of each opcode
EVENTS: dict[int, type[Structure]] = {Opcode.TOKENS: Tokens, Opcode.LOGITS: Logits, Opcode.DONE: Done}
