// Our templates: in the artist's language, and from drawn people to photos and back with one button.

import { app } from "../../../scripts/app.js"
import { api } from "../../../scripts/api.js"
import { blueprintWord, texts, word } from "./texts.js"
import { addButton } from "./widgets.js"

const NOTE = "MarkdownNote"
const PACK = decodeURIComponent(import.meta.url.split("/").at(-3)) // the pack's folder, by which the host knows it

// The host lists templates as its file system does; ours are numbered for an order. Here, before the page asks for them.
const getWorkflowTemplates = api.getWorkflowTemplates
api.getWorkflowTemplates = async function (...args) {
  const found = await getWorkflowTemplates.apply(this, args)
  found?.[PACK]?.sort?.((one, other) => one.localeCompare(other, "en", { numeric: true }))
  return found
}

/** What a template says of itself: see devtools/building/files.py. */
const about = (graph) => graph?.extra?.dynamicid

/** What a blueprint of ours shows outside and inside, which is English in its file; whatever an artist wrote stays. */
export function translateBlueprint(node) {
  const { subgraph } = node
  if (!subgraph || blueprintWord(subgraph.name) === subgraph.name) return
  if (node.title === subgraph.name) node.title = blueprintWord(node.title)
  for (const input of subgraph.inputs.filter((one) => !one.label && blueprintWord(one.name) !== one.name)) {
    subgraph.renameInput(input, blueprintWord(input.name))
  }
  for (const output of subgraph.outputs.filter((one) => !one.label && blueprintWord(one.name) !== one.name)) {
    subgraph.renameOutput(output, blueprintWord(output.name))
  }
  for (const one of [...subgraph.nodes, ...subgraph.groups]) {
    if (blueprintWord(one.title) !== one.title) one.title = blueprintWord(one.title)
  }
}

/** Titles, groups and notes of a template, which are English in its file; whatever an artist wrote stays. */
export function translateTemplate(graph) {
  for (const node of graph.nodes) translateBlueprint(node)
  if (!about(graph)) return
  for (const one of [...graph.nodes, ...graph.groups]) {
    if (word(one.title) !== one.title) one.title = word(one.title)
  }
  for (const { widgets } of graph.nodes.filter((node) => node.type === NOTE)) widgets[0].value = word(widgets[0].value)
}

/** Exchange the widgets' values of a template with those that it keeps for photos, or for drawn people. */
function exchange(graph) {
  const { for_photos: values, photos = false } = about(graph)
  for (const [id, others] of Object.entries(values)) {
    const node = graph.getNodeById(Number(id))
    for (const [name, value] of Object.entries(others)) {
      const widget = node?.widgets?.find((one) => one.name === name)
      if (!widget) continue
      others[name] = widget.value
      widget.value = value
    }
  }
  graph.extra.dynamicid = { for_photos: values, photos: !photos }
  app.loadGraphData(graph.serialize()) // opened anew, the host offers the files that are missing
}

/** Load DynamicID in a template: a button for the other models. */
export function setUpSwitch(node) {
  requestAnimationFrame(() => {
    const told = about(node.graph)
    if (told) addButton(node, "switch", told.photos ? texts.forDrawings : texts.forPhotos, () => exchange(node.graph))
  })
}
