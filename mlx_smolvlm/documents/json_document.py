"""A tree as JSON. docs/documents.md describes the schema; fields that docling's has, too, are called as there."""

import json
from collections.abc import Sequence
from typing import Any

from .document_tree import FURNITURE, LISTS, DocumentElement, DocumentTree
from .open_elements import MAX_COORDINATE
from .otsl import DocumentTable, SpannedCell

SCHEMA_NAME = "mlx_smolvlm.Document"
SCHEMA_VERSION = "1.0"


def write_json_document(tree: DocumentTree) -> str:
    """One object, with a line for each element. Fields that say nothing are left out of elements."""
    pages = ",\n".join(
        f'  {{"page_no": {page.number or number}, "elements": [{_lines(page.elements)}]}}'
        for number, page in enumerate(tree.pages, 1)
    )
    return (
        f'{{\n "schema_name": "{SCHEMA_NAME}",\n "version": "{SCHEMA_VERSION}",\n "coord_origin": "TOPLEFT",\n'
        f' "page_size": {MAX_COORDINATE},\n "pages": [\n{pages}\n ]\n}}'
    )


def _lines(elements: Sequence[DocumentElement]) -> str:
    return ",".join(f"\n   {_object(element)}" for element in elements)


def _object(element: DocumentElement, enumerated: bool | None = None) -> str:
    """An element. What it holds is made text at once, since objects for millions of cells would take much memory."""
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
    if not element.is_closed:
        record["is_closed"] = False
    held = "" if element.table is None else f', "data": {_table(element.table)}'
    for name, parts in (("captions", element.captions), ("footnotes", element.footnotes)):
        if parts:
            held += f', "{name}": [{", ".join(map(_object, parts))}]'
    if element.children:
        of_list = record["enumerated"] if is_list else None
        children = (_object(child, of_list if child.kind == "list_item" else None) for child in element.children)
        held += f', "children": [{", ".join(children)}]'
    return f"{_text(record)[:-1]}{held}}}"


def _bbox(box: tuple[int, int, int, int]) -> dict[str, int]:
    return dict(zip("ltrb", box, strict=True))


def _table(table: DocumentTable) -> str:
    cells = ", ".join(map(_cell, table.cells()))
    return f'{{"num_rows": {table.num_rows}, "num_cols": {table.num_columns}, "table_cells": [{cells}]}}'


def _cell(spanned: SpannedCell) -> str:
    cell: dict[str, Any] = {
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
    return _text(cell if spanned.cell.box is None else cell | {"bbox": _bbox(spanned.cell.box)})


def _text(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False)  # in one line: indentation takes many times as long
