// Person 1 is person 1, in one colour, wherever people are counted; and a colour for each kind of our links.

import { app } from "../../../scripts/app.js"
import { GROUP, peopleBefore, peopleOfSlot, placesOf, total, usedSlots } from "./casts.js"
import { redraw } from "./drawing.js"
import { texts } from "./texts.js"
import { after } from "./widgets.js"

const COLORS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7", "#0072b2"] // as captions.py has them
const SLOT = /^(?:faces\.face|photos\.photo|masks\.mask(\d+))/ // growing lists with a slot for each person
const UNCOUNTED = "#a0a0a0" // somebody after a group photo whose people no run has counted yet

const numbered = new WeakSet() // nodes that count people

const LINKS = { DYNAMICID: "#c7a66b", FACE_ANALYSIS: "#8fb3a9", DYNAMICID_FACE: "#e58fb1", DYNAMICID_CAST: "#b39ddb" }

/** Links and sockets of our types in colours of their own, in both kinds of nodes. */
export function colorLinks() {
  for (const [type, color] of Object.entries(LINKS)) {
    LGraphCanvas.link_type_colors[type] = color
    app.canvas.default_connection_color_byType[type] = color
    document.documentElement.style.setProperty(`--color-datatype-${type}`, color)
  }
}

/** The colour of person `number` (from 0), the same as in the pictures that our nodes draw. */
export function personColor(number) {
  return COLORS[number] ?? `hsl(${(number * 222.5) % 360} 60% 60%)`
}

/** The person after so many others, as `total` counts them: { label, color }. */
export function personAfter({ known, open }) {
  return open ? { label: `n+${known + 1}`, color: UNCOUNTED } : { label: String(known + 1), color: personColor(known) }
}

/** How many people a node's slots bring, as far as that is known: places to draw. */
export function peopleOf(node) {
  return usedSlots(node).reduce((all, slot) => all + (peopleOfSlot(node, slot) ?? 1), 0)
}

/** Give a slot of a node another label. Nodes 2.0 draws a slot again only where another object takes its place. */
function relabel(node, slots, slot, label) {
  if (slot.label === label) return
  slot.label = label
  if (LiteGraph.vueNodesMode) slots[slots.indexOf(slot)] = new slot.constructor(slot, node)
  node.setDirtyCanvas?.(true, true)
}

/** The slots of growing lists count people from 1, after those who are in the cast already. */
function nameSlots(node) {
  const slots = (node.inputs ?? []).filter((input) => SLOT.test(input.name))
  if (!slots.length) return
  const before = peopleBefore(node)
  const people = [...before]
  let free = 0 // slots so far that bring nobody, and do not count once something is connected to a later one
  for (const input of slots) {
    const [, mask] = input.name.match(SLOT)
    if (mask !== undefined) {
      relabel(node, node.inputs, input, texts.maskOf.replace("{number}", personAfter(total([...before, Number(mask)])).label))
      continue
    }
    const used = input.link != null
    let number = personAfter(total(used ? people : [...people, free])).label
    if (used) people.push(peopleOfSlot(node, input))
    else free += 1
    if (used && people.at(-1) > 1) number += `\u2013${personAfter(total([...people, -1])).label}`
    relabel(node, node.inputs, input, texts.person.replace("{number}", number))
  }
}

/** Encode Group Photo says of its cast how many people are in it. */
function nameCast(node) {
  const output = node.outputs.find((one) => one.type === "DYNAMICID_CAST")
  const people = placesOf(node)?.length
  const said = people === undefined ? texts.uncounted : texts.counted.replace("{number}", people)
  relabel(node, node.outputs, output, `${output.localized_name ?? output.name} (${said})`)
}

const numberOne = (node) => (node.comfyClass === GROUP ? nameCast(node) : nameSlots(node))

/** Number the people of a graph anew: who comes before them may have changed. */
export function numberPeople(graph) {
  for (const node of graph?.nodes ?? []) if (numbered.has(node)) numberOne(node)
  redraw(graph)
}

/** People are numbered whenever a node of a cast, or what is connected to it, changes. */
export function setUpPeople(node) {
  numbered.add(node)
  numberOne(node)
  const number = () => numberPeople(node.graph)
  for (const event of ["onConnectionsChange", "onConfigure", "onRemoved"]) {
    after(node, event, number) // before a new slot is drawn
    after(node, event, () => requestAnimationFrame(number)) // some slots come and go after the event
  }
}
