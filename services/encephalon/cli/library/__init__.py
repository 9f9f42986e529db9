"""`encephalon library`: what is typed becomes calls of the library, what the library gives becomes tables or JSON.

`commands` declares what can be typed and imports nothing else; every other module is one command, and is imported when
it is used.
"""

from encephalon.cli.library.commands import app

__all__ = ["app"]
