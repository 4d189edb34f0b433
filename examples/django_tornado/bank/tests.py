"""Tests of the bank by Django's own runner, in a database of their own: `manage.py test`."""

from __future__ import annotations

from django.db import transaction
from django.test import TestCase

from bank import views
from bank.models import Account, Transfer


class TransferTest(TestCase):
    """Moving money."""

    def setUp(self) -> None:
        self.ada = Account.objects.create(owner="Ada", balance=100)
        self.bob = Account.objects.create(owner="Bob")

    def test_money_moves(self) -> None:
        self.assertEqual(views.transfer(self.ada.pk, self.bob.pk, 30)["left"], 70)
        self.assertEqual([each["balance"] for each in views.accounts()], [70, 30])

    def test_what_was_refused_leaves_nothing(self) -> None:
        with self.assertRaises(views.Refused), transaction.atomic():
            views.transfer(self.bob.pk, self.ada.pk, 30)
        self.assertEqual([each["balance"] for each in views.accounts()], [100, 0])
        self.assertFalse(Transfer.objects.exists())
