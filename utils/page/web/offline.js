/**
 * The page without a network: whatever it loaded once is kept, and used when the network is not there.
 *
 * Model, known photos and runtime are taken from what is kept first: their addresses name their content. Everything else comes from the
 * network when there is one, so that a new page is seen at once.
 */

const MINE = `fieldguide ${self.registration.scope} `; // pages of several models may share an address's host
const KEPT = MINE + new URL(location.href).search; // another state of this page, another store
const OURS = /^(index\.html|page\.(css|json)|[a-z]+\.js|(runtime\/|model|gallery)[^/]*)?$/; // other files below may be other pages
// A page's own policy does not count for its workers, in which the model and the decoders run.
const POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'; worker-src 'self'";
const LASTING = /\/(?:runtime\/|model|gallery)[^?]*\?([0-9a-f]{64})$/;

self.addEventListener("install", (event) => {
  const first = async () => {
    const { files } = await (await fetch("page.json", { cache: "no-cache" })).json();
    const small = Object.keys(files).filter((name) => /^[^/]+\.(html|css|js)$/.test(name));
    await (await caches.open(KEPT)).addAll(["./", "page.json", ...small].map((name) => new Request(name, { cache: "no-cache" })));
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
  const { scope } = self.registration;
  const [address] = request.url.split(/[?#]/);
  if (request.method !== "GET" || !address.startsWith(scope) || !OURS.test(address.slice(scope.length))) return;
  const answer = LASTING.test(request.url) ? kept(request).then((found) => found ?? fresh(event)) : fresh(event);
  event.respondWith(request.destination === "worker" ? answer.then(policed) : answer);
});

// A link to the page may have anything after a question mark.
const kept = async (request) => (await caches.open(KEPT)).match(request, { ignoreSearch: request.mode === "navigate" });

function policed(response) {
  const headers = new Headers(response.headers);
  headers.set("Content-Security-Policy", POLICY);
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}

async function fresh(event) {
  const { request } = event;
  try {
    const response = await fetch(request);
    if (response.ok && response.type === "basic") {
      event.waitUntil(keep(request, response.clone()).catch(() => {})); // a full disk must not stop the page
    }
    return response;
  } catch (error) {
    const found = await kept(request);
    if (found) return found;
    throw error;
  }
}

/** Keep a file. One that is taken from here first must hold what its address names: else a half-made upload would stay. */
async function keep(request, response) {
  const sha256 = LASTING.exec(request.url)?.[1];
  if (sha256 && (await sha256Of(await response.clone().arrayBuffer())) !== sha256) return;
  await (await caches.open(KEPT)).put(request, response);
}

async function sha256Of(data) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
