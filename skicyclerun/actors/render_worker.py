"""The other side of `render_processes`: a process that renders the photos it is sent, until its questions end.

    python -m skicyclerun.actors.render_worker

Questions come pickled on its standard input, answers go pickled to its standard output; `render_processes` says which.
It lives exactly as long as its parent: when the questions end, because the parent closed them or is no more (SIGKILL
too), it exits at once, in the middle of a photo. Whatever stops a run is heard by the parent alone.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import threading
import time
import traceback
from typing import Any, BinaryIO


def main() -> None:
    """Answer until there are no more questions; does not return."""
    for stopping in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stopping, signal.SIG_IGN)
    questions, answers = _own(0, "rb", os.O_RDONLY), _own(1, "wb", os.O_WRONLY)
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(questions, waiting), daemon=True).start()
    _say(answers, "ready")
    while True:
        render, options, jobs, seconds = waiting.get()
        began = time.monotonic()
        for number, job in enumerate(jobs):
            if number and time.monotonic() - began >= seconds:
                break
            try:
                answer = render(*job, options)
            except Exception as error:
                answer = portable(error)
            _say(answers, answer)
        _say(answers, None)


def portable(error: Exception) -> Exception:
    """An error as it can be sent: its traceback as a note, where it is not one that is expected of a photo."""
    from skicyclerun.errors import SkicyclerunError

    if not isinstance(error, SkicyclerunError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _own(descriptor: int, mode: str, instead: int) -> BinaryIO:
    """A standard stream for this module alone; what a library prints or reads goes nowhere."""
    stream: BinaryIO = os.fdopen(os.dup(descriptor), mode)  # type: ignore[assignment]  # the mode is a binary one
    nothing = os.open(os.devnull, instead)
    os.dup2(nothing, descriptor)
    os.close(nothing)
    return stream


def _listen(questions: BinaryIO, waiting: queue.SimpleQueue[Any]) -> None:
    while True:
        try:
            waiting.put(pickle.load(questions))
        except EOFError:
            os._exit(0)
        except Exception:
            os._exit(1)  # the parent sees that it is gone


def _say(answers: BinaryIO, answer: object) -> None:
    try:
        pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    main()
