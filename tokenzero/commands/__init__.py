"""The verbs of the command line, one file each: ``run(arguments)`` does the work and returns the exit code.

Each verb's file imports what it needs, so that ``tokenzero --help`` need not. Flags are ``arguments``'s
business, errors ``cli``'s.
"""
