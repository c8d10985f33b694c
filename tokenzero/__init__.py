"""AlphaZero for token sequences."""

__version__ = "0.1.0"
