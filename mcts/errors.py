"""The one exception for mistakes a caller can mend.

It lives at the bottom of the house so that every folder may raise it. It does not print or exit: the command
line turns it into one line and exit code 2.
"""

from __future__ import annotations


class InputError(ValueError):
    """Bad input. The message is one line that names the thing, its value and the way out."""
