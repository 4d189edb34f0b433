"""What Tornado's handlers run: plain synchronous functions on Django's ORM.

Each runs in a greenlet of its own, on a connection of its own.

Rule: they return data. A query set would ask the database later, on the loop.
"""

from __future__ import annotations

from typing import Any

from django.db import transaction

from bank.models import Account, Transfer

__all__ = ["Refused", "accounts", "transfer"]


class Refused(Exception):
    """The bank does not do that; the message says why."""


def accounts() -> list[dict[str, Any]]:
    """Return all accounts, by owner."""
    return list(Account.objects.order_by("owner").values("id", "owner", "balance"))


@transaction.atomic
def transfer(source_id: int, target_id: int, amount: int) -> dict[str, Any]:
    """Move money from one account to another, or nothing at all.

    Raises:
        Refused: An account is missing, or has too little.
    """
    if amount <= 0 or source_id == target_id:
        raise Refused("a transfer moves money from one account to another")
    # Both rows are locked in one order: two transfers never wait for each other.
    locked = Account.objects.select_for_update().order_by("pk")
    found = {each.pk: each for each in locked.filter(pk__in=(source_id, target_id))}
    if len(found) < 2:
        raise Refused(f"there are no accounts {source_id} and {target_id}")
    source, target = found[source_id], found[target_id]
    target.balance += amount
    target.save(update_fields=["balance"])
    made = Transfer.objects.create(source=source, target=target, amount=amount)
    if source.balance < amount:
        # What was written above is undone.
        raise Refused(f"{source} has {source.balance}, and not {amount}")
    source.balance -= amount
    source.save(update_fields=["balance"])
    return {"id": made.pk, "left": source.balance}
