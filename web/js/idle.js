// Widgets that do nothing while something is connected are greyed, so that no value is typed in vain.

import { after } from "./widgets.js"

const CANVAS = ["width", "height"]
const IDLE = { // type of node -> what a link to an input makes of widgets: idle with it, or idle without it
  DynamicIDPreviewCast: [{ input: "latent", linked: CANVAS, free: [] }],
  DynamicIDPlaceFace: [{ input: "mask", linked: ["outline"], free: [] }],
  DynamicIDPlaceFaces: [{ input: "bboxes", linked: ["layout", "drawn_boxes"], free: CANVAS }],
  DynamicIDCast: [{ input: "bboxes", linked: ["layout", "drawn_boxes"], free: CANVAS }]
}

function grey(node) {
  for (const { input, linked, free } of IDLE[node.comfyClass]) {
    const connected = node.inputs?.find((one) => one.name === input)?.link != null
    for (const widget of node.widgets ?? []) {
      if (linked.includes(widget.name)) widget.disabled = connected
      if (free.includes(widget.name)) widget.disabled = !connected
    }
  }
  node.setDirtyCanvas?.(true, true)
}

export function setUpIdle(node) {
  grey(node)
  for (const event of ["onConnectionsChange", "onConfigure"]) after(node, event, () => grey(node))
}
