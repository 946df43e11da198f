/**
 * What the components' modules share; `component.py` puts it before each, since a module of a component can import none.
 */

/** A value that came from the server as an object: BokehJS makes maps of dictionaries. */
const plain = (value) => (value instanceof Map ? Object.fromEntries(value) : value || {})

/** An element with attributes and children. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
  made.append(...children)
  return made
}

