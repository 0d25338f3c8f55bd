// Runs right after the sidebar's menu is parsed, so that on a narrow screen the menu is closed before it is painted.
(() => {
  const menu = document.querySelector("[data-sidebar]");
  const narrow = window.matchMedia("(max-width: 860px)");
  const follow = () => { menu.open = !narrow.matches; };
  narrow.addEventListener("change", follow);
  follow();
})();
