// A drawing of the picture to be made, in a node, that follows the pointer: with both kinds of nodes.

import { after } from "./widgets.js"

const HEIGHT = 220 // px of the widget
const GROUND = "#2e3034"

const drawings = new WeakMap() // node -> its drawing

export const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name)

/** A fraction of the picture as files keep it. */
export const round = (value) => Math.round(Math.min(Math.max(value, 0), 1) * 1000) / 1000

/** Width over height of the picture that will be made: of the first empty latent in the graph. */
function shapeOf(node) {
  const latent = node.graph?.nodes?.find((one) => /^Empty.*Latent/.test(one.type) && widgetOf(one, "width"))
  return latent ? widgetOf(latent, "width").value / widgetOf(latent, "height").value : 1
}

/** Set widgets of a node as if the artist had typed the values. */
export function setValues(node, values) {
  for (const [name, value] of Object.entries(values)) {
    const widget = widgetOf(node, name)
    widget.value = value
    widget.callback?.(value)
  }
}

/** Draw what the nodes of a graph show anew: one's people may stand in another's picture. */
export function redraw(graph) {
  for (const node of graph?.nodes ?? []) drawings.get(node)?.draw()
}

/** What drawings share; each says what it shows (`paint`) and what the pointer does (`begin`, `move`, `end`, `remove`). */
export class Drawing {
  constructor(node, className) {
    this.node = node
    this.element = Object.assign(document.createElement("div"), { className })
    this.element.style.cssText = "display: flex; justify-content: center; align-items: center; overflow: hidden; min-height: 0"
    this.canvas = document.createElement("canvas")
    this.canvas.style.cssText = "cursor: crosshair; touch-action: none; border-radius: 4px"
    this.element.append(this.canvas)
    this.canvas.addEventListener("pointerdown", (event) => {
      event.preventDefault()
      event.stopPropagation()
      this.canvas.setPointerCapture(event.pointerId)
      this.begin(this.at(event))
    })
    this.canvas.addEventListener("pointermove", (event) => this.move(this.at(event)))
    this.canvas.addEventListener("lostpointercapture", () => {
      this.end()
      this.node.graph?.afterChange?.()
    })
    this.canvas.addEventListener("dblclick", (event) => this.remove(this.at(event)))
    this.element.addEventListener("pointerenter", () => this.draw())
    new ResizeObserver(() => this.draw()).observe(this.element)
  }

  /** The pointer's place as fractions of the picture. */
  at(event) {
    const frame = this.canvas.getBoundingClientRect()
    return [(event.clientX - frame.x) / frame.width, (event.clientY - frame.y) / frame.height]
  }

  draw() {
    const [wide, high, shape] = [this.element.clientWidth, this.element.clientHeight, shapeOf(this.node)]
    if (!wide || !high) return
    const [width, height] = wide / high > shape ? [high * shape, high] : [wide, wide / shape]
    Object.assign(this.canvas, { width: Math.round(width), height: Math.round(height) })
    const pen = this.canvas.getContext("2d")
    pen.fillStyle = GROUND
    pen.fillRect(0, 0, width, height)
    this.paint(pen)
  }

  /** A sentence at the bottom, on a plate: there may be people behind it. */
  say(pen, text) {
    pen.font = "12px sans-serif"
    const [{ width, height }, most] = [this.canvas, this.canvas.width - 8]
    const wide = Math.min(pen.measureText(text).width, most)
    pen.fillStyle = "#101010"
    pen.fillRect((width - wide) / 2 - 4, height - 22, wide + 8, 18)
    pen.fillStyle = "#ddd"
    pen.textAlign = "center"
    pen.fillText(text, width / 2, height - 9, most)
  }

  /** A person's number on a plate, whose upper left corner is at these pixels. */
  number(pen, { label, color }, x, y) {
    pen.font = "bold 16px sans-serif"
    const width = Math.max(24, pen.measureText(label).width + 10)
    pen.fillStyle = "#101010"
    pen.fillRect(x, y, width, 22)
    pen.fillStyle = color
    pen.textAlign = "center"
    pen.fillText(label, x + width / 2, y + 16)
  }
}

/** Put a drawing into its node, drawn again whenever one of the widgets in `watched` changes. */
export function addDrawing(drawing, name, watched) {
  const { node } = drawing
  drawings.set(node, drawing)
  const widget = node.addDOMWidget(name, "dynamicid_drawing", drawing.element, {
    serialize: false, hideOnZoom: false, hideInPanel: true, getMinHeight: () => HEIGHT, getValue: () => "", setValue: () => {}
  })
  widget.serialize = false // not an input of the node
  const later = () => requestAnimationFrame(() => drawing.draw())
  for (const event of ["onConnectionsChange", "onConfigure", "onWidgetChanged"]) after(node, event, later)
  for (const watchedName of watched) {
    const own = widgetOf(node, watchedName)
    if (own) after(own, "callback", later)
  }
  node.setSize([Math.max(node.size[0], 300), Math.max(node.size[1], node.computeSize()[1])])
}
