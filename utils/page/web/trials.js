/** What this browser's decoders do where browsers differ, found out on a small JPEG when it is first asked. */

// 8×8 grey pixels, and the 4×4 that libjpeg gives of them at half the size.
const TRIAL =
  "/9j/2wBDACgcHiMeGSgjISMtKygwPGRBPDc3PHtYXUlkkYCZlo+AjIqgtObDoKrarYqMyP/L2u71////m8H////6/+b9//j/wAALCAAIAAgBAREA/8QA" +
  "FAABAAAAAAAAAAAAAAAAAAAAAf/EABsQAAICAwEAAAAAAAAAAAAAAAECESEAElGR/9oACAEBAAA/AFQS0LqrCSVPTc0b8z//2Q==";
const DRAFT = [105, 155, 96, 150, 136, 131, 102, 129, 84, 158, 136, 155, 179, 86, 154, 171];
const HALF = 4; // pixels
const CUT_OFF = 12; // bytes

const bytes = () => Uint8Array.from(atob(TRIAL), (letter) => letter.charCodeAt(0));
let drafts;
let lenient;

/** Whether it decodes a JPEG at a fraction of its size as Pillow does. Firefox turns it, and scales it in its own way. */
export function givesDrafts() {
  drafts ??= triedDraft().catch(() => false);
  return drafts;
}

async function triedDraft() {
  if (typeof ImageDecoder !== "function") return false;
  const decoder = new ImageDecoder({ data: bytes(), type: "image/jpeg", desiredWidth: HALF, desiredHeight: HALF });
  try {
    const { image } = await decoder.decode();
    const context = new OffscreenCanvas(HALF, HALF).getContext("2d");
    context.drawImage(image, 0, 0);
    image.close();
    const seen = context.getImageData(0, 0, HALF, HALF).data;
    return DRAFT.every((value, n) => seen[4 * n] === value);
  } finally {
    decoder.close();
  }
}

/** Whether it decodes a file that was cut off, as Firefox does, and leaves the rest of the picture grey or empty. */
export function takesCutFiles() {
  lenient ??= createImageBitmap(new Blob([bytes().slice(0, -CUT_OFF)], { type: "image/jpeg" })).then(
    () => true,
    () => false,
  );
  return lenient;
}
