"""LangChain's ``ChatOpenAI`` against a tokenzero server, answering by search.

Start the server first, then run this:

    tokenzero serve runs/demo
    python examples/server_langchain.py --url http://127.0.0.1:8000
"""

from __future__ import annotations

import argparse

import openai
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI


def main(url: str, problems: list[str]) -> None:
    """A chain of a prompt and a model, run on one problem, then on all at once."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        name = client.models.list().data[0].id
    search = {"method": "frontier", "simulations": 64}
    model = ChatOpenAI(
        model=name, base_url=f"{url}/v1", api_key="none", seed=1, extra_body={"search": search}
    )
    chain = ChatPromptTemplate.from_messages([("user", "{problem}")]) | model
    made = chain.invoke({"problem": problems[0]})
    print(made.content, made.response_metadata["token_usage"]["ledger"])
    for problem, answer in zip(problems, chain.batch([{"problem": one} for one in problems]), strict=True):
        print(problem, answer.content)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("problems", nargs="*", default=["10 9 1 1 -> 20 :", "2 8 8 10 -> 28 :"])
    arguments = parser.parse_args()
    main(arguments.url, arguments.problems)
