"""What a script asks for is checked before anything runs: types, unknown names, stop tokens, two texts at a time;
golden's side."""
import pytest

from llama2_host import connect
from llama2_host.device.device import Device
from llama2_host.errors import HostError
from llama2_host.generation import OptionError, Options, OptionTypeError, Sampling
from llama2_spec.protocol import MAX_STOPS, Reason
from tests.host.fake_device import FakeDevice

GREEDY = Sampling(temperature=0)


@pytest.fixture
def golden(files):
    with connect(golden=True, model=files / "tiny.bin") as backend:
        yield backend


@pytest.mark.parametrize("fields", [{"seed": 1.5}, {"top_k": 2.0}, {"temperature": "1"}, {"top_p": None},
                                    {"seed": True}, {"speculate": "2"},
                                    {"repetition_window": 3.5}, {"temperature": True}])
def test_sampling_of_a_wrong_type(fields):
    with pytest.raises(OptionTypeError, match="not"):
        Sampling(**fields).fixed()


@pytest.mark.parametrize("ids, options", [
    (b"bytes", Options()), ("text", Options()), ([1.5], Options()), ([True], Options()), ([1], Options(max_new=2.5)),
    ([1], Options(position=1.0)), ([1], Options(stops="ab")), ([1], Options(stops=(2.5,))), (5, Options()),
    ([1], Options(sampling={}))])
def test_request_of_a_wrong_type(golden, ids, options):
    with pytest.raises(OptionTypeError):
        golden.generate(ids, options)
    with FakeDevice() as fake, Device.open(fake.url) as device, pytest.raises(OptionTypeError):
        device.generate(ids, options)


@pytest.mark.parametrize("prompt, options", [(b"bytes", {}), ("x", {"steps": 2.5}), ("x", {"seed": 1.5}), (7, {}),
                                             ([1.0], {}), ("x", {"steps": True})])
def test_write_of_a_wrong_type(golden, prompt, options):
    with pytest.raises(OptionTypeError):
        golden.write(prompt, **options)


@pytest.mark.parametrize("where, message", [((4.0, 4), "whole number"), ((0, "4"), "whole number"),
                                            ((2, 4), "multiple of 4"), ((0, -4), "multiple of 4")])
def test_read_of_a_wrong_place(where, message):
    with FakeDevice(memory=bytes(64)) as fake, Device.open(fake.url) as device, pytest.raises(
            OptionError, match=message):
        device.read(*where)


def test_unknown_names(golden, files):
    with pytest.raises(TypeError, match="temprature"):
        golden.write("x", temprature=1)
    with pytest.raises(TypeError, match="fromat"):
        connect(golden=True, model=files / "tiny.bin", fromat="q4")
    with FakeDevice() as fake, pytest.raises(TypeError, match="fromat"):
        connect(port=fake.url, fromat="q4")


def test_as_many_stops_as_the_protocol_has(golden):
    list(golden.generate([1], Options(max_new=1, sampling=GREEDY, stops=tuple(range(3, 3 + MAX_STOPS)))))
    for stops in (tuple(range(MAX_STOPS + 1)),):
        with pytest.raises(OptionError, match=f"at most {MAX_STOPS} stop tokens, not {MAX_STOPS + 1}"):
            golden.generate([1], Options(stops=stops))
    with FakeDevice(script=lambda position: 31 if position == 4 else 9) as fake, Device.open(fake.url) as device:
        generation = device.generate([1], Options(max_new=50, sampling=GREEDY,
                                                  stops=tuple(range(40, 40 + MAX_STOPS - 1)) + (31,)))
        assert [event.token for event in generation] == [9, 9, 9, 31] and generation.outcome.reason == Reason.STOP


def test_no_ids_is_one_line(golden):
    with pytest.raises(HostError, match="at least one token id"):
        golden.generate([], Options())


def test_newer_generation_ends_the_older_one_truly(golden):
    alone = [event.token for event in golden.generate([1, 50], Options(0, 10, GREEDY, ()))]
    older = golden.generate([1, 40], Options(0, 20, GREEDY, ()))
    next(older)
    newer = golden.generate([1, 50], Options(0, 10, GREEDY, ()))
    first = next(newer).token
    with pytest.raises(HostError, match="ended by a newer one"):
        next(older)
    assert older.abort() == []
    assert [first, *(event.token for event in newer)] == alone


def test_generation_that_ended_is_not_disturbed_by_the_next(golden):
    older = golden.generate([1, 40], Options(0, 3, GREEDY, ()))
    assert len(list(older)) == 3
    golden.generate([1, 50], Options(0, 3, GREEDY, ()))
    assert list(older) == [] and older.outcome.reason == Reason.LENGTH


@pytest.mark.parametrize("steps, reason", [(20, Reason.LENGTH), (32, Reason.CONTEXT), (33, Reason.CONTEXT),
                                           (1000, Reason.CONTEXT)])
def test_full_context_is_the_reason(golden, steps, reason):
    writing = golden.write([1, 40], steps=steps, temperature=0, stops=())
    events = list(writing.tokens())
    assert writing.outcome.reason == reason and len(events) == min(steps, 32) - 1


def test_aborted_first_turn_leaves_the_backend_whole(golden):
    whole = [event.token for event in golden.generate([1, 40, 50], Options(0, 8, GREEDY, ()))]
    generation = golden.generate([1, 40], Options(0, 8, GREEDY, ()))
    assert generation.abort() == [] and generation.outcome.reason == Reason.ABORT
    assert list(golden.generate([1, 40], Options(0, 0))) == []
    assert [event.token for event in golden.generate([50], Options(2, 8, GREEDY, ()))] == whole
