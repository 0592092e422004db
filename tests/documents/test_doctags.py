"""DocTags to a tree: known tags only, no lost text, whatever the pieces in which it comes."""

import pytest

from mlx_smolvlm.documents.doctags import DocTagsParser, close_doctags, parse_doctags
from mlx_smolvlm.documents.document_tree import DocumentElement


def elements(doctags: str) -> list[DocumentElement]:
    """Those of the only page."""
    (page,) = parse_doctags(doctags).pages
    return list(page.elements)


def outline(doctags: str) -> list[tuple[str, str]]:
    """Kinds and texts."""
    return [(element.kind, element.text) for element in elements(doctags)]


def test_elements_have_kind_text_and_place():
    header, text = elements(
        "<doctag><section_header_level_2><loc_1><loc_2><loc_30><loc_40> 1.1 Scope </section_header_level_2>"
        "<text>Words.</text></doctag>"
    )
    assert (header.kind, header.level, header.text, header.box) == ("section_header", 2, "1.1 Scope", (1, 2, 30, 40))
    assert (text.kind, text.level, text.text, text.box, text.is_closed) == ("text", None, "Words.", None, True)


@pytest.mark.parametrize(
    ("locations", "box"),
    [
        ("<loc_501><loc_-1><loc_499><loc_1500>", (499, 0, 500, 500)),
        ("<loc_400><loc_300><loc_100><loc_200>", (100, 200, 400, 300)),
        ("<loc_1><loc_2><loc_3><loc_4><loc_5>", (1, 2, 3, 4)),
        ("<loc_1><loc_2><loc_3>", None),
    ],
)
def test_odd_places_are_moved_onto_the_page(locations, box):
    (element,) = elements(f"<text>{locations}Words.</text>")
    assert (element.text, element.box) == ("Words.", box)


@pytest.mark.parametrize(
    "text",
    [
        "#include <vector>\nstd::map<int, T> m;", "a<b & c>d", "P < 0.05", "<script>alert(1)</script>", "<_x_>",
        "<map>", "<text", "<loc_>", "<nope>", "\0 and \udcff", "&lt;already&gt;", "x < y<", "<|im_start|>",
    ],
)  # fmt: skip
@pytest.mark.parametrize("tag", ["text", "code", "formula", "title", "list_item", "caption"])
def test_what_is_no_tag_is_text(tag, text):
    (element,) = elements(f"<{tag}>1 {text} 2</{tag}>")
    element = element.children[0] if element.children else element  # of the list around a list item
    assert (element.kind, element.text) == (tag, f"1 {text} 2")


def test_code_keeps_what_looks_like_tags_and_names_its_language():
    html, plain = elements(
        "<code><loc_1><loc_2><loc_3><loc_4><_HTML_><title>x</title><text>y</text></code><code>ls</code>"
    )
    assert (html.language, html.text, html.box) == ("HTML", "<title>x</title><text>y</text>", (1, 2, 3, 4))
    assert (plain.language, plain.text) == ("", "ls")


def test_what_has_a_place_ends_code_that_was_not_closed():
    assert outline("<code>a<b><text><loc_1><loc_2><loc_3><loc_4>Words.</text>") == [
        ("code", "a<b>"),
        ("text", "Words."),
    ]
    (code,) = elements("<code>x<caption><loc_1><loc_2><loc_3><loc_4>Listing</caption></code>")
    assert (code.text, code.captions[0].text) == ("x", "Listing")


def test_unclosed_elements_end_where_others_begin():
    assert outline("<title>A<text>b<text>c<otsl><fcel>d<section_header_level_1>E<page_footer>f") == [
        ("title", "A"), ("text", "b"), ("text", "c"), ("table", ""), ("section_header", "E"), ("page_footer", "f"),
    ]  # fmt: skip


def test_what_an_unclosed_element_took_in_stands_for_itself():
    found = elements("<picture><loc_1><loc_2><loc_3><loc_4><caption>A</caption><text>b</text><text>c</text>")
    assert [(one.kind, one.text, one.is_closed) for one in found] == [
        ("picture", "", False), ("text", "b", True), ("text", "c", True),
    ]  # fmt: skip
    assert found[0].captions[0].text == "A"
    (picture,) = elements("<picture><text>b</text></picture>")
    assert [child.text for child in picture.children] == ["b"]


def test_tags_within_text_keep_words_apart():
    assert outline("<text>a<formula>x</formula>b <nl>c<loc_3>d</text>") == [("text", "a x b c d")]
    assert outline("<text>one</nope></title> two</text>") == [("text", "one</nope> two")]


def test_text_between_elements_becomes_elements():
    assert outline("Before <b>. <text>in</text>  <loc_1><loc_2><loc_3><loc_4>Between.</otsl><text>in</text> End") == [
        ("text", "Before <b>."), ("text", "in"), ("text", "Between."), ("text", "in"), ("text", "End"),
    ]  # fmt: skip


