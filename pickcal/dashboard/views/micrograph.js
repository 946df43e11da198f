/**
 * One micrograph: its picture, over it the picks as circles, above it a title line.
 *
 * Properties in: `picks` {row, name, defocus, diameter, extent, values, labels}; `picture` {row, key, pixels, low, high}
 * or {row, text}; `state` {version, reasons, main, threshold, excluded, rejected, cursor, low, high}, all that changes
 * with a move, one byte per pick. Messages out: {toggle: place, row}, {exclude: row}.
 * Document event `pickcal-contrast` {low, high}: contrast that is being dragged, in standard deviations.
 *
 * The root element carries `data-painted` (version), `data-picture` (key), `drawn` (counts) and `where(place)`, the
 * position of a pick on the page.
 */
const ACCEPTED = 0, BY_HAND = 8, ACCEPTED_BY_HAND = 9, NO_PICK = 255
const BY_SCORE = new Set([3, 6, 7])
const FAR = 0, NEAR = 1, TAKEN = 2, CROSSED = 3, TICKED = 4, KINDS = 5
const SKY = "#56B4E9", ORANGE = "#E69F00", HALO = "rgba(0, 0, 0, 0.6)"
const FAR_SHARE = 0.15, FAR_ALPHA = 0.8
const MOST_ZOOM = 24, LARGEST_SPRITE = 160, MOST_MENDED = 8, STILL = 4

const many = (number) => number.toLocaleString("en-US")

/** A number for people: three digits, "unknown" for none. */
function number(value) {
  if (!Number.isFinite(value)) return "unknown"
  if (Math.abs(value) >= 1000) return many(Math.round(value))
  return String(Number(value.toPrecision(3))).replace("-", "−")
}

/** A name of at most some characters: without its folders if that will do, without its middle if not. */
function shortened(name, most) {
  if (name.length <= most) return name
  const file = `…/${name.split("/").pop()}`
  if (file.length < name.length && file.length <= most) return file
  const tail = Math.max(4, Math.floor(most * 0.7))
  return `${name.slice(0, Math.max(3, most - tail - 1))}…${name.slice(-tail)}`
}

function circle(context, x, y, radius, kind) {
  const accepted = kind === TAKEN || kind === TICKED
  context.beginPath()
  context.arc(x, y, radius, 0, 2 * Math.PI)
  context.setLineDash(accepted ? [] : [5, 3])
  stroke(context, HALO, accepted ? 4 : 3.4)
  stroke(context, accepted ? SKY : ORANGE, accepted ? 2 : 1.7)
  context.setLineDash([])
  if (kind === TICKED || kind === CROSSED) mark(context, x, y, kind)
}

function stroke(context, colour, width) {
  context.strokeStyle = colour
  context.lineWidth = width
  context.stroke()
}

/** Tick or cross of a pick decided by hand. */
function mark(context, x, y, kind) {
  const path = kind === TICKED ? [[-4, 0, -1, 4], [-1, 4, 5, -4]] : [[-4, -4, 4, 4], [-4, 4, 4, -4]]
  context.lineCap = "round"
  for (const [colour, width] of [[HALO, 5], [kind === TICKED ? SKY : ORANGE, 2.5]]) {
    context.beginPath()
    for (const [x0, y0, x1, y1] of path) {
      context.moveTo(x + x0, y + y0)
      context.lineTo(x + x1, y + y1)
    }
    stroke(context, colour, width)
  }
  context.lineCap = "butt"
}

/** Pixels of a circle that are not clear: their places from its centre, and their colours. */
function sprite(kind, radius, ratio, half) {
  const canvas = element("canvas")
  const side = 2 * half + 1
  canvas.width = canvas.height = side
  const context = canvas.getContext("2d", { willReadFrequently: true })
  context.translate(half + 0.5, half + 0.5)
  context.scale(ratio, ratio)
  context.globalAlpha = kind === FAR ? FAR_ALPHA : 1
  circle(context, 0, 0, radius, kind)
  const all = new Uint32Array(context.getImageData(0, 0, side, side).data.buffer)
  const inked = Array.from(all.keys()).filter((i) => all[i] >>> 24)
  return {
    across: Int16Array.from(inked, (i) => (i % side) - half),
    down: Int16Array.from(inked, (i) => Math.floor(i / side) - half),
    colours: Uint32Array.from(inked, (i) => all[i]),
  }
}

