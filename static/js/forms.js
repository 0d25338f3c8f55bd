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

// The first field with an error.
document.querySelector("[aria-invalid=true]")?.focus();
