"""Opens the backend a caller asks for, with its model in place: ``connect(port=...)``, ``connect(sim=True)``,
``connect(golden=True)``."""
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from llama2_host.image import fit
from llama2_host.device import store
from llama2_host.backend import Backend
from llama2_host.combinations import CHOOSE, PLACES, Given, check, check_types
from llama2_host.device.device import Device, DeviceGeneration
from llama2_host.device.link import DeviceError
from llama2_host.errors import HostError
from llama2_host.generation import OptionError, Options
from llama2_host.image.discovery import default_model
from llama2_host.files import is_image
from llama2_host.image.model import Model, known_options
from llama2_host.progress import Progress
from llama2_host.device.remote import model_on
from llama2_host.device.simulator import COLUMNS, Simulator
from llama2_host.device.transport import DEFAULT_BAUD
from llama2_spec.protocol import MAX_BAUD, Status

SIMULATOR_HELLO_TRIES = 60  #: 1 + 2 + 4 + 4 + ... s: it boots at a few hundred kHz, on a busy machine at fewer
DEFAULT_SLOTS = 4          #: that a server asks for
RECONNECT_S = 30.0         #: how long a chat waits for a device that was restarted


class DeviceBackend(Backend):
    """A model on a device."""

    def __init__(self, device: Device, model: Model, simulator: Simulator | None = None):
        self.device, self.model, self.simulator = device, model, simulator
        self.name = "simulator" if simulator else "device"
        self.clock_hz = device.info.clock_hz

    @property
    def slots(self) -> int:     # type: ignore[override]    # mypy: a class's constant, which is a property here
        return self.device.slots

    def generate(self, ids: Sequence[int], options: Options, **more) -> DeviceGeneration:
        """``slot`` chooses one of :attr:`slots`; the others go on."""
        return self.device.generate(ids, options, **more)

    def divide(self, count: int | None, *, most: int = DEFAULT_SLOTS) -> None:
        """Divide the K/V cache into so many slots, each as long as the model's context; None: as many as there is room
        for, at most ``most``."""
        if count is not None:
            if count == 0:
                raise OptionError("slots is at least 1, not 0")
            self.device.divide(count)
            return
        for fewer in range(most, 0, -1):
            try:
                self.device.divide(fewer)
                return
            except DeviceError as error:
                if error.status not in (Status.NO_MEMORY, Status.BAD_OPCODE) or fewer == 1:
                    raise

    def settle(self) -> None:
        self.device.hello()

    def close(self) -> None:
        self.device.close()

    def __exit__(self, *error) -> None:
        self.close()
        if self.simulator is not None:
            self.simulator.__exit__(*error)


