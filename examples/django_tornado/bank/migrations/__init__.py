"""The tables of the bank, step by step. `manage.py makemigrations` writes the steps."""