/** Copy a circle into an image, as far as it is in a box; where circles overlap, colours mix as in any drawing. */
function copy({ across, down, colours }, out, width, x, y, half, box) {
  const [left, top, right, bottom] = box
  const inside = x - half >= left && y - half >= top && x + half <= right && y + half <= bottom
  for (let i = 0; i < colours.length; i++) {
    const column = x + across[i], line = y + down[i]
    if (!inside && (column < left || line < top || column > right || line > bottom)) continue
    const place = line * width + column, below = out[place]
    out[place] = below === 0 || colours[i] >>> 24 === 255 ? colours[i] : over(colours[i], below)
  }
}

/** One colour, as in image data, over another; red and blue are mixed in one go. */
function over(above, below) {
  const alpha = above >>> 24
  const sum = alpha + (((below >>> 24) * (255 - alpha) * 257 + 257) >>> 16)
  const share = ((alpha << 8) / sum) | 0, other = 256 - share
  const pair = (((above & 0xff00ff) * share + (below & 0xff00ff) * other) >>> 8) & 0xff00ff
  const green = (((above & 0xff00) * share + (below & 0xff00) * other) >>> 8) & 0xff00
  return (sum << 24) | pair | green
}

/** Round length of about a fifth of the width, nm. */
function roundLength(most) {
  const power = 10 ** Math.floor(Math.log10(most))
  return [5, 2, 1].map((step) => step * power).find((length) => length <= most) || power
}

class Micrograph {
  constructor(model) {
    this.model = model
    this.picks = { values: null, count: 0, extent: [0, 1, 0, 1], labels: [] }
    this.state = { reasons: [], cursor: -1 }
    this.groups = Array.from({ length: KINDS }, () => [])
    this.sprites = { key: "" }
    this.zoom = 1
    this.middle = null
    this.size = { width: 0, height: 0, ratio: 1 }
    this.dirty = { picture: false, overlay: false }
    this.hovered = -1
    this.grey = null
    this.build()
    this.listen()
  }

  build() {
    const title = { name: element("span", { class: "name" }), facts: element("span", { class: "facts" }) }
    this.title = title
    this.exclude = element("button", { type: "button", class: "exclude" }, "Exclude")
    this.label = element("span", { class: "label" }, this.model.label)
    const head = element("div", { class: "head" }, this.label, title.name, title.facts, this.exclude)
    this.back = element("canvas", { "aria-hidden": "true" })
    this.front = element("canvas", { role: "img", tabindex: "0" })
    this.word = element("div", { class: "word", hidden: "" }, "excluded")
    this.note = element("div", { class: "note", hidden: "" })
    this.tip = element("div", { class: "tip", hidden: "" })
    this.stage = element("div", { class: "stage" }, this.back, this.front, this.note, this.word, this.tip)
    this.live = element("div", { class: "live", "aria-live": "polite" })
    this.root = element("div", { class: this.model.large ? "plate large" : "plate" }, head, this.stage, this.live)
    this.root.where = (place) => this.where(place)
  }

  listen() {
    const { model, front } = this
    model.on("picks", () => this.takePicks())
    model.on("picture", () => this.takePicture())
    model.on("state", () => this.takeState())
    model.on("label", () => { this.label.textContent = model.label })
    this.exclude.addEventListener("click", () => model.send_msg({ exclude: this.picks.row }))
    front.addEventListener("wheel", (event) => this.wheel(event), { passive: false })
    front.addEventListener("pointerdown", (event) => this.press(event))
    front.addEventListener("pointermove", (event) => this.move(event))
    front.addEventListener("pointerup", (event) => this.release(event))
    front.addEventListener("pointerleave", () => this.hover(-1))
    front.addEventListener("dblclick", () => this.reset())
    front.addEventListener("keydown", (event) => this.key(event))
    const contrast = (event) => this.contrast(event.detail.low, event.detail.high)
    document.addEventListener("pickcal-contrast", contrast)
    const observer = new ResizeObserver(() => this.redraw())
    observer.observe(this.stage)
    model.on("remove", () => {
      observer.disconnect()
      document.removeEventListener("pickcal-contrast", contrast)
    })
  }

