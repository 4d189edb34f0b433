"""Django's password hasher, computed beside the event loop.

A hash of a password takes a good part of a second of computing, on purpose;
the loop would stand still for it. Settings name the class in
``PASSWORD_HASHERS``. Its hashes are Django's, and either can check the other's.

Rule: whatever computes for long leaves the loop's thread.
"""

from __future__ import annotations

from django.contrib.auth import hashers

from motorlike import green

__all__ = ["PBKDF2PasswordHasher"]


class PBKDF2PasswordHasher(hashers.PBKDF2PasswordHasher):
    """Compute in a thread, while the greenlet waits."""

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        return green.offload(super().encode, password, salt, iterations)
