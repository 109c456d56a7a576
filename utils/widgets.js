// What the widgets' front-ends share; widgets.py puts it before each of them.

/** A new element; `aria` holds its role and aria- attributes. */
function element(tag, properties = {}, ...children) {
  const { dataset, aria, ...rest } = properties;
  const made = Object.assign(document.createElement(tag), rest);
  // Notebook 7 sees keys before we do: on whatever can have the focus, this keeps it from cutting the cell on x.
  if (["a", "button", "select", "input", "summary"].includes(tag) || "tabIndex" in rest) made.dataset.lmSuppressShortcuts = "true";
  Object.assign(made.dataset, dataset);
  for (const [name, value] of Object.entries(aria ?? {})) {
    made.setAttribute(name === "role" ? name : `aria-${name}`, value);
  }
  made.append(...children);
  return made;
}

function button(text, action, properties = {}) {
  const made = element("button", { type: "button", textContent: text, ...properties });
  made.addEventListener("click", action);
  return made;
}

const KERNEL_GONE = "The kernel is gone. To go on, run all cells above this one, then this one. Every choice that was shown is stored.";

/** A name from outside, kept from turning the text around it when it is written from right to left. */
const name = (text) => element("bdi", { textContent: text });

