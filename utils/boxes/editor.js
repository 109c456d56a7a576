// Of the editor of boxes: Notebook 7 sees keys before the widget does, and would cut the cell on x. A mark on whatever
// can have the focus keeps it from that. The photo gets a name for screen readers, which the widget does not give it. Enter
// and Space press our buttons: without its own, which are too pale to read, the widget does nothing on them.

const FOCUSABLE = "[tabindex], button, input";
const BUTTONS = { Enter: ".fieldguide-save", NumpadEnter: ".fieldguide-save", Space: ".fieldguide-skip" };
const SOON = 50; // milliseconds
const LATER = [150, 1000]; // milliseconds after a photo came, or the place of it changed

function render({ el }) {
  const timers = new Set();
  const later = (action, wait) => timers.add(setTimeout(action, wait));
  const watcher = new MutationObserver(mark);
  function mark() {
    const root = el.closest(".fieldguide-boxes");
    for (const each of root.querySelectorAll(FOCUSABLE)) each.dataset.lmSuppressShortcuts = "true";
    for (const photo of root.querySelectorAll(".wrapper[tabindex]")) {
      if (photo.getAttribute("role") === "application") continue;
      photo.setAttribute("role", "application");
      photo.setAttribute("aria-label", "Photo with boxes");
    }
    for (const image of root.querySelectorAll("img:not([alt])")) image.alt = "";
  }
  // A photo that comes while the page is being laid out anew can have boxes of no size, until its own size changes.
  function lay() {
    for (const svg of el.closest(".fieldguide-boxes")?.querySelectorAll(".wrapper svg") ?? []) {
      const measured = svg.parentElement.querySelector(".image-measure");
      if (svg.getAttribute("width") !== "0" || !measured?.clientWidth) continue;
      measured.style.padding = "1px";
      later(() => (measured.style.padding = ""), SOON);
    }
  }
  const layLater = () => LATER.forEach((wait) => later(lay, wait));
  const sizes = new ResizeObserver(layLater);
  function press(event) {
    const wanted = BUTTONS[event.code];
    if (!wanted || !event.target.matches(".wrapper[tabindex]")) return;
    event.preventDefault();
    event.stopPropagation();
    event.currentTarget.querySelector(wanted).click();
  }
  function begin() {
    const root = el.closest(".fieldguide-boxes");
    if (!root) {
      later(begin, SOON); // a widget is drawn before it comes to its place on the page
      return;
    }
    mark();
    root.addEventListener("keydown", press, true);
    root.addEventListener("load", layLater, true);
    sizes.observe(root);
    layLater();
    watcher.observe(root, { childList: true, subtree: true });
  }
  begin();
  return () => {
    timers.forEach(clearTimeout);
    watcher.disconnect();
    sizes.disconnect();
  };
}

export default { render };
