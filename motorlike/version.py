"""The version of motorlike.

Rule: imports nothing; packaging reads it without installing the requirements.
"""

__version__ = "0.1.0"
