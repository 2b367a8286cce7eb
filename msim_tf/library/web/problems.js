// The one place where troubles are told, with what can be done about them.

import { isCancelled, saveToken } from "./api.js";
import { byId } from "./dom.js";

let retry = () => {};

/** Shows an error, unless it is only a cancelled request; `again` is what "Try again" does. */
export function report(error, again = null) {
  if (isCancelled(error)) return;
  if (error.status === undefined) console.error(error); // a fault of this page, not an answer of the server
  retry = again ?? (() => {});
  byId("problem-text").textContent =
    error.status === undefined ? "Something went wrong in this page. Reload it." : error.message;
  byId("token-form").hidden = error.status !== 401;
  byId("problem-retry").hidden = !again || error.status === 401;
  byId("problem").hidden = false;
}

/** Takes the trouble off the page: something has worked since. */
export function settled() {
  byId("problem").hidden = true;
}

byId("problem-close").addEventListener("click", settled);
byId("problem-retry").addEventListener("click", () => {
  settled();
  retry();
});
byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  saveToken(byId("token").value);
  location.reload();
});
