"""A tree as docling-core's `DoclingDocument`, for programs that work with docling. Needs the extra `docling`.

It is what docling-core's own loader, `DoclingDocument.load_from_doctags`, makes of the DocTags, and what that loses:
text of unclosed elements and between elements, what only looks like a tag, second captions, footnotes of tables. As
there, cells are not marked as headers, and lists within lists are one list.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from .document_tree import FURNITURE, LISTS, PICTURES, TABLES, DocumentElement, DocumentTree
from .markdown import NAMED_CLASSES, list_items
from .open_elements import MAX_COORDINATE
from .otsl import DocumentTable

if TYPE_CHECKING:
    from docling_core.types.doc.document import DoclingDocument

_DPI = 72  # of images of pages, as docling-core's loader has it
_UNPAIRED = re.compile("[\ud800-\udfff]")  # pydantic refuses them
_PLAIN_TEXT = ("smiles", "key", "value")  # kinds for which docling-core has no label


def to_docling_document(
    tree: DocumentTree, name: str = "Document", page_images: Sequence[Image.Image | None] | None = None
) -> "DoclingDocument":
    """Convert a document; its open elements are closed already, so that nothing is lost.

    Args:
        tree: the document.
        name: what it is called.
        page_images: one for each page, or None where there is none. With one, places are pixels of it; without, the
            page is 1 wide and 1 high.

    Raises:
        ModuleNotFoundError: docling-core is not installed.
        ValueError: another number of images than of pages.
    """
    try:
        from docling_core.types.doc import document, labels  # an extra, slow to import
    except ModuleNotFoundError:
        raise ModuleNotFoundError("a DoclingDocument needs docling-core: pip install 'mlx-smolvlm[docling]'") from None
    if page_images is not None and len(page_images) != len(tree.pages):
        raise ValueError(
            f"{len(page_images)} page images for a document of {len(tree.pages)} pages; give one for each, or None"
        )
    builder = _Builder(document, labels, name)
    for number, page in enumerate(tree.pages):
        builder.begin_page(page.number or number + 1, None if page_images is None else page_images[number])
        for element in page.elements:
            builder.add(element)
    built: DoclingDocument = builder.built
    return built


class _Builder:
    """Adds elements to a `DoclingDocument`, page by page."""

    def __init__(self, document: Any, labels: Any, name: str):
        self.document, self.labels = document, labels
        self.built = document.DoclingDocument(name=name)
        self.page_no = 0
        self.image: Image.Image | None = None

    def begin_page(self, page_no: int, image: Image.Image | None) -> None:
        """Elements that are added from now on stand on this page, counted from 1, with its image if that is known."""
        self.page_no, self.image = page_no, image
        size = self.document.Size(width=self._width, height=self._height)
        self.built.add_page(page_no=page_no, size=size, image=self._image_ref(image))

    def add(self, element: DocumentElement) -> None:
        """An element of the page, or one within another that docling-core has no place for."""
        if element.kind in PICTURES:
            self._add_picture(element)
        elif element.kind in TABLES:
            if element.text:
                self._add_text("text", element.text)
            if element.table is not None:
                label = self.labels.DocItemLabel(element.kind)
                data, caption = self._table_data(element.table), self._add_caption(element)
                self.built.add_table(data=data, caption=caption, prov=self._place(element.box), label=label)
        elif element.kind in LISTS:
            self._add_list(element)
        elif element.kind == "inline":
            group = self.built.add_inline_group()
            for child in element.children:
                self._add_leaf(child, parent=group, box=element.box)
        elif element.kind == "key_value_region":
            self._add_key_values(element)
        else:
            self._add_leaf(element)
            if element.captions:
                self._add_caption(element)
        for footnote in element.footnotes:
            self._add_leaf(footnote)

    def _add_leaf(self, element: DocumentElement, parent: Any = None, box: Any = None) -> Any:
        text = _clean(element.text)
        place = self._place(element.box or box, len(text))
        layers = self.document.ContentLayer
        layer = layers.FURNITURE if element.kind in FURNITURE else layers.BODY
        common = {"text": text, "prov": place, "parent": parent, "content_layer": layer}
        if element.kind == "section_header":
            return self.built.add_heading(level=max(element.level or 1, 1), **common)
        if element.kind == "code":
            return self.built.add_code(code_language=self._language(element.language), **common)
        kind = "text" if element.kind in _PLAIN_TEXT else element.kind
        return self.built.add_text(label=self.labels.DocItemLabel(kind), **common)

    def _add_text(self, kind: Any, text: str) -> None:
        self._add_leaf(DocumentElement(kind, text))

    def _add_caption(self, element: DocumentElement) -> Any:
        """The captions as one, which is all that docling-core shows of some items."""
        if not element.captions:
            return None
        first, text = element.captions[0], " ".join(caption.text for caption in element.captions if caption.text)
        return self._add_leaf(DocumentElement("caption", text, first.box))

    def _add_list(self, element: DocumentElement) -> None:
        is_ordered = element.kind == "ordered_list"
        group = self.built.add_list_group(name="list")
        for number, item in enumerate(list_items(element), 1):
            text = _clean(item.text)
            self.built.add_list_item(
                text=text,
                marker=f"{number}." if is_ordered else "",
                enumerated=is_ordered,
                parent=group,
                prov=self._place(item.box, len(text)),
            )

    def _add_picture(self, element: DocumentElement) -> None:
        caption = self._add_caption(element)
        box = element.box or next((one.box for one in element.captions if one.box), None)
        if box is not None or element.table is not None:
            picture = self.built.add_picture(prov=self._place(box), caption=caption, image=self._cropped(element.box))
            document = self.document
            named = element.picture_class if element.picture_class in NAMED_CLASSES else ""
            classes = document.PictureClassificationMetaField(
                predictions=[
                    document.PictureClassificationPrediction(
                        class_name=named, confidence=1.0, created_by="load_from_doctags"
                    )
                ]
            )
            chart = element.table and document.TabularChartMetaField(
                chart_data=self._table_data(element.table), title=named or "other"
            )
            if named or chart:
                picture.meta = document.PictureMeta(classification=classes if named else None, tabular_chart=chart)
        if element.text:
            self._add_text("text", element.text)
        for child in element.children:
            self.add(child)

    def _add_key_values(self, region: DocumentElement) -> None:
        document, labels = self.document, self.labels
        pairs = [child for child in region.children if child.kind in ("key", "value")]
        cells = [
            document.GraphCell(
                label=labels.GraphCellLabel(child.kind),
                cell_id=child.number,
                text=_clean(child.text),
                orig=_clean(child.text),
                prov=self._place(child.box),
            )
            for child in pairs
        ]
        known = {child.number for child in pairs}
        links = [
            document.GraphLink(label=labels.GraphLinkLabel.TO_VALUE, source_cell_id=child.number, target_cell_id=number)
            for child in pairs
            for number in child.links
            if number in known
        ]
        self.built.add_key_values(graph=document.GraphData(cells=cells, links=links), prov=self._place(region.box))
        for child in region.children:
            if child.kind not in ("key", "value"):
                self.add(child)

    def _table_data(self, table: DocumentTable) -> Any:
        cells = [
            self.document.TableCell(
                text=_clean(spanned.cell.text),
                row_span=spanned.row_span,
                col_span=spanned.column_span,
                start_row_offset_idx=spanned.row,
                end_row_offset_idx=spanned.row + spanned.row_span,
                start_col_offset_idx=spanned.column,
                end_col_offset_idx=spanned.column + spanned.column_span,
            )
            for spanned in table.cells()
        ]
        return self.document.TableData(num_rows=table.num_rows, num_cols=table.num_columns, table_cells=cells)

    @property
    def _width(self) -> int:
        return self.image.width if self.image else 1

    @property
    def _height(self) -> int:
        return self.image.height if self.image else 1

    def _place(self, box: tuple[int, int, int, int] | None, num_chars: int = 0) -> Any:
        if box is None:
            return None
        left, top, right, bottom = (coordinate / MAX_COORDINATE for coordinate in box)
        scaled = self.document.BoundingBox(l=left, t=top, r=right, b=bottom).resize_by_scale(self._width, self._height)
        return self.document.ProvenanceItem(bbox=scaled, charspan=(0, num_chars), page_no=self.page_no)

    def _image_ref(self, image: Image.Image | None) -> Any:
        return self.document.ImageRef.from_pil(image=image, dpi=_DPI) if image else None

    def _cropped(self, box: tuple[int, int, int, int] | None) -> Any:
        if self.image is None or box is None:
            return None
        left, top, right, bottom = box
        pixels = (
            left * self._width // MAX_COORDINATE,
            top * self._height // MAX_COORDINATE,
            right * self._width // MAX_COORDINATE,
            bottom * self._height // MAX_COORDINATE,
        )
        return self._image_ref(self.image.crop(pixels)) if pixels[0] < pixels[2] and pixels[1] < pixels[3] else None

    def _language(self, name: str) -> Any:
        known = {label.value: label for label in self.labels.CodeLanguageLabel}
        return known.get(name, self.labels.CodeLanguageLabel.UNKNOWN)


def _clean(text: str) -> str:
    return _UNPAIRED.sub("\ufffd", text)
