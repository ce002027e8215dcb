/* The page is complete without this; it adds the assumptions' filter and marks the section in view. */
(function () {
  "use strict";

  document.querySelectorAll(".filter").forEach(function (filter) {
    const rows = Array.from(filter.parentNode.querySelectorAll("tbody tr"));
    const search = filter.querySelector("input[type=search]");
    const boxes = Array.from(filter.querySelectorAll("input[type=checkbox]"));
    const known = boxes.map(function (box) { return box.value; });
    const shown = filter.querySelector(".shown");
    function apply() {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const kinds = boxes.filter(function (box) { return box.checked; }).map(function (box) { return box.value; });
      let count = 0;
      rows.forEach(function (row) {
        const text = row.textContent.toLowerCase();
        const kind = row.dataset.kind;
        const fits = (kinds.includes(kind) || !known.includes(kind)) && words.every(function (w) { return text.includes(w); });
        row.hidden = !fits;
        count += fits ? 1 : 0;
      });
      shown.textContent = count + " of " + rows.length;
    }
    filter.hidden = false;
    filter.addEventListener("input", apply);
    apply();
  });

  const links = Array.from(document.querySelectorAll("nav a"));
  if (links.length && "IntersectionObserver" in window) {
    const observer = new IntersectionObserver(function (entries) {
      entries.forEach(function (entry) {
        if (!entry.isIntersecting) { return; }
        links.forEach(function (link) {
          if (link.getAttribute("href") === "#" + entry.target.id) {
            link.setAttribute("aria-current", "true");
          } else {
            link.removeAttribute("aria-current");
          }
        });
      });
    }, { rootMargin: "-10% 0px -75% 0px" });
    document.querySelectorAll("section[id]").forEach(function (section) { observer.observe(section); });
  }
})();
