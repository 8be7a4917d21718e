// A shared graph without its photos and faces: what is missing is said, and face files are taken for all in one step.

import { app } from "../../../scripts/app.js"
import { isFaceFile, upload } from "./face_files.js"
import { complain, texts } from "./texts.js"

const FACES = ["DynamicIDEncodeFace"] // what makes a face of a photo
const CASTS = ["DynamicIDCast"] // ... and what takes a face in a photo's place

const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name)
const stem = (name) => name.replace(/ \[\w+\]$/, "").replace(/^.*\//, "").replace(/\.\w+$/, "")

/** Whether a combo names a file that this ComfyUI has not. */
function lacks(node, name) {
  const widget = widgetOf(node, name)
  const known = widget?.options?.values
  return Boolean(widget?.value) && Array.isArray(known) && !known.includes(widget.value)
}

/** The nodes that take this node's output. */
function targets(node) {
  const links = (node.outputs ?? []).flatMap((output) => output.links ?? [])
  return links.map((id) => node.graph.getNodeById(node.graph.links[id]?.target_id)).filter(Boolean)
}

/** Nodes whose face is missing: Load Face without its file, Encode Face whose photo is not here, such a photo of a cast. */
export function missingFaces(graph) {
  const found = []
  for (const node of graph.nodes) {
    if (node.comfyClass === "DynamicIDLoadFace" && lacks(node, "face_file")) {
      found.push({ node, name: stem(widgetOf(node, "face_file").value) })
    } else if (node.comfyClass === "LoadImage" && lacks(node, "image")) {
      for (const target of targets(node)) {
        if (FACES.includes(target.comfyClass)) found.push({ node: target, name: target.title })
        if (CASTS.includes(target.comfyClass)) found.push({ node, name: stem(widgetOf(node, "image").value) })
      }
    }
  }
  return found
}

/** Give a node's place, and what hangs on its face, to a Load Face with this file. */
function giveFace(node, file) {
  let load = node
  if (node.comfyClass !== "DynamicIDLoadFace") {
    load = LiteGraph.createNode("DynamicIDLoadFace")
    Object.assign(load, { pos: [...node.pos], title: node.title, color: node.color })
    node.graph.add(load)
    const taken = (node.outputs[0].links ?? []).map((id) => node.graph.links[id])
    for (const link of taken) load.connect(0, node.graph.getNodeById(link.target_id), link.target_slot)
    node.graph.remove(node)
  }
  const widget = widgetOf(load, "face_file")
  if (Array.isArray(widget.options?.values) && !widget.options.values.includes(file)) widget.options.values.push(file)
  widget.value = file
  widget.callback?.(file)
}

/** Which file is whose: by name where one fits, the others in order. */
function assign(missing, files) {
  const left = [...files]
  const take = (fits) => {
    const place = left.findIndex(fits)
    return place < 0 ? null : left.splice(place, 1)[0]
  }
  const named = missing.map(({ name }) => take((file) => stem(file.name).toLowerCase() === name.toLowerCase()))
  return named.map((file) => file ?? left.shift() ?? null)
}

async function takeFaces(missing, files) {
  const faces = []
  for (const file of files) {
    if (await isFaceFile(file)) faces.push(file)
    else complain(texts.notAFace, texts.notAFaceDetail.replace("{name}", file.name))
  }
  for (const [number, file] of assign(missing, faces).entries()) {
    if (file) giveFace(missing[number].node, await upload(file))
  }
  app.canvas?.setDirty(true, true)
}

/** Say which faces a graph lacks, with a button that takes face files for them. */
export function tellMissingFaces(graph) {
  document.querySelector(".dynamicid-missing")?.remove()
  const missing = missingFaces(graph)
  if (!missing.length) return
  const panel = Object.assign(document.createElement("div"), { className: "dynamicid-missing" })
  panel.style.cssText =
    "position: fixed; left: 50%; bottom: 24px; transform: translateX(-50%); z-index: 1200; padding: 12px 16px; " +
    "border-radius: 8px; background: #26282c; color: #eee; box-shadow: 0 2px 12px #000a; font: 14px sans-serif; " +
    "display: flex; gap: 12px; align-items: center"
  const names = missing.map(({ name }) => name).join(", ")
  const text = Object.assign(document.createElement("span"), { textContent: texts.facesMissing.replace("{names}", names) })
  const button = (label, press) => {
    const made = Object.assign(document.createElement("button"), { textContent: label, onclick: press })
    made.style.cssText = "padding: 4px 12px; border-radius: 6px; background: #3b82f6; color: white; border: 0; cursor: pointer"
    return made
  }
  const choose = () => {
    const picker = Object.assign(document.createElement("input"), { type: "file", accept: ".safetensors", multiple: true })
    picker.onchange = () => takeFaces(missing, picker.files).then(() => tellMissingFaces(graph), (error) =>
      complain(texts.uploadFailed, String(error.message ?? error)))
    picker.click()
  }
  panel.append(text, button(texts.chooseFaces, choose), button("\u00d7", () => panel.remove()))
  document.body.append(panel)
}
