/**
 * The page without a network: whatever it loaded once is kept, and used when the network is not there.
 *
 * Model and runtime are taken from what is kept first: their addresses name their content. Everything else comes from the
 * network when there is one, so that a new page is seen at once.
 */

const MINE = `fieldguide ${self.registration.scope} `; // pages of several models may share an address's host
const KEPT = MINE + new URL(location.href).search; // another state of this page, another store
const LASTING = /\/(runtime\/|model)[^?]*\?[0-9a-f]{64}$/;

self.addEventListener("install", (event) => {
  const first = async () => {
    const { files } = await (await fetch("page.json", { cache: "no-cache" })).json();
    const small = Object.keys(files).filter((name) => /^[^/]+\.(html|css|js)$/.test(name));
    await (await caches.open(KEPT)).addAll(["./", "page.json", ...small]);
    await self.skipWaiting();
  };
  event.waitUntil(first());
});

self.addEventListener("activate", (event) => {
  const forgotten = async () => {
    const names = await caches.keys();
    const mine = names.filter((name) => name.startsWith(MINE) && name !== KEPT);
    await Promise.all(mine.map((name) => caches.delete(name)));
    await self.clients.claim();
  };
  event.waitUntil(forgotten());
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET" || new URL(request.url).origin !== location.origin) return;
  event.respondWith(LASTING.test(request.url) ? kept(request).then((found) => found ?? fresh(request)) : fresh(request));
});

const kept = async (request) => (await caches.open(KEPT)).match(request);

async function fresh(request) {
  try {
    const response = await fetch(request);
    if (response.ok && response.type === "basic") {
      const store = await caches.open(KEPT);
      await store.put(request, response.clone()).catch(() => {}); // a full disk must not stop the page
    }
    return response;
  } catch (error) {
    const found = await kept(request);
    if (found) return found;
    throw error;
  }
}
