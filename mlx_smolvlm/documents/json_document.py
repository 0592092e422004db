"""A tree as JSON. docs/documents.md describes the schema; fields that docling's has, too, are called as there."""

import json
from typing import Any

from .document_tree import FURNITURE, LISTS, DocumentElement, DocumentTree
from .otsl import DocumentTable

SCHEMA_NAME = "mlx_smolvlm.Document"
SCHEMA_VERSION = "1.0"


def write_json_document(tree: DocumentTree) -> str:
    """One object, indented by one space a level."""
    return json.dumps(document_record(tree), indent=1, ensure_ascii=False)


def document_record(tree: DocumentTree) -> dict[str, Any]:
    """The object, of plain types. Fields that say nothing are left out of elements."""
    return {
        "schema_name": SCHEMA_NAME,
        "version": SCHEMA_VERSION,
        "coord_origin": "TOPLEFT",
        "page_size": 500,
        "pages": [
            {"page_no": number, "elements": [_record(element) for element in page.elements]}
            for number, page in enumerate(tree.pages, 1)
        ],
    }


def _record(element: DocumentElement, enumerated: bool | None = None) -> dict[str, Any]:
    is_list = element.kind in LISTS
    record: dict[str, Any] = {
        "label": "list" if is_list else element.kind,
        "content_layer": "furniture" if element.kind in FURNITURE else "body",
    }
    if element.text or not (is_list or element.table or element.children):
        record["text"] = element.text
    if element.box is not None:
        record["bbox"] = _bbox(element.box)
    if element.level is not None:
        record["level"] = element.level
    if element.kind == "code":
        record["code_language"] = element.language or "unknown"
    if element.picture_class:
        record["class_name"] = element.picture_class
    if is_list or enumerated is not None:
        record["enumerated"] = element.kind == "ordered_list" if is_list else enumerated
    if element.number is not None:
        record["cell_id"] = element.number
    if element.links:
        record["links"] = list(element.links)
    if element.table is not None:
        record["data"] = _table(element.table)
    for name, parts in (("captions", element.captions), ("footnotes", element.footnotes)):
        if parts:
            record[name] = [_record(part) for part in parts]
    if element.children:
        of_list = record["enumerated"] if is_list else None
        record["children"] = [
            _record(child, of_list if child.kind == "list_item" else None) for child in element.children
        ]
    if not element.is_closed:
        record["is_closed"] = False
    return record


def _bbox(box: tuple[int, int, int, int]) -> dict[str, int]:
    return dict(zip("ltrb", box, strict=True))


def _table(table: DocumentTable) -> dict[str, Any]:
    cells = []
    for spanned in table.cells():
        cell = {
            "text": spanned.cell.text,
            "start_row_offset_idx": spanned.row,
            "end_row_offset_idx": spanned.row + spanned.row_span,
            "start_col_offset_idx": spanned.column,
            "end_col_offset_idx": spanned.column + spanned.column_span,
            "row_span": spanned.row_span,
            "col_span": spanned.column_span,
            "column_header": spanned.cell.tag == "ched",
            "row_header": spanned.cell.tag == "rhed",
            "row_section": spanned.cell.tag == "srow",
        }
        cells.append(cell if spanned.cell.box is None else cell | {"bbox": _bbox(spanned.cell.box)})
    return {"num_rows": table.num_rows, "num_cols": table.num_columns, "table_cells": cells}
