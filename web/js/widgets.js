// Widgets that our nodes get in the page alone.

let pointer = null // the last press of the pointer: not every kind of node hands it to its widgets

addEventListener("pointerdown", (event) => (pointer = event), true)

/** A button that is no input of the node; `callback` gets the event that pressed it. */
export function addButton(node, name, label, callback) {
  const button = node.addWidget("button", name, null, () => callback(pointer), { serialize: false })
  button.label = label
  button.serialize = false // not an input of the node
  return button
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

/** Fields for text of classic nodes show their widget's name in the artist's language too. */
export function translatePlaceholders(node) {
  for (const { name, element } of node.widgets ?? []) {
    const label = node.inputs?.find((input) => input.widget?.name === name)?.localized_name
    if (label && element?.placeholder === name) element.placeholder = label
  }
}
