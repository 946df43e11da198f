/**
 * Thresholds of one visitor and what they accept, counted live.
 *
 * Messages in, any of: {version}, {heard: number of the last move that was answered}, {methods: [{name, title, why}]},
 * {method}, {controls: [{name, label, exact, far, edges, step, why}]}, {values: {name: value or null}},
 * {also: [{name, text}]}, {decided: [{what, text, why}]}, {undo, redo}, {counts}, {binning}, {failure}.
 * Messages out: {ready}, {method, number}, {threshold, value, final, number}, {action: "undo", "redo", "propose"}, {clear}.
 */
const PATIENCE = 300
const LOST = 5000
const PAUSE = 600
const WHOLE = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 })
const TENTH = new Intl.NumberFormat("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 })
const THOUSANDTH = new Intl.NumberFormat("en-US", { minimumFractionDigits: 3, maximumFractionDigits: 3 })

function percent(part, all) {
  return all > 0 ? `${TENTH.format((100 * part) / all)} %` : "none"
}

/** Expected numbers are no whole ones; many of them are rounded all the same. */
function expected(number) {
  return number < 100 ? TENTH.format(number) : WHOLE.format(number)
}

/**
 * Sends moves one at a time: the next waits until the last is answered, at most 300 ms; only the newest waits. What the
 * server says of a threshold before it has heard of its last move is older than what the visitor did, and is not
 * shown: a slow answer must not take a control back under the hand. After 5 s a move counts as lost.
 */
function moves(model) {
  let number = 0
  let answered = 0
  let awaited = null
  let next = null
  let timer = 0
  const sent = new Map()
  const send = (name, message) => {
    number += 1
    sent.set(name, { number, at: performance.now() })
    model.send_msg({ ...message, number })
  }
  const post = (move) => {
    send(move.threshold, move)
    awaited = number
    clearTimeout(timer)
    timer = setTimeout(free, PATIENCE)
  }
  const free = () => {
    clearTimeout(timer)
    awaited = null
    const move = next
    next = null
    if (move) post(move)
  }
  return {
    drag(threshold, value) {
      const move = { threshold, value, final: false }
      if (awaited !== null) next = move
      else post(move)
    },
    settle(threshold, value) {
      next = null
      post({ threshold, value, final: true })
    },
    choose(method) {
      send("method", { method })
    },
    heard(last) {
      answered = last
      if (awaited !== null && last >= awaited) free()
    },
    /** Whether what the server says of a threshold, or of the method, is older than what the visitor did. */
    ahead(name) {
      const last = sent.get(name)
      return (next !== null && next.threshold === name) ||
        (last !== undefined && last.number > answered && performance.now() - last.at < LOST)
    },
  }
}

/** Where a threshold stands on its range: one position more than there are edges, the far end is "no limit". */
class Scale {
  constructor(edges, far) {
    this.edges = edges
    this.far = far
  }

  value(position) {
    const index = this.far === "low" ? position - 1 : position
    return index < 0 || index >= this.edges.length ? null : this.edges[index]
  }

  position(value) {
    const shift = this.far === "low" ? 1 : 0
    if (value === null || !this.edges.length) return this.far === "low" ? 0 : this.edges.length
    let low = 0
    let high = this.edges.length - 1
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.edges[middle] < value) low = middle + 1
      else high = middle
    }
    if (low > 0 && value - this.edges[low - 1] < this.edges[low] - value) low -= 1
    return low + shift
  }
}

/** A threshold: a range over the edges that are counted exactly, and a number for any other value. */
class Control {
  constructor(name, mover) {
    this.name = name
    this.mover = mover
    this.scale = new Scale([], "low")
    this.shown = undefined
    this.held = this.keyed = this.typing = false
    this.timer = 0
    this.label = element("label", { for: name })
    this.range = element("input", { type: "range", id: name, min: 0, step: 1 })
    this.number = element("input", { type: "number", placeholder: "no limit" })
    this.root = element("div", { class: "control", "data-threshold": name }, this.label,
      element("div", { class: "both" }, this.range, this.number))
    this.listen()
  }