def connect(*, port: str | None = None, sim: bool = False, golden: bool = False, model: str | Path | None = None,
            tokenizer: str | Path | None = None, upload: bool = False, baud: int | None = None,
            max_baud: int | None = None, wait_s: float = 0.0,
            flash: bool = False, slots: int | None = None, columns: int | None = None, trace: TextIO | None = None,
            progress: Progress = Progress.silent, **conversion) -> Backend:
    """A backend with ``model`` (an image, or a checkpoint that is converted on the way) ready to generate.

    Without ``model`` a device's own is used; the simulator and golden take the project's default model. ``upload``
    sends the model to the simulator over its UART instead of preloading it. A serial line starts at ``baud`` and goes
    to the fastest rate up to ``max_baud`` that works. ``slots`` is how many generations a device shall run at a time
    (:meth:`DeviceBackend.divide`). ``columns`` are those of the simulated core. ``flash`` refuses a model that the
    board's flash has no room for.
    ``conversion`` is for :meth:`llama2_host.image.model.Model.load`.
    """
    check_options({"port": port, "sim": sim, "golden": golden, "upload": upload, "baud": baud, "max_baud": max_baud,
                   "flash": flash, "slots": slots, "columns": columns,
                   **conversion}, model, tokenizer, trace)
    if model is None and port is None:
        model = default_model()
    loaded = Model.load(model, tokenizer=tokenizer, progress=progress, **conversion) if model is not None else None
    if golden:
        assert loaded is not None           # without a port there always is a model
        from llama2_host.integer import GoldenBackend
        return GoldenBackend(loaded)
    if sim:
        assert loaded is not None
        return simulate(loaded, upload=upload, slots=slots, columns=columns, trace=trace, progress=progress)
    assert port is not None                 # without one, and none of the others, check_options has complained
    device = Device.open(port, baud=baud or DEFAULT_BAUD, trace=trace, wait_s=wait_s, progress=progress)
    try:
        if flash:
            store.check(loaded.expected_bytes if loaded else device.info.image_bytes, device.flash())
        rate = device.hurry(most=max_baud or MAX_BAUD, progress=progress)
        progress.detail(f"{port}: firmware {device.info.firmware}{f', {rate} baud' if rate else ''}, model "
                        f"{device.info.name or 'none'}")
        held = put(device, loaded, tokenizer=tokenizer, progress=progress, **conversion)
        return with_slots(DeviceBackend(device, held), slots)
    except BaseException:
        device.close()
        raise


def check_options(options: dict, model: str | Path | None, tokenizer: str | Path | None, trace: TextIO | None) -> None:
    """Refuse what is of a wrong type, and what cannot take effect, before anything is opened."""
    check_types(options | {"model": model, "tokenizer": tokenizer}, known=known_options())
    where = [name for name in PLACES if options[name] not in (None, False)]
    if not where:
        raise HostError(CHOOSE)
    kind = ("image" if is_image(Path(model)) else "checkpoint") if model is not None else \
        "device" if where == ["port"] else "default"
    check(Given(options | {"trace": trace}, where[0], kind))
    if options["columns"] not in (None, *COLUMNS):
        raise OptionError(f"columns is {', '.join(map(str, COLUMNS[:-1]))} or {COLUMNS[-1]}, not {options['columns']}")


def with_slots(backend: DeviceBackend, slots: int | None) -> DeviceBackend:
    """Divided as was asked for; without a word, slots that an earlier client made shorter are made one."""
    if slots is not None or backend.device.info.seq_len < backend.config.seq_len:
        backend.divide(1 if slots is None else slots)
    return backend


def simulate(model: Model, *, upload: bool = False, slots: int | None = None, columns: int | None = None,
             trace: TextIO | None = None, progress: Progress = Progress.silent) -> DeviceBackend:
    """Start the simulator, of a core with so many ``columns``, with ``model`` preloaded, or uploaded."""
    simulator = Simulator(None if upload else model.path, progress=progress,
                          arguments=("--columns", str(columns)) if columns else ())
    try:
        progress.note("simulator: booting")
        device = Device.open(simulator.url, trace=trace, wait_s=5.0, hello_tries=SIMULATOR_HELLO_TRIES,
                             progress=progress)
        fit.check(model.config, len(model.data), device.info)
        if not upload:
            device.require_model()
        return with_slots(DeviceBackend(device, put(device, model, progress=progress), simulator), slots)
    except BaseException:
        simulator.stop()
        raise


def put(device: Device, model: Model | None, *, tokenizer=None, progress: Progress = Progress.silent,
        template: str | None = None, **_) -> Model:
    """Make ``model`` the device's, uploading only what it does not have; without one, use what it has."""
    if model is None:
        device.require_model()
        return model_on(device, tokenizer=tokenizer, template=template, progress=progress)
    fit.check(model.config, model.expected_bytes, device.info)      # before a conversion that would be in vain
    if not device.holds(header_crc=model.header_crc, payload_crc=model.payload_crc):
        fit.check(model.config, len(model.data), device.info)
        device.load(model.data, progress=progress)
        device.require_model()
    return model
