"""The flags of the verbs, a file for each family of them; what they do is in ``commands``.

Nothing here imports more than ``argparse``, so that ``tokenzero --help`` answers at once; a value is checked
by the part that it is for.
"""
