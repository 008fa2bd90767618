"""The boundary to exiv2: set up once, used by one thread at a time, its complaints kept off the user's terminal.

exiv2's XMP toolkit registers name spaces in global tables and asks its callers for a lock; reading and writing one
header takes some tenths of a millisecond, so one lock for everything costs nothing worth saving. Keys handed to exiv2
are constants: python-exiv2 0.19 ends the process (`std::terminate`) on a membership test with a tag name that does
not exist.

The toolkit also remembers what files call their name spaces, and would write the next photo's tags by those names. So
it begins anew after each session that read any, and a photo's bytes do not depend on what was read before it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.RLock()
_module: Any = None
_depth = 0


class TagsUnreadable(Exception):
    """exiv2 cannot make sense of a block of metadata; its pixels are none the worse."""


@contextmanager
def exiv2_session(*, reads_xmp: bool = True) -> Iterator[Any]:
    """The exiv2 module, for this thread alone. Its errors come out as TagsUnreadable.

    `reads_xmp`: whether anything read within may hold XMP. Tags are not to be used in another session.
    """
    global _module, _depth
    with _lock:
        if _module is None:
            import exiv2

            exiv2.LogMsg.setLevel(exiv2.LogMsg.Level.mute)
            exiv2.XmpParser.initialize()
            _module = exiv2
        _depth += 1
        try:
            yield _module
        except (_module.Exiv2Error, OverflowError, ValueError, TypeError, KeyError, IndexError, RuntimeError) as error:
            raise TagsUnreadable(str(error) or type(error).__name__) from error
        finally:
            _depth -= 1
            if reads_xmp and not _depth:
                _module.XmpParser.terminate()
                _module.XmpParser.initialize()
