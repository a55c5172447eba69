"""The server as an ASGI application: routes, what they answer, and what stands before them."""
import contextlib
import time
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from llama2_host.errors import HostError
from llama2_host.server.adapter import Words
from llama2_host.server.asked import read_messages
from llama2_host.server.errors import ApiError, refused
from llama2_host.server.fields import Fields, shown
from llama2_host.server.generate import Generator
from llama2_host.server.guard import Guard
from llama2_host.server.metrics import Metrics
from llama2_host.server.pool import Pool
from llama2_host.server.reply import Gone, Reply
from llama2_host.server.settings import Settings
from llama2_host.statistics import saturations


def create_app(settings: Settings, pool: Pool, words: Words) -> Starlette:
    """An application around open boards; its lifespan runs the pool."""
    metrics, routes = Metrics(pool), Routes(settings, pool, words)

    @contextlib.asynccontextmanager
    async def lifespan(app):
        pool.start()
        try:
            yield
        finally:
            await pool.stop()

    async def metrics_page(request: Request) -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    middleware = [Middleware(Guard, names=settings.names, keys=settings.keys, origins=settings.origins,
                             seen=metrics.seen)]
    if settings.origins:
        middleware.append(Middleware(CORSMiddleware, allow_origins=list(settings.origins),
                                     allow_methods=["GET", "POST"],
                                     allow_headers=["authorization", "content-type"]))
    handlers: dict[Any, Any] = {ApiError: on_api_error, Gone: on_gone, HTTPException: on_http_error, Exception: on_bug}
    return Starlette(routes=[*routes.table(), Route("/metrics", metrics_page)], middleware=middleware,
                     lifespan=lifespan,
                     exception_handlers=handlers)


