// Load Face takes face files by button or drop; Edit Expression and Pose fetches its menu of presets.

import { app } from "../../../scripts/app.js"
import { api } from "../../../scripts/api.js"

const FORMAT = "dynamicid-face" // `format` in the metadata of a face file
const LONGEST_HEADER = 1 << 20 // bytes; a face file's is below one kilobyte

// Texts, until locales/<language>/main.json has arrived.
const texts = {
  uploadFace: "upload a face file",
  choosePreset: "choose from presets",
  notAFace: "Not a face file",
  notAFaceDetail: "{name} is not a face file. Choose a .safetensors file that Save Face wrote.",
  uploadFailed: "The upload failed"
}

async function loadTexts() {
  const language = app.extensionManager?.setting?.get?.("Comfy.Locale") ?? "en"
  const all = await api.fetchApi("/i18n").then((answer) => (answer.ok ? answer.json() : {}))
  Object.assign(texts, all.en?.dynamicid, all[language]?.dynamicid)
}

function complain(summary, detail) {
  app.extensionManager?.toast?.add?.({ severity: "error", summary, detail, life: 8000 })
}

/** Whether a file is a face file: a safetensors header (its length in 8 bytes, then JSON) that says so. */
async function isFaceFile(file) {
  if (!file.name.toLowerCase().endsWith(".safetensors") || file.size < 8) return false
  const length = Number(new DataView(await file.slice(0, 8).arrayBuffer()).getBigUint64(0, true))
  if (length > LONGEST_HEADER) return false
  try {
    return JSON.parse(await file.slice(8, 8 + length).text()).__metadata__?.format === FORMAT
  } catch {
    return false
  }
}

/** Put a file into the host's input folder; returns the name by which nodes know it. */
async function upload(file) {
  const body = new FormData()
  body.append("image", file) // the host's route for input files of any kind
  const answer = await api.fetchApi("/upload/image", { method: "POST", body })
  if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`)
  const { name, subfolder } = await answer.json()
  return subfolder ? `${subfolder}/${name}` : name
}

function choose(widget, value) {
  const known = widget.options?.values
  if (Array.isArray(known) && !known.includes(value)) widget.options.values = [...known, value].sort()
  widget.value = value
  widget.callback?.(value)
}

async function takeFaceFile(node, file) {
  if (!(await isFaceFile(file))) return complain(texts.notAFace, texts.notAFaceDetail.replace("{name}", file.name))
  try {
    const name = await upload(file)
    choose(node.widgets.find((widget) => widget.name === "face_file"), name)
    node.setDirtyCanvas?.(true, true)
  } catch (error) {
    complain(texts.uploadFailed, String(error.message ?? error))
  }
}

function addButton(node, name, label, callback) {
  const button = node.addWidget("button", name, null, callback, { serialize: false })
  button.label = label
  button.serialize = false // not an input of the node
}

function setUpLoadFace(node) {
  addButton(node, "upload", texts.uploadFace, () => {
    const picker = Object.assign(document.createElement("input"), { type: "file", accept: ".safetensors" })
    picker.onchange = () => picker.files[0] && takeFaceFile(node, picker.files[0])
    picker.click()
  })
  node.onDragOver = (event) => [...(event?.dataTransfer?.items ?? [])].some((item) => item.kind === "file")
  node.onDragDrop = (event) => {
    const file = event?.dataTransfer?.files?.[0]
    if (file) takeFaceFile(node, file)
    return Boolean(file)
  }
}

/** Connect a node with the menus of presets to `expression`, or select the node that is connected already. */
function choosePreset(node) {
  const slot = node.inputs?.findIndex((input) => input.name === "expression") ?? -1
  if (slot < 0 || !node.graph) return
  const source = node.getInputNode?.(slot)
  if (source) return app.canvas?.selectNode?.(source)
  const menu = globalThis.LiteGraph?.createNode("DynamicIDMotionPrompt")
  if (!menu) return
  menu.pos = [node.pos[0] - menu.size[0] - 40, node.pos[1]]
  node.graph.add(menu)
  menu.connect(0, node, slot)
}

app.registerExtension({
  name: "DynamicID",
  async setup() {
    await loadTexts().catch((error) => console.warn("DynamicID: no translations", error))
  },
  nodeCreated(node) {
    if (node.comfyClass === "DynamicIDLoadFace") setUpLoadFace(node)
    if (node.comfyClass === "DynamicIDEditMotion") {
      addButton(node, "presets", texts.choosePreset, () => choosePreset(node))
    }
  }
})
