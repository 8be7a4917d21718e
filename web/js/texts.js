// The script's texts in the artist's language, and how they are shown.

import { app } from "../../../scripts/app.js"
import { api } from "../../../scripts/api.js"

// English, until locales/<language>/main.json has arrived.
export const texts = {
  uploadFace: "upload a face file",
  choosePreset: "choose from presets",
  notAFace: "Not a face file",
  notAFaceDetail: "{name} is not a face file. Choose a .safetensors file that Save Face wrote.",
  uploadFailed: "The upload failed",
  presets: "What the face shows",
  person: "person {number}",
  maskOf: "mask of person {number}",
  counted: "people: {number}",
  uncounted: "people: counted in a run",
  drawBoxes: "connect people, or draw boxes here",
  placesFree: "everybody may be anywhere: draw boxes here",
  drawOutline: "draw around where person {number} shall be",
  maskElsewhere: "a mask says where",
  boxesElsewhere: "boxes come from bboxes",
  forPhotos: "models for photos",
  forDrawings: "models for drawn people",
  facesMissing: "Faces that this graph needs are not here: {names}.",
  chooseFaces: "choose face files or photos",
  everybodyIn: "everybody in {name}",
  switchOn: "Create Bounding Boxes needs Nodes 2.0: switch on"
}

// Words of menus whose values stay English, and of templates and blueprints: English -> the artist's.
const words = {}
const blueprints = {}

export async function loadTexts() {
  const language = app.extensionManager?.setting?.get?.("Comfy.Locale") ?? "en"
  const all = await api.fetchApi("/i18n").then((answer) => (answer.ok ? answer.json() : {}))
  Object.assign(texts, all.en?.dynamicid, all[language]?.dynamicid)
  Object.assign(words, all[language]?.dynamicidWords, all[language]?.dynamicidTemplates)
  Object.assign(blueprints, all[language]?.dynamicidBlueprints)
}

/** A word of a menu in the artist's language. */
export function word(english) {
  return words[english] ?? english
}

/** A word of a blueprint, such as a socket's name, in the artist's language. */
export function blueprintWord(english) {
  return blueprints[english] ?? words[english] ?? english
}

/** Tell the artist that something failed: a toast with a title and a sentence, for `life` milliseconds. */
export function complain(summary, detail, life = 8000) {
  app.extensionManager?.toast?.add?.({ severity: "error", summary, detail, life })
}
