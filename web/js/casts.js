// Who is in a cast, and from which number on a node's own people are counted: a cast goes from node to node, and grows.

import { app } from "../../../scripts/app.js"

export const ONE = "DynamicIDPlaceFace" // adds one person to the cast
export const SEVERAL = ["DynamicIDPlaceFaces", "DynamicIDCast"] // ... adds several
export const GROUP = "DynamicIDEncodeGroup" // begins one with everybody in a photo, as its last run found them
const CASTS = [ONE, ...SEVERAL, GROUP]
const CAST = "DYNAMICID_CAST"
const ALWAYS = 0 // mode of a node that is neither muted nor bypassed
const PERSON = /^(?:faces|photos)\./ // slots of growing lists that bring somebody

/** The node that is connected to an input, if there is one; what only passes on is looked through. */
export function inputOf(node, name) {
  let source = node.getInputNode?.(node.findInputSlot(name)) ?? null
  while (source?.type === "Reroute") source = source.getInputNode(0)
  return source
}

/** The nodes that take an output's value of this type. */
function takers(node, type) {
  const links = (node.outputs ?? []).flatMap((output) => output.links ?? []).map((id) => node.graph.links[id])
  const targets = links.filter(Boolean).map((link) => [node.graph.getNodeById(link.target_id), link.type])
  return targets.flatMap(([target, of]) => (target?.type === "Reroute" ? takers(target, type) : of === type ? [target] : []))
}

/** Where each person of a group photo stands; null before a run has said it, and the graph keeps it. */
export const placesOf = (node) => node.properties?.places ?? app.nodeOutputs?.[node.id]?.places ?? null

/** How many people a connected slot brings: one, or everybody in a group photo; null where only a run can tell. */
export function peopleOfSlot(node, slot) {
  const source = inputOf(node, slot.name)
  return source?.comfyClass === GROUP ? (placesOf(source)?.length ?? null) : 1
}

/** The slots of a node that bring people. */
export const usedSlots = (node) => (node.inputs ?? []).filter((input) => PERSON.test(input.name) && input.link != null)

/** How many people a node adds to the cast, in parts; null where only a run can tell. */
function brought(node) {
  if (node.mode !== ALWAYS) return []
  if (node.comfyClass === ONE) return [1]
  if (node.comfyClass === GROUP) return [placesOf(node)?.length ?? null]
  return usedSlots(node).map((slot) => peopleOfSlot(node, slot))
}

/** A sum of numbers of people: { known, open }, and open where one of them is null. */
export const total = (parts) => ({ known: parts.reduce((sum, part) => sum + (part ?? 0), 0), open: parts.includes(null) })

/** The nodes that add people to the cast before a node does, in order. */
function earlier(node) {
  const chain = []
  for (let one = inputOf(node, "cast"); one && one !== node && !chain.includes(one); one = inputOf(one, "cast")) chain.unshift(one)
  return chain.filter((one) => CASTS.includes(one.comfyClass))
}

/** The numbers of people in the cast before those of a node, as `total` takes them. */
export const peopleBefore = (node) => earlier(node).flatMap(brought)

/** All nodes that add people to the cast that a node adds somebody to, in order. */
export function castOf(node) {
  const next = (one) => takers(one, CAST).find((taker) => CASTS.includes(taker.comfyClass))
  const chain = [...earlier(node), node]
  for (let one = next(node); one && !chain.includes(one); one = next(one)) chain.push(one)
  return chain.filter((one) => one === node || one.mode === ALWAYS)
}
