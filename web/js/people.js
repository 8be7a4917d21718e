// Person 1 is person 1, in one colour, wherever people are counted; and a colour for each kind of our links.

import { app } from "../../../scripts/app.js"
import { texts } from "./texts.js"

const COLORS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7", "#0072b2"] // as captions.py has them
const SLOT = /^(?:faces\.face|photos\.photo|masks\.mask)(\d+)$/ // growing lists with a slot for each person
const PERSON = /^(?:faces|photos)\./ // ... and of these the ones that bring somebody

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

/** The slots of a node's growing lists of people. */
function personSlots(node) {
  return (node.inputs ?? []).filter((input) => SLOT.test(input.name))
}

/** How many people are connected: places to draw. */
export function peopleOf(node) {
  return personSlots(node).filter((input) => PERSON.test(input.name) && input.link != null).length
}

function nameSlots(node) {
  for (const input of personSlots(node)) {
    const text = input.name.startsWith("masks.") ? texts.maskOf : texts.person
    input.label = text.replace("{number}", Number(input.name.match(SLOT)[1]) + 1)
  }
  node.graph?.trigger?.("node:slot-label:changed", { nodeId: node.id, slotType: 1 }) // Nodes 2.0 listens; 1: inputs
}

/** Call `then` after the host's own handlers of an event of a node. */
export function after(node, event, then) {
  const before = node[event]
  node[event] = function (...args) {
    const result = before?.apply(this, args)
    then.apply(this, args)
    return result
  }
}

/** A growing list counts people from 1; its slots' names, which files keep, count from 0. */
export function setUpPeople(node) {
  const name = () => nameSlots(node)
  name()
  for (const event of ["onConnectionsChange", "onConfigure"]) {
    after(node, event, name) // before a new slot is drawn
    after(node, event, () => requestAnimationFrame(name)) // some slots come and go after the event
  }
}
