/** Photos that were chosen, dropped or pasted, as { path, open }: `open` gives the file when its turn comes. */

// What counts as a photo inside a folder: by its name, as nothing is opened to find out.
const PICTURE = /\.(jpe?g|jpe|jfif|mpo|png|webp|gif|bmp|dib|tiff?|avif|heic|heif|jxl|svg)$/i;
export const GONE = "it cannot be read any more: it was moved or changed after you chose it";
export const ORDER = new Intl.Collator("en", { numeric: true }); // IMG_2 before IMG_10

/** Return the photos of a file input, and empty it, so that the same ones can be chosen again. */
export function fromInput(input) {
  const photos = [...input.files].map((file) => ({ path: file.webkitRelativePath || file.name, open: async () => file }));
  const inside = input.webkitdirectory;
  input.value = "";
  return inside ? photos.filter(({ path }) => isPhoto(path)).sort((a, b) => ORDER.compare(a.path, b.path)) : photos;
}

/** Return the photos of a drop or of the clipboard; folders are looked through. */
export async function fromTransfer(transfer) {
  // All at once and now: after the first pause the browser hands nothing more over.
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const found = items.map((item) => ({ entry: item.webkitGetAsEntry?.(), file: item.getAsFile() }));
  const folders = found.filter(({ entry }) => entry?.isDirectory).map(({ entry }) => entry);
  const loose = found.filter(({ entry, file }) => file && !entry?.isDirectory);
  return [...(await walk(folders)), ...loose.map(({ file }) => ({ path: file.name, open: async () => file }))];
}

async function walk(waiting) {
  const photos = [];
  while (waiting.length) {
    const entry = waiting.pop();
    const path = entry.fullPath.replace(/^\//, "");
    if (entry.isFile) {
      if (isPhoto(path)) photos.push({ path, open: () => new Promise((done, failed) => entry.file(done, failed)) });
      continue;
    }
    const reader = entry.createReader();
    // A reader gives a folder's entries by the hundred, and an empty list at their end.
    for (let more = [null]; more.length; ) {
      more = await new Promise((done, failed) => reader.readEntries(done, failed)).catch((error) => {
        photos.push({ path, open: () => Promise.reject(error) }); // so that it is told
        return [];
      });
      waiting.push(...more);
    }
  }
  return photos.sort((a, b) => ORDER.compare(a.path, b.path));
}

const isPhoto = (path) => PICTURE.test(path) && !path.split("/").slice(1).some((part) => part.startsWith("."));
