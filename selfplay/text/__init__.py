"""Language modelling as a game: states are contexts of a corpus, actions are next tokens.

What is learnt from comes from rewards, teachers and search; see ``config`` for the objectives. Answers to
problems are played elsewhere (``selfplay.run``).
"""
