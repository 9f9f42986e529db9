"""Lists what the library keeps: conditions, orders and pages over its summaries. Reads, never writes, and never holds
more than a page.
"""

from encephalon.library.query.listing import MAX_PAGE, Page, ls, page
from encephalon.library.query.metric import MetricCondition
from encephalon.library.query.query import Query

__all__ = ["MAX_PAGE", "MetricCondition", "Page", "Query", "ls", "page"]
