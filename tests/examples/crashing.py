"""Run a program that is killed in a request, at one line after the other: python crashing.py <program> <path>

Each run is killed in its second request to the path: the first run before the first line that the request
executes in the program's own file, the second run before the second line, and so on. After each run this
program writes the number of the line, and waits for an empty line before the next run.
"""

# Imported once: the runs are forked, so that each of them starts in milliseconds.
import http.server  # noqa: F401
import itertools
import os
import runpy
import signal
import sys
import threading
import urllib.request  # noqa: F401
from collections.abc import Callable
from types import FrameType
from typing import Any

COUNTED_REQUEST = 2
program, path = sys.argv[1:]


class Killer:
    def __init__(self, line: int) -> None:
        self.line = line
        self.requests = self.lines = self.thread = 0

    def trace(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        if frame.f_code.co_filename != program:
            return None
        if event == "call" and frame.f_code.co_name == "do_POST" and frame.f_locals["self"].path == path:
            self.requests += 1
            if self.requests == COUNTED_REQUEST:
                self.thread = threading.get_ident()
        if event == "line" and threading.get_ident() == self.thread:
            self.lines += 1
            if self.lines == self.line:
                os.kill(os.getpid(), signal.SIGKILL)
        return self.trace


def run(line: int) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    threading.settrace(Killer(line).trace)
    runpy.run_path(program, run_name="__main__")


for line in itertools.count(1):
    child = os.fork()
    if not child:
        run(line)
    os.waitpid(child, 0)
    print(line, flush=True)
    sys.stdin.readline()