  start() {
    this.takePicks()
    this.takePicture()
    this.takeState()
  }

  // what comes from the server

  takePicks() {
    const found = plain(this.model.picks)
    if (!found.extent) return
    const changed = found.row !== this.picks.row
    const { shape, buffer, byteOffset, length } = found.values
    // Bokeh's arrays with a shape cannot be cut
    const values = new Float32Array(buffer, byteOffset, length)
    const columns = Array.from({ length: shape[0] }, (_, i) => values.subarray(i * shape[1], (i + 1) * shape[1]))
    this.picks = { ...found, count: shape[1], columns }
    if (changed || !this.middle) this.fit()
    this.root.style.setProperty("--aspect", String(this.width / this.height))
    this.spread = {}
    this.hover(-1)
    this.takeState()
    this.redraw()
  }

  takePicture() {
    this.picture = plain(this.model.picture)
    this.grey = null
    this.redraw()
  }

  takeState() {
    this.state = { reasons: [], cursor: -1, ...plain(this.model.state) }
    const { state } = this
    if (state.low !== undefined) this.contrast(state.low, state.high)
    this.group()
    this.describe()
    this.word.hidden = !state.excluded
    this.root.classList.toggle("excluded", Boolean(state.excluded))
    this.exclude.textContent = state.excluded ? "Take back in" : "Exclude"
    this.exclude.setAttribute("aria-label", `${this.exclude.textContent}: ${this.picks.name}`)
    if (state.cursor >= 0 && state.cursor !== this.cursor) this.showCursor()
    this.cursor = state.cursor
    this.showTip()
    this.schedule("overlay")
  }

  /** Sort picks by how they are drawn. */
  group() {
    const { reasons } = this.state
    const groups = Array.from({ length: KINDS }, () => [])
    const far = this.farTest()
    for (let i = 0; i < Math.min(reasons.length, this.picks.count); i++) {
      const reason = reasons[i]
      if (reason === NO_PICK) continue
      if (reason === ACCEPTED) groups[TAKEN].push(i)
      else if (reason === ACCEPTED_BY_HAND) groups[TICKED].push(i)
      else if (reason === BY_HAND) groups[CROSSED].push(i)
      else groups[BY_SCORE.has(reason) && far(i) ? FAR : NEAR].push(i)
    }
    this.groups = groups
  }

  /** Whether the main score of a pick is so far from the threshold that few want to see it. */
  farTest() {
    const { main, threshold } = this.state
    const column = this.picks.columns && this.picks.columns[main]
    if (!column || threshold === null || threshold === undefined) return () => false
    const reach = FAR_SHARE * this.spreadOf(main, column)
    return (i) => !(Math.abs(column[i] - threshold) <= reach)
  }

  spreadOf(main, column) {
    if (this.spread[main] === undefined) {
      const sorted = column.filter(Number.isFinite).sort()
      const at = (share) => sorted[Math.floor(share * (sorted.length - 1))] || 0
      this.spread[main] = at(0.99) - at(0.01)
    }
    return this.spread[main]
  }

  get counts() {
    const [far, near, taken, crossed, ticked] = this.groups.map((group) => group.length)
    return { accepted: taken + ticked, rejected: far + near + crossed, faint: far, byHand: crossed + ticked }
  }

  describe() {
    const { picks, state, counts } = this
    if (picks.row === undefined) return
    const all = counts.accepted + counts.rejected
    const defocus = Number.isFinite(picks.defocus) ? `${picks.defocus.toFixed(2)} µm` : "defocus unknown"
    const told = all ? `${many(counts.accepted)} of ${many(all)} accepted` : "no picks"
    this.title.facts.textContent = `${defocus} · ${told}`
    const where = this.model.label ? `${this.model.label}: ` : ""
    const status = state.excluded ? ", excluded" : ""
    const text = `${where}micrograph ${picks.name}, ${defocus.replace("µm", "micrometres defocus")}, ${told}${status}`
    this.front.setAttribute("aria-label", text)
  }

  fitName() {
    const { name, facts } = this.title
    const beside = this.model.large ? facts.offsetWidth : this.label.offsetWidth
    const room = this.root.clientWidth - this.exclude.offsetWidth - beside - 24
    name.title = this.picks.name
    name.textContent = shortened(this.picks.name, Math.max(9, Math.floor(room / 7.4)))
  }

