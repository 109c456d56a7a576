/** The live view: what the camera sees, with the best label over it. */

import { byId, percent } from "./elements.js";

const REASONS = {
  NotAllowedError: "the browser was told not to let this page use it",
  NotFoundError: "there is none",
  NotReadableError: "another program uses it",
};

/**
 * Make the buttons of the live view work.
 *
 * `judge` returns the answer to a bitmap, `told` its best label, `keep` takes a photo, `say` tells the visitor something.
 */
export function startCamera({ judge, told, keep, say }) {
  const video = byId("video");
  let stream;
  let kept = 0;

  byId("live").hidden = !navigator.mediaDevices?.getUserMedia; // plain http from another machine has none

  byId("live").addEventListener("click", async () => {
    if (stream) return;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      return say(`The camera could not be used: ${REASONS[error.name] ?? error.message}.`);
    }
    say("");
    video.srcObject = stream;
    await video.play();
    byId("viewer").hidden = false;
    byId("snap").focus();
    look(stream);
  });

  /** Judge one frame after another for as long as the camera runs. */
  async function look(mine) {
    while (stream === mine) {
      const { probabilities, shown, error } = await judge(await createImageBitmap(video));
      shown?.close();
      if (stream !== mine) return;
      const best = error ? null : told(probabilities);
      byId("seen").textContent = error ?? `${best.label ?? "Not sure"} · ${percent(best.probability)}`;
      await new Promise((settle) => setTimeout(settle, 50)); // the page must stay quick
    }
  }

  byId("snap").addEventListener("click", async () => {
    const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
    canvas.getContext("2d").drawImage(video, 0, 0);
    const file = await canvas.convertToBlob({ type: "image/png" });
    kept += 1;
    keep({ path: `camera ${kept}.png`, open: async () => file });
  });

  byId("stop-live").addEventListener("click", () => {
    stream?.getTracks().forEach((track) => track.stop());
    stream = undefined;
    video.srcObject = null;
    byId("viewer").hidden = true;
    byId("live").focus();
  });
}