  listen() {
    const { range, number } = this
    range.addEventListener("input", () => this.move())
    // a key that is held changes the value again and again: that is one decision, made when it is let go
    range.addEventListener("keydown", () => { this.keyed = true })
    range.addEventListener("change", () => { if (!this.keyed) this.settle() })
    for (const end of ["keyup", "blur"]) {
      range.addEventListener(end, () => {
        this.keyed = false
        if (this.held) this.settle()
      })
    }
    number.addEventListener("input", () => { this.typing = true })
    number.addEventListener("blur", () => { this.leave() })
    number.addEventListener("change", () => { this.type() })
    number.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.leave()
    })
  }

  get value() {
    return this.scale.value(Number(this.range.value))
  }

  move() {
    this.held = true
    this.say(this.value)
    clearTimeout(this.timer)
    this.timer = setTimeout(() => this.mover.drag(this.name, this.value))
  }

  settle() {
    clearTimeout(this.timer)
    this.held = false
    this.mover.settle(this.name, this.value)
  }

  type() {
    this.typing = false
    if (this.number.validity.badInput) return this.leave()
    this.mover.settle(this.name, this.number.value === "" ? null : Number(this.number.value))
  }

  leave() {
    this.typing = false
    this.say(this.shown)
  }

  describe(spec) {
    this.label.textContent = spec.label
    this.scale = new Scale(spec.edges, spec.far)
    this.range.max = spec.edges.length
    this.number.step = spec.step
    this.number.setAttribute("aria-label", spec.exact)
    this.range.disabled = spec.edges.length === 0
    this.number.disabled = spec.why !== ""
    this.root.title = spec.why
    if (this.shown !== undefined) this.show(this.shown)
  }

  show(value) {
    if (this.held || this.mover.ahead(this.name)) return
    this.shown = value
    this.range.value = this.scale.position(value)
    this.say(value)
  }

  say(value) {
    const text = value === null ? "no limit" : String(value)
    this.range.setAttribute("aria-valuetext", text)
    if (!this.typing) this.number.value = value === null ? "" : text
  }
}

/** Replace rows only where they differ: focus stays, and little is laid out anew. */
function fill(place, key, make) {
  const text = JSON.stringify(key)
  if (place.dataset.key === text) return
  place.dataset.key = text
  place.replaceChildren(...make())
}

function button(text, pressed, attributes = {}) {
  const made = element("button", { type: "button", ...attributes }, text)
  made.addEventListener("click", pressed)
  return made
}

class Panel {
  constructor(model, el) {
    this.model = model
    this.mover = moves(model)
    this.controls = new Map()
    this.pending = {}
    this.frame = 0
    this.live = 0
    const part = (name, tag = "div") => element(tag, { class: name })
    this.parts = {}
    for (const name of ["controls", "also", "decided", "expected", "truth", "binning"]) this.parts[name] = part(name)
    this.parts.methods = element("fieldset", { class: "methods" }, element("legend", {}, "Threshold on"))
    this.parts.accepted = part("accepted", "p")
    this.parts.reasons = this.table("Rejected picks by reason", ["Rejected for", "picks", ""])
    this.parts.classes = this.table("Accepted picks per micrograph", ["Defocus", "per micrograph"])
    this.parts.failure = element("p", { class: "failure", role: "alert" })
    this.parts.spoken = element("p", { class: "spoken", role: "status", "aria-live": "polite" })
    this.buttons = this.actions()
    const { methods, controls, also, decided, accepted, expected, truth, reasons, classes, binning } = this.parts
    const acting = element("div", { class: "actions", role: "group", "aria-label": "Decisions" }, ...Object.values(this.buttons))
    const counted = element("section", { class: "counts", "aria-label": "Counts" },
      accepted, expected, truth, reasons, classes, binning, this.parts.failure, this.parts.spoken)
    this.root = element("section", { class: "panel", "aria-label": "Thresholds" },
      methods, controls, also, acting, decided, counted)
    el.append(this.root)
  }

  table(caption, heads) {
    const cells = heads.map((head) => (head ? element("th", { scope: "col" }, head) : element("td")))
    const made = element("table", {}, element("caption", {}, caption), element("thead", {}, element("tr", {}, ...cells)), element("tbody"))
    made.hidden = true
    return made
  }

  actions() {
    const act = (action) => () => this.model.send_msg({ action })
    return {
      undo: button("Undo", act("undo"), { title: "Take the last decision back (u)" }),
      redo: button("Redo", act("redo"), { title: "Decide again what was undone (r)" }),
      propose: button("Propose", act("propose"), { title: "Take the thresholds that are proposed for these picks" }),
    }
  }

  receive(message) {
    Object.assign(this.pending, message)
    if (this.frame) return
    this.frame = requestAnimationFrame(() => {
      const found = this.pending
      this.frame = 0
      this.pending = {}
      this.paint(found)
      if (found.version !== undefined) this.root.dataset.painted = found.version
    })
  }

  paint(found) {
    if (found.heard !== undefined) this.mover.heard(found.heard)
    if (found.methods) this.paintMethods(found.methods)
    if (found.method) this.choose(found.method)
    if (found.controls) this.paintControls(found.controls)
    if (found.values) for (const control of this.controls.values()) control.show(found.values[control.name])
    if (found.also) this.paintAlso(found.also)
    if (found.decided) this.paintDecided(found.decided)
    if (found.undo !== undefined) this.able(this.buttons.undo, found.undo)
    if (found.redo !== undefined) this.able(this.buttons.redo, found.redo)
    if (found.counts !== undefined) this.paintCounts(found.counts)
    if (found.binning !== undefined) this.paintBinning(found.binning)
    if (found.failure !== undefined) this.parts.failure.textContent = found.failure
  }

