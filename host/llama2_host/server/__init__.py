"""``llama2-host serve``: boards, simulators or the integer model behind OpenAI's HTTP interface, with a page to look
at."""
