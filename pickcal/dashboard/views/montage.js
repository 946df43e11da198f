/**
 * Rows of cutouts of picks, each tile a button that leads to its pick, below it a button that decides by hand.
 *
 * Messages in, any of: {version}, {status}, {toggles: whether picks may be decided by hand}, {limit, contrast: [low,
 * high]} in standard deviations, {groups: [{key, title, note, side, pixels: base64, tiles: [{score, hint}]}]},
 * {states: [[{accepted, words}]]} in the order of the groups. Messages out: {ready}, {go: [group, tile]}, {toggle: same}.
 * Document event `pickcal-contrast` {low, high}: contrast that is being dragged.
 *
 * The root element carries `data-painted`, the version that was drawn last.
 */

function bytes(text) {
  const raw = atob(text)
  return Uint8Array.from(raw, (letter) => letter.charCodeAt(0))
}

/** Grey of every level, as one number per pixel of a canvas. */
function shades(limit, low, high) {
  const table = new Uint32Array(256)
  for (let level = 0; level < 256; level++) {
    const value = (level / 255) * 2 * limit - limit
    const grey = Math.round(255 * Math.min(1, Math.max(0, (value - low) / Math.max(high - low, 1e-6))))
    table[level] = 0xff000000 | (grey << 16) | (grey << 8) | grey
  }
  return table
}

function paint(tile, table) {
  const context = tile.canvas.getContext("2d")
  const image = context.createImageData(tile.canvas.width, tile.canvas.height)
  const out = new Uint32Array(image.data.buffer)
  for (let i = 0; i < out.length; i++) out[i] = table[tile.levels[i]]
  context.putImageData(image, 0, 0)
}

function makeTile(levels, side, facts) {
  const canvas = element("canvas", { width: side, height: side, "aria-hidden": "true" })
  const go = element("button", { type: "button", class: "go", title: facts.hint }, canvas)
  const toggle = element("button", { type: "button", class: "toggle" })
  const box = element("div", { class: "tile" }, go, element("div", { class: "score" }, facts.score), toggle)
  return { box, go, toggle, canvas, levels, facts }
}

function setState(tile, state) {
  tile.box.classList.toggle("rejected", !state.accepted)
  tile.box.dataset.accepted = state.accepted
  tile.go.title = `${tile.facts.hint}\n${state.words}`
  tile.go.setAttribute("aria-label", `${tile.facts.hint.replaceAll("\n", ", ")}, ${state.words}; go to this pick`)
  tile.toggle.textContent = state.accepted ? "Reject" : "Accept"
  const name = tile.facts.hint.split("\n")[0]
  tile.toggle.setAttribute("aria-label", `${tile.toggle.textContent} by hand: pick of ${name}, ${tile.facts.score}`)
}

/** One row of tiles; the arrow keys move in it, so that Tab stops once in a row. */
function makeGroup(group, index, model, toggles) {
  const levels = bytes(group.pixels)
  const area = group.side * group.side
  const tiles = group.tiles.map((facts, i) => makeTile(levels.subarray(i * area, (i + 1) * area), group.side, plain(facts)))
  const stop = (at) => tiles.forEach((tile, i) => { tile.go.tabIndex = tile.toggle.tabIndex = i === at ? 0 : -1 })
  const move = (event, at, part) => {
    const places = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tiles.length - 1 }
    const next = tiles[places[event.key]]
    if (!next) return
    event.preventDefault()
    next[part].focus()
  }
  tiles.forEach((tile, i) => {
    tile.toggle.hidden = !toggles
    tile.go.addEventListener("click", () => model.send_msg({ go: [index, i] }))
    tile.toggle.addEventListener("click", () => model.send_msg({ toggle: [index, i] }))
    for (const part of ["go", "toggle"]) {
      tile[part].addEventListener("focus", () => stop(i))
      tile[part].addEventListener("keydown", (event) => move(event, i, part))
    }
  })
  stop(0)
  const row = element("div", { class: "tiles", role: "group", "aria-label": group.title }, ...tiles.map((tile) => tile.box))
  const title = element("h3", {}, group.title)
  const box = element("section", { "data-group": group.key }, title, element("p", {}, group.note), row)
  return { box, tiles }
}

/** Where the focus is, as [row, tile, part]; null where it is elsewhere. */
function focusedTile(groups, root) {
  const active = root.getRootNode().activeElement
  for (const [g, group] of groups.entries()) {
    for (const [t, tile] of group.tiles.entries()) {
      if (active === tile.go) return [g, t, "go"]
      if (active === tile.toggle) return [g, t, "toggle"]
    }
  }
  return null
}

export function render({ model, el }) {
  const status = element("p", { class: "status", role: "status" })
  const rows = element("div")
  const root = element("div", { class: "montage" }, status, rows)
  el.append(root)
  let groups = []
  let limit = 5, contrast = [-3, 3], toggles = true, frame = 0, version = 0, dirty = false

  const draw = () => {
    frame = 0
    if (dirty) {
      const table = shades(limit, ...contrast)
      for (const group of groups) for (const tile of group.tiles) paint(tile, table)
    }
    dirty = false
    root.dataset.painted = version
  }
  const soon = () => { frame = frame || requestAnimationFrame(draw) }
  const show = (found) => {
    const place = focusedTile(groups, root)
    groups = found.map((group, i) => makeGroup(plain(group), i, model, toggles))
    rows.replaceChildren(...groups.map((group) => group.box))
    const again = place && groups[place[0]] && groups[place[0]].tiles[place[1]]
    if (again) again[place[2]].focus()
    dirty = true
  }
  const receive = (message) => {
    if (message.version !== undefined) version = message.version
    if (message.status !== undefined && message.status !== status.textContent) status.textContent = message.status
    if (message.toggles !== undefined) toggles = message.toggles
    if (message.limit !== undefined) limit = message.limit
    if (message.contrast && String(message.contrast) !== String(contrast)) {
      contrast = message.contrast
      dirty = true
    }
    if (message.groups) show(message.groups)
    if (message.states) {
      message.states.forEach((states, g) => states.forEach((state, t) => setState(groups[g].tiles[t], plain(state))))
    }
    soon()
  }
  const dragged = (event) => {
    contrast = [event.detail.low, event.detail.high]
    dirty = true
    soon()
  }
  document.addEventListener("pickcal-contrast", dragged)
  model.on("remove", () => document.removeEventListener("pickcal-contrast", dragged))
  model.on("msg:custom", (message) => receive(plain(message)))
  model.send_msg({ ready: true })
}
