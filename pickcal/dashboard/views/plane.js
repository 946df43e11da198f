/**
 * Thresholds as lines and boxes of Bokeh plots that are dragged, and the picture that follows them.
 *
 * A Bokeh CustomJS module. Everything that a move changes comes from the server in one message (`state`), and what is
 * dragged goes back in one (`wire`), never more than one at a time: a slow server gets the newest place, not a queue.
 * The lines are placed here and not by the server, so that a move by a program is never mistaken for one by hand.
 *
 * `args` are Bokeh models, and plain values:
 *   state   one row: version, heard (number of the last message of `wire` that it answers), limits [[slot, value], ...],
 *           whether there are some (shown); for the plane the picture and the accepted counts of the margins, and
 *           how often the frames are to have been played
 *   axes    one row: edges that thresholds snap to, by the axis; at the first or last there is no limit
 *   wire    its tags are [number, final, [[slot, value], ...]]
 *   lines   [model, [[property, slot], ...], by hand]: what is drawn at thresholds; slots are "main", "low" and "high"
 *   plots   the first on the page is marked with the version that was painted
 *   cells, main, power, frames   of the plane: sources of the picture, of the margins, and of the pictures on the way
 *           from raw to calibrated scores
 */

const AXIS = { main: "main", low: "power", high: "power" };
const LONGEST = 300;
const LOST = 5000;
const DURATION = 600;
const PICTURE = ["image", "x", "y", "dw", "dh"];

// Bokeh may load a module more than once, so that what there is only one of must not live in it
const shared = (window.pickcalThresholds ??= new WeakMap());

export default function (args, obj, data, context) {
  if (!shared.has(args.wire)) {
    shared.set(args.wire, new Thresholds(args, context.index));
  }
  shared.get(args.wire).apply();
}

class Thresholds {
  constructor(args, index) {
    Object.assign(this, { args, index, limits: {}, start: null, sent: 0, sentAt: 0, waiting: false, moved: [] });
    this.playing = this.told = null;
    this.waits = new WeakSet();
    this.played = this.row("played", 0);
    for (const [model, slots, byHand] of args.lines) {
      if (byHand) {
        model.pan.connect(([phase]) => this.pan(model, slots, phase));
      }
    }
  }

  /** Value of the state's only row. */
  row(name, otherwise) {
    const column = this.args.state.data[name];
    return column === undefined || column.length === 0 ? otherwise : column[0];
  }

  /** Bokeh takes a button that is held still for 300 ms for a long press, and drags nothing then: have it wait. */
  patient() {
    for (const plot of this.args.plots) {
      const gestures = this.index.find_one(plot)?.canvas_view?.ui_event_bus?.ui_gestures;
      if (gestures && !this.waits.has(gestures)) {
        this.waits.add(gestures);
        gestures._start_timeout = () => {};
      }
    }
  }

  /** Show what the server says. */
  apply() {
    this.patient();
    if (this.row("version") === undefined) {
      return;
    }
    // after a while without an answer, what was sent counts as lost
    const answered = this.row("heard", 0) >= this.sent || performance.now() - this.sentAt > LOST;
    if (this.start === null && answered) {
      this.limits = Object.fromEntries(this.row("limits", []));
      this.place();
    }
    const played = this.row("played", 0);
    if (played !== this.played) {
      this.played = played;
      this.play(this.row("forwards", true));
    }
    this.show();
    this.mark();
    if (this.waiting && this.row("heard", 0) >= this.sent) {
      this.send(false);
    }
  }

  /** Edges that a slot snaps to. */
  edges(slot) {
    const column = this.args.axes.data[AXIS[slot]];
    return column === undefined || column.length === 0 ? null : column[0];
  }

  /** Where a slot without a limit is drawn. */
  border(slot) {
    const edges = this.edges(slot);
    const last = slot === "high" || (slot === "main" && this.row("falling", false));
    return edges[last ? edges.length - 1 : 0];
  }

  /** A limit beyond the plot is drawn at its border. */
  inside(slot, value) {
    const edges = this.edges(slot);
    return Math.min(Math.max(value, edges[0]), edges[edges.length - 1]);
  }

  /** Put all lines and boxes where the limits are. */
  place() {
    const shown = this.row("shown", false);
    for (const [model, slots, byHand] of this.args.lines) {
      const found = {};
      let visible = shown;
      for (const [property, slot] of slots) {
        if (this.edges(slot) === null || (property === "location" && !(slot in this.limits))) {
          visible = false;
        } else if (slot in this.limits) {
          found[property] = this.inside(slot, this.limits[slot] ?? this.border(slot));
        } else {
          found[property] = this.args.axes.data.outside[0];
        }
      }
      if (byHand && slots.length > 1 && this.start === null) {
        found.movable = this.limits.low != null && this.limits.high != null ? "y" : "none";
      }
      model.setv({ ...(visible ? found : {}), visible });
    }
  }

