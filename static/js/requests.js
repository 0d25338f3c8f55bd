// Shows a progress bar while requests of htmx run, and announces how many results a search has. Reports each request that
// fails, with a button that repeats it, and marks the part of the page that it should have updated.
(() => {
  const progress = document.getElementById("progress");
  let running = 0;
  const count = (step) => { running += step; progress.hidden = running <= 0; };
  document.addEventListener("htmx:beforeSend", () => count(1));
  document.addEventListener("htmx:afterRequest", () => count(-1));

  const announcement = document.getElementById("announcement");
  document.addEventListener("htmx:afterSettle", ({ detail }) => {
    const results = document.getElementById(detail.target.id)?.querySelector("[data-result-count]");
    if (results) announcement.textContent = results.textContent.trim().replace(/\s+/g, " ");
  });

  const toasts = document.getElementById("request-errors");
  let last = null;

  const dismiss = () => {
    toasts.replaceChildren();
    last?.target?.classList.remove("outdated");
    last = null;
  };

  const report = ({ detail }) => {
    const { requestConfig, target, xhr } = detail;
    const isSignedOut = xhr.status === 401;
    // A part that reports its other errors itself.
    if (target?.matches("[data-own-errors]") && !isSignedOut) return;
    dismiss();
    const name = isSignedOut ? "signed-out" : "failed";
    toasts.append(document.querySelector(`template[data-request-error="${name}"]`).content.cloneNode(true));
    target?.classList.add("outdated");
    last = { target, requestConfig };
  };

  for (const name of ["responseError", "sendError", "timeout", "swapError"]) {
    document.addEventListener(`htmx:${name}`, report);
  }

  // A later request for the same part has worked. Not htmx:afterSwap, which an empty response does not cause.
  document.addEventListener("htmx:afterRequest", ({ detail: { successful, target } }) => {
    if (successful && last && (target === last.target || (target.id && target.id === last.target?.id))) dismiss();
  });

  toasts.addEventListener("click", ({ target: button }) => {
    if (button.closest("[data-dismiss]")) return dismiss();
    if (!button.closest("[data-repeat]") || !last) return;
    const { elt, verb, path, target, parameters } = last.requestConfig;
    const current = document.getElementById(target.id) || target;
    htmx.ajax(verb, path, { source: elt, target: current, values: parameters });
  });
})();
