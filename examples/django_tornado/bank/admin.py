"""The bank in the admin: accounts can be edited, transfers only be looked at."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest

from bank.models import Account, Transfer


@admin.register(Account)
class AccountAdmin(admin.ModelAdmin):
    """Accounts, to add and to change."""

    list_display = ("owner", "balance")
    search_fields = ("owner",)


@admin.register(Transfer)
class TransferAdmin(admin.ModelAdmin):
    """Transfers, to read."""

    list_display = ("at", "source", "target", "amount")
    list_select_related = ("source", "target")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Transfer | None = None) -> bool:
        return False
