"""The tasks: a module for each group, whose ``TASKS`` lists them.

Rule: a module is imported only when one of its tasks is asked for in a child,
and imports no client library at its top level: start-up is measured too.
"""

from __future__ import annotations

import fnmatch
import importlib
import importlib.util
from collections.abc import Sequence

from ..task import Task

__all__ = ["GROUPS", "all_tasks", "find_task", "matching"]

# In the order of the report.
GROUPS = (
    "operations",
    "documents",
    "published",
    "tornado_handlers",
    "gridfs",
    "change_streams",
    "tls",
    "memory",
    "lag",
    "startup",
)


def _tasks_of(group: str) -> tuple[Task, ...]:
    tasks: tuple[Task, ...] = importlib.import_module(f"{__name__}.{group}").TASKS
    return tasks


def all_tasks() -> list[Task]:
    """Return every task, in the order of the report."""
    there = [name for name in GROUPS if importlib.util.find_spec(f"{__name__}.{name}")]
    return [task for group in there for task in _tasks_of(group)]


def find_task(full_name: str) -> Task:
    """Return the task called ``group.name``."""
    for task in _tasks_of(full_name.partition(".")[0]):
        if task.full_name == full_name:
            return task
    raise LookupError(f"there is no task called {full_name!r}; --list names them all")


def matching(patterns: Sequence[str], tasks: Sequence[Task]) -> list[Task]:
    """Choose the *tasks* whose group, name or full name fits one of *patterns*.

    Raises:
        LookupError: A pattern fits none.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        found = {task.full_name for task in tasks if _fits(task, pattern)}
        if not found:
            raise LookupError(f"no task is called {pattern!r}; --list names them all")
        chosen |= found
    return [task for task in tasks if task.full_name in chosen]


def _fits(task: Task, pattern: str) -> bool:
    names = (task.group, task.name, task.full_name)
    return any(fnmatch.fnmatchcase(name, pattern) for name in names)
