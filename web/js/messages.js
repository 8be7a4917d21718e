// What our nodes say when they stop, as a toast: the node's title and the sentence.

import { app } from "../../../scripts/app.js"
import { api } from "../../../scripts/api.js"
import { withoutFolders } from "./folders.js"
import { complain } from "./texts.js"

const OURS = "DynamicIDError" // what nodes/hints.py raises
const LIFE = 20000 // milliseconds: long enough to read two sentences and look at the node

/** The node that a run calls `id`: numbers from the outermost graph to the node, with colons between. */
function nodeOf(id) {
  let graph = app.rootGraph ?? app.graph
  let node = null
  for (const number of String(id).split(":")) {
    node = graph?.getNodeById?.(Number(number) || number)
    graph = node?.subgraph
  }
  return node
}

function tell(id, type, message) {
  complain(nodeOf(id)?.title ?? type, message.trim(), LIFE)
}

/** What our nodes' validation says of values, out of the host's refusal of a graph; "input - " comes first. */
function tellRefusals(nodeErrors) {
  for (const [id, { class_type: type, errors }] of Object.entries(nodeErrors ?? {})) {
    if (!type.startsWith("DynamicID")) continue
    const refusals = errors.filter((one) => one.type === "custom_validation_failed")
    const sentences = refusals.map((error) => error.details.replace(/^\w+ - /, ""))
    for (const sentence of new Set(sentences)) tell(id, type, sentence) // two inputs may be refused for one reason
  }
}

// Here, not in showErrors: what the host's page itself does with a failure is registered once all scripts are loaded.
api.addEventListener("execution_error", ({ detail }) => {
  if (detail.node_type?.startsWith("DynamicID")) detail.traceback = withoutFolders(detail.traceback ?? [])
})

export function showErrors() {
  api.addEventListener("execution_error", ({ detail }) => {
    if (detail.exception_type === OURS) tell(detail.node_id, detail.node_type, detail.exception_message)
  })
  const queuePrompt = api.queuePrompt // nothing else says why a graph was refused
  api.queuePrompt = async function (...args) {
    try {
      return await queuePrompt.apply(this, args)
    } catch (error) {
      tellRefusals(error.response?.node_errors)
      throw error
    }
  }
}