  // what is where

  get width() { return this.picks.extent[1] - this.picks.extent[0] }
  get height() { return this.picks.extent[3] - this.picks.extent[2] }
  get scale() { return this.zoom * Math.min(this.size.width / this.width, this.size.height / this.height) }

  fit() {
    const [left, right, top, bottom] = this.picks.extent
    this.zoom = 1
    this.middle = [(left + right) / 2, (top + bottom) / 2]
  }

  reset() {
    this.fit()
    this.redraw()
  }

  /** Position on the stage, CSS pixels, of a place, Å. */
  at(x, y) {
    const scale = this.scale
    return [(x - this.middle[0]) * scale + this.size.width / 2, (y - this.middle[1]) * scale + this.size.height / 2]
  }

  where(place) {
    const box = this.front.getBoundingClientRect()
    const [x, y] = this.at(this.picks.columns[0][place], this.picks.columns[1][place])
    return { x: box.left + x, y: box.top + y }
  }

  /** Place, Å, under the pointer. */
  under(event) {
    const box = this.front.getBoundingClientRect()
    const x = event.clientX - box.left - this.size.width / 2, y = event.clientY - box.top - this.size.height / 2
    return [x / this.scale + this.middle[0], y / this.scale + this.middle[1]]
  }

  /** Pick whose circle the pointer is in, the nearest of several; -1 for none. */
  pickAt(event) {
    if (!this.picks.columns || !this.size.width) return -1
    const [x, y] = this.under(event), [xs, ys] = this.picks.columns
    let best = -1
    let least = Math.max(this.picks.diameter / 2, 6 / this.scale) ** 2
    for (let kind = 0; kind < KINDS; kind++) {
      if (!this.visible(kind)) continue
      for (const i of this.groups[kind]) {
        const away = (xs[i] - x) ** 2 + (ys[i] - y) ** 2
        if (away <= least) [best, least] = [i, away]
      }
    }
    return best
  }

  visible(kind) {
    return this.state.rejected !== false || kind === TAKEN || kind === TICKED || kind === CROSSED
  }

  /** Keep the picture on the stage. */
  confine() {
    const [left, right, top, bottom] = this.picks.extent
    const half = [this.size.width / this.scale / 2, this.size.height / this.scale / 2]
    const inside = (value, low, high, reach) =>
      high - low <= 2 * reach ? (low + high) / 2 : Math.min(Math.max(value, low + reach), high - reach)
    this.middle = [inside(this.middle[0], left, right, half[0]), inside(this.middle[1], top, bottom, half[1])]
  }

  /** Bring the pick of the keyboard onto the stage. */
  showCursor() {
    const i = this.state.cursor
    if (!this.picks.columns || !this.size.width || this.zoom === 1) return
    const x = this.picks.columns[0][i], y = this.picks.columns[1][i]
    const [left, top] = this.at(x, y)
    if (left > 20 && top > 20 && left < this.size.width - 20 && top < this.size.height - 20) return
    this.middle = [x, y]
    this.redraw()
  }

  // what the visitor does

  zoomBy(factor, x, y) {
    const zoom = Math.min(Math.max(this.zoom * factor, 1), MOST_ZOOM)
    const part = this.zoom / zoom
    this.middle = [x + (this.middle[0] - x) * part, y + (this.middle[1] - y) * part]
    this.zoom = zoom
    this.redraw()
  }

