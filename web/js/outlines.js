// Place Face: where a person shall be, drawn around by hand in the node, beside the others of the cast.

import { boxesOf } from "./boxes.js"
import { castOf, GROUP, inputOf, ONE, peopleBefore, placesOf, total } from "./casts.js"
import { addDrawing, Drawing, redraw, round, setValues, widgetOf } from "./drawing.js"
import { numberPeople, peopleOf, personAfter } from "./people.js"
import { texts } from "./texts.js"
import { after } from "./widgets.js"

const STEP = 0.008 // of the picture: nearer points are left out
const SMALLEST = 0.03 // of the picture: what is smaller was no outline but a click
const [OWN, OTHERS] = [0.55, 0.2] // opacity

// --- outlines: lists of [x, y] as fractions of the picture -----------------------------------------------------------

function parse(text) {
  const points = (part) => part.trim().split(/\s+/).map((pair) => pair.split(",").map(Number))
  return String(text ?? "").split(/[;\n]/).filter((part) => part.trim()).map(points)
    .filter((outline) => outline.length > 2 && outline.every((at) => at.length === 2 && at.every(Number.isFinite)))
}

const write = (outlines) => outlines.map((outline) => outline.map((at) => at.map(round).join(",")).join(" ")).join("; ")

const outlinesOf = (node) => (inputOf(node, "mask") ? [] : parse(widgetOf(node, "outline")?.value))

const corners = ([left, top, right, bottom]) => [[left, top], [right, top], [right, bottom], [left, bottom]]

// --- the cast ---------------------------------------------------------------------------------------------------------

/** The outlines of each person that a node adds to the cast; none where another node gives the place. */
function outlinesOfAll(node) {
  if (node.comfyClass === ONE) return [outlinesOf(node)]
  const of = (box) => (box ? [corners(box)] : [])
  if (node.comfyClass === GROUP) return (placesOf(node) ?? []).map(of)
  const boxes = inputOf(node, "bboxes") ? [] : boxesOf(node)
  return Array.from({ length: peopleOf(node) }, (_, person) => (inputOf(node, `masks.mask${person}`) ? [] : of(boxes[person])))
}

/** Everybody's places: { node, person, outlines }. */
function places(node) {
  const placesOfOne = (one) => {
    const before = peopleBefore(one)
    return outlinesOfAll(one).map((outlines, number) => ({ node: one, person: personAfter(total([...before, number])), outlines }))
  }
  return castOf(node).flatMap(placesOfOne)
}

// --- the drawing ------------------------------------------------------------------------------------------------------

class Outlines extends Drawing {
  constructor(node) {
    super(node, "dynamicid-outlines")
    this.stroke = null // the points so far while the pointer is down
  }

  path(outline) {
    const path = new Path2D()
    for (const [x, y] of outline) path.lineTo(x * this.canvas.width, y * this.canvas.height)
    path.closePath()
    return path
  }

  begin(from) {
    if (!inputOf(this.node, "mask")) this.stroke = [from.map(round)]
  }

  move(to) {
    if (!this.stroke) return
    const [at, last] = [to.map(round), this.stroke.at(-1)]
    if (Math.hypot(at[0] - last[0], at[1] - last[1]) < STEP) return
    this.stroke.push(at)
    this.draw()
  }

  end() {
    const stroke = this.stroke ?? []
    this.stroke = null
    const span = (axis) => Math.max(...stroke.map((at) => at[axis])) - Math.min(...stroke.map((at) => at[axis]))
    if (stroke.length > 2 && span(0) > SMALLEST && span(1) > SMALLEST) this.set([...outlinesOf(this.node), stroke])
  }

  remove([x, y]) {
    const pen = this.canvas.getContext("2d")
    const at = [x * this.canvas.width, y * this.canvas.height]
    const outlines = outlinesOf(this.node)
    const found = outlines.findLastIndex((outline) => pen.isPointInPath(this.path(outline), ...at, "evenodd"))
    if (found >= 0) this.set(outlines.toSpliced(found, 1))
  }

  set(outlines) {
    setValues(this.node, { outline: write(outlines) })
    redraw(this.node.graph)
  }

  paint(pen) {
    const cast = places(this.node)
    const own = cast.find((place) => place.node === this.node)
    for (const place of cast) if (place !== own) this.fill(pen, place, OTHERS)
    if (inputOf(this.node, "mask")) return this.say(pen, texts.maskElsewhere)
    this.canvas.title = texts.drawOutline.replace("{number}", own.person.label)
    const outlines = this.stroke ? [...own.outlines, this.stroke] : own.outlines
    this.fill(pen, { ...own, outlines }, OWN)
    if (!outlines.length) this.say(pen, this.canvas.title)
  }

  /** What a person's outlines enclose, as the node computes it, and the person's number in the first of them. */
  fill(pen, { person, outlines }, opacity) {
    pen.fillStyle = pen.strokeStyle = person.color
    pen.lineWidth = 2
    for (const path of outlines.map((outline) => this.path(outline))) {
      pen.globalAlpha = opacity
      pen.fill(path, "evenodd")
      pen.globalAlpha = Math.min(1, 2 * opacity)
      pen.stroke(path)
    }
    pen.globalAlpha = 1
    if (outlines.length) {
      const middle = [0, 1].map((axis) => outlines[0].reduce((sum, at) => sum + at[axis], 0) / outlines[0].length)
      this.number(pen, person, middle[0] * this.canvas.width - 12, middle[1] * this.canvas.height - 11)
    }
  }
}

export function setUpOutlines(node) {
  addDrawing(new Outlines(node), "place", ["outline"])
}

/** Encode Group Photo says with each run where everybody is; the graph keeps it, for who opens it before the next. */
export function setUpGroup(node) {
  after(node, "onExecuted", (output) => {
    if (output?.places) node.properties.places = output.places
    requestAnimationFrame(() => numberPeople(node.graph))
  })
}
