// Sends the token that is in the cookie now: signing in, also in another tab, changes it.
(() => {
  const token = () => document.cookie.match(/(?:^|; )(?:__Host-csrf|csrftoken)=([^;]+)/)?.[1];

  document.addEventListener("submit", ({ target }) => {
    const field = target.querySelector("input[name=csrfmiddlewaretoken]");
    if (field && token()) field.value = token();
  });

  document.addEventListener("htmx:configRequest", ({ detail }) => {
    if (token()) detail.headers["x-csrftoken"] = token();
  });
})();

// The first field with an error.
document.querySelector("[aria-invalid=true]")?.focus();
