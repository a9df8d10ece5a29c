// Elements from text alone: nothing that was measured or named is ever parsed as markup.

const SVG = "http://www.w3.org/2000/svg";

export function html(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== false) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

export function list(texts) {
  return html("ul", { class: "plain" }, ...texts.map((text) => html("li", {}, ...prose(text))));
}

// Text with the commands and names of fields that stand between backticks in it; a lone backtick stays one.
export function prose(text) {
  const pieces = String(text).split("`");
  if (pieces.length % 2 === 0) pieces.push(`${pieces.splice(-2, 1)[0]}\`${pieces.pop()}`);
  return pieces.map((piece, index) => (index % 2 ? html("code", {}, piece) : piece)).filter((piece) => piece !== "");
}
