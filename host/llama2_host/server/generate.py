"""The two requests that generate: /v1/chat/completions and /v1/completions, streaming and not."""
import asyncio
import json
from collections.abc import AsyncIterator, Callable

from sse_starlette import EventSourceResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from llama2_host.errors import HostError
from llama2_host.server import asked as requests
from llama2_host.server.adapter import Words
from llama2_host.server.answers import Answer
from llama2_host.server.asked import Asked
from llama2_host.server.errors import ApiError, refused
from llama2_host.server.fields import parse
from llama2_host.server.job import End, Job, Progress
from llama2_host.server.pool import Pool
from llama2_host.server.reply import Gone, Reply, dump, read_body
from llama2_host.server.settings import SEND_TIMEOUT_S, Settings
from llama2_host.server.text import TextStream
from llama2_host.tokenizer.base import Decoder


class Generator:
    """Turns requests into jobs, and what comes of them into answers."""

    def __init__(self, settings: Settings, pool: Pool, words: Words):
        self.settings, self.pool, self.words = settings, pool, words

    async def chat(self, request: Request):
        return await self._answer(request, requests.chat, chat=True)

    async def completion(self, request: Request):
        return await self._answer(request, requests.completion, chat=False)

    async def _answer(self, request: Request, read: Callable[..., Asked], *, chat: bool):
        body = await self.read(request)
        asked = read(body, self.settings.sampling, self.settings.model)
        ids = (await run_in_threadpool(self.chat_ids, asked.messages) if chat
               else await run_in_threadpool(self.prompt_ids, asked.prompt))
        job = self._job(asked, ids, chat)
        answer = Answer(asked, job, self.words, self.settings.model, chat=chat)
        self.pool.submit(job)
        try:
            first = await attend(request, job.next())       # a failure before it is an answer of its own
            if not asked.stream:
                return await attend(request, self._whole(job, answer, first))
        except BaseException:
            self.pool.cancel(job)
            raise
        return EventSourceResponse(self._stream(job, answer, first), sep="\n", ping=self.settings.ping_s,
                                   send_timeout=SEND_TIMEOUT_S)

    async def read(self, request: Request) -> dict:
        """The object in a request's body."""
        return parse(await read_body(request, most_bytes=self.settings.max_body_bytes,
                                     within_s=self.settings.body_timeout_s))

    # Prompts ----------------------------------------------------------------------------------

    def chat_ids(self, messages: list[dict[str, str]]) -> list[int]:
        """Ids of a conversation; it ends with the user."""
        self.check_messages(messages)
        try:
            return self._checked("messages", self.words.chat_ids(messages))
        except HostError as error:
            raise refused("messages", str(error)) from None

    def check_messages(self, messages: list[dict[str, str]]) -> None:
        if messages[-1]["role"] != "user":
            raise refused("messages", f"the last one is the {messages[-1]['role']}'s, expected the user's")
        self.check_length("messages", sum(len(message["content"].encode()) for message in messages))

    def prompt_ids(self, prompt: str | list[int]) -> list[int]:
        """Ids of a text that is continued; nothing at all begins a new one."""
        if isinstance(prompt, str):
            self.check_length("prompt", len(prompt.encode()))
            try:
                prompt = self.words.tokenizer.encode(prompt) if prompt else []
            except HostError as error:
                raise refused("prompt", str(error)) from None
        return self._checked("prompt", prompt or [self.words.start_id])

    def check_length(self, field: str, count: int) -> None:
        """A text that cannot fit is refused before it is encoded, which takes its time."""
        seq_len, longest = self.words.config.seq_len, self.words.longest_bytes
        if count > seq_len * longest:
            raise self._too_long(field, f"{count} bytes")

    def _checked(self, field: str, ids: list[int]) -> list[int]:
        config = self.words.config
        for id in ids:
            if not 0 <= id < config.vocab_size:
                raise refused(field, f"token id {str(id)[:40]}, the vocabulary has {config.vocab_size}")
        if len(ids) > config.seq_len:
            raise self._too_long(field, f"{len(ids)} tokens")
        return ids

    def _too_long(self, field: str, found: str) -> ApiError:
        return refused(field, f"{found}, the context has {self.words.config.seq_len} positions: send less",
                       "context_length_exceeded")

    # Jobs -------------------------------------------------------------------------------------

    def _job(self, asked: Asked, ids: list[int], chat: bool) -> Job:
        room = self.words.config.seq_len - len(ids) + 1
        if chat:
            # Where each turn is a text of its own the answer is one, too, and begins without the space that encoding
            # puts first.
            decoder = Decoder(self.words.tokenizer, after_bos=self.words.template.bos_every_turn)
        else:
            decoder = Decoder(self.words.tokenizer)
            for id in ids:              # so that the answer begins in the middle of the text, as it is
                decoder.feed(id)
        return Job(ids, max_new=min(asked.max_tokens or room, room), sampling=asked.sampling,
                   stop_ids=self.words.stop_ids,
                   text=TextStream(decoder, asked.stops), cache=asked.cache, logprobs=asked.logprobs)

    async def _whole(self, job: Job, answer: Answer, item: Progress | End) -> Reply:
        texts, said = [], []
        while True:
            texts.append(item.piece.text)
            said += item.piece.tokens
            if isinstance(item, End):
                return Reply(answer.whole("".join(texts), said, item))
            item = await job.next()

    async def _stream(self, job: Job, answer: Answer, item: Progress | End) -> AsyncIterator[dict]:
        """Server-sent events; one that fails on the way ends with an error object, as OpenAI's do."""
        event = lambda chunk: {"data": dump(chunk)}
        try:
            if chunk := answer.first():
                yield event(chunk)
            while not isinstance(item, End):
                if chunk := answer.more(item):
                    yield event(chunk)
                item = await job.next()
            for chunk in answer.last(item):
                yield event(chunk)
            yield {"data": "[DONE]"}
        except ApiError as error:
            yield {"data": json.dumps(error.body())}
        finally:
            self.pool.cancel(job)       # of no effect on one that has ended


async def attend(request: Request, work):
    """What ``work`` returns, unless the client leaves before; then :class:`Gone`."""
    task, left = asyncio.ensure_future(work), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait([task, left], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Gone
    finally:
        for future in (task, left):
            future.cancel()
