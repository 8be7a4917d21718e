// Place Faces in Boxes and Cast from Photos: people's places shown and drawn in the node, with both kinds of nodes.

import { app } from "../../../scripts/app.js"
import { after, peopleOf, personColor } from "./people.js"
import { texts } from "./texts.js"

const EDGE = 0.04 // as dynamicid_core/layouts.py leaves free
const GRIP = 8 // px around a corner in which it can be dragged
const SMALLEST = 0.03 // of the picture: what is smaller was no box but a click
const HEIGHT = 220 // px of the widget
const DRAWN = "drawn"
const FREE = "free" // nobody has a place

const round = (value) => Math.round(Math.min(Math.max(value, 0), 1) * 1000) / 1000
const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name)

/** The node that is connected to an input, if there is one. */
const inputOf = (node, name) => node.getInputNode?.(node.findInputSlot(name)) ?? null

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

function boxesOf(node) {
  const layout = widgetOf(node, "layout")?.value
  if (layout === FREE) return []
  return layout === DRAWN ? parse(widgetOf(node, "drawn_boxes")?.value) : arranged(layout, peopleOf(node))
}

/** Width over height of the picture that will be made: of the first empty latent in the graph. */
function shapeOf(node) {
  const latent = node.graph?.nodes?.find((one) => /^Empty.*Latent/.test(one.type) && widgetOf(one, "width"))
  return latent ? widgetOf(latent, "width").value / widgetOf(latent, "height").value : 1
}

// --- the drawing ------------------------------------------------------------------------------------------------------

class Editor {
  constructor(node) {
    this.node = node
    this.drag = null // { number, box, from, part } while the pointer is down
    this.element = Object.assign(document.createElement("div"), { className: "dynamicid-boxes" })
    this.element.style.cssText = "display: flex; justify-content: center; align-items: center; overflow: hidden; min-height: 0"
    this.canvas = document.createElement("canvas")
    this.canvas.style.cssText = "cursor: crosshair; touch-action: none; border-radius: 4px"
    this.switch = Object.assign(document.createElement("button"), { textContent: texts.switchOn, hidden: true })
    this.switch.addEventListener("click", () => app.extensionManager.setting.set("Comfy.VueNodes.Enabled", true))
    this.element.append(this.switch, this.canvas)
    this.canvas.addEventListener("pointerdown", (event) => this.begin(event))
    this.canvas.addEventListener("pointermove", (event) => this.move(event))
    this.canvas.addEventListener("pointerup", (event) => this.end(event))
    this.canvas.addEventListener("dblclick", (event) => this.remove(event))
    this.element.addEventListener("pointerenter", () => this.draw())
    new ResizeObserver(() => this.draw()).observe(this.element)
  }

  /** The pointer's place as fractions of the picture. */
  at(event) {
    const frame = this.canvas.getBoundingClientRect()
    return [(event.clientX - frame.x) / frame.width, (event.clientY - frame.y) / frame.height]
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

  begin(event) {
    event.preventDefault()
    event.stopPropagation()
    this.canvas.setPointerCapture(event.pointerId)
    const from = this.at(event)
    const boxes = boxesOf(this.node)
    this.drag = { from, ...(this.hit(from) ?? { number: boxes.length, box: [...from, ...from], edges: [2, 3] }) }
  }

  move(event) {
    if (!this.drag) return
    const { from, number, box, edges } = this.drag
    const [x, y] = this.at(event)
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

  end(event) {
    this.canvas.releasePointerCapture?.(event.pointerId)
    this.drag = null
    this.node.graph?.afterChange?.()
  }

  remove(event) {
    const found = this.hit(this.at(event))
    if (found) this.set(boxesOf(this.node).filter((_, number) => number !== found.number))
  }

  set(boxes) {
    for (const [name, value] of [["drawn_boxes", write(boxes)], ["layout", DRAWN]]) {
      const widget = widgetOf(this.node, name)
      widget.value = value
      widget.callback?.(value)
    }
    this.draw()
  }

  draw() {
    const [wide, high, shape] = [this.element.clientWidth, this.element.clientHeight, shapeOf(this.node)]
    if (!wide || !high) return
    const [width, height] = wide / high > shape ? [high * shape, high] : [wide, wide / shape]
    Object.assign(this.canvas, { width: Math.round(width), height: Math.round(height) })
    const pen = this.canvas.getContext("2d")
    pen.fillStyle = "#2e3034"
    pen.fillRect(0, 0, width, height)
    const source = inputOf(this.node, "bboxes")
    this.switch.hidden = source?.type !== "CreateBoundingBoxes" || LiteGraph.vueNodesMode
    this.canvas.hidden = !this.switch.hidden
    if (source) return this.say(pen, texts.boxesElsewhere)
    const boxes = boxesOf(this.node)
    boxes.forEach((box, number) => this.drawBox(pen, box, number))
    if (!boxes.length) this.say(pen, widgetOf(this.node, "layout")?.value === FREE ? texts.placesFree : texts.drawBoxes)
  }

  say(pen, text) {
    pen.fillStyle = "#bbb"
    pen.font = "12px sans-serif"
    pen.textAlign = "center"
    pen.fillText(text, this.canvas.width / 2, this.canvas.height / 2, this.canvas.width - 8)
  }

  drawBox(pen, [left, top, right, bottom], number) {
    const { width, height } = this.canvas
    const frame = [left * width, top * height, (right - left) * width, (bottom - top) * height]
    pen.fillStyle = pen.strokeStyle = personColor(number)
    pen.globalAlpha = 0.4
    pen.fillRect(...frame)
    pen.globalAlpha = 1
    pen.lineWidth = 2
    pen.strokeRect(...frame)
    pen.fillStyle = "#101010"
    pen.fillRect(frame[0] + 4, frame[1] + 4, 24, 22)
    pen.fillStyle = personColor(number)
    pen.font = "bold 16px sans-serif"
    pen.textAlign = "center"
    pen.fillText(String(number + 1), frame[0] + 16, frame[1] + 20)
  }
}

export function setUpBoxes(node) {
  const editor = new Editor(node)
  const widget = node.addDOMWidget("places", "dynamicid_boxes", editor.element, {
    serialize: false, hideOnZoom: false, hideInPanel: true, getMinHeight: () => HEIGHT, getValue: () => "", setValue: () => {}
  })
  widget.serialize = false // not an input of the node
  const later = () => requestAnimationFrame(() => editor.draw())
  for (const event of ["onConnectionsChange", "onConfigure", "onWidgetChanged"]) after(node, event, later)
  for (const name of ["layout", "drawn_boxes"]) {
    const own = widgetOf(node, name)
    if (own) after(own, "callback", later)
  }
  node.setSize([Math.max(node.size[0], 300), Math.max(node.size[1], node.computeSize()[1])])
}
