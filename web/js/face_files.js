// Load Face takes face files by button or drop.

import { api } from "../../../scripts/api.js"
import { complain, texts } from "./texts.js"
import { addButton } from "./widgets.js"

const FORMAT = "dynamicid-face" // `format` in the metadata of a face file
const LONGEST_HEADER = 1 << 20 // bytes; a face file's is below one kilobyte

/** Whether a file is a face file: a safetensors header (its length in 8 bytes, then JSON) that says so. */
export async function isFaceFile(file) {
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
export async function upload(file) {
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

export function setUpLoadFace(node) {
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
