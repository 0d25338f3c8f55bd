// Sends the token that is in the cookie now: signing in, also in another tab, changes it.
(() => {
  // Another host of the domain may set a cookie with Django's name, which counts only where this store uses it.
  const name = location.protocol === "https:" ? "__Host-csrf" : "csrftoken";
  const token = () => document.cookie.split("; ").find((cookie) => cookie.startsWith(`${name}=`))?.slice(name.length + 1);

  document.addEventListener("submit", ({ target }) => {
    const field = target.querySelector("input[name=csrfmiddlewaretoken]");
    if (field && token()) field.value = token();
  });

  document.addEventListener("htmx:configRequest", ({ detail }) => {
    if (!token()) return;
    detail.headers["x-csrftoken"] = token();
    // The field of the form around the element, which counts before the header.
    if (detail.parameters.csrfmiddlewaretoken) detail.parameters.csrfmiddlewaretoken = token();
  });
})();

// Marks the fields that the summary of errors names, and moves the focus to the first. Other errors have no field.
(() => {
  const links = document.querySelectorAll("[data-error-summary] a");
  const named = [...links].map((link) => document.getElementById(link.hash.slice(1))).filter(Boolean);
  for (const field of named) field.setAttribute("aria-invalid", "true");
  const first = named[0] || document.querySelector("[aria-invalid=true], main .alert-error[role=alert]");
  if (first?.matches(".alert")) first.tabIndex = -1;
  first?.focus();
})();
