/**
 * Controls that several micrographs share: low-pass, contrast, rejected picks, and buttons.
 *
 * Properties in: `state` {lowpass, low, high, rejected, buttons: [[name, text, title, enabled], ..]}; `images`.
 * Messages out: {lowpass}, {low, high}, {rejected}, {press: name}.
 * While the contrast is dragged, the document event `pickcal-contrast` {low, high} reaches the micrographs at once.
 */
const EVERY = 150
const RECENT = 1000
const LIMIT = 5
const GAP = 0.2

function slider(label, low, high, step) {
  return element("input", { type: "range", min: low, max: high, step, "aria-label": label })
}

/** Call at most every `EVERY` milliseconds, and with the last value in any case. */
function seldom(call) {
  let waiting = null, last
  return (value) => {
    last = value
    if (waiting !== null) return
    waiting = setTimeout(() => {
      waiting = null
      call(last)
    }, EVERY)
  }
}

/** Tells whether inputs were moved a moment ago: what the server says then is older than what they show. */
function moving(...inputs) {
  let last = -Infinity
  for (const input of inputs) input.addEventListener("input", () => { last = performance.now() })
  return () => inputs.some((input) => input.matches(":active")) || performance.now() - last < RECENT
}

const signed = (value) => (value < 0 ? `−${(-value).toFixed(1)}` : value.toFixed(1))

function lowpassControl(model) {
  const input = slider("Low-pass of the pictures in ångström, 0 for none", 0, 80, 1)
  const told = element("output", { class: "told" })
  const tell = () => {
    told.textContent = Number(input.value) ? `${input.value} Å` : "none"
    input.setAttribute("aria-valuetext", told.textContent)
  }
  const send = seldom((value) => model.send_msg({ lowpass: value }))
  input.addEventListener("input", () => {
    tell()
    send(Number(input.value))
  })
  const held = moving(input)
  const show = (state) => {
    if (held()) return
    input.value = state.lowpass
    tell()
  }
  return { place: element("label", { class: "control" }, "Low-pass", input, told), show }
}

function contrastControl(model) {
  const black = slider("Contrast: drawn black, standard deviations from the mean", -LIMIT, LIMIT, 0.1)
  const white = slider("Contrast: drawn white, standard deviations from the mean", -LIMIT, LIMIT, 0.1)
  const told = element("output", { class: "told wide" })
  const range = element("span", { class: "range", role: "group", "aria-label": "Contrast" }, black, white)
  const values = () => ({ low: Number(black.value), high: Number(white.value) })
  const tell = () => {
    const { low, high } = values()
    told.textContent = `${signed(low)} to ${signed(high)} SD`
    range.style.setProperty("--from", `${((low + LIMIT) / (2 * LIMIT)) * 100}%`)
    range.style.setProperty("--to", `${((high + LIMIT) / (2 * LIMIT)) * 100}%`)
  }
  const moved = (input, other, side) => {
    const apart = side * (Number(input.value) - Number(other.value))
    if (apart < GAP) input.value = Number(other.value) + side * GAP
    tell()
    document.dispatchEvent(new CustomEvent("pickcal-contrast", { detail: values() }))
  }
  black.addEventListener("input", () => moved(black, white, -1))
  white.addEventListener("input", () => moved(white, black, 1))
  for (const input of [black, white]) input.addEventListener("change", () => model.send_msg(values()))
  const held = moving(black, white)
  const show = (state) => {
    if (held()) return
    black.value = state.low
    white.value = state.high
    tell()
  }
  return { place: element("div", { class: "control", title: "Standard deviations from the mean" }, "Contrast", range, told), show }
}

function rejectedControl(model) {
  const input = element("input", { type: "checkbox" })
  input.addEventListener("change", () => model.send_msg({ rejected: input.checked }))
  const show = (state) => { input.checked = state.rejected }
  return { place: element("label", { class: "control" }, input, "Rejected picks"), show }
}

function buttonsControl(model) {
  const place = element("span", { class: "buttons" })
  const made = new Map()
  const show = (state) => {
    for (const [name, text, title, enabled] of state.buttons) {
      if (!made.has(name)) {
        const button = element("button", { type: "button" })
        button.addEventListener("click", () => {
          if (button.getAttribute("aria-disabled") !== "true") model.send_msg({ press: name })
        })
        made.set(name, button)
        place.append(button)
      }
      const button = made.get(name)
      button.textContent = text
      button.title = title
      button.setAttribute("aria-disabled", String(!enabled))
    }
  }
  return { place, show }
}

export function render({ model }) {
  const pictures = model.images ? [lowpassControl(model), contrastControl(model)] : []
  const controls = [buttonsControl(model), ...pictures, rejectedControl(model)]
  const root = element("div", { class: "controls" }, ...controls.map((control) => control.place))
  const show = () => {
    const state = plain(model.state)
    for (const control of controls) control.show(state)
  }
  model.on("state", show)
  show()
  return root
}