  /** A button that has the focus keeps it: one that is pressed the last time must not throw the keyboard out. */
  able(button, can) {
    button.setAttribute("aria-disabled", String(!can))
  }

  paintMethods(methods) {
    fill(this.parts.methods, methods, () => [
      element("legend", {}, "Threshold on"),
      ...methods.map(({ name, title, why }) => {
        const choice = element("input", { type: "radio", name: "method", value: name })
        choice.disabled = why !== ""
        choice.addEventListener("change", () => this.mover.choose(name))
        const label = element("label", why ? { title: why, class: "off" } : {}, choice, title)
        if (why) choice.setAttribute("aria-label", `${title}: ${why}`)
        return label
      }),
    ])
  }

  choose(method) {
    if (this.mover.ahead("method")) return
    for (const choice of this.parts.methods.querySelectorAll("input")) choice.checked = choice.value === method
  }

  paintControls(specs) {
    const wanted = new Set(specs.map((spec) => spec.name))
    for (const [name, control] of this.controls) {
      if (wanted.has(name)) continue
      control.root.remove()
      this.controls.delete(name)
    }
    specs.forEach((spec, index) => {
      let control = this.controls.get(spec.name)
      if (!control) {
        control = new Control(spec.name, this.mover)
        this.controls.set(spec.name, control)
        this.parts.controls.insertBefore(control.root, this.parts.controls.children[index] || null)
      }
      control.describe(spec)
    })
  }

  paintAlso(also) {
    fill(this.parts.also, also, () => also.map(({ name, text }) => element("span", { class: "chip" }, `also: ${text}`,
      button("×", () => this.mover.settle(name, null), { "aria-label": `remove: ${text}`, title: "remove" }))))
  }

  paintDecided(decided) {
    fill(this.parts.decided, decided, () => decided.map(({ what, text, why }) => {
      const clear = button("clear", () => this.model.send_msg({ clear: what }), { "aria-label": `clear: ${text}`, title: why })
      clear.disabled = why !== ""
      return element("div", {}, element("span", {}, text), clear)
    }))
  }

  paintCounts(counts) {
    const { accepted, reasons, classes } = this.parts
    reasons.hidden = !counts || counts.reasons.length === 0
    classes.hidden = !counts || counts.classes.length === 0
    this.parts.expected.textContent = counts ? expectedText(counts) : ""
    this.paintTruth(counts && counts.truth)
    if (!counts) {
      accepted.textContent = "Nothing is counted yet."
      return
    }
    const all = element("span", {}, ` of ${WHOLE.format(counts.total)} picks accepted (${percent(counts.accepted, counts.total)})`)
    accepted.replaceChildren(counts.about, element("strong", {}, WHOLE.format(counts.accepted)), all)
    this.speak()
    fill(reasons.tBodies[0], [counts.about, counts.total, counts.reasons], () => counts.reasons.map(([word, number]) => {
      const bar = element("div", { class: "bar" })
      bar.style.width = `${counts.total ? (100 * number) / counts.total : 0}%`
      return element("tr", {}, element("th", { scope: "row" }, word),
        element("td", { class: "number" }, counts.about + WHOLE.format(number)), element("td", { class: "share" }, bar))
    }))
    fill(classes.tBodies[0], [counts.about, counts.classes], () => counts.classes.map(([word, number]) =>
      element("tr", {}, element("th", { scope: "row" }, word),
        element("td", { class: "number" }, number === null ? "none" : counts.about + TENTH.format(number)))))
  }

  paintTruth(truth) {
    fill(this.parts.truth, truth, () => (truth || []).map(([word, value]) =>
      element("span", {}, `${word} `, element("strong", {}, value === null ? "none" : THOUSANDTH.format(value)))))
  }

  paintBinning(binning) {
    fill(this.parts.binning, binning, () => {
      if (!binning) return []
      return [element("span", {}, binning.text), element("progress", { max: 1, value: binning.part, "aria-label": "Picks binned" })]
    })
  }

  /** Screen readers hear the counts once nothing has moved for a while. */
  speak() {
    clearTimeout(this.live)
    this.live = setTimeout(() => {
      this.parts.spoken.textContent = this.parts.accepted.textContent
    }, PAUSE)
  }
}

function expectedText(counts) {
  if (!counts.expected) return ""
  const { noise, junk } = counts.expected
  const all = noise + (junk || 0)
  const parts = junk === null ? "" : `: ${expected(noise)} noise, ${expected(junk)} junk`
  return `${counts.about}${expected(all)} of them expected to be false (${percent(all, counts.accepted)})${parts}`
}

export function render({ model, el }) {
  const panel = new Panel(model, el)
  model.on("msg:custom", (message) => panel.receive(message))
  model.on("remove", () => {
    cancelAnimationFrame(panel.frame)
    clearTimeout(panel.live)
  })
  if (model.first) panel.receive(JSON.parse(model.first))
  model.send_msg({ ready: true })
}
