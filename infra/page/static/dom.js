// Everything from outside becomes text here, never markup.

export const byId = (id) => document.getElementById(id);

/** An element with a class, a text and children. */
export function make(tag, className = "", text = "", ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  element.append(...children);
  return element;
}

/** Set a text if it is another one: to write the same again costs a layout. */
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Set an attribute of data-*, or take it away. */
export function mark(element, name, value) {
  if (value === null || value === undefined || value === "") {
    if (name in element.dataset) delete element.dataset[name];
  } else if (element.dataset[name] !== value) {
    element.dataset[name] = value;
  }
}

/** A list of terms and what they are, as rows. */
export function facts(pairs) {
  const list = make("dl", "facts");
  for (const [term, text, className = ""] of pairs) {
    list.append(make("div", className, "", make("dt", "", term), make("dd", "", text)));
  }
  return list;
}
