// Previews of our nodes survive a closed tab: they are in the host's history as long as it runs, and shown again where
// a graph has a node that one of the latest runs computed from the same values.

import { app } from "../../../scripts/app.js"
import { api } from "../../../scripts/api.js"

const LATEST = 8 // runs of the history that are looked at

/** What decides a node's output in a serialized graph: its type and values, and those of all nodes before it. */
function origins(workflow) {
  const nodes = new Map(workflow.nodes.map((node) => [String(node.id), node])) // ids are numbers in older files
  const sources = new Map(workflow.links.map(([id, source, slot]) => [String(id), [String(source), slot]]))
  const known = new Map()
  const of = (id) => {
    if (known.has(id)) return known.get(id)
    known.set(id, "") // a circle ends here
    if (!nodes.has(id)) return null
    const { type, mode, widgets_values: values, inputs = [] } = nodes.get(id)
    const linked = inputs.filter((input) => sources.has(String(input.link)))
    const before = linked.map((input) => {
      const [source, slot] = sources.get(String(input.link))
      return [input.name, slot, of(source)]
    })
    const definition = workflow.definitions?.subgraphs?.find((one) => one.id === type)
    known.set(id, JSON.stringify([type, mode ?? 0, values ?? [], before, definition ?? null]))
    return known.get(id)
  }
  return of
}

/** The latest runs that are known, the last first: { workflow, outputs, id }. */
async function latestRuns() {
  const answer = await api.fetchApi(`/history?max_items=${LATEST}`)
  const runs = answer.ok ? Object.entries(await answer.json()) : []
  return runs.map(([id, { prompt, outputs }]) => ({ id, outputs, workflow: prompt?.[3]?.extra_pnginfo?.workflow }))
    .filter(({ workflow, outputs }) => workflow?.nodes && outputs).reverse()
}

/** Show previews of a graph that was just opened, for nodes of ours that show nothing yet. */
export async function showEarlierPreviews(graph) {
  const ours = graph.nodes.filter((node) => node.comfyClass?.startsWith("DynamicID"))
  if (!ours.length) return
  const runs = await latestRuns()
  if (!runs.length || graph !== (app.rootGraph ?? app.graph)) return
  const own = origins(graph.serialize())
  for (const { workflow, outputs, id } of runs) {
    const theirs = origins(workflow)
    for (const node of ours) {
      const [output, wanted] = [outputs[node.id], own(String(node.id))]
      if (!output || app.nodeOutputs?.[node.id] || !wanted || theirs(String(node.id)) !== wanted) continue
      // as the host tells the page of a node that ran
      api.dispatchCustomEvent("executed", { node: String(node.id), display_node: String(node.id), output, prompt_id: id })
    }
  }
}
