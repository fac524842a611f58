// The API key, where the service asks for one: kept for this tab alone, until it is closed, and in no address.

const KEPT = "thresher.key";
// For a browser that keeps nothing for pages.
let key = null;

/** Whether there is a key. */
export const hasKey = () => stored() !== null;

/** Take a key from now on; null forgets it. */
export function useKey(given) {
  key = given;
  try {
    if (given === null) sessionStorage.removeItem(KEPT);
    else sessionStorage.setItem(KEPT, given);
  } catch {
    // Then it lasts as long as the page.
  }
}

/** The headers that show the key. */
export const keyHeaders = () => (hasKey() ? { Authorization: `Bearer ${stored()}` } : {});

/** Whether a problem is that there is no key, or not a good one. */
export const needsKey = ({ kind }) => kind === "missing-key" || kind === "invalid-key";

function stored() {
  if (key !== null) return key;
  try {
    return sessionStorage.getItem(KEPT);
  } catch {
    return null;
  }
}
