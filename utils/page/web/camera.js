/** The live view: what the camera sees, with the best label over it, or boxes around what is found. */

import { byId } from "./elements.js";

const REASONS = {
  NotAllowedError: "the browser was told not to let this page use it",
  NotFoundError: "there is none",
  NotReadableError: "another program uses it",
};

/**
 * Make the buttons of the live view work.
 *
 * `judge` returns the answer to a bitmap, `told` says it in words, `draw` draws it on a canvas of the video's size, `keep`
 * takes a photo, `say` tells the visitor something.
 * Returns a function that stops the camera.
 */
export function startCamera({ judge, told, draw, keep, say }) {
  const video = byId("video");
  let stream;
  let kept = 0;

  byId("live").hidden = !navigator.mediaDevices?.getUserMedia; // plain http from another machine has none

  byId("live").addEventListener("click", async () => {
    byId("live").disabled = true; // a second click would start a second camera, which nobody stops
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      stream.getVideoTracks()[0].addEventListener("ended", () => {
        stop();
        say("The camera stopped: it was unplugged, or it may not be used any more.");
      });
      video.srcObject = stream;
      await video.play();
    } catch (error) {
      stop();
      return say(`The camera could not be used: ${REASONS[error.name] ?? error.message}.`);
    }
    say("");
    byId("viewer").hidden = false;
    byId("snap").focus();
    look(stream);
  });

  /** Judge one frame after another for as long as the camera runs. */
  async function look(mine) {
    while (stream === mine) {
      // In a window that nobody sees there is nothing to name, and at the very start no picture.
      const bitmap = document.hidden ? null : await createImageBitmap(video).catch(() => null);
      const answer = bitmap ? await judge(bitmap) : null;
      answer?.shown?.close();
      if (stream !== mine) return;
      const marks = Object.assign(byId("marks"), { width: video.videoWidth, height: video.videoHeight }); // which empties it
      if (answer && !answer.error) draw(marks.getContext("2d"), answer);
      byId("seen").textContent = answer ? answer.error ?? told(answer) : "";
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
    stop();
    byId("live").focus();
  });

  function stop() {
    stream?.getTracks().forEach((track) => track.stop());
    stream = undefined;
    video.srcObject = null;
    byId("seen").textContent = "";
    byId("viewer").hidden = true;
    byId("live").disabled = false;
  }

  return stop;
}
