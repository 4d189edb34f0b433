"""Tells Django of the application."""

from __future__ import annotations

from django.apps import AppConfig


class BankConfig(AppConfig):
    """The bank."""

    name = "bank"
