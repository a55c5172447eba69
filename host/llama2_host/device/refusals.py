"""Says in one line, with the arithmetic, why a device refused a request."""
from llama2_spec.protocol import VERSION, Error, Opcode, Status, Subject

from llama2_host.progress import quantity

LIMITS = {
    Subject.DIM: "dim (or n_heads * head_dim)", Subject.HIDDEN_DIM: "hidden_dim", Subject.HEAD_DIM: "head_dim",
    Subject.KV_DIM: "n_kv_heads * head_dim", Subject.HEADS: "n_heads", Subject.KV_HEADS: "n_kv_heads",
    Subject.VOCAB_SIZE: "vocab_size", Subject.SEQ_LEN: "seq_len", Subject.LAYERS: "n_layers",
    Subject.BAUD: "rate", Subject.CONFIRM: "confirm_ms",
    Subject.KV_FORMAT: "K/V format", Subject.SLOT: "slot",
}

TEXTS = {
    Status.BAD_OPCODE: "the firmware does not know {opcode}: build client and firmware from the same sources",
    Status.BAD_LENGTH: "the device expected {limit} bytes in {opcode}, not {value}: build client and firmware from the "
                       "same sources",
    Status.BAD_VERSION: "the device speaks version {limit}, this request has version {value}: "
                        "build client, image and firmware from the same sources",
    Status.BAD_VALUE: "{opcode}: {subject} = {value} is out of range (limit {limit})",
    Status.BUSY: "the device is busy with a generation or a check and cannot do {opcode} now: try again in a moment",
    Status.NO_MODEL: "the device has no model: name one with --model",
    Status.NO_DRAM: "the device's DRAM did not initialise: power-cycle the board; if it stays, the memory or the build "
                    "is bad",
    Status.OUT_OF_ORDER: "upload out of order: the device waits for offset {limit}, got {value}",
    Status.NOT_LOADING: "the device forgot the upload (was it reset?): load the model again",
    Status.INCOMPLETE: "the upload is incomplete: {value} of {limit} bytes arrived",
    Status.BAD_MAGIC: "what the device's memory holds is not a model image: load one with --model",
    Status.BAD_HEADER: "the image on the device is damaged: its header has CRC {value:#010x}, should be {limit:#010x}: "
                       "load it again",
    Status.BAD_PAYLOAD: "the image on the device is damaged: its tensors have CRC {value:#010x}, should be "
                        "{limit:#010x}: load it again",
    Status.BAD_DIRECTORY: "the image's tensor number {value} is not what the decoder needs there: convert the "
                          "checkpoint again",
    Status.TOO_LARGE: "the model's {subject} is {value}, this device's maximum is {limit}: "
                      "use a smaller model or a build with larger maxima",
    Status.NO_MEMORY: "the model needs {value_bytes} for image and K/V cache, the device has {limit_bytes}: "
                      "convert with a smaller --seq-len, with --kv k8v8 or --format q4, or use a smaller model",
    Status.BAD_POSITION: "position {value} is past what the K/V cache holds ({limit} positions): send the whole prompt "
                         "again",
    Status.CONTEXT_FULL: "the prompt ends at position {value}, the context has {limit} positions: shorten the prompt",
    Status.BAD_TOKEN: "token id {value} is outside the vocabulary of {limit}: wrong tokenizer for this model?",
    Status.NO_FLASH: "this build has no flash for a model (JEDEC ID {value:#x}): build the board with "
                     "--with-spi-flash, or load without --flash",
    Status.FLASH_SMALL: "the model image has {value_bytes}, the flash room for {limit_bytes}: convert with --format q4 "
                        "or use a smaller model",
    Status.FORGOTTEN: "the device does not know generation {value} any more: it was restarted, or another client began",
    Status.OUT_OF_RANGE: "reading up to byte {value} of DRAM, which has {limit} bytes",
}


def explain(opcode: Opcode, status: int, error: Error) -> str:
    """One line for a refusal of ``opcode``."""
    try:
        text = TEXTS[Status(status)]
    except (KeyError, ValueError):
        return f"the device refused {opcode.name} with status {status} unknown to this client (protocol {VERSION})"
    try:
        subject = Subject(error.subject)
        name = LIMITS.get(subject, subject.name.lower())
    except ValueError:
        name = f"field {error.subject}"
    if (Status(status), opcode) == (Status.NO_MEMORY, Opcode.SLOTS):
        text = "so many slots need {value_bytes} with the image, the device has {limit_bytes}: choose fewer slots " \
               "(--slots), or convert with a smaller --seq-len or with --kv k8v8"
    if Status(status) == Status.BAD_VALUE and name == "config":
        return "the model's shapes contradict each other: convert the checkpoint again"
    if Status(status) == Status.BAD_VALUE and name == "K/V format":
        return f"the image keeps K and V in format {error.value}, which this firmware does not know: build " \
               "client and firmware " \
               "from the same sources, or convert with another --kv"
    return text.format(opcode=opcode.name, subject=name, value=error.value, limit=error.limit,
                       value_bytes=quantity(error.value), limit_bytes=quantity(error.limit))
