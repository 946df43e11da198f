/**
 * The list of all micrographs; only the rows on the screen exist, so that tens of thousands scroll.
 *
 * Properties in: `table` {count, names, defocus, picks, residual, power, states}; `order` {rows}; `accepted` {counts}, -1
 * where not counted yet; `state` {version, row, sort, descending, search, excluded}.
 * Messages out: {row}, {sort, descending}, {search}.
 */
const HEIGHT = 28, MORE = 8, LATER = 200
const COLUMNS = [
  ["name", "Name", "Name of the micrograph", "name"],
  ["defocus", "Defocus, µm", "Mean defocus in micrometres", ""],
  ["picks", "Picks", "Picks of all scores", ""],
  ["accepted", "Accepted", "Accepted picks; … until they are counted", ""],
  ["residual", "Residual, SD", "Median score from its fit against defocus, in robust standard deviations", "second"],
  ["power", "Power", "Median of the raw power score", "second"],
  ["status", "Status", "Whether it was picked", "third"],
]

const many = (number) => number.toLocaleString("en-US")

function number(value, digits) {
  if (!Number.isFinite(value)) return "–"
  const text = value.toFixed(digits)
  return Number(text) ? text.replace("-", "−") : text.replace("-", "")
}

class MicrographList {
  constructor(model) {
    this.model = model
    this.lines = new Map()
    this.build()
    this.listen()
  }

  build() {
    this.search = element("input", { type: "search", placeholder: "Search by name", "aria-label": "Search micrographs by name" })
    this.found = element("span", { class: "found", role: "status" })
    this.heads = new Map()
    const head = element("div", { class: "line heads", role: "row" })
    for (const [key, text, title, kind] of COLUMNS) head.append(this.heading(key, text, title, kind))
    this.space = element("div", { class: "space", role: "rowgroup" })
    this.scroller = element("div", { class: "scroller", role: "presentation", tabindex: "-1" }, this.space)
    const told = { class: "grid", role: "grid", "aria-label": "All micrographs", tabindex: "0" }
    this.grid = element("div", told, head, this.scroller)
    this.root = element("div", { class: "list" }, element("div", { class: "bar" }, this.search, this.found), this.grid)
  }

  heading(key, text, title, kind) {
    const cell = element("div", { class: `cell ${kind}`, role: "columnheader", title })
    if (key === "status") {
      cell.append(text)
      return cell
    }
    const button = element("button", { type: "button" }, text)
    button.addEventListener("click", () => {
      const { sort, descending } = this.state
      this.model.send_msg({ sort: key, descending: sort === key && !descending })
    })
    cell.append(button)
    this.heads.set(key, [cell, button, text])
    return cell
  }

  listen() {
    const { model } = this
    model.on("table", () => this.take())
    model.on("order", () => this.take())
    model.on("accepted", () => this.take())
    model.on("state", () => this.take())
    this.scroller.addEventListener("scroll", () => this.schedule())
    this.grid.addEventListener("keydown", (event) => this.key(event))
    this.space.addEventListener("click", (event) => {
      const line = event.target.closest(".line")
      if (line) this.choose(Number(line.dataset.row))
    })
    this.search.addEventListener("input", () => {
      clearTimeout(this.typing)
      this.typing = setTimeout(() => model.send_msg({ search: this.search.value }), LATER)
    })
    const observer = new ResizeObserver(() => this.schedule())
    observer.observe(this.scroller)
    model.on("remove", () => observer.disconnect())
  }

  get state() { return plain(this.model.state) }

  /** Take what has come; several things that come together are drawn once. */
  take() {
    this.fresh = true
    this.schedule()
  }

  schedule() {
    if (this.waiting) return
    this.waiting = true
    requestAnimationFrame(() => {
      this.waiting = false
      if (this.fresh) this.refresh()
      this.draw()
    })
  }

