"""The token ids that a problem's prompt begins its sequence with.

It cuts text, or takes ids as they were given; it forwards nothing.
"""

from __future__ import annotations

from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import encode_prompt
from tokenzero.tasks import PublicProblem


def prompt_tokens(student: Student, problem: PublicProblem, most: int) -> list[int]:
    """Ids of the prompt. Raises InputError for one that is empty, outside the vocabulary or longer than
    ``most`` tokens.
    """
    if not problem.ids:
        return encode_prompt(student.tokenizer, problem.prompt, most)
    if min(problem.ids) < 0 or max(problem.ids) >= student.vocab_size:
        raise InputError(f"prompt: token ids go from 0 to {student.vocab_size - 1}; leave out all others")
    if len(problem.ids) > most:
        raise InputError(
            f"prompt: {len(problem.ids)} tokens, the limit is {most}; shorten it or raise the limit"
        )
    return list(problem.ids)
