"""Finding pages: ColSmol's vectors of pages and queries, and indexes of them."""