  refresh() {
    this.fresh = false
    const { table, order, accepted } = this.model
    const state = this.state
    this.table = plain(table)
    if (typeof this.table.names === "string" && this.read !== this.table.names) {
      this.read = this.table.names
      this.names = this.read.split("\n")
      this.states = this.table.states.split("\n")
    }
    this.order = plain(order).rows || []
    this.accepted = plain(accepted).counts || []
    this.excluded = new Set(state.excluded)
    this.space.style.height = `${this.order.length * HEIGHT}px`
    this.grid.setAttribute("aria-rowcount", String(this.order.length + 1))
    this.found.textContent = this.order.length === this.table.count
      ? `${many(this.order.length)} micrographs` : `${many(this.order.length)} of ${many(this.table.count)} micrographs`
    if (!this.search.matches(":focus")) this.search.value = state.search
    for (const [key, [cell, button, text]] of this.heads) {
      const sorted = state.sort === key
      button.textContent = sorted ? `${text} ${state.descending ? "▼" : "▲"}` : text
      cell.setAttribute("aria-sort", sorted ? (state.descending ? "descending" : "ascending") : "none")
    }
    this.follow(state.row)
  }

  /** Scroll to the micrograph that is looked at when it, or its place in the list, has changed. */
  follow(row) {
    const place = this.order.indexOf(row)
    if (place === this.place && row === this.row) return
    this.place = place
    this.row = row
    if (place < 0) return
    const top = place * HEIGHT, { scrollTop, clientHeight } = this.scroller
    if (top < scrollTop) this.scroller.scrollTop = top
    else if (top + HEIGHT > scrollTop + clientHeight) this.scroller.scrollTop = top + HEIGHT - clientHeight
  }

  draw() {
    if (!this.order || !this.scroller.clientHeight) return
    const first = Math.max(0, Math.floor(this.scroller.scrollTop / HEIGHT) - MORE)
    const last = Math.min(this.order.length, Math.ceil((this.scroller.scrollTop + this.scroller.clientHeight) / HEIGHT) + MORE)
    for (const [place, line] of this.lines) {
      if (place < first || place >= last) {
        line.remove()
        this.lines.delete(place)
      }
    }
    for (let place = first; place < last; place++) this.line(place)
    this.grid.setAttribute("aria-activedescendant", this.place >= 0 ? `line-${this.place}` : "")
    this.root.dataset.painted = String(this.state.version)
  }

  line(place) {
    const row = this.order[place]
    if (!this.lines.has(place)) {
      const cells = COLUMNS.map(([key, , , kind]) =>
        element("div", { class: `cell ${kind}`, role: "gridcell" }, ...(key === "name" ? [element("bdi")] : [])))
      const made = element("div", { class: "line", role: "row", id: `line-${place}` }, ...cells)
      made.style.top = `${place * HEIGHT}px`
      made.setAttribute("aria-rowindex", String(place + 2))
      this.lines.set(place, made)
      this.space.append(made)
    }
    const line = this.lines.get(place)
    line.dataset.row = String(row)
    line.classList.toggle("excluded", this.excluded.has(row))
    line.setAttribute("aria-selected", String(row === this.row))
    this.texts(row).forEach((text, i) => {
      const place = i ? line.children[i] : line.children[0].firstChild
      if (place.textContent !== text) place.textContent = text
    })
    line.children[0].title = this.names[row]
    line.children[6].title = this.states[row]
  }

  texts(row) {
    const { defocus, picks, residual, power } = this.table
    const counted = this.accepted[row]
    return [
      this.names[row], number(defocus[row], 2), many(picks[row]), counted >= 0 ? many(counted) : "…",
      number(residual[row], 1), number(power[row], 2), this.excluded.has(row) ? "excluded" : this.states[row],
    ]
  }

  choose(row) {
    if (row !== this.row) this.model.send_msg({ row })
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.order.length) return
    if (event.target.closest("button")) return
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / HEIGHT) - 1)
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }
    if (!(event.key in steps)) return
    event.preventDefault()
    event.stopPropagation()
    const to = Math.min(Math.max(this.place + steps[event.key], 0), this.order.length - 1)
    this.choose(this.order[to])
    // keys that follow before the answer go on from here
    this.follow(this.order[to])
    this.draw()
  }
}

export function render({ model }) {
  const made = new MicrographList(model)
  made.take()
  return made.root
}
