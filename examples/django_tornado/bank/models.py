"""What the bank keeps.

Rule: no account goes below nothing; the database checks it as well.
"""

from __future__ import annotations

from django.db import models


class Account(models.Model):
    """Somebody's money."""

    owner = models.CharField(max_length=100, unique=True)
    balance = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return self.owner


class Transfer(models.Model):
    """Money that went from one account to another."""

    source = models.ForeignKey(Account, models.PROTECT, related_name="sent")
    target = models.ForeignKey(Account, models.PROTECT, related_name="received")
    amount = models.PositiveBigIntegerField()
    at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.amount} from {self.source} to {self.target}"
