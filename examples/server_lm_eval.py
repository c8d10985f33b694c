"""lm-evaluation-harness against a tokenzero server: a task of your own, from a file, as the harness runs it.

Start the server first, then run this:

    tokenzero serve runs/demo
    python examples/server_lm_eval.py --url http://127.0.0.1:8000

The rows are two Countdown problems with a right and a wrong answer; the harness asks which of the two the
model finds likelier. Any task of the harness works alike if the model's vocabulary can write it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import lm_eval
from lm_eval.tasks import TaskManager

ROWS = [
    {
        "problem": "10 9 1 1 -> 20 :",
        "answers": [" 10 + 9 19 1 * 1 1 19 + 1 20", " 10 + 9 19 19 + 1 20 20 * 1 21"],
    },
    {
        "problem": "2 8 8 10 -> 28 :",
        "answers": [" 2 + 8 10 8 + 10 18 10 + 18 28", " 2 * 8 17 8 + 10 18 17 + 18 28"],
    },
]
TASK = """
task: countdown_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{problem}}}}"
doc_to_choice: answers
doc_to_target: 0
target_delimiter: ""
metric_list: [{{metric: acc}}]
"""


def main(url: str) -> None:
    """Write the task, run it through the server, print what the harness found."""
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory) / "rows.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        (Path(directory) / "task.yaml").write_text(TASK.format(data=data))
        made = lm_eval.simple_evaluate(
            model="local-completions",
            model_args={"base_url": f"{url}/v1/completions", "tokenizer_backend": "remote", "batch_size": 4},
            tasks=["countdown_choice"],
            task_manager=TaskManager(include_path=directory, include_defaults=False),
            bootstrap_iters=0,
        )
    print(made["results"]["countdown_choice"])
    for sample in made["samples"]["countdown_choice"]:
        print(sample["doc"]["problem"], [response[0] for response in sample["resps"]])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    main(parser.parse_args().url)
