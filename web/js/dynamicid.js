// What the pack adds to the page; the host loads every file in this folder, and this one puts them to work.

import { app } from "../../../scripts/app.js"
import { setUpBoxes } from "./boxes.js"
import { setUpLoadFace } from "./face_files.js"
import { setUpIdle } from "./idle.js"
import { showErrors } from "./messages.js"
import { setUpGroup, setUpOutlines } from "./outlines.js"
import { colorLinks, setUpPeople } from "./people.js"
import { showEarlierPreviews } from "./previews.js"
import { setUpPresets } from "./presets.js"
import { setUpReport } from "./report.js"
import { tellMissingFaces } from "./sharing.js"
import { setUpSwitch, translateBlueprint, translateTemplate } from "./templates.js"
import { loadTexts } from "./texts.js"
import { translatePlaceholders } from "./widgets.js"

const SET_UP = {
  DynamicIDLoader: [setUpSwitch],
  DynamicIDLoadModels: [setUpSwitch],
  DynamicIDLoadFace: [setUpLoadFace],
  DynamicIDEditMotion: [setUpPresets],
  DynamicIDBlendFaces: [setUpPeople],
  DynamicIDPlaceFace: [setUpPeople, setUpOutlines, setUpIdle],
  DynamicIDPlaceFaces: [setUpPeople, setUpBoxes, setUpIdle],
  DynamicIDCast: [setUpPeople, setUpBoxes, setUpIdle],
  DynamicIDEncodeGroup: [setUpPeople, setUpGroup],
  DynamicIDPreviewCast: [setUpIdle],
  DynamicIDScoreFaces: [setUpReport],
  DynamicIDRefineFaces: [setUpReport]
}

app.registerExtension({
  name: "DynamicID",
  async setup() {
    showErrors()
    await loadTexts().catch((error) => console.warn("DynamicID: no translations", error))
  },
  afterConfigureGraph() {
    translateTemplate(app.rootGraph ?? app.graph)
    tellMissingFaces(app.rootGraph ?? app.graph)
    showEarlierPreviews(app.rootGraph ?? app.graph).catch((error) => console.warn("DynamicID: no earlier previews", error))
  },
  nodeCreated(node) {
    if (node.comfyClass?.startsWith("DynamicID")) {
      colorLinks() // the page forgets them with every palette
      translatePlaceholders(node)
    }
    for (const setUp of SET_UP[node.comfyClass] ?? []) setUp(node)
    if (node.subgraph) requestAnimationFrame(() => translateBlueprint(node)) // it gets its sockets a moment later
  }
})