class Routes:
    """Everything but /metrics."""

    def __init__(self, settings: Settings, pool: Pool, words: Words):
        self.settings, self.pool, self.words = settings, pool, words
        self.generator = Generator(settings, pool, words)
        self.started = int(time.time())

    def table(self) -> list:
        post = lambda path, endpoint: Route(path, endpoint, methods=["POST"])
        return [
            post("/v1/chat/completions", self.generator.chat), post("/v1/completions", self.generator.completion),
            Route("/v1/models", self.models), Route("/v1/models/{name:path}", self.model),
            Route("/health", self.health), Route("/props", self.props), Route("/boards", self.boards),
            post("/tokenize", self.tokenize), post("/detokenize", self.detokenize),
            post("/apply-template", self.apply_template),
            Route("/", self.index), Mount("/page", StaticFiles(directory=self.settings.page)),
        ]

    async def index(self, request: Request) -> Response:
        return FileResponse(self.settings.page / "index.html", headers={"Cache-Control": "no-cache"})

    async def health(self, request: Request) -> Response:
        if not self.pool.ready:
            raise self.pool.no_board()
        return Reply({"status": "ok", "boards": len(self.pool.ready), "waiting": self.pool.waiting})

    # Models and boards ------------------------------------------------------------------------

    async def models(self, request: Request) -> Response:
        return Reply({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name != self.settings.model:
            raise ApiError(404, f"model: {shown(name)} is not here, this server has {self.settings.model!r}",
                           param="model",
                           code="model_not_found")
        return Reply(self._model())

    def _model(self) -> dict:
        config = self.words.config
        return {"id": self.settings.model, "object": "model", "created": self.started, "owned_by": "llama2-host",
                "meta": {"n_vocab": config.vocab_size, "n_ctx": config.seq_len, "n_embd": config.dim,
                         "n_layer": config.n_layers}}

    async def props(self, request: Request) -> Response:
        """As llama.cpp's clients ask for it."""
        template, sampling = self.words.template, self.settings.sampling
        return Reply({
            "default_generation_settings": {"n_ctx": self.words.config.seq_len, "params": {
                "temperature": sampling.temperature, "top_p": sampling.top_p or 1.0, "top_k": sampling.top_k,
                "min_p": sampling.min_p, "repeat_penalty": sampling.repetition_penalty,
                "repeat_last_n": sampling.repetition_window}},
            "total_slots": sum(seat.board.slots for seat in self.pool.seats), "model_alias": self.settings.model,
            "chat_template": template.jinja or template.user, "template": template.name,
            "system_prompt": bool(template.jinja or template.system), "modalities": {"vision": False, "audio": False},
            "key_needed": bool(self.settings.keys)})

    async def boards(self, request: Request) -> Response:
        """What runs the model, and where the last answer's cycles went."""
        return Reply({"boards": [self._board(seat) for seat in self.pool.seats]})

    def _board(self, seat) -> dict:
        board, backend = seat.board, seat.board.backend
        info = getattr(getattr(backend, "device", None), "info", None)
        shape = {"firmware": info.firmware, "columns": info.columns, "lanes": info.lanes,
                 "dram_bytes": info.dram_bytes} if info else {}
        errors = saturations(board.stats.errors) if board.stats else []
        return {"name": board.name, "ready": seat.ready, "kind": backend.name if backend else None,
                "clock_hz": backend.clock_hz if backend else 0, "running": seat.running is not None,
                "waiting": len(seat.waiting),
                "slots": board.slots, "running_slots": len(seat.jobs),
                "positions": sum(map(len, list(board.held.values()))), "errors": errors, **shape,
                "last": board.hardware.to_json() if board.hardware else None}

    # Tokens -----------------------------------------------------------------------------------

    async def tokenize(self, request: Request) -> Response:
        fields = Fields(await self.generator.read(request))
        content, special = fields.text("content"), fields.boolean("add_special")
        pieces = fields.boolean("with_pieces")
        fields.neutral("parse_special", (True,), "special tokens in a text are always taken as such")
        fields.finish()
        if content is None:
            raise refused("content", "missing, expected a string", "missing")
        ids = await run_in_threadpool(self._encode, content, special)
        piece = lambda id: self.words.piece(id).decode("utf-8", "replace")
        return Reply({"tokens": [{"id": id, "piece": piece(id)} for id in ids] if pieces else ids})

    def _encode(self, content: str, bos: bool) -> list[int]:
        self.generator.check_length("content", len(content.encode()))
        try:
            return self.words.tokenizer.encode(content, bos=bos)
        except HostError as error:
            raise refused("content", str(error)) from None

    async def detokenize(self, request: Request) -> Response:
        fields = Fields(await self.generator.read(request))
        ids = fields.take("tokens")
        fields.finish()
        size = self.words.tokenizer.vocab_size
        if not isinstance(ids, list) or not all(isinstance(id, int) and not isinstance(id, bool) and 0 <= id < size
                                                for id in ids):
            raise refused("tokens", f"expected an array of token ids from 0 to {size - 1}", "invalid_type")
        return Reply({"content": await run_in_threadpool(self.words.tokenizer.decode, ids)})

    async def apply_template(self, request: Request) -> Response:
        fields = Fields(await self.generator.read(request))
        messages = read_messages(fields)
        fields.finish()
        self.generator.check_messages(messages)
        try:
            return Reply({"prompt": await run_in_threadpool(self.words.render, messages)})
        except HostError as error:
            raise refused("messages", str(error)) from None


async def on_api_error(request: Request, error: ApiError) -> Response:
    return Reply.error(error)


async def on_gone(request: Request, error: Gone) -> Response:
    return Response(status_code=499)        # for the log: nobody reads it


async def on_http_error(request: Request, error: HTTPException) -> Response:
    """What the router has no route for."""
    message = {404: f"there is no {request.url.path[:80]} here", 405: f"{request.method[:20]} is not for this path"}
    return Reply.error(ApiError(error.status_code, message.get(error.status_code, str(error.detail)),
                                headers=dict(error.headers or {})))


async def on_bug(request: Request, error: Exception) -> Response:
    return Reply.error(ApiError(500, f"the server failed: {type(error).__name__}", code="internal_error"))
