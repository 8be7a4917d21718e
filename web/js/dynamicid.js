// What the pack adds to the page; the host loads every file in this folder, and this one puts them to work.

import { app } from "../../../scripts/app.js"
import { setUpBoxes } from "./boxes.js"
import { setUpLoadFace } from "./face_files.js"
import { showErrors } from "./messages.js"
import { colorLinks, setUpPeople } from "./people.js"
import { setUpPresets } from "./presets.js"
import { setUpSwitch, translateTemplate } from "./templates.js"
import { loadTexts } from "./texts.js"

const SET_UP = {
  DynamicIDLoader: [setUpSwitch],
  DynamicIDLoadFace: [setUpLoadFace],
  DynamicIDEditMotion: [setUpPresets],
  DynamicIDBlendFaces: [setUpPeople],
  DynamicIDPlaceFaces: [setUpPeople, setUpBoxes]
}

app.registerExtension({
  name: "DynamicID",
  async setup() {
    showErrors()
    colorLinks()
    await loadTexts().catch((error) => console.warn("DynamicID: no translations", error))
  },
  afterConfigureGraph() {
    translateTemplate(app.rootGraph ?? app.graph)
  },
  nodeCreated(node) {
    for (const setUp of SET_UP[node.comfyClass] ?? []) setUp(node)
  }
})