def test_lists_nest():
    (outer,) = elements(
        "<unordered_list>Loose <list_item>a<ordered_list><list_item>b</list_item></ordered_list></list_item>"
        "<unordered_list><list_item>c</list_item></unordered_list></unordered_list>"
    )
    loose, item, inner = outer.children
    assert (loose.text, item.text, inner.kind) == ("Loose", "a", "unordered_list")
    assert item.children[0].kind == "ordered_list"
    assert [child.text for child in item.children[0].children] == ["b"]


def test_items_and_cells_without_their_list_or_table_make_one():
    listed, table = elements("<list_item>a</list_item><list_item>b</list_item><fcel>c<fcel>d<nl><fcel>e")
    assert [item.text for item in listed.children] == ["a", "b"]
    assert [[cell.text for cell in row] for row in table.table.rows] == [["c", "d"], ["e"]]


def test_tables_keep_what_is_odd():
    (table,) = elements("<otsl>Loose<ched>A<ched><nl><nl><lcel>text<ecel>x<lcel><fcel><text>rich</text> cell</otsl>")
    assert table.text == "Loose"
    rows = [[(cell.tag, cell.text) for cell in row] for row in table.table.rows]
    assert rows == [
        [("ched", "A"), ("ched", "")],
        [("fcel", "text"), ("fcel", "x"), ("lcel", ""), ("fcel", "rich cell")],
    ]


def test_spans_of_cells():
    (table,) = elements("<otsl><fcel>a<lcel><fcel>b<nl><ucel><xcel><fcel>c<nl><lcel><ecel><ucel><nl></otsl>")
    assert [
        (cell.cell.text, cell.row, cell.column, cell.row_span, cell.column_span) for cell in table.table.cells()
    ] == [("a", 0, 0, 2, 2), ("b", 0, 2, 1, 1), ("c", 1, 2, 2, 1), ("", 2, 1, 1, 1)]


def test_charts_and_pictures():
    chart, picture = elements(
        "<chart><line><fcel>1<nl><caption>Sold</caption></chart><picture><other><smiles>CCO</smiles></picture>"
    )
    assert (chart.picture_class, chart.table.rows[0][0].text, chart.captions[0].text) == ("line_chart", "1", "Sold")
    assert (picture.picture_class, picture.children[0].kind, picture.children[0].text) == ("other", "smiles", "CCO")


def test_keys_and_values():
    (region,) = elements("<key_value_region><key_1>Name<link_2></key_1><value_2>Ann</value_2></key_value_region>")
    key, value = region.children
    assert (key.kind, key.number, key.text, key.links) == ("key", 1, "Name", (2,))
    assert (value.kind, value.number, value.text) == ("value", 2, "Ann")


def test_page_breaks_split_whatever_is_open():
    pages = parse_doctags("<doctag><text>a<page_break>b<page_break></doctag><end_of_utterance>").pages
    assert [[(one.text, one.is_closed) for one in page.elements] for page in pages] == [
        [("a", False)], [("b", True)], [],
    ]  # fmt: skip
    assert parse_doctags("").pages[0].elements == ()


def test_depth_is_bounded():
    doctags = "<doctag>" * 1500 + "<unordered_list><list_item>x" * 1500 + "<text>y" * 1500
    text = str(parse_doctags(doctags))
    assert text.count("'x'") + text.count("'x ") == text.count("kind='list_item'")
    assert text.count("x") >= 1500 and text.count("y") >= 1500


def test_pieces_of_any_size_give_the_same_tree():
    doctags = (
        " <doctag><text><loc_1><loc_2><loc_3><loc_4>a <b> c</text>\n<code><loc_1><_C++_>x<y><text><loc_1>z</text>"
        "<otsl><fcel>p<lcel>  q<nl><page_break>w <unordered_list> v <list_item>u</list_item></doctag> <|end_of_text|>"
    )
    whole = parse_doctags(doctags)
    for size in range(1, 12):
        parser = DocTagsParser()
        ended = [one for at in range(0, len(doctags), size) for one in parser.feed(doctags[at : at + size])]
        assert parser.close() == whole
        assert [one.kind for one in ended][:2] == ["text", "code"]


def test_an_answer_that_was_cut_is_closed():
    cut = close_doctags("<doctag><text>a</text><otsl><fcel>b<fc")
    assert cut.was_cut and cut.open_tags == ("doctag", "otsl")
    assert cut.text == "<doctag><text>a</text>\n<otsl><fcel>b<fc<nl></otsl></doctag>"
    assert not close_doctags(cut.text).was_cut
    assert close_doctags(" <text>whole</text>") == (" <text>whole</text>", ())
