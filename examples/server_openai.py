"""The official ``openai`` client against a tokenzero server: a plain answer, a search, a stream, a score.

Start the server first, then run this:

    tokenzero serve runs/demo
    python examples/server_openai.py --url http://127.0.0.1:8000
"""

from __future__ import annotations

import argparse
from pathlib import Path

import openai


def main(url: str, prompt: str, key: str = "none") -> None:
    """Ask the same problem in several ways."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key) as client:
        model = client.models.list().data[0].id

        plain = client.completions.create(model=model, prompt=prompt, max_tokens=12, seed=1)
        print("one sample:     ", plain.choices[0].text)

        # The search object is ours; the client passes it on untouched.
        search = {"method": "frontier", "simulations": 64, "deadline_ms": 1000}
        found = client.completions.create(
            model=model, prompt=prompt, max_tokens=12, seed=1, extra_body={"search": search}
        )
        about = found.choices[0].to_dict()["search"]
        print("frontier search:", found.choices[0].text, about)
        print("what it cost:   ", found.usage.to_dict()["ledger"])

        print("streamed chat:  ", end=" ")
        messages = [{"role": "user", "content": prompt}]
        for chunk in client.chat.completions.create(
            model=model, messages=messages, max_tokens=12, stream=True
        ):
            print(chunk.choices[0].delta.content or "", end="", flush=True)
        print()

        scored = client.completions.create(model=model, prompt=prompt, max_tokens=0, echo=True, logprobs=1)
        print("log P(prompt):  ", sum(scored.choices[0].logprobs.token_logprobs[1:]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--prompt", default="10 9 1 1 -> 20 :", help="one that the model reads")
    parser.add_argument("--api-key-file", help="whose first line is the key, where the server wants one")
    arguments = parser.parse_args()
    file = arguments.api_key_file
    main(arguments.url, arguments.prompt, Path(file).read_text().split()[0] if file else "none")
