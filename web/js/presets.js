// Edit Expression and Pose: a menu that writes the words that the weights were trained with into the text.

import { texts, word } from "./texts.js"
import { addButton } from "./widgets.js"

const DEGREES = { slight: "slightly ", normal: "", strong: "very " } // as dynamicid_core/prompts.py says them

/** The choices of an input of Expression and Pose Presets. */
function choices(input) {
  const described = LiteGraph.registered_node_types.DynamicIDMotionPrompt.nodeData.input.required[input]
  return described[1]?.options ?? described[0]
}

/** A text's two parts, what the face shows and where the head points; either may be empty. */
export function parts(text) {
  const poses = choices("pose").join("|")
  const found = text.match(new RegExp(`(?:^|,)\\s*(?:the face is )?(?:${poses})\\s*$`))
  const pose = found ? found[0].replace(/^,?\s*/, "").trim() : ""
  const expression = (found ? text.slice(0, found.index) : text).trim().replace(/,$/, "")
  return { expression, pose }
}

function write(node, part) {
  const widget = node.widgets.find((one) => one.name === "expression")
  const { expression, pose } = { ...parts(String(widget.value)), ...part }
  widget.value = [expression, pose].filter(Boolean).join(", ")
  widget.callback?.(widget.value)
  node.setDirtyCanvas?.(true, true)
}

function expressionEntry(node, expression) {
  const content = word(expression)
  const entry = (degree) => ({
    content: word(degree),
    callback: () => write(node, { expression: `the expression is ${DEGREES[degree]}${expression}` })
  })
  if (expression === "neutral") return { ...entry("normal"), content }
  return { content, has_submenu: true, submenu: { options: choices("intensity").map(entry) } }
}

function openMenu(node, event) {
  const poseEntry = (pose) => ({ content: word(pose), callback: () => write(node, { pose: `the face is ${pose}` }) })
  const entries = [
    ...choices("expression").map((expression) => expressionEntry(node, expression)),
    null, // a line between
    ...choices("pose").map(poseEntry)
  ]
  new LiteGraph.ContextMenu(entries, { event, title: texts.presets })
}

export function setUpPresets(node) {
  addButton(node, "presets", texts.choosePreset, (event) => openMenu(node, event))
}
