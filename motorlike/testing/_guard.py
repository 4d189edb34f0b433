"""Own the mongod processes and the temporary folder of one deployment.

`motorlike.testing._process.Guard` runs this file as a script, in a session
of its own, and is the only one that talks to it.

Rule: whatever ends the conversation ends the servers. mongods are children
of this process, not of the program that wants them. That program holds the
other end of a pipe; the kernel closes it however the program goes, by exit,
exception, SIGTERM or SIGKILL, and end of file here means: kill, reap, delete.
No signal handler, atexit hook or process id written to a file has to be
trusted for that. The session of its own keeps Ctrl-C, which a terminal
sends to a whole process group, from reaching the servers before their owner.

Each request is one line of JSON, ``[number, verb, *arguments]``, each reply
``[number, result, error]``. Only the standard library is imported, for this
runs isolated (``python -I -S``).
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable


class Processes:
    """The mongods started so far, by process id; a verb for each method."""

    def __init__(self) -> None:
        self._started: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, argv: list[str], log: str) -> int:
        """Run *argv*, its output appended to *log*; return its process id."""
        with open(log, "ab") as output:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        self._started[process.pid] = process
        return process.pid

    def poll(self, pid: int) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""
        return self._started[pid].poll()

    def signal(self, pid: int, number: int) -> None:
        """Send a signal, unless the process has ended.

        Only its parent can do this safely: until it has reaped the process,
        no other process gets the same id.
        """
        self._started[pid].send_signal(number)

    def kill_all(self) -> None:
        """Kill and reap every process; the data is temporary, so at once."""
        for process in self._started.values():
            process.kill()
        for process in self._started.values():
            process.wait()


def reply(number: int, result: object, error: str | None = None) -> None:
    """Write one reply line."""
    sys.stdout.write(json.dumps([number, result, error]) + "\n")
    sys.stdout.flush()


def serve(processes: Processes) -> None:
    """Answer requests until one says stop, or until the pipe is closed.

    The word is needed beside the closing: a child that the program forked
    and did not exec still holds the pipe open.
    """
    verbs: dict[str, Callable[..., object]] = {
        "start": processes.start,
        "poll": processes.poll,
        "signal": processes.signal,
    }
    for line in sys.stdin:
        number, verb, *arguments = json.loads(line)
        if verb == "stop":
            return
        try:
            reply(number, verbs[verb](*arguments))
        except BrokenPipeError:
            return  # The program is gone: the same as end of file.
        except OSError as exc:
            reply(number, None, str(exc))


def exit_on_signals() -> None:
    """Turn the signals of a shutdown into an exit that still cleans up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit())


def ignore_signals() -> None:
    """Let the cleaning up itself run to its end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def main() -> None:
    """Make the folder, tell its path, serve, and leave nothing behind."""
    processes = Processes()
    folder = tempfile.mkdtemp(prefix="motorlike-")
    try:
        exit_on_signals()
        reply(0, folder)
        serve(processes)
    finally:
        ignore_signals()
        processes.kill_all()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
