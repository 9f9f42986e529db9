"""Records and the bytes that they name as one file that another library takes in. What comes in is checked as a whole
before anything is written.
"""

from encephalon.library.archive.export import Exported, export
from encephalon.library.archive.importing import Imported, import_

__all__ = ["Exported", "Imported", "export", "import_"]
