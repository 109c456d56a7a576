/** Round as Python and numpy do: a half goes to the even neighbour. */
export function toEven(value) {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 ? below + 1 : below;
}
