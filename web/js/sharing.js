// A shared graph without its photos and faces: what is missing is said, and files are taken for all of it in one step.

import { app } from "../../../scripts/app.js"
import { placesOf } from "./casts.js"
import { round, setValues, widgetOf } from "./drawing.js"
import { isFaceFile, upload } from "./face_files.js"
import { complain, texts } from "./texts.js"

const [LOAD, ENCODE, CAST, GROUP] = ["DynamicIDLoadFace", "DynamicIDEncodeFace", "DynamicIDCast", "DynamicIDEncodeGroup"]
const PEOPLE = [ENCODE, CAST, GROUP] // what makes people of photos
const FACE = "DYNAMICID_FACE"
const NOBODY = "-" // in the names of a group photo: a face that is left out
const STEP = 340 // px from one Load Face to the one below

const stem = (name) => name.replace(/ \[\w+\]$/, "").replace(/^.*\//, "").replace(/\.\w+$/, "")
const same = (one, other) => one.toLowerCase() === other.toLowerCase()

// --- what is missing ---------------------------------------------------------------------------------------------------

/** Whether a combo names a file that this ComfyUI has not. */
function lacks(node, name) {
  const widget = widgetOf(node, name)
  const known = widget?.options?.values
  return Boolean(widget?.value) && Array.isArray(known) && !known.includes(widget.value)
}

/** All nodes of a graph and of its subgraphs, each once. */
function nodesOf(graph, seen = new Set()) {
  if (seen.has(graph)) return []
  seen.add(graph)
  return graph.nodes.flatMap((node) => [node, ...(node.subgraph ? nodesOf(node.subgraph, seen) : [])])
}

const linksOf = (node) => (node.outputs ?? []).flatMap((output) => output.links ?? []).map((id) => node.graph.getLink(id)).filter(Boolean)

/**
 * Where a photo becomes people: { node, slot, door, plain }; also behind nodes that change it (`plain` is false then), and
 * in subgraphs, whose outermost socket is the `door`.
 */
function usesOf(photo) {
  const found = []
  const seen = new Set()
  const follow = (graph, link, door, plain) => {
    const node = graph.getNodeById(link.target_id)
    if (!node || seen.has(link)) return
    seen.add(link)
    const slot = node.inputs[link.target_slot]
    if (PEOPLE.includes(node.comfyClass)) found.push({ node, slot: slot.name, door, plain })
    else if (node.subgraph) {
      const inside = node.subgraph.inputs.find((input) => input.name === slot.name)
      const links = (inside?.linkIds ?? []).map((id) => node.subgraph.getLink(id)).filter(Boolean)
      for (const next of links) follow(node.subgraph, next, door ?? { node, slot: slot.name }, plain && !door)
    } else if (!node.comfyClass?.startsWith("DynamicID")) {
      for (const next of linksOf(node)) if (next.type === "IMAGE") follow(graph, next, door, false)
    }
  }
  for (const link of linksOf(photo)) follow(photo.graph, link, null, true)
  return found
}

/** The names that an artist gave to the people of a group photo. */
function namesIn(node) {
  const names = String(widgetOf(node, "names")?.value ?? "").split(/[\n,;\uff0c\uff1b\u3001]/).map((name) => name.trim())
  while (names.length && !names.at(-1)) names.pop()
  return names.filter((name) => name !== NOBODY)
}

/** Whom a photo shows: names of people, and whether there may be more; what is said of them. */
function peopleIn({ node }, photo) {
  const file = stem(widgetOf(photo, "image").value)
  if (node.comfyClass === CAST) return { names: [file], said: file }
  if (node.comfyClass === ENCODE) {
    const name = widgetOf(node, "name")?.value || node.title
    return { names: [name], said: name }
  }
  const [names, count] = [namesIn(node), placesOf(node)?.length]
  const all = Array.from({ length: count ?? names.length }, (_, i) => names[i] || texts.person.replace("{number}", i + 1))
  return { names: all, open: !all.length, said: names.filter(Boolean).join(", ") || texts.everybodyIn.replace("{name}", file) }
}

/** What a graph lacks: face files, and photos that become people: { node, names, said, photos, ... }. */
export function missingFaces(graph) {
  const found = []
  for (const node of nodesOf(graph)) {
    if (node.comfyClass === LOAD && lacks(node, "face_file")) {
      const name = stem(widgetOf(node, "face_file").value)
      found.push({ node, names: [name], said: name, photos: [] })
    }
    if (node.comfyClass !== "LoadImage" || !lacks(node, "image")) continue
    for (const use of usesOf(node)) {
      const known = found.find((one) => one.node === use.node && one.slot === use.slot && one.door?.node === use.door?.node)
      if (known) known.photos.push(node)
      else found.push({ ...use, ...peopleIn(use, node), photos: [node] })
    }
  }
  return found
}

// --- faces in the place of what is missing ------------------------------------------------------------------------------

/** Set a combo to a file that was not there when the page was loaded. */
function choose(node, name, file) {
  const widget = widgetOf(node, name)
  if (Array.isArray(widget.options?.values) && !widget.options.values.includes(file)) widget.options.values.push(file)
  setValues(node, { [name]: file })
}

function create(graph, type, pos, more = {}) {
  const node = LiteGraph.createNode(type)
  Object.assign(node, { pos: [...pos], ...more })
  graph.add(node)
  return node
}

/** A Load Face with a file; somebody without one has a name under which it is asked for again. */
function loadFace(graph, file, pos, more) {
  const node = create(graph, LOAD, pos, more)
  if (file) choose(node, "face_file", file)
  else setValues(node, { face_file: `${more.title}.safetensors` })
  return node
}

/** What hung on an output hangs on another node's. */
function handOver(node, output, source) {
  for (const link of (node.outputs[output].links ?? []).map((id) => node.graph.getLink(id))) {
    source.connect(0, node.graph.getNodeById(link.target_id), link.target_slot)
  }
}

const connect = (source, target, name) => source.connect(0, target, target.inputs.findIndex((input) => input.name === name))

/** Growing lists get their next slot when the last is used, some a moment later. */
async function connectAll(sources, target, list) {
  for (const [number, source] of sources.entries()) {
    const slot = `${list}${number}`
    for (let tries = 0; tries < 20 && target.findInputSlot(slot) < 0; tries++) await new Promise(requestAnimationFrame)
    connect(source, target, slot)
  }
}

/** Encode Face gives its place, and what hangs on its face, to Load Face. */
function replaceEncoder(node, file) {
  const load = loadFace(node.graph, file, node.pos, { title: node.title, color: node.color })
  handOver(node, 0, load)
  node.graph.remove(node)
}

/** The socket of a subgraph takes a face, not a photo to be encoded inside. */
function openDoor({ node: outer, slot }) {
  const graph = outer.subgraph
  const door = graph.inputs.find((input) => input.name === slot)
  const encoders = door.linkIds.map((id) => graph.getNodeById(graph.getLink(id).target_id))
  door.type = outer.inputs[outer.findInputSlot(slot)].type = FACE
  for (const encoder of encoders) {
    for (const link of (encoder.outputs[0].links ?? []).map((id) => graph.getLink(id))) {
      const target = graph.getNodeById(link.target_id)
      door.connect(target.inputs[link.target_slot], target)
    }
    graph.remove(encoder)
  }
}

/** Encode Group Photo gives its place to faces in boxes: those in which the photo had them, or side by side. */
async function replaceGroup({ node, photos: [photo], names }, faces) {
  const { graph, pos: [x, y] } = node
  const title = (number) => (names[number] ? { title: names[number] } : {})
  const loads = faces.map((file, number) => loadFace(graph, file, [photo.pos[0], photo.pos[1] + number * STEP], title(number)))
  const below = loads.at(-1).pos[1] + STEP
  for (const frame of graph.groups.filter((one) => one.isPointInside(...photo.pos))) {
    frame.size = [frame.size[0], Math.max(frame.size[1], below - frame.pos[1])]
  }
  const [listed, cast, preview] = node.outputs.map((output) => Boolean(output.links?.length))
  const boxes = placesOf(node)
  if (cast || preview || !listed) {
    const place = create(graph, "DynamicIDPlaceFaces", [x, y], { color: node.color })
    await connectAll(loads, place, "faces.face")
    setValues(place, { weight: widgetOf(node, "weight").value })
    if (boxes?.length === loads.length && boxes.every(Boolean)) {
      setValues(place, { drawn_boxes: boxes.map((box) => box.map(round).join(",")).join("; "), layout: "drawn" })
    }
    handOver(node, 1, place)
    if (preview) {
      const drawn = create(graph, "DynamicIDPreviewCast", [x, y + place.size[1] + 80])
      connect(place, drawn, "cast")
      handOver(node, 2, drawn)
    }
  }
  if (listed) {
    const list = create(graph, "CreateList", [x, y - 120])
    await connectAll(loads, list, "inputs.input")
    handOver(node, 0, list)
  }
  graph.remove(node)
}

/** Whether faces can take the place of a photo. */
function takesFaces({ node, door, plain }) {
  if (node.comfyClass === LOAD) return true
  if (door) return plain && node.comfyClass !== GROUP && nodesOf(app.rootGraph).filter((one) => one.subgraph === door.node.subgraph).length === 1
  return node.comfyClass !== GROUP || !node.outputs[0].links?.length || "CreateList" in LiteGraph.registered_node_types
}

/** Give what is missing its faces: names of files, or null for somebody who still has none. */
async function giveFaces(missing, files) {
  const { node, slot, door, photos, names } = missing
  const [photo] = photos
  if (node.comfyClass === LOAD) return choose(node, "face_file", files[0])
  if (node.comfyClass === GROUP) await replaceGroup(missing, files)
  else if (node.comfyClass === CAST || door) {
    const load = loadFace(photo.graph, files[0], photo.pos, { title: names[0], color: photo.color })
    if (node.comfyClass === ENCODE) openDoor(door)
    connect(load, door?.node ?? node, door?.slot ?? slot)
  } else replaceEncoder(node, files[0])
  for (const one of photos) if (one.graph && !linksOf(one).length) one.graph.remove(one)
}

// --- files --------------------------------------------------------------------------------------------------------------

/** Take those that fit out of a list, one for each entry: by name where one fits, the others in order. */
function deal(entries, files, fits) {
  const left = [...files]
  const named = entries.map((entry) => {
    const place = left.findIndex((file) => fits(entry, stem(file.name)))
    return place < 0 ? null : left.splice(place, 1)[0]
  })
  return { dealt: named.map((file) => file ?? left.shift() ?? null), left }
}

async function takeFiles(missing, files) {
  const [faces, photos] = [[], []]
  for (const file of files) {
    if (file.type.startsWith("image/")) photos.push(file)
    else if (await isFaceFile(file)) faces.push(file)
    else complain(texts.notAFace, texts.notAFaceDetail.replace("{name}", file.name))
  }
  const shown = missing.filter((one) => one.photos.length)
  const { dealt } = deal(shown, photos, (one, name) => one.photos.some((photo) => same(stem(widgetOf(photo, "image").value), name)))
  for (const [number, file] of dealt.entries()) if (file) choose(shown[number].photos[0], "image", await upload(file))
  const without = missing.filter((one) => takesFaces(one) && !dealt[shown.indexOf(one)])
  const wishes = without.flatMap((one) => one.names.map((name) => ({ one, name })))
  const { dealt: given, left } = deal(wishes, faces, (wish, name) => same(wish.name, name))
  for (const one of without) {
    const own = given.filter((_, number) => wishes[number].one === one)
    if (one.open) own.push(...left.splice(0)) // nobody knows how many people there were
    const names = []
    for (const file of own) names.push(file && (await upload(file)))
    if (names.some(Boolean)) await giveFaces(one, names)
  }
  app.canvas?.setDirty(true, true)
}

/** Say which faces a graph lacks, with a button that takes files for them. */
export function tellMissingFaces(graph) {
  document.querySelector(".dynamicid-missing")?.remove()
  const missing = missingFaces(graph)
  if (!missing.length) return
  const panel = Object.assign(document.createElement("div"), { className: "dynamicid-missing" })
  panel.style.cssText =
    "position: fixed; left: 50%; bottom: 24px; transform: translateX(-50%); z-index: 1200; padding: 12px 16px; " +
    "border-radius: 8px; background: #26282c; color: #eee; box-shadow: 0 2px 12px #000a; font: 14px sans-serif; " +
    "display: flex; gap: 12px; align-items: center"
  const names = missing.map(({ said }) => said).join(", ")
  const text = Object.assign(document.createElement("span"), { textContent: texts.facesMissing.replace("{names}", names) })
  const button = (label, press) => {
    const made = Object.assign(document.createElement("button"), { textContent: label, onclick: press })
    made.style.cssText = "padding: 4px 12px; border-radius: 6px; background: #3b82f6; color: white; border: 0; cursor: pointer"
    return made
  }
  const ask = () => {
    const picker = Object.assign(document.createElement("input"), { type: "file", accept: ".safetensors,image/*", multiple: true })
    picker.onchange = () => takeFiles(missing, picker.files).then(() => tellMissingFaces(graph), (error) =>
      complain(texts.uploadFailed, String(error.message ?? error)))
    picker.click()
  }
  panel.append(text, button(texts.chooseFaces, ask), button("\u00d7", () => panel.remove()))
  document.body.append(panel)
}