  /** Follow a hand. */
  pan(model, slots, phase) {
    if (phase === "pan:start") {
      this.start = { limits: { ...this.limits }, places: {} };
      for (const [property] of slots) {
        this.start.places[property] = model[property];
      }
      return;
    }
    if (this.start === null) {
      return;
    }
    for (const [property, slot] of slots) {
      if (slot in this.limits) {
        const before = this.start.places[property];
        const moved = Math.abs(model[property] - before) > 1e-6 * Math.abs(before) + 1e-12;
        this.limits[slot] = moved ? this.snapped(slot, model[property]) : this.start.limits[slot];
      }
    }
    const final = phase === "pan:end";
    this.moved = slots.map(([, slot]) => slot).filter((slot) => slot in this.limits);
    this.start = final ? null : this.start;
    this.uncross();
    this.place();
    this.send(final);
  }

  /** A lower limit takes the upper one along, and the other way round. */
  uncross() {
    const { low, high } = this.limits;
    if (low != null && high != null && low > high) {
      const moved = this.moved.includes("low") ? "low" : "high";
      this.limits[moved === "low" ? "high" : "low"] = this.limits[moved];
      this.moved = ["low", "high"];
    }
  }

  /** Nearest edge; null at the border, where there is no limit. */
  snapped(slot, value) {
    const edges = this.edges(slot);
    let low = 0;
    let high = edges.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      [low, high] = edges[middle] <= value ? [middle, high] : [low, middle];
    }
    const nearest = value - edges[low] <= edges[high] - value ? edges[low] : edges[high];
    return nearest === this.border(slot) ? null : nearest;
  }

  /** Tell the server where the limits are now; while it is at the last message, remember to. */
  send(final) {
    const places = this.moved.map((slot) => [slot, this.limits[slot]]);
    const text = JSON.stringify(places);
    const late = performance.now() - this.sentAt > LONGEST;
    if (!final && this.row("heard", 0) < this.sent && !late) {
      this.waiting = true;
      return;
    }
    this.waiting = false;
    if (!final && text === this.told) {
      return;
    }
    this.told = final ? null : text;
    this.sent += 1;
    this.sentAt = performance.now();
    this.args.wire.tags = [this.sent, final, places];
  }

  /** Show the picture and the margins, unless frames are being played. */
  show() {
    const { cells, main, power } = this.args;
    if (cells === undefined || this.playing !== null || this.row("empty", false)) {
      return;
    }
    if (this.row("x") !== undefined) {
      this.fill(cells, PICTURE.map((name) => [name, [this.row(name)]]));
      this.fill(power, [["accepted", this.row("power_accepted")]]);
    }
    this.fill(main, [["accepted", this.row("main_accepted")]]);
  }

  /** Put columns into a source without sending them back. */
  fill(source, columns) {
    for (const [name, values] of columns) {
      source.data[name] = values;
    }
    source.change.emit();
  }

  /** Play the frames from raw to calibrated, or backwards; the plot carries the frame's number as long as it plays. */
  play(forwards) {
    const frames = this.args.frames?.data.image ?? [];
    const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (frames.length === 0 || still) {
      return;
    }
    const began = performance.now();
    const turn = {};
    const step = (now) => {
      if (this.playing !== turn) {
        return;
      }
      const at = Math.floor((Math.max(0, now - began) / DURATION) * frames.length);
      if (at >= frames.length) {
        this.playing = null;
        delete this.view()?.el.dataset.frame;
        this.show();
        return;
      }
      this.frame(forwards ? at : frames.length - 1 - at);
      requestAnimationFrame(step);
    };
    this.playing = turn;
    step(began);
  }

  /** Show one frame. */
  frame(at) {
    const { frames, cells } = this.args;
    this.fill(cells, PICTURE.map((name) => [name, [frames.data[name][at]]]));
    const view = this.view();
    if (view) {
      view.el.dataset.frame = String(at);
    }
  }

  /** View of the first plot that is on the page. */
  view() {
    return this.args.plots.map((plot) => this.index.find_one(plot)).find((view) => view != null);
  }

  /** Mark the plot with the version once it is painted. */
  mark() {
    const view = this.view();
    if (!view) {
      return;
    }
    const version = String(this.row("version"));
    const painted = () => {
      view.repainted.disconnect(painted);
      view.el.dataset.painted = version;
    };
    view.repainted.connect(painted);
    view.request_paint();
  }
}
