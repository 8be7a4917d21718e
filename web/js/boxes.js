// Place Faces in Boxes and Cast from Photos: people's places shown and drawn in the node.

import { app } from "../../../scripts/app.js"
import { inputOf, peopleBefore, total } from "./casts.js"
import { addDrawing, Drawing, round, setValues, widgetOf } from "./drawing.js"
import { peopleOf, personAfter } from "./people.js"
import { texts } from "./texts.js"

const EDGE = 0.04 // as dynamicid_core/layouts.py leaves free
const GRIP = 8 // px around a corner in which it can be dragged
const SMALLEST = 0.03 // of the picture: what is smaller was no box but a click
const DRAWN = "drawn"
const FREE = "free" // nobody has a place

// --- boxes: [left, top, right, bottom] as fractions of the picture ---------------------------------------------------

function arranged(layout, people) {
  const columns = { rows: 1, grid: Math.ceil(Math.sqrt(people)) }[layout] ?? people
  const rows = Math.ceil(people / columns)
  return Array.from({ length: people }, (_, number) => {
    const [row, column] = [Math.floor(number / columns), number % columns]
    return [(column + EDGE) / columns, (row + EDGE) / rows, (column + 1 - EDGE) / columns, (row + 1 - EDGE) / rows]
  })
}

function parse(text) {
  const numbers = (part) => part.replaceAll(",", " ").trim().split(/\s+/).map(Number)
  return String(text).split(/[;\n]/).filter((part) => part.trim()).map(numbers)
    .filter((box) => box.length === 4 && box.every(Number.isFinite))
}

const write = (boxes) => boxes.map((box) => box.map(round).join(",")).join("; ")

export function boxesOf(node) {
  const layout = widgetOf(node, "layout")?.value
  if (layout === FREE) return []
  return layout === DRAWN ? parse(widgetOf(node, "drawn_boxes")?.value) : arranged(layout, peopleOf(node))
}

// --- the drawing ------------------------------------------------------------------------------------------------------

class Editor extends Drawing {
  constructor(node) {
    super(node, "dynamicid-boxes")
    this.drag = null // { number, box, from, edges } while the pointer is down
    this.switch = Object.assign(document.createElement("button"), { textContent: texts.switchOn, hidden: true })
    this.switch.addEventListener("click", () => app.extensionManager.setting.set("Comfy.VueNodes.Enabled", true))
    this.element.prepend(this.switch)
  }

  /** What lies under a place: the last box drawn there, and whether its edges or all of it follow the pointer. */
  hit([x, y]) {
    const [near, nearY] = [GRIP / this.canvas.clientWidth, GRIP / this.canvas.clientHeight]
    for (const [number, box] of [...boxesOf(this.node).entries()].reverse()) {
      const [left, top, right, bottom] = box
      if (x < left - near || x > right + near || y < top - nearY || y > bottom + nearY) continue
      const corner = [Math.abs(x - left) < near ? 0 : Math.abs(x - right) < near ? 2 : null,
        Math.abs(y - top) < nearY ? 1 : Math.abs(y - bottom) < nearY ? 3 : null]
      if (corner.some((edge) => edge !== null)) return { number, box, edges: corner.filter((edge) => edge !== null) }
      return { number, box, edges: null }
    }
    return null
  }

  begin(from) {
    const boxes = boxesOf(this.node)
    this.drag = { from, ...(this.hit(from) ?? { number: boxes.length, box: [...from, ...from], edges: [2, 3] }) }
  }

  move([x, y]) {
    if (!this.drag) return
    const { from, number, box, edges } = this.drag
    const moved = [...box]
    if (edges) {
      for (const edge of edges) moved[edge] = edge % 2 ? y : x
    } else {
      const dx = Math.min(Math.max(x - from[0], -box[0]), 1 - box[2])
      const dy = Math.min(Math.max(y - from[1], -box[1]), 1 - box[3])
      for (const edge of [0, 1, 2, 3]) moved[edge] = box[edge] + (edge % 2 ? dy : dx)
    }
    const [left, right] = [moved[0], moved[2]].map(round).sort((a, b) => a - b)
    const [top, bottom] = [moved[1], moved[3]].map(round).sort((a, b) => a - b)
    if (right - left < SMALLEST || bottom - top < SMALLEST) return
    const boxes = boxesOf(this.node)
    boxes[number] = [left, top, right, bottom]
    this.set(boxes)
  }

  end() {
    this.drag = null
  }

  remove(place) {
    const found = this.hit(place)
    if (found) this.set(boxesOf(this.node).filter((_, number) => number !== found.number))
  }

  set(boxes) {
    setValues(this.node, { drawn_boxes: write(boxes), layout: DRAWN })
    this.draw()
  }

  paint(pen) {
    const source = inputOf(this.node, "bboxes")
    this.switch.hidden = source?.type !== "CreateBoundingBoxes" || LiteGraph.vueNodesMode
    this.canvas.hidden = !this.switch.hidden
    if (source) return this.say(pen, texts.boxesElsewhere)
    const boxes = boxesOf(this.node)
    const before = peopleBefore(this.node)
    boxes.forEach((box, number) => this.drawBox(pen, box, personAfter(total([...before, number]))))
    if (!boxes.length) this.say(pen, widgetOf(this.node, "layout")?.value === FREE ? texts.placesFree : texts.drawBoxes)
  }

  drawBox(pen, [left, top, right, bottom], person) {
    const { width, height } = this.canvas
    const frame = [left * width, top * height, (right - left) * width, (bottom - top) * height]
    pen.fillStyle = pen.strokeStyle = person.color
    pen.globalAlpha = 0.4
    pen.fillRect(...frame)
    pen.globalAlpha = 1
    pen.lineWidth = 2
    pen.strokeRect(...frame)
    this.number(pen, person, frame[0] + 4, frame[1] + 4)
  }
}

export function setUpBoxes(node) {
  addDrawing(new Editor(node), "places", ["layout", "drawn_boxes"])
}
