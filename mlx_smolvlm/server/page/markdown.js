// Markdown as elements. Text becomes text nodes only, never HTML, and nothing is loaded: images become links.
import { copyText, el, iconButton } from "./ui.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const DIVIDER = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
const MAX_DEPTH = 8;

/** Fill `node` with the elements of `text`. */
export function render(node, text) {
  node.replaceChildren(...blocks(text.replaceAll("\r\n", "\n").split("\n"), 0));
}

function blocks(lines, depth) {
  const nodes = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    let match;
    if (!line.trim()) {
      at += 1;
    } else if ((match = FENCE.exec(line))) {
      let end = at + 1;
      while (end < lines.length && !lines[end].trim().startsWith(match[1])) end += 1;
      nodes.push(code(lines.slice(at + 1, end).join("\n"), match[2]));
      at = end + 1;
    } else if ((match = HEADING.exec(line))) {
      nodes.push(el(`h${Math.min(6, match[1].length + 2)}`, {}, ...inline(match[2], depth)));
      at += 1;
    } else if (RULE.test(line)) {
      nodes.push(el("hr"));
      at += 1;
    } else if (QUOTE.test(line) && depth < MAX_DEPTH) {
      const inner = [];
      while (at < lines.length && (match = QUOTE.exec(lines[at]))) inner.push(match[1]), (at += 1);
      nodes.push(el("blockquote", {}, ...blocks(inner, depth + 1)));
    } else if (ITEM.test(line) && depth < MAX_DEPTH) {
      const [node, next] = list(lines, at, depth);
      nodes.push(node);
      at = next;
    } else if (line.includes("|") && at + 1 < lines.length && lines[at + 1].includes("-") && DIVIDER.test(lines[at + 1])) {
      let end = at + 2;
      while (end < lines.length && lines[end].includes("|")) end += 1;
      nodes.push(table(lines.slice(at, end), depth));
      at = end;
    } else {
      const start = at;
      do at += 1;
      while (at < lines.length && lines[at].trim() && !startsBlock(lines[at]));
      nodes.push(el("p", {}, ...withBreaks(lines.slice(start, at), depth)));
    }
  }
  return nodes;
}

const startsBlock = (line) => FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line);

function withBreaks(lines, depth) {
  return lines.flatMap((line, index) => [...(index ? [el("br")] : []), ...inline(line.trim(), depth)]);
}

function list(lines, start, depth) {
  const first = ITEM.exec(lines[start]);
  const indent = first[1].length;
  const ordered = /\d/.test(first[2]);
  const node = el(ordered ? "ol" : "ul", ordered && parseInt(first[2], 10) !== 1 ? { start: parseInt(first[2], 10) } : {});
  let at = start;
  while (at < lines.length) {
    const match = ITEM.exec(lines[at]);
    if (!match || match[1].length > indent + 1 || match[1].length < indent || /\d/.test(match[2]) !== ordered) break;
    const width = match[0].length - match[3].length;
    const inner = [match[3]];
    at += 1;
    while (at < lines.length) {
      const line = lines[at];
      const isDeeper = line.search(/\S/) > indent + 1;
      const goesOn = line.trim() && !startsBlock(line) && lines[at - 1].trim();
      const isGap = !line.trim() && at + 1 < lines.length && lines[at + 1].search(/\S/) > indent + 1;
      if (!isDeeper && !goesOn && !isGap) break;
      inner.push(line.slice(Math.min(width, Math.max(0, line.search(/\S/)))));
      at += 1;
    }
    const content = blocks(inner, depth + 1);
    // a list of short lines needs no paragraphs
    node.append(el("li", {}, ...(content[0]?.tagName === "P" ? [...content[0].childNodes, ...content.slice(1)] : content)));
    while (at < lines.length && !lines[at].trim() && ITEM.test(lines[at + 1] || "")) at += 1;
  }
  return [node, at];
}

function table(lines, depth) {
  const rows = lines.filter((_, index) => index !== 1).map((line) => line.trim().replace(/^\||\|$/g, "").split("|"));
  const cells = (row, tag) => el("tr", {}, ...row.map((cell) => el(tag, tag === "th" ? { scope: "col" } : {}, ...inline(cell.trim(), depth))));
  const body = el("tbody", {}, ...rows.slice(1).map((row) => cells(row, "td")));
  return el("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" }, el("table", {}, el("thead", {}, cells(rows[0], "th")), body));
}

function code(text, language) {
  const copy = iconButton("copy", "Copy the code", () => copyText(text, copy));
  const pre = el("pre", { tabindex: "0", "aria-label": language ? `Code, ${language}` : "Code" }, el("code", { text }));
  return el("div", { class: "code" }, pre, copy);
}

// Each pattern is tried at the earliest place; none can take long on hostile text.
const INLINE = /(`+)([^`]|[^`][^]*?[^`])\1(?!`)|(!?)\[([^\]\n]{0,500})\]\(\s*<?([^\s<>()]{1,2000})>?(?:\s+"[^"\n]{0,300}")?\s*\)|\*\*(?=\S)([^]{0,2000}?\S)\*\*|__(?=\S)([^]{0,2000}?\S)__(?!\w)|~~(?=\S)([^]{0,2000}?\S)~~|\*(?=[^\s*])([^*\n]{0,2000}?[^\s*])\*|(?<!\w)_(?=[^\s_])([^_\n]{0,2000}?[^\s_])_(?!\w)|<(https?:\/\/[^\s<>]{1,2000})>|\b(https?:\/\/[^\s<>"'`]{1,2000}[^\s<>"'`.,;:!?)\]])|\\([\\`*_{}[\]()#+\-.!|~>])/;

function inline(text, depth) {
  const nodes = [];
  let rest = text;
  while (rest) {
    const match = depth < MAX_DEPTH * 2 ? INLINE.exec(rest) : null;
    if (!match) break;
    if (match.index) nodes.push(rest.slice(0, match.index));
    rest = rest.slice(match.index + match[0].length);
    const [whole, ticks, codeText, bang, label, target, bold, bold2, gone, italic, italic2, auto, bare, escaped] = match;
    if (ticks) nodes.push(el("code", { text: codeText.trim() || codeText }));
    else if (target !== undefined) nodes.push(link(target, bang ? `Image: ${label || target}` : label || target, depth) ?? whole);
    else if (bold || bold2) nodes.push(el("strong", {}, ...inline(bold || bold2, depth + 1)));
    else if (gone) nodes.push(el("del", {}, ...inline(gone, depth + 1)));
    else if (italic || italic2) nodes.push(el("em", {}, ...inline(italic || italic2, depth + 1)));
    else if (auto || bare) nodes.push(link(auto || bare, auto || bare, MAX_DEPTH * 2) ?? whole);
    else nodes.push(escaped ?? whole);
  }
  if (rest) nodes.push(rest);
  return nodes;
}

/** A link that opens elsewhere; null for any other address than http(s). */
function link(target, label, depth) {
  let url;
  try {
    url = new URL(target);
  } catch {
    return null;
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") return null;
  return el("a", { href: url.href, target: "_blank", rel: "noopener noreferrer nofollow", title: url.href }, ...inline(label, Math.max(depth + 1, MAX_DEPTH * 2)));
}
