// Score Faces and Refine Faces: their report, in the node.

import { app } from "../../../scripts/app.js"
import { after } from "./widgets.js"

const HEIGHT = 80 // px

export function setUpReport(node) {
  const element = document.createElement("div")
  element.className = "dynamicid-report"
  element.style.cssText = "white-space: pre-wrap; overflow: auto; font-size: 12px; padding: 4px; user-select: text"
  const widget = node.addDOMWidget("report", "dynamicid_report", element, {
    serialize: false, hideInPanel: true, getMinHeight: () => HEIGHT, getValue: () => "", setValue: () => {}
  })
  widget.serialize = false // not an input of the node
  const show = (output) => (element.textContent = [output?.text ?? []].flat().join("\n"))
  after(node, "onExecuted", show)
  after(node, "onConfigure", () => requestAnimationFrame(() => show(app.nodeOutputs?.[node.id]))) // after another tab
}
