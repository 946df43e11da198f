/**
 * The frame of the page: title, picks, progress, notes, theme, help; keyboard shortcuts and the address bar.
 *
 * Messages in: {facts}, {notes: [..]}, {address: "?.."}.
 * Messages out: {picks}, {key}, {dismiss}.
 */

/** The element that has the focus, inside shadow roots too. */
function focused() {
  let element = document.activeElement
  while (element && element.shadowRoot && element.shadowRoot.activeElement) element = element.shadowRoot.activeElement
  return element
}

/** Whether a key belongs to what has the focus: text that is typed, a slider that is moved, a button that is pressed. */
function taken(event) {
  const element = focused()
  if (!element) return false
  if (element.isContentEditable || element.tagName === "TEXTAREA" || element.tagName === "SELECT") return true
  if (element.tagName === "INPUT" && !["checkbox", "radio", "range", "button"].includes(element.type)) return true
  const moves = event.key.startsWith("Arrow") || ["Home", "End", "PageUp", "PageDown"].includes(event.key)
  const presses = event.key === "Enter" || event.key === " "
  return (moves && element.tagName === "INPUT") || (presses && element !== document.body && element.tabIndex >= 0)
}

/** Address of this page with another theme; what is looked at stays. */
function withTheme(theme) {
  const query = new URLSearchParams(location.search)
  query.set("theme", theme)
  return `${location.pathname}?${query}`
}

function followSystem(dark) {
  const chosen = new URLSearchParams(location.search).has("theme")
  if (!chosen && !dark && matchMedia("(prefers-color-scheme: dark)").matches) location.replace(withTheme("dark"))
}

function helpDialog(keys) {
  const rows = keys.map(([key, what]) => element("tr", {}, element("td", {}, element("kbd", {}, key)), element("td", {}, what)))
  const close = element("button", { type: "button" }, "Close")
  const table = element("table", {}, ...rows)
  const dialog = element("dialog", { "aria-label": "Keyboard" }, element("h2", {}, "Keyboard"), table, close)
  close.addEventListener("click", () => dialog.close())
  return dialog
}

function showNotes(place, notes, model) {
  place.replaceChildren(...notes.map((text, index) => {
    const close = element("button", { type: "button", "aria-label": "Dismiss this note" }, "×")
    close.addEventListener("click", () => model.send_msg({ dismiss: index }))
    return element("div", { class: "note" }, element("span", {}, text), close)
  }))
}

function showFacts(parts, facts) {
  parts.project.textContent = facts.project
  parts.project.title = facts.path
  parts.picks.replaceChildren(...facts.names.map((name) => {
    const option = element("option", { value: name }, name)
    option.selected = name === facts.picks
    return option
  }))
  parts.status.textContent = facts.status
  parts.progress.hidden = facts.progress === null
  if (facts.progress !== null) parts.progress.value = facts.progress
}

/**
 * Let messages to the server name what came from it by its number alone.
 *
 * BokehJS 3.9 takes parts of a page that come later than the page itself for its own until it has written a patch, and
 * would send each back in full, JavaScript and all, with the first message of it; the server warns "reference already
 * known". Writing an empty patch, which is not sent, after each change that came from the server prevents that.
 */
function knownToServer(model) {
  const { document } = model
  document.create_json_patch([])
  document.on_change((event) => { if (!event.sync) document.create_json_patch([]) })
}

export function render({ model, el }) {
  knownToServer(model)
  followSystem(model.dark)
  const project = element("strong", { class: "project" })
  const picks = element("select", { "aria-label": "Picks" })
  const status = element("span", { class: "status", role: "status" })
  const progress = element("progress", { max: 1, "aria-label": "Progress" })
  const theme = element("button", { type: "button" }, model.dark ? "Light" : "Dark")
  const help = element("button", { type: "button", title: "Keyboard (?)" }, "Keyboard")
  const notes = element("div", { class: "notes", role: "status", "aria-live": "polite" })
  const dialog = helpDialog(model.keys)
  const title = element("h1", {}, "pickcal")
  const bar = element("header", {}, title, project, picks, status, progress, element("span", { class: "space" }), help, theme)
  el.append(bar, notes, dialog)
  picks.addEventListener("change", () => model.send_msg({ picks: picks.value }))
  theme.addEventListener("click", () => location.assign(withTheme(model.dark ? "light" : "dark")))
  help.addEventListener("click", () => dialog.showModal())

  const pressed = (event) => {
    if (dialog.open || event.altKey || taken(event)) return
    const control = event.ctrlKey || event.metaKey
    if (control && event.key.toLowerCase() !== "z") return
    const name = control ? (event.shiftKey ? "redo" : "undo") : event.key
    if (name === "?") dialog.showModal()
    else if (model.handled.includes(name)) model.send_msg({ key: name })
    else return
    event.preventDefault()
  }
  window.addEventListener("keydown", pressed)
  const receive = (message) => {
    if (message.facts) showFacts({ project, picks, status, progress }, message.facts)
    if (message.notes) showNotes(notes, message.notes, model)
    if (message.address !== undefined) {
      const query = new URLSearchParams(message.address)
      const chosen = new URLSearchParams(location.search).get("theme")
      if (chosen) query.set("theme", chosen)
      history.replaceState(history.state, "", `${location.pathname}?${query}`)
    }
  }
  if (model.first) receive(JSON.parse(model.first))
  model.on("msg:custom", receive)
  model.on("remove", () => window.removeEventListener("keydown", pressed))
  model.send_msg({ ready: true })
}
