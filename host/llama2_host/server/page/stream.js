// Reads an answer as it comes: an async iterator of the chunks in server-sent events.
export async function* stream(path, body, headers, signal) {
  const answer = await fetch(path, {method: "POST", headers, body: JSON.stringify(body), signal});
  if (!answer.ok) throw new Error((await answer.json()).error.message);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const {value, done} = await reader.read();
    if (done) throw new Error("the server ended the answer in the middle");
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      if (!event.startsWith("data: ")) continue;      // a comment: the server is still there
      if (event === "data: [DONE]") return;
      const chunk = JSON.parse(event.slice(6));
      if (chunk.error) throw new Error(chunk.error.message);
      yield chunk;
    }
  }
}
