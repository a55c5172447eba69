"""What a generation is answered with: OpenAI's objects for completions and chats, whole and in chunks."""
# Ref: OpenAI API reference, Chat and Completions; llama.cpp, tools/server/README.md for timings
import secrets
import time

from llama2_host.server.adapter import Words
from llama2_host.server.asked import Asked
from llama2_host.server.job import End, Job, Progress, Said


class Answer:
    """Builds the objects of one answer. ``chat`` chooses between the two kinds."""

    def __init__(self, asked: Asked, job: Job, words: Words, model: str, *, chat: bool):
        self.asked, self.job, self.words, self.model, self.chat = asked, job, words, model, chat
        self.id = ("chatcmpl-" if chat else "cmpl-") + secrets.token_hex(12)
        self.created = int(time.time())
        self._characters = 0            # said so far, for text_offset

    # Whole ------------------------------------------------------------------------------------

    def whole(self, text: str, said: list[Said], end: End) -> dict:
        """The answer of a request that does not stream."""
        choice = {"index": 0, "finish_reason": end.finish, "logprobs": self.logprobs(said)}
        choice |= {"message": {"role": "assistant", "content": text, "refusal": None}} if self.chat else {"text": text}
        if self.asked.return_tokens:
            choice["tokens"] = [event.token for event in self.job.events]
        return self._object("chat.completion" if self.chat else "text_completion", [choice]) | {
            "usage": self.usage(end), "timings": self.timings(end)}

    # Chunks -----------------------------------------------------------------------------------

    def first(self) -> dict | None:
        """What a stream begins with."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None}) if self.chat else None

    def more(self, progress: Progress) -> dict | None:
        """The next chunk; None while there is nothing to show."""
        piece = progress.piece
        if not piece.text and not piece.tokens and not self.asked.timings_per_token:
            return None
        chunk = self._chunk({"content": piece.text} if self.chat else piece.text, piece.tokens)
        if self.asked.timings_per_token:
            chunk["timings"] = {"predicted_n": progress.tokens, "cycles": progress.cycles}
        return chunk

    def last(self, end: End) -> list[dict]:
        """The rest of the text, why it ended, and the usage if it was asked for."""
        chunks = []
        if end.piece.text or end.piece.tokens:
            chunks.append(self._chunk({"content": end.piece.text} if self.chat else end.piece.text, end.piece.tokens))
        chunks.append(self._chunk({} if self.chat else "", finish=end.finish) | {"timings": self.timings(end)})
        if self.asked.include_usage:
            chunks = [chunk | {"usage": None} for chunk in chunks]
            chunks.append(self._object(self._chunk_kind, []) | {"usage": self.usage(end), "timings": self.timings(end)})
        return chunks

    @property
    def _chunk_kind(self) -> str:
        return "chat.completion.chunk" if self.chat else "text_completion"

    def _chunk(self, delta, said: list[Said] | None = None, finish: str | None = None) -> dict:
        choice = {"index": 0, ("delta" if self.chat else "text"): delta, "finish_reason": finish,
                  "logprobs": self.logprobs(said) if said else None}
        if self.asked.return_tokens and said:
            choice["tokens"] = [one.id for one in said]
        return self._object(self._chunk_kind, [choice])

    def _object(self, kind: str, choices: list[dict]) -> dict:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "system_fingerprint": None,
                "choices": choices}

    # Parts ------------------------------------------------------------------------------------

    def usage(self, end: End) -> dict:
        return {"prompt_tokens": len(self.job.ids), "completion_tokens": end.tokens,
                "total_tokens": len(self.job.ids) + end.tokens,
                "prompt_tokens_details": {"cached_tokens": end.cached}}

    def timings(self, end: End) -> dict:
        """llama.cpp's, of this machine's clock; and where there is hardware, what its counters say."""
        prompt_n, statistics = len(self.job.ids) - end.cached, end.statistics
        hardware = {name: getattr(statistics, name) if statistics else None for name in (
            "clock_hz", "cycles_per_token", "tokens_per_s", "bytes_per_token", "roofline_percent", "prompt_cycles")}
        return {"cache_n": end.cached, "prompt_n": prompt_n, "predicted_n": end.tokens, "board": end.board,
                **_rates("prompt", prompt_n, end.prompt_s),
                # The first token comes with the prompt's last pass.
                **_rates("predicted", max(end.tokens - 1, 0), end.predict_s), **hardware}

    def logprobs(self, said: list[Said]) -> dict | None:
        if self.asked.logprobs is None:
            return None
        if not self.chat:
            return self._legacy_logprobs([one for one in said if one.logprob is not None])
        return {"content": [self._entry(one.id, one.logprob) |
                            {"top_logprobs": [self._entry(*pair) for pair in one.top]}
                            for one in said if one.logprob is not None], "refusal": None}

    def _entry(self, id: int, logprob: float) -> dict:
        piece = self.words.piece(id)
        return {"token": piece.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(piece)}

    def _legacy_logprobs(self, said: list[Said]) -> dict:
        text = lambda id: self.words.piece(id).decode("utf-8", "replace")
        offsets = []
        for one in said:
            offsets.append(self._characters)
            self._characters += len(text(one.id))
        return {"tokens": [text(one.id) for one in said], "token_logprobs": [one.logprob for one in said],
                "top_logprobs": [{text(id): logprob for id, logprob in one.top} for one in said],
                "text_offset": offsets}


def _rates(name: str, count: int, seconds: float) -> dict:
    return {f"{name}_ms": 1e3 * seconds, f"{name}_per_token_ms": 1e3 * seconds / count if count else None,
            f"{name}_per_second": count / seconds if seconds > 0 else None}
