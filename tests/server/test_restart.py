"""A board that was restarted between two requests: nothing of its K/V cache is believed, and it must hold the same
model."""
import pytest

from llama2_host.connection import connect
from llama2_host.image.model import Model
from llama2_spec import protocol
from llama2_spec.protocol import ModelState, Status
from tests.host.fake_device import FakeDevice
from tests.server.running import Running
from tests.waiting import until

A = 3 + ord("a")


class Board(FakeDevice):
    """A device that can be restarted; it knows then which rows it holds, and answers with its boot id."""

    def restart(self, **info):
        self.info |= {"boot": self.info.get("boot", 0) + 1} | info
        self.rows = 0

    def on_generate(self, frame):
        request = protocol.Generate.unpack(frame.payload)
        error = lambda value, limit: protocol.Error(0, value, limit, boot=self.info.get("boot", 0))
        if self.info["model_state"] != ModelState.READY:
            return Status.NO_MODEL, error(0, 0)
        if request.position > getattr(self, "rows", 0):
            return Status.BAD_POSITION, error(request.position, self.rows)
        status, accepted = super().on_generate(frame)
        return status, protocol.Accepted(accepted.position, boot=self.info.get("boot", 0))

    def _end(self, reason):
        self.rows = self.first - 1 + len(self.tokens)
        super()._end(reason)


@pytest.fixture
def board(image):
    model = Model.load(image)
    with Board(script=lambda position: A, memory=model.data, image_bytes=len(model.data), header_crc=model.header_crc,
               seq_len=256,
               payload_crc=model.payload_crc, vocab_size=259) as device:
        yield device


@pytest.fixture
def server(board):
    with Running(lambda: connect(port=board.url)) as running:
        yield running


def cached(answer):
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["text"] == "aa"
    return answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]


def positions(board):
    return [(request.position, len(request.ids)) for request in map(protocol.Generate.unpack, (
        frame.payload for frame in board.requests if frame.opcode == protocol.Opcode.GENERATE))]


def test_a_board_that_was_restarted_is_fed_everything_again(board, server):
    assert cached(server.complete("hello", max_tokens=2)) == 0
    assert cached(server.complete("helloaa", max_tokens=2)) == 8        # BOS, a space, hello and the first a
    board.restart()
    assert cached(server.complete("helloaaaa", max_tokens=2)) == 0
    assert positions(board)[-1] == (0, 11) and server.pool.lost == 1
    assert cached(server.complete("helloaaaaaa", max_tokens=2)) == 12


def test_a_restart_that_asks_for_no_rows_is_no_failure(board, server):
    assert cached(server.complete("hello", max_tokens=2)) == 0
    board.restart()
    assert cached(server.complete("other", max_tokens=2, cache_prompt=False)) == 0


@pytest.mark.parametrize("lost, back, said", [
    ({"model_state": ModelState.NONE}, {"model_state": ModelState.READY}, "no model"),
    ({"payload_crc": 1}, {}, "another model")])
def test_a_board_that_forgot_its_model_is_out_until_it_has_it(board, server, image, lost, back, said):
    assert cached(server.complete("hello", max_tokens=2)) == 0
    board.restart(**lost)
    gone = server.complete("helloaa", max_tokens=2)
    assert gone.status_code == 503 and int(gone.headers["retry-after"]) > 0
    assert server.client.get("/health").status_code == 503
    board.restart(**{"payload_crc": Model.load(image).payload_crc} | back)
    until(lambda: server.client.get("/health").status_code == 200)
    assert cached(server.complete("helloaa", max_tokens=2)) == 0
    assert any(said in note for note in server.notes), server.notes
