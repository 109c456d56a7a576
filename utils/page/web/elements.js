/** Small things that the page is built of. Text from outside is put in as text, never as markup. */

export const byId = (id) => document.getElementById(id);

/** Return a new element with properties, ARIA attributes (`aria`: name → value) and children. */
export function element(tag, { aria = {}, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(aria)) made.setAttribute(`aria-${name}`, value);
  made.append(...children);
  return made;
}

/** A name from outside, kept from turning the text around it when it is written from right to left. */
export const name = (text) => element("bdi", { textContent: text });

export const percent = (fraction) => `${(100 * fraction).toFixed(1)}\u00a0%`;
export const number = (count) => count.toLocaleString("en");
export const several = (count, one, more = `${one}s`) => `${number(count)} ${count === 1 ? one : more}`;