  wheel(event) {
    if (!this.middle || !this.size.width || (this.zoom === 1 && event.deltaY > 0)) return
    event.preventDefault()
    const step = event.deltaY * (event.deltaMode ? 24 : 1)
    this.zoomBy(Math.exp(-Math.max(-300, Math.min(300, step)) * 0.0016), ...this.under(event))
    this.hover(this.pickAt(event))
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.middle) return
    if (event.key === "+" || event.key === "=") this.zoomBy(1.5, ...this.middle)
    else if (event.key === "-") this.zoomBy(1 / 1.5, ...this.middle)
    else if (event.key === "0") this.reset()
    else return
    event.preventDefault()
  }

  press(event) {
    if (event.button !== 0 || !this.middle) return
    this.front.setPointerCapture(event.pointerId)
    this.held = { x: event.clientX, y: event.clientY, middle: this.middle, moved: false }
  }

  move(event) {
    const { held } = this
    if (!held) return this.hover(this.pickAt(event))
    const across = event.clientX - held.x, down = event.clientY - held.y
    held.moved = held.moved || Math.hypot(across, down) > STILL
    if (held.moved && this.zoom > 1) {
      this.hover(-1)
      this.middle = [held.middle[0] - across / this.scale, held.middle[1] - down / this.scale]
      this.redraw()
    }
  }

  release(event) {
    const { held } = this
    this.held = null
    if (!held || held.moved) return
    const place = this.pickAt(event)
    if (place >= 0) this.model.send_msg({ toggle: place, row: this.picks.row })
  }

  hover(place) {
    this.front.style.cursor = place >= 0 ? "pointer" : this.zoom > 1 ? "grab" : "default"
    if (place === this.hovered) return
    this.hovered = place
    this.showTip()
    this.schedule("overlay")
  }

  // tooltip

  showTip() {
    const place = this.hovered >= 0 ? this.hovered : this.state.cursor
    const known = this.picks.columns && place >= 0 && place < this.picks.count && this.size.width
    this.tip.hidden = !known
    if (!known) return
    const lines = this.linesOf(place)
    this.tip.replaceChildren(...lines.map((text, i) => element("div", i ? {} : { class: "reason" }, text)))
    if (this.hovered < 0) this.live.textContent = lines.slice(0, -1).join(", ")
    const [x, y] = this.at(this.picks.columns[0][place], this.picks.columns[1][place])
    const gap = (this.picks.diameter / 2) * this.scale + 10
    const { offsetWidth: wide, offsetHeight: high } = this.tip
    const left = x + gap + wide < this.size.width ? x + gap : x - gap - wide
    this.tip.style.left = `${Math.max(2, Math.min(left, this.size.width - wide - 2))}px`
    this.tip.style.top = `${Math.max(2, Math.min(y - high / 2, this.size.height - high - 2))}px`
  }

  linesOf(place) {
    const { columns, labels } = this.picks
    const lines = [this.model.reasons[this.state.reasons[place]] || ""]
    for (const [label, raw, calibrated] of labels) {
      const more = calibrated >= 0 ? `, calibrated ${number(columns[calibrated][place])}` : ""
      lines.push(`${label} ${number(columns[raw][place])}${more}`)
    }
    return [...lines, `x ${number(columns[0][place])} Å, y ${number(columns[1][place])} Å`]
  }

  // drawing

  redraw() {
    this.schedule("picture")
    this.schedule("overlay")
  }

  schedule(what) {
    if (!this.dirty.picture && !this.dirty.overlay) requestAnimationFrame(() => this.draw())
    this.dirty[what] = true
  }

  draw() {
    const resized = this.measure()
    const { dirty } = this
    this.dirty = { picture: false, overlay: false }
    if (!this.size.width || !this.size.height || !this.middle) return
    this.confine()
    if (dirty.picture || resized) this.drawPicture()
    this.drawOverlay()
    if (dirty.picture || resized) {
      this.fitName()
      this.showTip()
    }
    this.root.drawn = { ...this.counts, version: this.state.version }
    this.root.dataset.painted = String(this.state.version)
  }

  measure() {
    const { clientWidth: width, clientHeight: height } = this.stage
    const ratio = window.devicePixelRatio || 1
    const old = this.size
    if (old.width === width && old.height === height && old.ratio === ratio) return false
    this.size = { width, height, ratio }
    for (const canvas of [this.back, this.front]) {
      canvas.width = Math.round(width * ratio)
      canvas.height = Math.round(height * ratio)
    }
    return true
  }

  contrast(low, high) {
    if (this.black === low && this.white === high) return
    this.black = low
    this.white = high
    this.grey = null
    this.schedule("picture")
  }

  /** The picture in the grey levels of the contrast, as a canvas of its own size. */
  toGrey() {
    const { pixels, low, high } = this.picture
    const [rows, columns] = pixels.shape
    const levels = new Uint32Array(256)
    for (let i = 0; i < 256; i++) {
      const value = low + (i / 255) * (high - low)
      const share = (value - this.black) / Math.max(this.white - this.black, 1e-6)
      levels[i] = 0xff000000 | (Math.round(255 * Math.min(Math.max(share, 0), 1)) * 0x010101)
    }
    const canvas = element("canvas")
    canvas.width = columns
    canvas.height = rows
    const context = canvas.getContext("2d")
    const image = context.createImageData(columns, rows)
    const out = new Uint32Array(image.data.buffer)
    for (let i = 0; i < out.length; i++) out[i] = levels[pixels[i]]
    context.putImageData(image, 0, 0)
    return canvas
  }

  drawPicture() {
    const { picture, picks } = this
    const here = picture && picture.row === picks.row
    const context = this.back.getContext("2d")
    this.device(context)
    const [left, top] = this.at(picks.extent[0], picks.extent[2])
    const box = [left, top, this.width * this.scale, this.height * this.scale]
    if (here && picture.pixels) {
      if (!this.grey) this.grey = this.toGrey()
      context.imageSmoothingQuality = "medium"
      context.drawImage(this.grey, ...box)
    } else {
      context.strokeStyle = getComputedStyle(this.root).getPropertyValue("--pc-line")
      context.strokeRect(...box)
    }
    this.note.hidden = Boolean(here && picture.pixels)
    this.note.textContent = here ? picture.text || "" : "picture on its way"
    this.root.dataset.picture = here ? picture.key || "" : ""
  }

  /** Let the units of a canvas be CSS pixels, and clear it unless what is there is to be kept. */
  device(context, keep = false) {
    context.setTransform(1, 0, 0, 1, 0, 0)
    if (!keep) context.clearRect(0, 0, context.canvas.width, context.canvas.height)
    context.setTransform(this.size.ratio, 0, 0, this.size.ratio, 0, 0)
  }

  drawOverlay() {
    const context = this.front.getContext("2d")
    const radius = (this.picks.diameter / 2) * this.scale
    const large = radius * this.size.ratio > LARGEST_SPRITE
    if (!large && this.picks.columns) this.copyCircles(context, radius)
    this.device(context, !large && this.picks.columns)
    for (let kind = 0; large && kind < KINDS; kind++) {
      if (this.visible(kind)) this.drawCircles(context, kind, radius)
    }
    for (const place of new Set([this.state.cursor, this.hovered])) this.drawHighlight(context, place, radius)
    this.drawBar(context)
  }

  /** Pixels of one circle of each kind: copying them thousands of times is quicker than having circles drawn. */
  makeSprites(radius) {
    const { ratio } = this.size
    const key = `${radius.toFixed(2)} ${ratio}`
    if (this.sprites.key === key) return
    const half = Math.ceil((Math.max(radius, 6) + 4) * ratio)
    this.sprites = { key, half, made: Array.from({ length: KINDS }, (_, kind) => sprite(kind, radius, ratio, half)) }
  }

  /** Bring the image of the circles up to date; where few picks changed, only around these. */
  copyCircles(context, radius) {
    this.makeSprites(radius)
    const { width, height } = context.canvas
    const key = [this.sprites.key, width, height, ...this.middle, this.zoom].join(" ")
    const changed = this.inked && this.inked.key === key && this.inked.picks === this.picks ? this.changed() : null
    if (changed && changed.length < this.picks.count / MOST_MENDED) changed.forEach((i) => this.mend(i))
    else this.copyAll(context, key)
    context.putImageData(this.inked.image, 0, 0)
  }

  /** How each pick is drawn; KINDS for one that is not. */
  drawnKinds() {
    const kinds = new Uint8Array(this.picks.count).fill(KINDS)
    this.groups.forEach((group, kind) => { if (this.visible(kind)) for (const i of group) kinds[i] = kind })
    return kinds
  }

  changed() {
    const kinds = this.drawnKinds()
    const { kinds: before } = this.inked
    this.inked.kinds = kinds
    return Array.from(kinds.keys()).filter((i) => kinds[i] !== before[i])
  }

  copyAll(context, key) {
    const { width, height } = context.canvas
    const { count, columns } = this.picks
    const image = this.inked && this.inked.width === width && this.inked.height === height
      ? this.inked.image : context.createImageData(width, height)
    const pixels = new Uint32Array(image.data.buffer)
    pixels.fill(0)
    const scale = this.scale * this.size.ratio
    const start = this.at(0, 0).map((value) => value * this.size.ratio)
    const at = [0, 1].map((axis) => Int32Array.from({ length: count }, (_, i) =>
      Math.round(columns[axis][i] * scale + start[axis])))
    this.inked = { key, picks: this.picks, width, height, image, pixels, at, kinds: this.drawnKinds(), cells: new Map() }
    const order = this.groups.filter((_, kind) => this.visible(kind)).flat()
    this.copyThese(order, [0, 0, width - 1, height - 1])
    for (let i = 0; i < count; i++) this.cell(i).push(i)
  }

  /** Picks in the square of the image, as wide as a circle, that a pick is in, or in one beside it. */
  cell(i, right = 0, down = 0) {
    const side = 2 * this.sprites.half + 1, { at, cells } = this.inked
    const key = (Math.floor(at[1][i] / side) + down) * 65536 + Math.floor(at[0][i] / side) + right
    if (!cells.has(key)) cells.set(key, [])
    return cells.get(key)
  }

  copyThese(places, box) {
    const { pixels, width, at, kinds } = this.inked, { half, made } = this.sprites
    for (const i of places) {
      const x = at[0][i], y = at[1][i]
      if (x + half < box[0] || y + half < box[1] || x - half > box[2] || y - half > box[3]) continue
      copy(made[kinds[i]], pixels, width, x, y, half, box)
    }
  }

  /** Draw anew what is in the square around a pick. */
  mend(i) {
    const { pixels, width, height, at, kinds } = this.inked, { half } = this.sprites
    const x = at[0][i], y = at[1][i]
    const box = [Math.max(0, x - half), Math.max(0, y - half), Math.min(width - 1, x + half), Math.min(height - 1, y + half)]
    if (box[0] > box[2] || box[1] > box[3]) return
    for (let line = box[1]; line <= box[3]; line++) pixels.fill(0, line * width + box[0], line * width + box[2] + 1)
    const near = [-1, 0, 1].flatMap((down) => [-1, 0, 1].flatMap((right) => this.cell(i, right, down)))
    this.copyThese(near.filter((j) => kinds[j] < KINDS).sort((j, k) => kinds[j] - kinds[k] || j - k), box)
  }

  drawCircles(context, kind, radius) {
    context.globalAlpha = kind === FAR ? FAR_ALPHA : 1
    for (const i of this.groups[kind]) {
      const [x, y] = this.at(this.picks.columns[0][i], this.picks.columns[1][i])
      const away = radius + 4
      if (x > -away && y > -away && x < this.size.width + away && y < this.size.height + away) {
        circle(context, x, y, radius, kind)
      }
    }
    context.globalAlpha = 1
  }

  drawHighlight(context, place, radius) {
    if (!(place >= 0 && place < this.picks.count) || !this.picks.columns) return
    const [x, y] = this.at(this.picks.columns[0][place], this.picks.columns[1][place])
    const wide = place === this.state.cursor ? 3 : 1.5
    context.beginPath()
    context.arc(x, y, Math.max(radius, 5) + 5, 0, 2 * Math.PI)
    stroke(context, "rgba(0, 0, 0, 0.7)", wide + 2.5)
    stroke(context, "#ffffff", wide)
  }

  drawBar(context) {
    const scale = this.scale * 10
    const length = roundLength(Math.min(this.size.width, this.width * this.scale) / 4 / scale)
    const x = 12, y = this.size.height - 12
    context.lineCap = "butt"
    for (const [colour, width, more] of [["rgba(0, 0, 0, 0.75)", 7, 1.5], ["#ffffff", 4, 0]]) {
      context.beginPath()
      context.moveTo(x - more, y)
      context.lineTo(x + length * scale + more, y)
      stroke(context, colour, width)
    }
    context.font = "600 13px system-ui, sans-serif"
    context.lineJoin = "round"
    context.lineWidth = 3.5
    context.strokeStyle = "rgba(0, 0, 0, 0.75)"
    context.fillStyle = "#ffffff"
    const text = `${number(length)} nm`
    context.strokeText(text, x, y - 8)
    context.fillText(text, x, y - 8)
  }
}

export function render({ model }) {
  const made = new Micrograph(model)
  made.start()
  return made.root
}
