/**
 * What saving needs of the browser itself: a link to this view for the clipboard, files that arrive, the focus.
 *
 * Messages in, one of: {name, content: bytes, type} a file to download, {focus: class of a widget}.
 */
const SHORT = 4000

function download({ name, content, type }) {
  const address = URL.createObjectURL(new Blob([content], { type }))
  const link = element("a", { href: address, download: name })
  link.click()
  setTimeout(() => URL.revokeObjectURL(address), 60000)
}

/** First element that matches, inside shadow roots too. */
function find(root, selector) {
  const found = root.querySelector(selector)
  if (found) return found
  for (const host of root.querySelectorAll("*")) {
    const inner = host.shadowRoot && find(host.shadowRoot, selector)
    if (inner) return inner
  }
  return null
}

/** Put the keyboard into a field; what it holds is selected once the new proposal has arrived there. */
function focus(name) {
  const widget = find(document, `.${name}`)
  const field = widget && (find(widget.shadowRoot || widget, "input, select, button"))
  if (!field) return
  field.focus()
  setTimeout(() => field.select && field.select(), 50)
}

/** Copy the address; where the browser refuses that (pages without encryption), show it to be copied by hand. */
async function copyLink(field, said) {
  const address = location.href
  try {
    await navigator.clipboard.writeText(address)
    said.textContent = "Copied."
    setTimeout(() => { said.textContent = "" }, SHORT)
  } catch {
    said.textContent = "This browser does not let the page copy; copy it here:"
    field.hidden = false
    field.value = address
    field.focus()
    field.select()
  }
}

export function render({ model, el }) {
  const button = element("button", { type: "button" }, "Copy link to this view")
  const said = element("span", { role: "status" })
  const field = element("input", { type: "text", readonly: "", "aria-label": "Link to this view" })
  field.hidden = true
  button.addEventListener("click", () => {
    model.send_msg({ copied: true })
    copyLink(field, said)
  })
  el.append(element("div", { class: "link" }, button, said, field))
  model.on("msg:custom", (message) => {
    if (message.content !== undefined) download(message)
    if (message.focus) focus(message.focus)
  })
}
